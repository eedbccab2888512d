"""Reads `wg`'s configuration files (the grammar of `wg setconf`) into a change.

Each line loses everything from the first '#' and all whitespace. Names are case-insensitive, and
sections can be repeated. Unlike `wg`, an error says where it is, and a UTF-8 BOM is accepted.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.conffile import schema
from wiresnake.conffile.scanner import SPACE, WHITESPACE, Line, scan, squeezed
from wiresnake.conffile.schema import Key, Kind
from wiresnake.errors import ConfigError
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix
from wiresnake.text import unsigned, wipe

Resolve = Callable[[str, str], Endpoint]
"""Resolves a host and a port, both names or numbers, to an endpoint; OSError if that fails."""
Value = bytearray | memoryview
_SPACE = re.compile(SPACE)


class Mistake(Exception):
    """A mistake and what to write instead; `line` is set if it is not the line being read."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line
        self.reading: Line | None = None
        """The line of a file that was being read."""


def parse(
    text: bytearray,
    resolve: Resolve,
    *,
    name: str = "configuration",
    append: bool = False,
    scanned: Iterable[Line] | None = None,
) -> DeviceChange:
    """Reads a whole file, which the caller wipes; ConfigError with `name`:line:column.

    As with `wg setconf`, the change replaces everything, and missing values are zero. With `append`
    it adds to the existing configuration, as with `wg addconf`. If a peer appears twice, its last
    AllowedIPs win. `scanned` are the lines to read, if the text was scanned before.
    """
    if scanned is None:
        settle(text, name)
        scanned = scan(text)
    reader = Reader(resolve)
    for line in scanned:
        try:
            _feed(reader, text, line)
        except Mistake as mistake:
            mistake.reading = line
            place = f"{mistake.line or line.number}:{line.code - line.begin + 1}"
            raise ConfigError(f"{name}:{place}: {mistake}") from None
    try:
        change = reader.finish()
    except Mistake as mistake:
        raise ConfigError(f"{name}:{mistake.line}:1: {mistake}") from None
    if append:
        return change
    return replace(
        change,
        private_key=change.private_key or CLEAR,
        listen_port=change.listen_port or 0,
        fwmark=change.fwmark or 0,
        replace_peers=True,
    )


def settle(text: bytearray, name: str) -> None:
    """Turns single carriage returns into newlines, as every editor shows them. ConfigError for
    UTF-16 or UTF-32, which some editors and shells write."""
    if wide := encoding(text):
        raise ConfigError(
            f"{name}:1:1: this file is {wide}, not UTF-8; convert it: iconv -f {wide} -t UTF-8"
        )
    if b"\r" in text:
        for found in _LONE_CR.finditer(text):
            text[found.start()] = ord("\n")


_LONE_CR = re.compile(rb"\r(?!\n)")


def encoding(text: bytes | bytearray) -> str:
    """Returns iconv's name for UTF-16 or UTF-32, or an empty string. It looks at a byte order mark
    or at the first characters, which are ASCII in every configuration."""
    head = bytes(text[:4])
    if head in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "UTF-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    zeros = "".join("0" if one == 0 else "x" for one in head)
    wide = {"0x0x": "UTF-16BE", "x0x0": "UTF-16LE", "000x": "UTF-32BE", "x000": "UTF-32LE"}
    return wide.get(zeros, "")


def _feed(reader: "Reader", text: bytearray, line: Line) -> None:
    if line.kind == "comment":
        return
    if line.kind == "header":
        header = _ascii(text[line.value : line.value_end]).lower()
        if header not in ("[interface]", "[peer]"):
            raise Mistake("unknown section; there are [Interface] and [Peer]")
        if header == "[peer]":
            reader.open(line.number, replace_allowed_ips=True)
        return
    if line.kind == "other":
        raise Mistake("neither a section nor 'Key = value'; comments start with '#'")
    written = _ascii(text[line.code : line.equals])
    # The text may be half of a secret.
    written = written if len(written) < 30 and written.isalpha() else "..."
    if not line.section:
        raise Mistake(f"{written!r} comes before any section; start with [Interface]")
    key = line.key
    if key is not None and key.quick and key.section == "interface":
        raise Mistake(f"{written!r} is a key of wg-quick files; remove it: wg-quick strip")
    if key is None or key.quick or key.section != line.section:
        names = ", ".join(one.name for one in schema.keys_of(line.section, quick=False))
        raise Mistake(f"unknown key {written!r} in [{line.section}]; it has {names}")
    if _SPACE.search(text, line.value, line.value_end):
        spaced = text[line.value : line.value_end]
        value = spaced.translate(None, WHITESPACE)
        try:
            reader.take(key, value, written)
        finally:
            wipe(spaced)
            wipe(value)
    else:
        with memoryview(text) as view, view[line.value : line.value_end] as part:
            reader.take(key, part, written)


class Reader:
    """Collects what has been read, from a file or from a command's arguments."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._device: dict[str, Any] = {}
        self.peer: dict[str, Any] | None = None
        """The values of the open peer."""
        self._line = 0
        self._peers: list[PeerChange] = []
        self._allowed: list[tuple[bool, Prefix]] = []

    def open(self, line: int, **peer: bool) -> None:
        """Begins a peer."""
        self.close()
        self.peer = peer
        self._line = line

    def take(self, key: Key, value: bytearray | memoryview, written: str) -> None:
        """Reads the value of a key, without whitespace; Mistake if it is invalid."""
        if not value:
            raise Mistake(f"{written!r} has no value; give one or remove the line")
        said = self._device if key.section == "interface" else self.peer
        assert said is not None
        try:
            read = _READERS[key.kind](value, self._resolve)
        except (ValueError, OSError):
            raise Mistake(f"bad value of {written!r}; {key.takes}") from None
        if key is schema.ALLOWED_IPS:
            self._allowed += read
            said["replace_allowed_ips"] = not {*b"+-"} & {*value}
        else:
            said[key.field] = read

    def close(self) -> None:
        """Ends the open peer, if there is one."""
        if self.peer is not None:
            if not self.peer.get(schema.PUBLIC_KEY.field):
                raise Mistake("this [Peer] has no PublicKey; add one", self._line)
            self._peers.append(PeerChange(**self.peer, allowed_ips=tuple(self._allowed)))
        self.peer = None
        self._allowed.clear()

    def finish(self) -> DeviceChange:
        self.close()
        return DeviceChange(**self._device, peers=tuple(self._peers))


def _port(value: Value, resolve: Resolve) -> int:
    """Reads a UDP service's name or a number. 99999 is 34463, because `wg` uses the C library,
    too."""
    return resolve("0.0.0.0", _ascii(value)).port


def _mark(value: Value, _: Resolve) -> int:
    text = _ascii(value)
    if text.lower() == "off":
        return 0
    if not text.startswith("0x"):
        return unsigned(text, 32)
    mark = int(text, 16)
    if "_" in text or mark >> 32:
        raise ValueError
    return mark


def _seconds(value: Value, _: Resolve) -> int:
    text = _ascii(value)
    return 0 if text.lower() == "off" else unsigned(text, 16)


def _networks(value: Value, _: Resolve) -> list[tuple[bool, Prefix]]:
    """Reads a list of networks. A sign turns the whole list into a change."""
    return [
        (not part.startswith("-"), Prefix.parse(part[part.startswith(("+", "-")) :]))
        for part in _ascii(value).split(",")
    ]


def _endpoint(value: Value, resolve: Resolve) -> Endpoint:
    host, colon, port = _ascii(value).rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (host and colon and port):
        raise ValueError
    try:
        return resolve(host, port)
    except OSError as error:
        raise Mistake(f"cannot resolve '{host}:{port}': {error.strerror or error}") from None


_READERS: dict[Kind, Callable[[Value, Resolve], Any]] = {
    "private key": lambda value, _: PrivateKey.from_base64(value) or CLEAR,
    "preshared key": lambda value, _: PresharedKey.from_base64(value) or CLEAR,
    "public key": lambda value, _: public_key(_ascii(value)),
    "port": _port,
    "mark": _mark,
    "seconds": _seconds,
    "networks": _networks,
    "endpoint": _endpoint,
}


def plain(key: Key, text: str) -> Any:
    """A value in which nothing is looked up, as `parse` takes it; ValueError if it cannot be
    meant."""
    try:
        return _READERS[key.kind](bytearray(text, "utf-8", "surrogateescape"), _nowhere)
    except Mistake as mistake:
        raise ValueError(str(mistake)) from None


def _nowhere(host: str, port: str) -> Endpoint:
    raise ValueError("it is not looked up")


def public_key(text: str) -> bytes:
    """Reads a public key of strict base64, as `wg` does; ValueError otherwise."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if len(key) != 32 or base64.b64encode(key).decode() != text:
        raise ValueError("not the base64 of 32 bytes")
    return key


def _ascii(part: bytes | bytearray | memoryview) -> str:
    try:
        return squeezed(bytes(part)).decode("ascii")
    except UnicodeDecodeError:
        raise Mistake("only ASCII characters are allowed outside comments") from None
