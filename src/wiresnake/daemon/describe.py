"""Writes the state of a tunnel as the answers to `get` and `state`, in short parts."""

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter

from wiresnake._native import cipher
from wiresnake.protocol.peer import Peer
from wiresnake.tunnel.host import now
from wiresnake.tunnel.interface import Interface
from wiresnake.uapi.get import write_device
from wiresnake.uapi.state import write_device_state, write_machine_state, write_peer_state

_PEERS_PER_PART = 500
"""A part takes 0.5 ms for a `get` and 2 ms for a `state`."""
_DESCRIBED = attrgetter("id", "public_key", "last_handshake", "persistent_keepalive", "allowed_ips")
_PRESHARED_KEY_AT = len("public_key=\npreshared_key=") + 64


def configuration(tunnel: Interface) -> Iterator[bytearray]:
    """Yields the answer to `get` in parts, which the caller wipes.

    Each peer shows its state at the moment when its part is written.
    """
    yield write_device(tunnel.status)
    for part in _parts(tunnel.device.peers.values()):
        texts = tunnel.plane.describe(list(map(_DESCRIBED, part)))
        reply = bytearray().join(texts)
        start = 0
        for peer, text in zip(part, texts, strict=True):
            if text and peer.preshared_key is not None:
                peer.preshared_key.write_hex(reply, start + _PRESHARED_KEY_AT)
            start += len(text)
        yield reply


def state(tunnel: Interface, public_key: bytes | None) -> Iterator[bytes]:
    """Returns the answer to `state` in parts, for all peers or one. KeyError if it is unknown."""
    peers = tunnel.device.peers
    return _state(tunnel, peers.values() if public_key is None else [peers[public_key]])


def _state(tunnel: Interface, peers: Iterable[Peer]) -> Iterator[bytes]:
    at, status = now().boot, tunnel.status
    drops = tunnel.plane.describe_drops(at) + write_machine_state(*cipher(), tunnel.offloads)
    stranger = tunnel.device.stranger
    yield write_device_state(status.up, status.bound, status.bind_error, stranger, drops, at)
    for part in _parts(peers):
        at = now().boot
        texts = tunnel.plane.describe_state([peer.id for peer in part], at)
        yield b"".join(
            write_peer_state(peer.public_key, text, peer.last_handshake, peer.notes or {}, at)
            for peer, text in zip(part, texts, strict=True)
            if text
        )


def _parts(peers: Iterable[Peer]) -> Iterator[list[Peer]]:
    """Yields the present peers in parts."""
    each = iter(list(peers))
    while part := list(islice(each, _PEERS_PER_PART)):
        yield part
