"""Parses and writes the text of `set=1` (wireguard.com/xplatform, docs/uapi.md).

Rule 1: secrets are parsed and written in place, in buffers that the caller wipes. Rule 2: error
messages never show a value, or a key that is not a plain name, because it may be a secret.
"""

import errno
import re
from collections.abc import Callable
from typing import Any

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.errors import ConfigError, WiresnakeError
from wiresnake.model import CLEAR, Clear, DeviceChange, PeerChange, Prefix
from wiresnake.text import NO_KEY, hex_key, ip_text, split_endpoint, unsigned, write_endpoint

_NAME = re.compile("[a-z_]{1,29}")


class UapiError(WiresnakeError):
    """A `set` is not valid. `errno` is positive; the reply to the `set` negates it."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.errno = number


class SetParser:
    """Parses the lines between `set=1` and the empty line.

    The caller feeds it line by line, so that a long set does not block. `zone` returns the index
    of a named interface (OSError if there is none).
    """

    def __init__(self, zone: Callable[[str], int]) -> None:
        self._zone = zone
        self._device: dict[str, Any] = {}
        self._peer: dict[str, Any] | None = None
        self._peers: list[PeerChange] = []
        self._allowed: list[tuple[bool, Prefix]] = []

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Parses the line buffer[start:end], without its newline. UapiError if it is wrong."""
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
        """Returns the whole change, after the empty line."""
        self._close_peer()
        return DeviceChange(**self._device, peers=tuple(self._peers))

    def _secret(self, key: str, digits: memoryview) -> None:
        if key == "private_key" and self._peer is None:
            private = PrivateKey.from_hex(digits)
            self._device["private_key"] = private or CLEAR
        elif key == "preshared_key" and self._peer is not None:
            preshared = PresharedKey.from_hex(digits)
            self._peer["preshared_key"] = preshared or CLEAR
        else:
            raise UapiError(errno.EINVAL, f"{key!r} is out of place")

    def _plain(self, key: str, value: str) -> None:
        if key == "public_key":
            self._close_peer()
            self._peer = {"public_key": hex_key(value)}
        elif self._peer is None:
            self._device |= self._device_line(key, value)
        elif key == "allowed_ip":
            self._allowed.append(_allowed_ip(value))
        else:
            self._peer |= self._peer_line(key, value)
            if key == "replace_allowed_ips":
                self._allowed.clear()

    def _device_line(self, key: str, value: str) -> dict[str, Any]:
        match key:
            case "listen_port":
                return {key: unsigned(value, 16)}
            case "fwmark":
                return {key: unsigned(value, 32)}
            case "replace_peers":
                return {key: _only("true", value)}
        raise UapiError(errno.EINVAL, f"unknown device key {key!r}")

    def _peer_line(self, key: str, value: str) -> dict[str, Any]:
        match key:
            case "remove" | "update_only" | "replace_allowed_ips":
                return {key: _only("true", value)}
            case "endpoint":
                return {key: _endpoint(value, self._zone)}
            case "persistent_keepalive_interval":
                return {"persistent_keepalive": unsigned(value, 16)}
            case "protocol_version" if _only("1", value):
                return {}
        raise UapiError(errno.EINVAL, f"unknown peer key {key!r}")

    def _close_peer(self) -> None:
        if self._peer is not None:
            self._peers.append(PeerChange(**self._peer, allowed_ips=tuple(self._allowed)))
        self._peer = None
        self._allowed.clear()


def _only(expected: str, value: str) -> bool:
    """True; ValueError for any other value."""
    if value != expected:
        raise ValueError
    return True


def _allowed_ip(value: str) -> tuple[bool, Prefix]:
    network = value.removeprefix("-")
    if "/" not in network:
        raise ValueError
    try:
        return not value.startswith("-"), Prefix.parse(network)
    except ConfigError:
        raise ValueError from None


def _endpoint(value: str, zone: Callable[[str], int]) -> Endpoint:
    host, port = split_endpoint(value)
    if value != (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"):
        raise ValueError
    host, percent, scope = host.partition("%")
    if percent and not (":" in host and scope):
        raise ValueError
    index = 0
    if percent:
        index = unsigned(scope, 32) if scope.isdecimal() else zone(scope)
    return Endpoint(host, unsigned(port, 16), index)


def write_change(change: DeviceChange) -> bytearray:
    """Writes the text of a `set`, which the caller wipes."""
    text = _Text()
    text.secret("private_key", change.private_key)
    text.value("listen_port", change.listen_port)
    text.value("fwmark", change.fwmark)
    text.flag("replace_peers", change.replace_peers)
    for peer in change.peers:
        text.value("public_key", peer.public_key.hex())
        text.flag("remove", peer.remove)
        text.flag("update_only", peer.update_only)
        text.secret("preshared_key", peer.preshared_key)
        if peer.endpoint is not None:
            text.value("endpoint", write_endpoint(peer.endpoint))
        text.value("persistent_keepalive_interval", peer.persistent_keepalive)
        text.flag("replace_allowed_ips", peer.replace_allowed_ips)
        for add, (address, length) in peer.allowed_ips:
            text.value("allowed_ip", f"{'' if add else '-'}{ip_text(address)}/{length}")
    return text.finish()


class _Text:
    """Lines with space for secrets, which are written into the finished buffer."""

    def __init__(self) -> None:
        self._parts = ["set=1\n"]
        self._length = len(self._parts[0])
        self._secrets: list[tuple[PrivateKey | PresharedKey, int]] = []

    def value(self, key: str, value: str | int | None) -> None:
        if value is not None:
            self._parts.append(f"{key}={value}\n")
            self._length += len(self._parts[-1])

    def flag(self, key: str, value: bool) -> None:
        self.value(key, "true" if value else None)

    def secret(self, key: str, secret: PrivateKey | PresharedKey | Clear | None) -> None:
        if secret is None:
            return
        if isinstance(secret, PrivateKey | PresharedKey):
            self._secrets.append((secret, self._length + len(key) + 1))
        self.value(key, NO_KEY)

    def finish(self) -> bytearray:
        self._parts.append("\n")
        text = bytearray("".join(self._parts), "ascii")
        for secret, offset in self._secrets:
            secret.write_hex(text, offset)
        return text
