"""Finds the peer for a key, the beginning of one, a friendly name or an address."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from wiresnake.conffile.labels import PeerLabels
from wiresnake.errors import ConfigError
from wiresnake.text import host_of
from wiresnake.uapi.snapshot import InterfaceState, PeerState

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Named(NamedTuple):
    """An interface, and the labels of its peers."""

    state: InterfaceState
    notes: Mapping[str, PeerLabels]


class Target(NamedTuple):
    """The result; `peer` is None if no peer has that key, or no allowed IPs cover that address."""

    interface: Named
    peer: PeerState | None
    address: str | None = None
    public_key: str | None = None
    """The requested public key, if the device has no such peer."""

    @property
    def name(self) -> str:
        """Returns the peer's friendly name, or an empty string."""
        return _name(self.interface, self.peer) if self.peer else ""


def find(wanted: str, interfaces: Sequence[Named]) -> Target:
    """Finds the peer. ConfigError if none or several match."""
    try:
        address = ipaddress.ip_address(wanted.partition("/")[0])
    except ValueError:
        return _by_name(wanted, interfaces)
    return _by_address(address, interfaces)


def nearest(state: InterfaceState, address: str) -> tuple[PeerState, str, int] | None:
    """Returns the peer with the nearest allowed IPs, which of them, and how many bits agree."""
    wanted = ipaddress.ip_address(address)
    found = [
        (_common_bits(wanted, ipaddress.ip_address(text.partition("/")[0])), peer, text)
        for peer in state.peers
        for text in peer.allowed_ips
        if (":" in text) == (wanted.version == 6)
    ]
    if not found:
        return None
    bits, peer, text = max(found, key=lambda one: one[0])
    return peer, text, bits


def _by_address(address: Address, interfaces: Sequence[Named]) -> Target:
    covering = [
        (int(text.partition("/")[2]), named, peer)
        for named, peer, text in _allowed(interfaces)
        if _covers(text, address)
    ]
    if covering:
        _, named, peer = max(covering, key=lambda one: one[0])
        return Target(named, peer, str(address))
    for named in interfaces:
        for peer in named.state.peers:
            if peer.endpoint and host_of(peer.endpoint) == str(address):
                return Target(named, peer)

    def bits(named: Named) -> int:
        near = nearest(named.state, str(address))
        return near[2] if near else -1

    return Target(max(interfaces, key=bits), None, str(address))


def _by_name(wanted: str, interfaces: Sequence[Named]) -> Target:
    peers = [(named, peer) for named in interfaces for peer in named.state.peers]
    for matches in (
        lambda named, peer: peer.public_key == wanted,
        lambda named, peer: _name(named, peer).lower() == wanted.lower(),
        lambda named, peer: peer.public_key.startswith(wanted),
    ):
        found = [(named, peer) for named, peer in peers if matches(named, peer)]
        if len(found) == 1:
            return Target(*found[0])
        if found:
            who = ", ".join(f"{named.state.name} {_said(named, peer)}" for named, peer in found[:5])
            raise ConfigError(f"{wanted!r} matches {len(found)} peers: {who}; give more of the key")
    for named in interfaces:
        for key, notes in named.notes.items():
            if wanted == key or notes.name.lower() == wanted.lower():
                return Target(named, None, public_key=key)
    if len(wanted) == 44 and wanted.endswith("="):
        return Target(interfaces[0], None, public_key=wanted)
    names = ", ".join(sorted(_said(named, peer) for named, peer in peers)[:10])
    if any(wanted == named.state.name for named in interfaces):
        what = f"{wanted} is an interface; name a peer, too: `wiresnake why {wanted} PEER`"
    else:
        what = f"no peer is called {wanted!r}, and no public key begins with it"
    raise ConfigError(f"{what}; there are: {names or 'none'}")


def _said(named: Named, peer: PeerState) -> str:
    return _name(named, peer) or peer.public_key


def _name(named: Named, peer: PeerState) -> str:
    notes = named.notes.get(peer.public_key)
    return notes.name if notes else ""


def _allowed(interfaces: Sequence[Named]) -> Iterator[tuple[Named, PeerState, str]]:
    for named in interfaces:
        for peer in named.state.peers:
            for text in peer.allowed_ips:
                yield named, peer, text


def _covers(text: str, address: Address) -> bool:
    return (":" in text) == (address.version == 6) and address in ipaddress.ip_network(
        text, strict=False
    )


def _common_bits(one: Address, other: Address) -> int:
    return one.max_prefixlen - (int(one) ^ int(other)).bit_length()
