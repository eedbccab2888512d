"""wg-quick's own dialect, and those of the apps, which are parts of it with additions."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import filterfalse
from typing import Any

from wiresnake.conffile import labels, lines, schema
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer, merged, parsed
from wiresnake.conffile.lines import Line, squeeze
from wiresnake.conffile.relations import items
from wiresnake.conffile.schema import FOREIGN, Key
from wiresnake.conffile.values import is_server
from wiresnake.conffile.write import written
from wiresnake.errors import ConfigError


def read(text: str, name: str) -> tuple[Document, list[LeftOut]]:
    """Reads a file. Unknown keys and keys of other dialects are left out; a wrong value is a
    ConfigError with `name`:line:column."""
    reader = _Reader()
    for line in lines.read(text):
        try:
            reader.feed(line)
        except ConfigError as error:
            raise ConfigError(f"{name}:{line.number}:{line.value_column}: {error}") from None
    return reader.finish(name), reader.left


@dataclass
class _Reader:
    document: Document = field(default_factory=Document)
    peers: list[tuple[int, Peer]] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    open: str = ""

    def feed(self, line: Line) -> None:
        if line.header:
            self._header(line)
        elif line.equals:
            self._setting(line)
        elif line.value:
            raise ConfigError("neither a section nor 'Key = value'; comments start with '#'")
        elif self.open == "peer" and not self.peers[-1][1].name:
            self._change(schema.PUBLIC_KEY, name=labels.of_comment(line.comment))

    def _header(self, line: Line) -> None:
        self.open = squeeze(line.text.partition("#")[0]).lower()[1:-1]
        if self.open == "peer":
            self.peers.append((line.number, Peer("")))
        elif self.open != "interface":
            why = "an unknown section"
            self.left.append(LeftOut(line.number, f"[{line.section}]", why, changes=True))

    def _setting(self, line: Line) -> None:
        key = line.known
        if not self.open:
            raise ConfigError("a line before any section; write [Interface] above it")
        if self.open not in schema.SECTIONS:
            return  # The section is left out and reported.
        if key is None or key.section != self.open:
            # An unknown key may be half of a secret, cut by a line break.
            name = line.key.lower()
            shown = line.key if name in FOREIGN or len(line.key) <= 12 else "a line"
            self.left.append(LeftOut(line.number, shown, *_why_unknown(name, line.value)))
        elif key.kind == "command":
            # Programs that generate files write empty ones; nothing is run.
            if squeeze(line.value):
                self._change(key, hooks=(*self._target(key).hooks, (key.name, line.value)))
        else:
            found = [parsed(key, item) for item, _ in items(line) if item]
            if found or not key.quick or key.kind == "switch":
                self._take(key, found)

    def _take(self, key: Key, found: list[Any]) -> None:
        if not found:
            raise ConfigError("the value is missing; give it one or remove the line")
        value = found[0]
        match key.kind:
            case "networks" | "addresses":
                value = (*getattr(self._target(key), key.field), *found)
            case "dns":
                value = (*self.document.dns, *filter(is_server, found))
                search = filterfalse(is_server, found)
                self._change(key, search=(*self.document.search, *search))
        self._change(key, **{key.field: value})

    def _target(self, key: Key) -> Document | Peer:
        return self.document if key.section == "interface" else self.peers[-1][1]

    def _change(self, key: Key, **changes: Any) -> None:
        if key.section == "interface":
            self.document = replace(self.document, **changes)
        else:
            number, peer = self.peers[-1]
            self.peers[-1] = number, replace(peer, **changes)

    def finish(self, name: str) -> Document:
        known: set[str] = set()
        for number, peer in self.peers:
            if not peer.public_key:
                what = "this [Peer] has no PublicKey; add the other end's"
                raise ConfigError(f"{name}:{number}:1: {what}")
            if peer.public_key in known:
                why = "this peer appears twice; its AllowedIPs replace the first ones"
                self.left.append(LeftOut(number, "[Peer]", why))
            known.add(peer.public_key)
        return replace(self.document, peers=merged(peer for _, peer in self.peers))


def _why_unknown(name: str, value: str) -> tuple[str, bool]:
    """Returns why a key is left out, and whether the tunnel does something else without it."""
    match FOREIGN.get(name):
        case "Android" if name == "includedapplications":
            why = (
                "only these apps use the tunnel; on Linux all programs would, unless routes,"
                " rules or"
            )
            return f"{why} namespaces choose", True
        case "Android":
            return "Android's choice of apps, which does not apply to this host", False
        case "AmneziaWG":
            if name.startswith(("j", "i")):
                return "AmneziaWG's junk packets, which the other end does not need", False
            plain = name[1:] if name.startswith("h") else "0"
            if squeeze(value) == plain:
                return "an AmneziaWG key with the value of plain WireGuard", False
            why = "AmneziaWG's disguise; if the other end has it, plain WireGuard cannot talk to it"
            return why, True
    return "an unknown key, which wg refuses, too; correct or remove the line", True


def write(document: Document) -> str:
    """wg-quick's text."""
    lines = ["[Interface]"]
    lines += written(
        schema.keys_of("interface"), replace(document, dns=document.dns + document.search)
    )
    lines += (f"{key} = {command}" for key, command in document.hooks)
    for peer in document.peers:
        lines += ["", *write_peer(peer)]
    return "\n".join([*lines, ""])


def write_peer(peer: Peer) -> Iterator[str]:
    """Yields the lines of one peer."""
    yield "[Peer]"
    if peer.name:
        yield labels.comment(peer.name)
    yield from written(schema.keys_of("peer"), peer)
    yield from (f"{key} = {command}" for key, command in peer.hooks)


def for_app(document: Document, app: str) -> tuple[Document, list[LeftOut]]:
    """Removes what the app refuses to import, because it rejects a file with a single unknown
    key."""
    if not document.private_key:
        raise ConfigError(f"{app} rejects a configuration without PrivateKey; add one")
    left = []
    if document.fwmark:
        left.append(LeftOut(0, "FwMark", f"{app} has no marks"))
    if document.table and not (app == "Windows" and document.table.lower() == "off"):
        left.append(LeftOut(0, "Table", f"{app} makes routes to all AllowedIPs", changes=True))
        document = replace(document, table="")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", f"{app} keeps configurations itself"))
    bare, hooks = without_hooks(document, f"{app} cannot run Linux commands")
    return replace(bare, fwmark=0, save=False), left + hooks


def without_hooks(document: Document, why: str) -> tuple[Document, list[LeftOut]]:
    peers = tuple(replace(peer, hooks=()) for peer in document.peers)
    pairs = [*document.hooks, *(pair for peer in document.peers for pair in peer.hooks)]
    keys = dict.fromkeys(key for key, _ in pairs)
    left = [LeftOut(0, key, why, changes=True) for key in keys]
    return replace(document, hooks=(), peers=peers), left
