"""The userspace API's text (wireguard.com/xplatform, docs/uapi.md): a `set` into a change, a status
into a `get`, and our own `state` and `events`.

Rule 1: a secret is parsed and written in place, in buffers that the caller wipes. Rule 2: no
error text holds a value, or a key that is no word: it may be a secret. The peers of a `get` are
written by the plane.
"""

import errno
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.errors import ConfigError, WiresnakeError
from wiresnake.model import (
    CLEAR,
    DeviceChange,
    DeviceStatus,
    Note,
    PeerChange,
    Prefix,
    Stranger,
)

_NAME = re.compile("[a-z_]{1,29}")


class UapiError(WiresnakeError):
    """A `set` that cannot be done. `errno` is positive; the reply to a `set` negates it."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.errno = number


class SetParser:
    """Reads the lines between `set=1` and the empty line.

    The caller feeds line by line, so that a set of any size can be read in slices.
    `zone` gives the index of a named interface (OSError if there is none).
    """

    def __init__(self, zone: Callable[[str], int]) -> None:
        self._zone = zone
        self._device = DeviceChange()
        self._peer: PeerChange | None = None
        self._peers: list[PeerChange] = []
        self._allowed: list[tuple[bool, Prefix]] = []

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Takes the line buffer[start:end], without its newline. UapiError if it is wrong."""
        equals = buffer.find(b"=", start, end)
        if equals < 0:
            raise UapiError(errno.EPROTO, "a line without '='")
        key = buffer[start : min(equals, start + 30)].decode("ascii", "replace")
        key = key if _NAME.fullmatch(key) else "..."
        try:
            if key in ("private_key", "preshared_key"):
                with memoryview(buffer) as view, view[equals + 1 : end] as digits:
                    self._secret(key, digits)
            else:
                self._plain(key, buffer[equals + 1 : end].decode("ascii"))
        except (ValueError, OSError):
            raise UapiError(errno.EINVAL, f"bad value of {key!r}") from None

    def finish(self) -> DeviceChange:
        """The whole change, once the empty line has come."""
        self._close_peer()
        return replace(self._device, peers=tuple(self._peers))

    def _secret(self, key: str, digits: memoryview) -> None:
        if key == "private_key" and self._peer is None:
            private = PrivateKey.from_hex(digits)
            self._device = replace(self._device, private_key=private or CLEAR)
        elif key == "preshared_key" and self._peer is not None:
            preshared = PresharedKey.from_hex(digits)
            self._peer = replace(self._peer, preshared_key=preshared or CLEAR)
        else:
            raise UapiError(errno.EINVAL, f"{key!r} is out of place")

    def _plain(self, key: str, value: str) -> None:
        if key == "public_key":
            self._close_peer()
            self._peer = PeerChange(_public_key(value))
        elif self._peer is None:
            self._device = self._device_line(self._device, key, value)
        elif key == "allowed_ip":
            self._allowed.append(_allowed_ip(value))
        elif key == "replace_allowed_ips":
            _only(value, "true")
            self._allowed.clear()
            self._peer = replace(self._peer, replace_allowed_ips=True)
        else:
            self._peer = self._peer_line(self._peer, key, value)

    def _device_line(self, device: DeviceChange, key: str, value: str) -> DeviceChange:
        match key:
            case "listen_port":
                return replace(device, listen_port=unsigned(value, 16))
            case "fwmark":
                return replace(device, fwmark=unsigned(value, 32))
            case "replace_peers":
                _only(value, "true")
                return replace(device, replace_peers=True)
        raise UapiError(errno.EINVAL, f"unknown device key {key!r}")

    def _peer_line(self, peer: PeerChange, key: str, value: str) -> PeerChange:
        match key:
            case "remove":
                _only(value, "true")
                return replace(peer, remove=True)
            case "update_only":
                _only(value, "true")
                return replace(peer, update_only=True)
            case "endpoint":
                return replace(peer, endpoint=_endpoint(value, self._zone))
            case "persistent_keepalive_interval":
                return replace(peer, persistent_keepalive=unsigned(value, 16))
            case "protocol_version":
                _only(value, "1")
                return peer
        raise UapiError(errno.EINVAL, f"unknown peer key {key!r}")

    def _close_peer(self) -> None:
        if self._peer is not None:
            self._peers.append(replace(self._peer, allowed_ips=tuple(self._allowed)))
        self._peer = None
        self._allowed.clear()


class Question:
    """Reads the lines behind `state=1` or `events=1`: which peer is asked about, or all of them."""

    def __init__(self) -> None:
        self.public_key: bytes | None = None
        self.errno = 0
        """Not 0 once a line was wrong."""

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Takes the line buffer[start:end], without its newline."""
        try:
            key, _, value = buffer[start:end].decode("ascii").partition("=")
            if key != "public_key" or self.public_key is not None:
                raise ValueError
            self.public_key = _public_key(value)
        except ValueError:
            self.errno = errno.EINVAL


def unsigned(text: str, bits: int) -> int:
    """Reads a decimal number of ASCII digits below 2**bits; ValueError otherwise."""
    if not (text.isascii() and text.isdecimal()) or int(text) >> bits:
        raise ValueError(f"not a number from 0 to {(1 << bits) - 1}")
    return int(text)


def _public_key(value: str) -> bytes:
    public = bytes.fromhex(value)
    if len(public) != 32 or len(value) != 64:
        raise ValueError
    return public


def _only(value: str, expected: str) -> None:
    if value != expected:
        raise ValueError


def _allowed_ip(value: str) -> tuple[bool, Prefix]:
    network = value.removeprefix("-")
    if "/" not in network:
        raise ValueError
    try:
        return not value.startswith("-"), Prefix.parse(network)
    except ConfigError:
        raise ValueError from None


def _endpoint(value: str, zone: Callable[[str], int]) -> Endpoint:
    host, _, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    host, percent, scope = host.partition("%")
    if bracketed != (":" in host) or (percent and not (bracketed and scope)):
        raise ValueError
    index = 0
    if percent:
        index = unsigned(scope, 32) if scope.isdecimal() else zone(scope)
    return Endpoint(host, unsigned(port, 16), index)


def write_device(device: DeviceStatus) -> bytearray:
    """The head of a `get`: what is zero is left out, as by wireguard-go. The caller wipes it."""
    key = device.private_key
    fields = {
        "private_key": key and "0" * 64,
        "listen_port": device.listen_port,
        "fwmark": device.fwmark,
    }
    text = bytearray(
        "".join(f"{name}={value}\n" for name, value in fields.items() if value), "ascii"
    )
    if key is not None:
        key.write_hex(text, len("private_key="))
    return text


def write_device_state(
    up: bool, bound: bool, bind_error: int, stranger: Stranger | None, notes: str, now: int
) -> bytes:
    """The head of a `state`; `notes` are the plane's."""
    text = f"up={_value(up)}\nbound={_value(bound)}\n"
    if bind_error:
        text += f"bind_error={bind_error}\n"
    if stranger is not None:
        text += (
            f"unknown_initiations={stranger.number}\n"
            f"unknown_initiator={stranger.public_key.hex()}\n"
            f"unknown_initiator_endpoint={stranger.endpoint}\n"
            f"unknown_initiator_age_ms={_age(stranger.last, now)}\n"
        )
    return (text + notes).encode()


def write_machine_state(cipher: str, own_fails: bool, offloads: Iterable[str]) -> str:
    """What of this machine the device uses, for the notes of `write_device_state`."""
    text = f"cipher={cipher}\n"
    if own_fails:
        text += "own_cipher_failed=true\n"
    if used := ",".join(offloads):
        text += f"offloads={used}\n"
    return text


def write_peer_state(
    public_key: bytes, plane: bytes, last_handshake: int, notes: Mapping[str, Note], now: int
) -> bytes:
    """One peer's part of a `state`; `plane` is what the plane knows."""
    text = ""
    if last_handshake:
        seconds, rest = divmod(last_handshake, 1_000_000_000)
        text += f"last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={rest}\n"
    for what, note in notes.items():
        text += f"{what}s={note.number}\n"
        if what == "initiation":
            text += f"first_initiation_age_ms={_age(note.first, now)}\nlast_"
        text += f"{what}_age_ms={_age(note.last, now)}\n"
    return b"public_key=%s\n%s%s" % (public_key.hex().encode(), plane, text.encode())


def _value(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _age(moment: int, now: int) -> int:
    return max(now - moment, 0) // 1_000_000


def wipe(buffer: bytearray) -> None:
    """Overwrites a buffer that held secrets, in place."""
    buffer[:] = bytes(len(buffer))
