"""What a tunnel is, as the text of `get` and of `state`, in parts that hold the loop for little."""

from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter

from wiresnake._native import cipher
from wiresnake.protocol.peer import Peer
from wiresnake.tunnel.host import now
from wiresnake.tunnel.tunnel import Tunnel
from wiresnake.uapi.get import write_device
from wiresnake.uapi.state import write_device_state, write_machine_state, write_peer_state

_PEERS_PER_PART = 500
"""Of a `get`, in 0.5 ms; of a `state`, in 2 ms."""
_DESCRIBED = attrgetter("id", "public_key", "last_handshake", "persistent_keepalive", "allowed_ips")
_PRESHARED_KEY_AT = len("public_key=\npreshared_key=") + 64


def configuration(tunnel: Tunnel) -> Iterator[bytearray]:
    """What a `get` says, in parts for the caller to wipe; each peer as it is by then."""
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


def state(tunnel: Tunnel, public_key: bytes | None) -> Iterator[bytes]:
    """What a `state` says, of all peers or of one, in parts. KeyError if that is unknown."""
    peers = tunnel.device.peers
    return _state(tunnel, peers.values() if public_key is None else [peers[public_key]])


def _state(tunnel: Tunnel, peers: Iterable[Peer]) -> Iterator[bytes]:
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
    """Of those who are peers as it begins."""
    each = iter(list(peers))
    while part := list(islice(each, _PEERS_PER_PART)):
        yield part
