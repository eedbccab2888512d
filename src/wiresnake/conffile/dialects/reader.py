"""The common part of the readers for files of sections and `key=value`."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from wiresnake.conffile import schema
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer, parsed
from wiresnake.conffile.dialects.ini import Entry
from wiresnake.conffile.dialects.routes import Route
from wiresnake.conffile.schema import Key
from wiresnake.errors import ConfigError
from wiresnake.text import is_address

Settings = TypeVar("Settings", Document, Peer)
_DETAIL = "wg-quick has nothing like it"
_ABSENT = f"{_DETAIL}; configure it by hand, and remove the line"


def details(names: str, why: str = _DETAIL) -> dict[str, str]:
    """Keys that can be lost without changing what the tunnel does, and why. Other unread keys may
    change it, since a later version may give them any meaning."""
    return dict.fromkeys(names.split(), why)


@dataclass
class Reader:
    """The document, while its files are read."""

    file: str
    name: str = ""
    """The interface's."""
    document: Document = field(default_factory=Document)
    routes: list[Route] = field(default_factory=list)
    left: list[tuple[str, LeftOut]] = field(default_factory=list)
    """What was left out, each with its file."""

    def leave(self, entry: Entry, why: str = _DETAIL) -> None:
        """A detail."""
        self.left.append((self.file, LeftOut(entry.line, entry.key, why)))

    def refuse(self, entry: Entry, why: str = _ABSENT) -> None:
        """Reports a setting without which the tunnel would do something else."""
        self.left.append((self.file, LeftOut(entry.line, entry.key, why, changes=True)))

    def other(self, entry: Entry, known: Mapping[str, str]) -> None:
        """Reports an unread key; `known` are the details."""
        if entry.key in known:
            self.leave(entry, known[entry.key])
        else:
            self.refuse(entry)

    def value(self, key: Key, entry: Entry, text: str | None = None) -> Any:
        """Returns the value of a line, or of a part of it. ConfigError with file:line:column."""
        try:
            return parsed(key, entry.value if text is None else text)
        except ConfigError as error:
            raise ConfigError(f"{self.file}:{entry.line}:1: {error}") from None

    def changed(self, settings: Settings, key: Key, entry: Entry) -> Settings:
        """Returns the interface or a peer with the line's value."""
        return replace(settings, **{key.field: self.value(key, entry)})

    def add(self, key: Key, *values: object) -> None:
        """Appends values to a list of the interface."""
        changes: dict[str, Any] = {key.field: (*getattr(self.document, key.field), *values)}
        self.document = replace(self.document, **changes)

    def hook(self, command: str, key: str = schema.POST_UP.name) -> None:
        hooks = (*self.document.hooks, (key, command))
        self.document = replace(self.document, hooks=hooks)

    def add_server(self, entry: Entry, text: str) -> None:
        """Reads a name server's address, which may have a name."""
        address, name, _ = text.partition("#")
        if not is_address(address):
            self.refuse(entry, "wg-quick only knows servers by plain address; write that")
            return
        if name:
            self.leave(entry, "the server's name, for DNS over TLS; its address was taken")
        self.add(schema.DNS, address)

    def ask_for_some(self, domains: Sequence[str], *, only: bool) -> None:
        """Adds split DNS with resolved, because wg-quick sends all names to the servers. With
        `only`, no other names go there."""
        servers = self.document.dns
        self.document = replace(self.document, dns=())
        self.hook(f"resolvectl dns %i {' '.join(servers)}")
        if domains:
            self.hook(f"resolvectl domain %i {shlex.join(domains)}")
        if only:
            self.hook("resolvectl default-route %i false")
