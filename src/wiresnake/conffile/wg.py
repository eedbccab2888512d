"""`wg`'s configuration files (the grammar of `wg setconf`) into a change.

Of each line all from the first '#' and all whitespace is cut; names are case-insensitive; a
section may come again. Unlike `wg` an error says where it is, and a UTF-8 BOM does no harm.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import replace

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.errors import ConfigError
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix
from wiresnake.text import unsigned, wipe

Resolve = Callable[[str, str], Endpoint]
"""From a host and a port, both names or numbers, to an endpoint; OSError if there is none."""

_WHITESPACE = b" \t\n\v\f\r"
_WG_QUICK = frozenset(
    ("address", "dns", "mtu", "table", "saveconfig", "preup", "postup", "predown", "postdown")
)
_DEVICE = ("PrivateKey", "ListenPort", "FwMark")
_PEER = ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive")


class Mistake(Exception):
    """What is wrong, and what to write instead; `line` if it is not the one being read."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def parse(
    text: bytearray, resolve: Resolve, *, name: str = "configuration", append: bool = False
) -> DeviceChange:
    """Reads a whole file, which the caller wipes; ConfigError with `name`:line:column.

    As with `wg setconf` the change replaces everything, and what the file lacks is zero; with
    `append` it adds to what is there, as with `wg addconf`. If a peer comes twice, its last
    AllowedIPs win.
    """
    settle(text, name)
    reader = Reader(resolve)
    begin = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    number = 0
    while begin < len(text):
        number += 1
        end = text.find(b"\n", begin)
        end = len(text) if end < 0 else end
        if begin == end:
            begin += 1
            continue
        comment = text.find(b"#", begin, end)
        whole = text[begin : end if comment < 0 else comment]
        line = whole.translate(None, _WHITESPACE)
        try:
            if line:
                reader.feed(line, number)
        except Mistake as mistake:
            column = len(whole) - len(whole.lstrip(_WHITESPACE)) + 1
            raise ConfigError(f"{name}:{mistake.line or number}:{column}: {mistake}") from None
        finally:
            wipe(whole)
            wipe(line)
        begin = end + 1
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
    """Makes newlines of carriage returns that stand alone, as every editor shows them; ConfigError
    for a file that is not UTF-8 but UTF-16 or UTF-32, which some editors and shells write."""
    if wide := encoding(text):
        raise ConfigError(
            f"{name}:1:1: this file is {wide}, not UTF-8; convert it: iconv -f {wide} -t UTF-8"
        )
    if b"\r" in text:
        for found in _LONE_CR.finditer(text):
            text[found.start()] = ord("\n")


_LONE_CR = re.compile(rb"\r(?!\n)")


def encoding(text: bytes | bytearray) -> str:
    """UTF-16 or UTF-32 by iconv's name for it; empty if it is neither, by its first characters,
    which are ASCII in every configuration, or a byte order mark."""
    head = bytes(text[:4])
    if head in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "UTF-32"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    zeros = "".join("0" if one == 0 else "x" for one in head)
    wide = {"0x0x": "UTF-16BE", "x0x0": "UTF-16LE", "000x": "UTF-32BE", "x000": "UTF-32LE"}
    return wide.get(zeros, "")


class Reader:
    """What has been read so far, of a file or of the words of a command."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._section = ""
        self._device = DeviceChange()
        self._peer: PeerChange | None = None
        self._peer_line = 0
        self._peers: list[PeerChange] = []
        self._allowed: list[tuple[bool, Prefix]] = []

    def feed(self, line: bytearray, number: int) -> None:
        """Takes a line without comment and whitespace; Mistake if it cannot be meant."""
        if line.startswith(b"["):
            self._open_section(_text(line), number)
            return
        equals = line.find(b"=")
        key = _text(line[: max(equals, 0)])
        name = key.lower()
        key = key if len(key) < 30 and key.isalpha() else "..."  # It may be half of a secret.
        names = _PEER if self._section == "peer" else _DEVICE
        if equals < 0:
            raise Mistake("neither a section nor 'Key = value'; comments start with '#'")
        if not self._section:
            raise Mistake(f"{key!r} stands before any section; start with [Interface]")
        if name in _WG_QUICK:
            raise Mistake(f"{key!r} is a key of wg-quick files; remove it: wg-quick strip")
        if name not in map(str.lower, names):
            raise Mistake(f"unknown key {key!r} in [{self._section}]; it has {', '.join(names)}")
        if equals + 1 == len(line):
            raise Mistake(f"{key!r} has no value; give one or remove the line")
        try:
            with memoryview(line) as view, view[equals + 1 :] as value:
                if name == "privatekey":
                    private = PrivateKey.from_base64(value) or CLEAR
                    self._device = replace(self._device, private_key=private)
                elif name == "presharedkey":
                    preshared = PresharedKey.from_base64(value) or CLEAR
                    self._peer = replace(self._opened(), preshared_key=preshared)
                elif self._section == "interface":
                    self._device = self._device_key(name, _text(value))
                else:
                    self._peer = self._peer_key(self._opened(), name, _text(value))
        except (ValueError, OSError):
            raise Mistake(f"bad value of {key!r}; {_REMEDY[name]}") from None

    def finish(self) -> DeviceChange:
        self._close_peer()
        return replace(self._device, peers=tuple(self._peers))

    def _open_section(self, header: str, number: int) -> None:
        section = header.lower()
        if section not in ("[interface]", "[peer]"):
            raise Mistake("unknown section; there are [Interface] and [Peer]")
        self._section = section[1:-1]
        if self._section == "peer":
            self._close_peer()
            self._peer = PeerChange(b"", replace_allowed_ips=True)
            self._peer_line = number

    def _close_peer(self) -> None:
        if self._peer is not None:
            if not self._peer.public_key:
                raise Mistake("this [Peer] has no PublicKey; add one", self._peer_line)
            self._peers.append(replace(self._peer, allowed_ips=tuple(self._allowed)))
        self._peer = None
        self._allowed.clear()

    def _opened(self) -> PeerChange:
        assert self._peer is not None
        return self._peer

    def _device_key(self, name: str, value: str) -> DeviceChange:
        if name == "fwmark":
            return replace(self._device, fwmark=_fwmark(value))
        # A UDP service's name or a number, 99999 being 34463: for wg the C library reads it too.
        return replace(self._device, listen_port=self._resolve("0.0.0.0", value).port)

    def _peer_key(self, peer: PeerChange, name: str, value: str) -> PeerChange:
        match name:
            case "publickey":
                return replace(peer, public_key=public_key(value))
            case "allowedips":
                for part in value.split(","):  # A sign makes of the whole list a change.
                    network = Prefix.parse(part[part.startswith(("+", "-")) :])
                    self._allowed.append((not part.startswith("-"), network))
                return replace(peer, replace_allowed_ips=not {*"+-"} & {*value})
            case "persistentkeepalive":
                seconds = 0 if value.lower() == "off" else unsigned(value, 16)
                return replace(peer, persistent_keepalive=seconds)
        host, colon, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not (host and colon and port):
            raise ValueError
        try:
            return replace(peer, endpoint=self._resolve(host, port))
        except OSError as error:
            raise Mistake(f"cannot resolve '{host}:{port}': {error.strerror or error}") from None


_REMEDY = {
    "privatekey": "it takes the 44 characters of wg genkey",
    "presharedkey": "it takes the 44 characters of wg genpsk",
    "publickey": "it takes the 44 characters of wg pubkey",
    "listenport": "it takes a port from 0 to 65535",
    "fwmark": "it takes off, or a number up to 0xffffffff",
    "allowedips": "it takes addresses with an optional /length, between commas",
    "endpoint": "it takes host:port, or [IPv6 address]:port",
    "persistentkeepalive": "it takes off, or seconds from 0 to 65535",
}


def public_key(text: str) -> bytes:
    """Reads a public key of strict base64, as `wg` does; ValueError otherwise."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if len(key) != 32 or base64.b64encode(key).decode() != text:
        raise ValueError("not the base64 of 32 bytes")
    return key


def _fwmark(value: str) -> int:
    if value.lower() == "off":
        return 0
    if not value.startswith("0x"):
        return unsigned(value, 32)
    mark = int(value, 16)
    if "_" in value or mark >> 32:
        raise ValueError
    return mark


def _text(part: bytearray | memoryview) -> str:
    try:
        return bytes(part).decode("ascii")
    except UnicodeDecodeError:
        raise Mistake("only ASCII characters are allowed outside comments") from None
