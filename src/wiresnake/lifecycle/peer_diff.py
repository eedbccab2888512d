"""Computes the least change that makes a device's peers those of a file.

A reload typically changes one of 10,000 peers, so most are only compared as text: names are not
resolved and keys not parsed for what is already right. What differs, or needs a closer look, is
read by `conffile.wg` with all its strictness.

The endpoint is the one thing that a file cannot decide alone, because peers roam. The file's
endpoint is sent if it was edited since it was last applied, so an unchanged file never moves a peer
back. A host name is looked up again if the peer has had no handshake within the lifetime of a
session.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from wiresnake._native import Endpoint, PresharedKey
from wiresnake.conffile import peer_sections
from wiresnake.conffile.peer_sections import PeerSection
from wiresnake.conffile.scanner import Line
from wiresnake.conffile.wg import Resolve, parse, public_key
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.lifecycle.applied import Said
from wiresnake.lifecycle.others import Others, digest
from wiresnake.model import CLEAR, Clear, DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import SESSION_SECONDS
from wiresnake.text import (
    base64_text,
    host_of,
    is_address,
    read_endpoint,
    split_endpoint,
    write_endpoint,
)
from wiresnake.uapi.snapshot import InterfaceState, PeerState

_NOTHING = Said()


class PeerDifference(NamedTuple):
    """The change of one peer."""

    public_key: str
    before: PeerState | None
    change: PeerChange
    gained: tuple[str, ...] = ()
    """Allowed IPs."""
    lost: tuple[str, ...] = ()
    """Allowed IPs that the peer loses. If another peer gains them, that peer's change is enough."""


class Difference(NamedTuple):
    device: DeviceChange
    """The change of the interface itself."""
    peers: tuple[PeerDifference, ...]
    allowed_ips: frozenset[str]
    """The wanted allowed IPs of all peers, except the following."""
    undecided: frozenset[str]
    """Allowed IPs in which the device should differ from the file: see `others`."""
    endpoints: dict[str, str]
    """The file's endpoints by public key, with host names as written."""
    said: dict[str, Said]
    """What else the file says about the peers."""
    unsure: tuple[str, ...]
    """Peers whose endpoint was either edited or has roamed, which cannot be known: it stays."""


def compare(
    wg: bytearray,
    scanned: Sequence[Line],
    state: InterfaceState,
    applied: Mapping[str, str] | None,
    resolve: Resolve,
    *,
    name: str,
    others: Others | None = None,
    only: Set[str] = frozenset(),
) -> Difference:
    """Compares a file, or its lines for `wg`, with a device. `applied` are the endpoints of the
    file when it was last applied, or None if unknown. With `only`, a set of public keys, all other
    peers stay unchanged and are not read. ConfigError with `name`:line:column.
    """
    others = others or Others()
    live = {peer.public_key: peer for peer in state.peers}
    known = {one for peer in state.peers for one in peer.allowed_ips}
    parts = peer_sections.read(wg, scanned, known)
    last = {part.public_key: part for part in parts if part.peer}
    endpoints = {part.public_key: part.endpoint for part in parts if part.peer and part.endpoint}
    times = Counter(part.public_key for part in parts if part.peer)
    owner = {one: key for key, part in last.items() for one in part.allowed_ips}
    wanted: dict[str, set[str]] = {key: set() for key in last}
    for one, key in owner.items():
        wanted[key].add(one)
    judged = {*last, *live} & only if only else {*last, *live}
    file = said(wg, parts)
    stays = _judge(others, judged, live, last, wanted, owner, file, wg, named=bool(only))

    roaming = _Roaming(live, applied)
    rest: list[Line] = []
    for part in parts:
        key = part.public_key
        plain = part.peer and not part.odd and times[key] == 1
        if (part.peer and key not in judged) or (
            plain and _is_so(part, wg, live.get(key), wanted[key], roaming, stays)
        ):
            continue
        rest += part.lines
    device = parse(wg, resolve, name=name, scanned=rest)

    parsed = _by_key(device.peers)
    if state.public_key:  # A device ignores a peer with its own key.
        parsed.pop(state.public_key, None)
        wanted.pop(state.public_key, None)
    moved = {one for key in parsed for one in wanted[key].difference(_allowed(live.get(key)))}
    differences = [
        PeerDifference(
            key, live[key], PeerChange(public_key(key), remove=True), lost=live[key].allowed_ips
        )
        for key in live
        if key not in last and key in judged and key not in stays.peers
    ]
    for key, peer in parsed.items():
        if key in stays.off:
            continue
        if key in stays.secrets:
            peer = replace(peer, preshared_key=_secret(live[key].preshared_key))
        if key in stays.keepalives:
            peer = replace(peer, persistent_keepalive=live[key].persistent_keepalive)
        if key in live and roaming.stays(key, endpoints.get(key, "")):
            peer = replace(peer, endpoint=None)
        differences += _difference(key, peer, live.get(key), wanted[key], moved)
    # A peer gains a network before another peer's new list drops it, so no packet is lost.
    differences.sort(key=lambda one: bool(one.before) and one.change.replace_allowed_ips)
    allowed = frozenset().union(*wanted.values())
    undecided = frozenset(others.networks) - (allowed & owner.keys())
    return Difference(
        replace(device, peers=()),
        tuple(differences),
        allowed - undecided,
        undecided,
        endpoints,
        file,
        tuple(key for key in roaming.unsure if not _leads_to(endpoints[key], live[key], resolve)),
    )


def told(file: QuickConfig) -> tuple[dict[str, str], dict[str, Said]]:
    """What a file says of its peers: their endpoints as written, and all else."""
    parts = peer_sections.read(file.wg, file.lines)
    endpoints = {part.public_key: part.endpoint for part in parts if part.endpoint}
    return endpoints, said(file.wg, parts)


def said(wg: bytearray, parts: Iterable[PeerSection]) -> dict[str, Said]:
    """Returns what the file says about each peer; for a repeated peer the last value of each
    kind."""
    found: dict[str, Said] = {}
    with memoryview(wg) as view:
        for part in parts:
            if part.peer:
                secret, keepalive, _ = found.get(part.public_key, _NOTHING)
                if part.preshared_key:
                    secret = digest(view[slice(*part.preshared_key)])
                if part.keepalive != "0" and part.keepalive.isdecimal():
                    keepalive = int(part.keepalive)
                found[part.public_key] = Said(secret, keepalive, tuple(part.allowed_ips))
    return found


def whole(peer: PeerState) -> PeerChange:
    """Returns the change that restores a peer."""
    return PeerChange(
        public_key(peer.public_key),
        preshared_key=_secret(peer.preshared_key),
        endpoint=_endpoint(peer.endpoint),
        persistent_keepalive=peer.persistent_keepalive,
        replace_allowed_ips=True,
        allowed_ips=_adding(peer.allowed_ips),
    )


class _Stays:
    """What stays although the file differs, by public key."""

    def __init__(self) -> None:
        self.peers: set[str] = set()
        self.off: set[str] = set()
        """Peers of the file."""
        self.secrets: set[str] = set()
        self.keepalives: set[str] = set()

    def judge_values(
        self, others: Others, peer: PeerState, file: Said, part: PeerSection, wg: bytearray
    ) -> None:
        """Decides about a peer that both the file and the device have."""
        secret = peer.preshared_key
        if not _same_secret(wg, part.preshared_key, secret):
            differs = file.preshared_key != digest((secret or "").encode())
            if differs and others.keeps_secret(peer, file.preshared_key):
                self.secrets.add(peer.public_key)
        differs = file.keepalive != peer.persistent_keepalive
        if differs and others.keeps_keepalive(peer, file.keepalive):
            self.keepalives.add(peer.public_key)


def _judge(
    others: Others,
    judged: Iterable[str],
    live: Mapping[str, PeerState],
    last: Mapping[str, PeerSection],
    wanted: dict[str, set[str]],
    owner: Mapping[str, str],
    file: Mapping[str, Said],
    wg: bytearray,
    named: bool,
) -> _Stays:
    """Updates `wanted`, the allowed IPs. For peers that the user `named`, the file decides whether
    they exist."""
    stays = _Stays()
    for key in judged if others.active else ():
        peer, part = live.get(key), last.get(key)
        if peer and part:
            if len(wanted[key]) != len(peer.allowed_ips) or wanted[key] != {*peer.allowed_ips}:
                wanted[key] = others.allowed_ips(peer, wanted[key], owner)
            stays.judge_values(others, peer, file[key], part, wg)
        elif peer:
            if not named and others.keeps_peer(peer):
                stays.peers.add(key)
        elif not named and others.keeps_off(key, wanted[key]):
            stays.off.add(key)
            wanted[key] = set()
    return stays


class _Roaming:
    """Decides which endpoints stay."""

    def __init__(self, live: Mapping[str, PeerState], applied: Mapping[str, str] | None) -> None:
        self._live = live
        self._applied = applied
        self._now = time.time()
        self.unsure: list[str] = []

    def stays(self, key: str, endpoint: str) -> bool:
        """Returns whether a live peer keeps its endpoint."""
        peer = self._live[key]
        if endpoint in ("", peer.endpoint):
            return True
        if peer.endpoint is None:
            return False
        reached = self._now - peer.latest_handshake[0] < SESSION_SECONDS
        if self._applied is None:
            if reached and key not in self.unsure:
                self.unsure.append(key)
            return reached
        unchanged = self._applied.get(key) == endpoint
        return unchanged and (reached or is_address(host_of(endpoint)))


def _leads_to(endpoint: str, peer: PeerState, resolve: Resolve) -> bool:
    """Returns whether the peer is at the file's endpoint, as far as its name can be looked up."""
    try:
        return write_endpoint(resolve(*split_endpoint(endpoint))) == peer.endpoint
    except (OSError, ValueError):
        return False


def _is_so(
    part: PeerSection,
    wg: bytearray,
    peer: PeerState | None,
    wanted: set[str],
    roaming: _Roaming,
    stays: _Stays,
) -> bool:
    """Returns whether the device already has this peer as wanted."""
    key = part.public_key
    if peer is None:
        return key in stays.off
    return (
        (key in stays.keepalives or part.keepalive == str(peer.persistent_keepalive))
        and (key in stays.secrets or _same_secret(wg, part.preshared_key, peer.preshared_key))
        and wanted == set(peer.allowed_ips)
        and roaming.stays(part.public_key, part.endpoint)
    )


def _same_secret(wg: bytearray, place: tuple[int, int] | None, secret: str | None) -> bool:
    if place is None or secret is None:
        return place is None and secret is None
    begin, end = place
    return end - begin == len(secret) and wg.startswith(secret.encode(), begin)


def _by_key(peers: Iterable[PeerChange]) -> dict[str, PeerChange]:
    """Returns one change per peer; for a repeated peer the last value of each kind."""
    found: dict[str, PeerChange] = {}
    for peer in peers:
        key = base64_text(peer.public_key)
        if before := found.get(key):
            peer = replace(
                peer,
                preshared_key=peer.preshared_key or before.preshared_key,
                endpoint=peer.endpoint or before.endpoint,
                persistent_keepalive=before.persistent_keepalive
                if peer.persistent_keepalive is None
                else peer.persistent_keepalive,
            )
        found[key] = peer
    return found


def _difference(
    key: str, peer: PeerChange, before: PeerState | None, wanted: set[str], moved: set[str]
) -> list[PeerDifference]:
    """Returns the least change that makes the peer as wanted, or None."""
    allowed = _allowed(before)
    gained = tuple(one for one in sorted(wanted) if one not in allowed)
    lost = tuple(one for one in sorted(allowed) if one not in wanted)
    if before is None:
        change = replace(peer, allowed_ips=_adding(gained))
        return [PeerDifference(key, None, change, gained)]
    whole = not moved.issuperset(lost)
    preshared = peer.preshared_key or CLEAR
    keepalive = peer.persistent_keepalive or 0
    endpoint = peer.endpoint
    change = PeerChange(
        peer.public_key,
        update_only=True,
        preshared_key=None if preshared == _secret(before.preshared_key) else preshared,
        endpoint=None if endpoint == _endpoint(before.endpoint) else endpoint,
        persistent_keepalive=None if keepalive == before.persistent_keepalive else keepalive,
        replace_allowed_ips=whole,
        allowed_ips=_adding(sorted(wanted) if whole else gained),
    )
    if change == PeerChange(peer.public_key, update_only=True) and not lost:
        return []
    return [PeerDifference(key, before, change, gained, lost)]


def _allowed(peer: PeerState | None) -> frozenset[str]:
    return frozenset(peer.allowed_ips if peer else ())


def _adding(prefixes: Iterable[str]) -> tuple[tuple[bool, Prefix], ...]:
    return tuple((True, Prefix.parse(one)) for one in prefixes)


def _secret(text: str | None) -> PresharedKey | Clear:
    if text is None:
        return CLEAR
    return PresharedKey.from_base64(bytearray(text, "ascii")) or CLEAR


def _endpoint(text: str | None) -> Endpoint | None:
    return None if text is None else read_endpoint(text)
