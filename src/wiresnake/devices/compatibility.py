"""Rewrites changes for devices that do not know the newest keys."""

import errno
from collections.abc import Callable
from dataclasses import replace

from wiresnake._native import PresharedKey
from wiresnake.errors import HostError
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.text import base64_text, read_endpoint
from wiresnake.uapi.snapshot import InterfaceState, PeerState

UNKNOWN_WORDS = (errno.EINVAL, errno.EPROTO)
"""Errors for unknown keys; EPROTO: the device closes the connection without an answer."""


def but_for_boringtun(change: DeviceChange) -> DeviceChange:
    """Returns the same change in a form that boringtun refuses before it has changed any peer:
    first of all, the first peer is to be changed only if it exists."""
    if not change.peers:
        return change
    first = PeerChange(change.peers[0].public_key, update_only=True)
    return replace(change, peers=(first, *change.peers))


def apply(
    change: DeviceChange,
    send: Callable[[DeviceChange], None],
    read: Callable[[], InterfaceState],
) -> None:
    """Sends a change, and again with older keys if the device does not know those of 2025.

    Linux 6.18 and wireguard-go of 2025 can remove a single allowed IP; all except boringtun know
    `update_only`. HostError if the device refuses the older form too.
    """
    try:
        send(change)
    except HostError as error:
        news = any(peer.update_only or _removes(peer) for peer in change.peers)
        if error.errno not in UNKNOWN_WORDS or not news:
            raise
        send(without_news(change, read()))


def without_news(change: DeviceChange, state: InterfaceState) -> DeviceChange:
    """Replaces allowed IPs to remove with the list of the remaining ones."""
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


def recreated(change: DeviceChange, state: InterfaceState) -> list[DeviceChange]:
    """Splits a change for boringtun, one peer at a time: within one set it gives a peer the values
    of the previous one, even `remove`. If it has to change a peer, its control thread ends, so each
    peer is removed and made again, which ends its session."""
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
    """Returns the peer's allowed IPs after the change."""
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
