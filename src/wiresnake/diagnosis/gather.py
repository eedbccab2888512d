"""Gathers the facts about one peer: from its device, its file and the rest of the host."""

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import replace

from wiresnake.devices.reports import read_report
from wiresnake.diagnosis import probes
from wiresnake.diagnosis.facts import Facts, Probe, Way
from wiresnake.diagnosis.forwarding import forwarding
from wiresnake.diagnosis.target import Target
from wiresnake.linux.link import is_up
from wiresnake.text import host_of, is_address, split_endpoint
from wiresnake.uapi.snapshot import PeerState

_WAYS = 4
"""The most allowed IPs whose routes are looked up."""


def gather(target: Target) -> Facts:
    """Gathers the facts. Slow questions are only asked if the peer is silent."""
    (state, notes), peer, address, missing = target
    name = state.name
    report = read_report(name)
    noted = notes.get(peer.public_key) if peer else None
    facts = Facts(
        state=state,
        up=is_up(name),
        wall=time.time(),
        peer=peer,
        missing=missing,
        in_file=missing in notes,
        address=address,
        device=report.device if report else None,
        report=report.peers.get(peer.public_key) if report and peer else None,
        file_endpoint=noted.endpoint if noted else "",
        inner_ways=_inner_ways(peer, address),
    )
    if peer is None or not facts.talking:
        return facts if peer is None else _ask_around(facts)
    # A peer with an Endpoint in the file, or with the default route, is not a client of this host.
    default = any(prefix.endswith("/0") for prefix in peer.allowed_ips)
    if facts.file_endpoint or default or not peer.allowed_ips:
        return facts
    return replace(facts, forwarding=forwarding(name, peer.allowed_ips))


def _ask_around(facts: Facts) -> Facts:
    mark = facts.state.fwmark
    named = host_of(facts.file_endpoint)
    if named and not is_address(named):
        facts = replace(facts, lookup=probes.resolve(named))
    if not facts.endpoint or "%" in facts.endpoint:  # A link-local address needs no route lookup.
        return facts
    host, port = split_endpoint(facts.endpoint)
    way = probes.way_to(host, mark)
    probed: Probe | None = None
    if not way.error and way.device != facts.state.name:
        probed = probes.probe(host, int(port), mark)
    return replace(facts, endpoint_way=way, probe=probed)


def _inner_ways(peer: PeerState | None, address: str | None) -> tuple[Way, ...]:
    if peer is None:
        return ()
    targets: Sequence[str] = (
        [address] if address else [_inside(text) for text in peer.allowed_ips[:_WAYS]]
    )
    return tuple(probes.way_to(target) for target in targets)


def _inside(prefix: str) -> str:
    """Returns an address in the network that is not the network's own, if there is one."""
    network = ipaddress.ip_network(prefix, strict=False)
    return str(network[1] if network.num_addresses > 1 else network[0])
