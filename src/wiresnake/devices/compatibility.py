"""Changes for devices that know less than the newest: the same, said in words that they know."""

import errno
from collections.abc import Callable
from dataclasses import replace

from wiresnake._native import PresharedKey
from wiresnake.errors import HostError
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.text import base64_text, read_endpoint
from wiresnake.uapi.snapshot import InterfaceState, PeerState

UNKNOWN_WORDS = (errno.EINVAL, errno.EPROTO)
"""What a device may say of words that it does not know; EPROTO: it says nothing, and closes."""


def but_for_boringtun(change: DeviceChange) -> DeviceChange:
    """The same, in words that boringtun refuses before it has done anything to a peer: of the first
    one it is said, before all else, that nothing is to change if it is not there."""
    if not change.peers:
        return change
    first = PeerChange(change.peers[0].public_key, update_only=True)
    return replace(change, peers=(first, *change.peers))


def apply(
    change: DeviceChange,
    send: Callable[[DeviceChange], None],
    read: Callable[[], InterfaceState],
) -> None:
    """Sends a change, and once more in older words if the device does not know those of 2025.

    To remove one allowed IP is known to Linux 6.18 and to wireguard-go of 2025, `update_only` to
    all but boringtun. HostError if the device refuses that too.
    """
    try:
        send(change)
    except HostError as error:
        news = any(peer.update_only or _removes(peer) for peer in change.peers)
        if error.errno not in UNKNOWN_WORDS or not news:
            raise
        send(without_news(change, read()))


def without_news(change: DeviceChange, state: InterfaceState) -> DeviceChange:
    """Allowed IPs to remove become a list of those that are left."""
    live = {peer.public_key: peer for peer in state.peers}
    peers = []
    for peer in change.peers:
        before = live.get(base64_text(peer.public_key))
        if peer.update_only and before is None:
            continue
        if _removes(peer):
            peer = replace(peer, replace_allowed_ips=True, allowed_ips=_left(peer, before))
        peers.append(replace(peer, update_only=False))
    return replace(change, peers=tuple(peers))


def anew(change: DeviceChange, state: InterfaceState) -> list[DeviceChange]:
    """For boringtun, to be sent one after the other, as it gives a peer what the one before it in
    the same set had, `remove` too. Where it has to change a peer it ends its control thread: each
    is removed and made again, and its session ends."""
    live = {} if change.replace_peers else {peer.public_key: peer for peer in state.peers}
    steps = [replace(change, peers=())]
    for peer in without_news(change, state).peers:
        before = live.get(base64_text(peer.public_key))
        if before and not peer.remove:
            steps.append(DeviceChange(peers=(PeerChange(peer.public_key, remove=True),)))
            peer = _merged(peer, before)
        steps.append(DeviceChange(peers=(peer,)))
    return steps


def _merged(peer: PeerChange, before: PeerState) -> PeerChange:
    preshared, endpoint = before.preshared_key, before.endpoint
    keepalive = peer.persistent_keepalive
    return replace(
        peer,
        preshared_key=peer.preshared_key
        or (preshared and PresharedKey.from_base64(bytearray(preshared, "ascii")))
        or None,
        endpoint=peer.endpoint or (read_endpoint(endpoint) if endpoint else None),
        persistent_keepalive=before.persistent_keepalive if keepalive is None else keepalive,
        replace_allowed_ips=True,
        allowed_ips=_left(peer, before),
    )


def _left(peer: PeerChange, before: PeerState | None) -> tuple[tuple[bool, Prefix], ...]:
    """The peer's allowed IPs once the change is made."""
    kept = () if before is None or peer.replace_allowed_ips else before.allowed_ips
    left = dict.fromkeys(map(Prefix.parse, kept))
    for add, prefix in peer.allowed_ips:
        if add:
            left[prefix] = None
        else:
            left.pop(prefix, None)
    return tuple((True, prefix) for prefix in left)


def _removes(peer: PeerChange) -> bool:
    return not all(add for add, _ in peer.allowed_ips)
