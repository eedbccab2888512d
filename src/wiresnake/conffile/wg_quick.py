"""Reads a wg-quick file: the keys that only wg-quick knows, and the rest for `wg`.

A private key never becomes a string: only wg-quick's own lines, public keys and names are decoded.
Everything else stays in one buffer, which the caller wipes.
"""

import contextlib
import errno
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any

from wiresnake.conffile import labels, lines, schema, wg
from wiresnake.conffile.labels import PeerLabels
from wiresnake.conffile.lines import shown
from wiresnake.conffile.scanner import Line, scan
from wiresnake.conffile.schema import WHITESPACE, Key
from wiresnake.conffile.values import is_server
from wiresnake.errors import ConfigError, HostError
from wiresnake.linux import files
from wiresnake.model import Dns
from wiresnake.text import unsigned, wipe

FOLDER = "/etc/wireguard"
NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
"""Of an interface, as wg-quick takes it."""
_BOM = b"\xef\xbb\xbf"
_NO_DNS = Dns()


@dataclass(frozen=True, slots=True)
class QuickConfig:
    """A whole file. `%i` in hooks is not replaced yet."""

    peers: tuple[PeerLabels, ...]
    """Names and hooks of peers, which `wg` does not know. Other peers are not listed."""
    remembered: dict[str, str]
    """See `labels.remembered`."""
    wg: bytearray = field(repr=False)
    """The file for `wg.parse`, with an empty line in place of each line that only wg-quick reads,
    so that errors name the right line. The caller wipes it."""
    lines: tuple[Line, ...] = field(repr=False)
    """The lines of `wg`, without those that only wg-quick reads."""
    own_lines: frozenset[int] = field(repr=False)
    """The numbers of the lines that only wg-quick reads."""
    has_mark: bool
    """The file has a FwMark, even if it is off."""
    addresses: tuple[str, ...] = ()
    """Addresses such as `10.0.0.1/24`, in order, each once."""
    dns: Dns = _NO_DNS
    mtu: int | None = None
    table: str = ""
    """As written: `off`, `auto`, a number or a name; empty is auto."""
    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save: bool = False

    @property
    def whole(self) -> bool:
        """Whether the file alone defines the interface: it has neither hooks nor SaveConfig."""
        hooks = self.pre_up or self.post_up or any(peer.on_up for peer in self.peers)
        return not (self.save or hooks)

    def stripped(self) -> bytearray:
        """Returns the output of `wg-quick strip`, without its last empty line. The caller wipes
        it."""
        text = bytearray()
        begin = len(_BOM) if self.wg.startswith(_BOM) else 0
        lines = self.wg[begin:].split(b"\n")
        for number, line in enumerate(lines, 1):
            if number not in self.own_lines and (line or number < len(lines)):
                text += line.strip(b" \t") + b"\n"  # bash's `read` does so, too.
            wipe(line)
        return text


def find(argument: str) -> tuple[str, str]:
    """Returns the interface's name and the file's real path for a name or a path, as wg-quick does.
    A service that gets the file as a systemd credential finds it there first.
    """
    path = argument
    if NAME.fullmatch(argument):
        path = f"{FOLDER}/{argument}.conf"
        if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
            given = os.path.join(credentials, f"{argument}.conf")
            path = given if os.path.exists(given) else path
    if not os.path.exists(path):
        here = f"; the file here is ./{argument}" if os.path.isfile(argument) else ""
        raise HostError(errno.ENOENT, f"`{path}' does not exist{here}")
    name, ending = os.path.basename(path)[:-5], path[-5:]
    if ending != ".conf" or not NAME.fullmatch(name):
        raise ConfigError("The config file must be a valid interface name, followed by .conf")
    return name, os.path.realpath(path)


def load(path: str) -> QuickConfig:
    """Reads a file, and prints wg-quick's warning if everybody can read it."""
    try:
        text = files.read(path)
        modes = [os.stat(one).st_mode for one in (path, os.path.dirname(path))]
    except OSError as error:
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}") from None
    if modes[0] & modes[1] & 0o007:
        sys.stderr.write(f"Warning: `{path}' is world accessible\n")
    try:
        return parse(text, path)
    finally:
        wipe(text)


def parse(text: bytearray, name: str) -> QuickConfig:
    """Reads a whole file, which the caller wipes. ConfigError with `name`:line:column.

    The keys of `wg` are not checked.
    """
    wg.settle(text, name)
    scanned = list(scan(text))
    own: list[Line] = []
    rest: list[Line] = []
    for line in scanned:
        (own if line.key is not None and line.key.quick else rest).append(line)
    reader = _Reader()
    for line in own:
        assert line.key is not None
        try:
            reader.take(line.key, lines.view(text, line))
        except _Mistake as mistake:
            raise ConfigError(f"{name}:{line.number}:{mistake.column}: {mistake}") from None
    peers = [one for one in labels.peers(text, scanned) if one.comments or one.on_up or one.on_down]
    remembered = labels.remembered(text, rest)
    text = bytearray(text)
    for line in own:
        text[line.begin : line.end] = b" " * (line.end - line.begin)
    return QuickConfig(
        peers=tuple(peers),
        remembered=remembered,
        wg=text,
        lines=tuple(rest),
        own_lines=frozenset(line.number for line in own),
        has_mark=any(line.key is schema.FWMARK for line in rest),
        **reader.finish(),
    )


class _Mistake(Exception):
    def __init__(self, what: str, column: int) -> None:
        super().__init__(what)
        self.column = column


class _Reader:
    """Collects the values of the interface's keys, by field."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def take(self, key: Key, line: lines.Line) -> None:
        """Reads one line of wg-quick's; _Mistake if its value is invalid."""
        if line.section != key.section:
            home = f"[{key.section.capitalize()}]"
            raise _Mistake(f"{line.key!r} belongs in {home}; move it there", line.key_column)
        column = line.value_column
        match key.kind:
            case "addresses":
                self._add(key, (_address(key, *item) for item in _items(line)))
            case "dns":
                self._add(key, (item for item, _ in _items(line)))
            case "mtu":
                self._values[key.field] = _mtu(key, line)
            case "table":
                if len(line.value.split()) > 1:
                    raise _Mistake(key.takes, column)
                self._values[key.field] = line.value
            case "switch":
                if line.value.lower() not in ("true", "false"):
                    raise _Mistake(f"`{shown(line.value)}' is neither true nor false", column)
                self._values[key.field] = line.value.lower() == "true"
            case "command" if key.section == "interface":  # Those of peers are in their labels.
                self._add(key, [line.value])

    def finish(self) -> dict[str, Any]:
        values = self._values
        if (words := values.get(schema.DNS.field)) is not None:
            servers = tuple(filter(is_server, words))
            search = tuple(filterfalse(is_server, words))
            values[schema.DNS.field] = Dns(servers, search if servers else ())
        if addresses := values.get(schema.ADDRESS.field):
            values[schema.ADDRESS.field] = tuple(dict.fromkeys(addresses))
        return values

    def _add(self, key: Key, items: Iterable[str]) -> None:
        self._values[key.field] = (*self._values.get(key.field, ()), *items)


def _items(line: lines.Line) -> Iterator[tuple[str, int]]:
    """Yields the items between commas and spaces, each with its column."""
    for found in re.finditer(rf"[^,{WHITESPACE}]+", line.value):
        yield found[0], line.value_column + found.start()


def _address(key: Key, text: str, column: int) -> str:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_interface(_whole(text)).with_prefixlen
    except ValueError:
        raise _Mistake(f"not an address: {shown(text)!r}; {key.takes}", column) from None


def _whole(address: str) -> str:
    """Completes a short IPv4 address with zeros, as iproute2 does: `10.1/16`."""
    host, slash, length = address.partition("/")
    zeros = 0 if ":" in host else 3 - host.count(".")
    return f"{host}{'.0' * zeros}{slash}{length}"


def _mtu(key: Key, line: lines.Line) -> int | None:
    if not line.value:
        return None
    with contextlib.suppress(ValueError):
        hexadecimal = re.fullmatch("0[xX][0-9a-fA-F]+", line.value)
        return unsigned(str(int(line.value, 16)) if hexadecimal else line.value, 16)
    raise _Mistake(f"not an MTU: {shown(line.value)!r}; {key.takes}", line.value_column)
