"""An interface of the kernel's WireGuard, over generic netlink (linux/wireguard.h)."""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from wiresnake._native import Endpoint
from wiresnake.errors import HostError
from wiresnake.linux.genetlink import HEADER_BYTES, Message, failure, family
from wiresnake.linux.netlink import GENERIC, Netlink, Refused, attributes, fields, unsigned
from wiresnake.text import base64_text, ip_text, zone_text
from wiresnake.uapi.snapshot import Backend, InterfaceState, PeerState

if TYPE_CHECKING:
    from wiresnake.model import DeviceChange, PeerChange

_GET, _SET = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _FLAGS, _LISTEN_PORT, _FWMARK, _PEERS = range(2, 9)
_REPLACE_PEERS = 1
(
    _PEER_PUBLIC_KEY,
    _PEER_PRESHARED_KEY,
    _PEER_FLAGS,
    _PEER_ENDPOINT,
    _PEER_KEEPALIVE,
    _PEER_HANDSHAKE,
    _PEER_RECEIVED,
    _PEER_SENT,
    _PEER_ALLOWED_IPS,
) = range(1, 10)
_REMOVE, _REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1, 2, 4
_IP_FAMILY, _IP_ADDRESS, _IP_LENGTH, _IP_FLAGS = range(1, 5)
_IP_REMOVE = 1

_PATIENCE = 10
"""Seconds for which interrupted dumps are repeated."""
_MESSAGE_BYTES = 1 << 14
"""The size at which a change continues in another message: far below an attribute's 64 KiB and a
socket's buffer."""


class KernelInterface:
    """An interface of the kernel. Every call needs CAP_NET_ADMIN in the current network
    namespace."""

    backend: Backend = "kernel"

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> InterfaceState:
        """Reads the state. A dump during which the kernel saw a change is repeated for a while."""
        last = time.monotonic() + _PATIENCE
        with Netlink(GENERIC) as kernel:
            message = Message(family(kernel, "wireguard"), _GET)
            message.put(_IFNAME, self._ifname())
            whole = False
            while not whole:
                try:
                    found, whole = kernel.dump(message.finish())
                except Refused as error:
                    raise failure(error) from None
                if not whole and time.monotonic() > last:
                    what = f"{self.name} is changed faster than it can be read; try again later"
                    raise HostError(errno.EBUSY, what)
            return _read(self.name, [one[HEADER_BYTES:] for one in found])

    def change(self, change: "DeviceChange") -> None:
        from wiresnake.devices import compatibility

        compatibility.apply(change, self._set, self.read)

    def _set(self, change: "DeviceChange") -> None:
        with Netlink(GENERIC) as kernel:
            for message in _messages(family(kernel, "wireguard"), self._ifname(), change):
                message.carry_out(kernel)

    def _ifname(self) -> bytes:
        return os.fsencode(self.name) + b"\0"


def _read(name: str, messages: Iterable[memoryview]) -> InterfaceState:
    device: dict[int, memoryview] = {}
    peers: list[tuple[dict[int, memoryview], list[str]]] = []
    for message in messages:
        for kind, value in attributes(message):
            if kind != _PEERS:
                device[kind] = value
                continue
            for _, attribute in attributes(value):
                peer = fields(attribute)
                allowed = peer.pop(_PEER_ALLOWED_IPS, memoryview(b""))
                # A peer that fills a message continues in the next one, with only its key.
                same = peers and peers[-1][0][_PEER_PUBLIC_KEY] == peer[_PEER_PUBLIC_KEY]
                if not same:
                    peers.append((peer, []))
                peers[-1][1].extend([_prefix(one) for _, one in attributes(allowed)])
    return InterfaceState(
        name,
        "kernel",
        _key(device.get(_PRIVATE_KEY)),
        _key(device.get(_PUBLIC_KEY)),
        _number(device.get(_LISTEN_PORT)),
        _number(device.get(_FWMARK)),
        tuple([_peer(peer, allowed) for peer, allowed in peers]),
    )


def _peer(peer: dict[int, memoryview], allowed: list[str]) -> PeerState:
    seconds, nanoseconds = struct.unpack("=qq", peer.get(_PEER_HANDSHAKE, bytes(16)))
    return PeerState(
        base64_text(bytes(peer[_PEER_PUBLIC_KEY])),
        _key(peer.get(_PEER_PRESHARED_KEY)),
        _endpoint(peer.get(_PEER_ENDPOINT, memoryview(b""))),
        tuple(allowed),
        (seconds, nanoseconds),
        _number(peer.get(_PEER_RECEIVED)),
        _number(peer.get(_PEER_SENT)),
        _number(peer.get(_PEER_KEEPALIVE)),
    )


def _key(value: memoryview | None) -> str | None:
    return base64_text(bytes(value)) if value is not None and any(value) else None


def _number(value: memoryview | None) -> int:
    return unsigned(value) if value is not None else 0


def _prefix(data: memoryview) -> str:
    prefix = fields(data)
    return f"{ip_text(bytes(prefix[_IP_ADDRESS]))}/{prefix[_IP_LENGTH][0]}"


def _endpoint(address: memoryview) -> str | None:
    if len(address) < 16:
        return None
    family, port = struct.unpack_from("=H", address)[0], int.from_bytes(address[2:4], "big")
    if family == socket.AF_INET:
        return f"{ip_text(bytes(address[4:8]))}:{port}"
    (scope,) = struct.unpack_from("=I", address, 24)
    zone = f"%{zone_text(scope)}" if scope else ""
    return f"[{ip_text(bytes(address[8:24]))}{zone}]:{port}"


def _messages(family: int, ifname: bytes, change: "DeviceChange") -> Iterator[Message]:
    """Returns the change as messages of bounded size, to be sent one after the other."""
    message = Message(family, _SET)
    message.put(_IFNAME, ifname)
    message.put_secret(_PRIVATE_KEY, change.private_key)
    message.put_number(_LISTEN_PORT, change.listen_port, "=H")
    message.put_number(_FWMARK, change.fwmark)
    message.put_number(_FLAGS, _REPLACE_PEERS if change.replace_peers else None)
    peers = message.begin(_PEERS)
    for peer in change.peers:
        allowed = list(reversed(peer.allowed_ips))
        first = True
        while first or allowed:
            if len(message.body) > _MESSAGE_BYTES:
                message.end(peers)
                yield message
                message = Message(family, _SET)
                message.put(_IFNAME, ifname)
                peers = message.begin(_PEERS)
            nest = message.begin(0)
            _put_peer(message, peer, first)
            first = False
            if allowed:
                ips = message.begin(_PEER_ALLOWED_IPS)
                while allowed and len(message.body) <= _MESSAGE_BYTES:
                    _put_allowed_ip(message, *allowed.pop())
                message.end(ips)
            message.end(nest)
    message.end(peers)
    yield message


def _put_peer(message: Message, peer: "PeerChange", first: bool) -> None:
    """Writes everything about a peer except its allowed IPs, which later messages add."""
    message.put(_PEER_PUBLIC_KEY, peer.public_key)
    flags = _UPDATE_ONLY if peer.update_only else 0
    if first:
        flags |= _REMOVE if peer.remove else 0
        flags |= _REPLACE_ALLOWED_IPS if peer.replace_allowed_ips else 0
    message.put_number(_PEER_FLAGS, flags or None)
    if not first:
        return
    message.put_secret(_PEER_PRESHARED_KEY, peer.preshared_key)
    if peer.endpoint is not None:
        message.put(_PEER_ENDPOINT, _sockaddr(peer.endpoint))
    message.put_number(_PEER_KEEPALIVE, peer.persistent_keepalive, "=H")


def _put_allowed_ip(message: Message, add: bool, prefix: tuple[bytes, int]) -> None:
    address, length = prefix
    nest = message.begin(0)
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    message.put_number(_IP_FAMILY, family, "=H")
    message.put(_IP_ADDRESS, address)
    message.put(_IP_LENGTH, bytes([length]))
    message.put_number(_IP_FLAGS, None if add else _IP_REMOVE)
    message.end(nest)


def _sockaddr(endpoint: Endpoint) -> bytes:
    port = endpoint.port.to_bytes(2)
    if ":" not in endpoint.host:
        address = socket.inet_pton(socket.AF_INET, endpoint.host)
        return struct.pack("=H", socket.AF_INET) + port + address + bytes(8)
    address = socket.inet_pton(socket.AF_INET6, endpoint.host)
    scope = struct.pack("=I", endpoint.scope)
    return struct.pack("=H", socket.AF_INET6) + port + bytes(4) + address + scope
