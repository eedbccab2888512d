"""Rules on this host: its interface, keys and routes, and the way out. Each is pure."""

import errno

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.target import nearest
from wiresnake.diagnosis.units import ago, error, times
from wiresnake.diagnosis.verdict import (
    Verdict,
    asked_in_vain,
    recent,
    unknown_initiator,
    wrong_mac1,
)
from wiresnake.text import host_of

_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_REFUSED = (errno.EPERM,)
_YEAR_2024 = 1_704_067_200


def interface_down(facts: Facts) -> Verdict | None:
    name = facts.state.name
    if facts.up:
        return None
    return Verdict(
        "interface_down",
        f"The interface {name} is down, so that it sends and takes nothing.",
        remedy=f"Take it up: `ip link set {name} up`, or `wiresnake up {name}`.",
    )


def no_private_key(facts: Facts) -> Verdict | None:
    if facts.state.public_key is not None or facts.state.private_key is not None:
        return None
    name = facts.state.name
    return Verdict(
        "no_private_key",
        f"{name} has no private key: it can neither begin nor answer a handshake.",
        remedy=f"Set one: `wiresnake set {name} private-key FILE`.",
    )


def no_peer(facts: Facts) -> Verdict | None:
    name = facts.state.name
    if facts.peer is not None:
        return None
    if facts.missing is not None:
        evidence = [f"{name} has {times(len(facts.state.peers), 'peer')}, none with this key."]
        if facts.device and facts.device.unknown_initiator == facts.missing:
            evidence.append(unknown_initiator(facts))
        add = f"`wiresnake set {name} peer {facts.missing} allowed-ips ...`"
        if facts.in_file:
            evidence.append("The configuration file has it: the file was not applied.")
            add = f"`wiresnake reload {name}`"
        return Verdict(
            "no_such_peer",
            f"{name} has no peer with the public key {facts.missing}.",
            tuple(evidence),
            f"Add it: {add}.",
        )
    assert facts.address is not None
    evidence = []
    near = nearest(facts.state, facts.address)
    if near:
        peer, text, bits = near
        evidence.append(
            f"Nearest is {text} of {peer.public_key}: the first {times(bits, 'bit')} agree."
        )
    if facts.device and facts.device.no_peer_packets:
        destination = facts.device.no_peer_destination
        evidence.append(
            f"{times(facts.device.no_peer_packets, 'packet')} for such addresses came to {name}"
            f" and went nowhere, the last for {destination}."
        )
    return Verdict(
        "not_in_allowed_ips",
        f"No peer of {name} has allowed IPs that cover {facts.address}.",
        tuple(evidence),
        f"Give it to the peer that is to have it: `wiresnake set {name} peer KEY"
        f" allowed-ips +{facts.address}`, and into the file.",
    )


def not_routed(facts: Facts) -> Verdict | None:
    """The address that was asked for does not lead into the interface."""
    name = facts.state.name
    if facts.peer is None or facts.address is None:
        return None
    for way in facts.inner_ways:
        if way.error:
            says = f"This host has no route to {way.target}, so that nothing gets to {name}."
            evidence = f"{error(way.error)}."
        elif way.device == "lo":
            says = f"{way.target} is an address of this host itself; nothing is sent to the peer."
            evidence = "The kernel routes it to lo."
        elif way.device != name:
            says = f"Packets to {way.target} leave by {way.device}, not by {name}."
            evidence = _by_way(way.device, way.gateway)
        else:
            continue
        return Verdict("not_routed", says, (evidence,), _route_remedy(name, way.target))
    return None


def clock_unset(facts: Facts) -> Verdict | None:
    if facts.wall >= _YEAR_2024:
        return None
    return Verdict(
        "clock_unset",
        "This host's clock is not set: peers take no initiation that is older than the last one"
        " they took.",
        (f"It shows {facts.wall:.0f} s since 1970, which is before 2024.",),
        "Set the clock, by NTP or `date -s`.",
    )


def unresolved(facts: Facts) -> Verdict | None:
    lookup = facts.lookup
    if facts.endpoint or lookup is None or not lookup.error:
        return None
    return Verdict(
        "endpoint_unresolved",
        f"Its endpoint {facts.file_endpoint} is a name that does not resolve.",
        (f"The resolver says of {lookup.name}: {lookup.error}.",),
        "Mend the name or this host's DNS (does it lead through this very tunnel?), then"
        f" `wiresnake reload {facts.state.name}`.",
    )


def no_endpoint(facts: Facts) -> Verdict | None:
    if facts.peer is None or facts.endpoint:
        return None
    name = facts.state.name
    if facts.file_endpoint:
        return Verdict(
            "no_endpoint",
            "The device knows no endpoint for it, though the file has one: it was not applied.",
            (f"The file says {facts.file_endpoint}.",),
            f"Apply the file: `wiresnake reload {name}`.",
        )
    evidence = ["It has not called since it was set up here."]
    if (report := facts.report) and report.staged:
        evidence.append(f"{times(report.staged, 'packet')} for it wait.")
    if (device := facts.device) and recent(device.unknown_initiator_age_ms):
        evidence.append(f"{unknown_initiator(facts)} If that is this peer, its key is wrong here.")
    if device and recent(device.invalid_mac1_age_ms):
        evidence.append(f"{wrong_mac1(facts)} If that is this peer, it has a wrong key for it.")
    evidence.append(_what_arrives(facts))
    return Verdict(
        "no_endpoint",
        "This host does not know where it is, and it has not called: it has no endpoint.",
        tuple(evidence),
        "Let the peer begin (it needs an Endpoint for this host, and traffic or"
        " PersistentKeepalive), or give it one: `wiresnake set"
        f" {name} peer {facts.peer.public_key} endpoint HOST:PORT`.",
    )


def _what_arrives(facts: Facts) -> str:
    """Whether the way to the port is open, which tells a closed one from a peer that has not
    tried."""
    port, device = facts.state.listen_port, facts.device
    ours = [peer for peer in facts.state.peers if peer is not facts.peer]
    if any(peer.latest_handshake != (0, 0) or peer.received for peer in ours):
        return f"Other peers have come to UDP port {port}: it is open, at least to them."
    if device and (device.unknown_initiations or device.invalid_mac1):
        return f"Handshakes do arrive at UDP port {port}: it is open."
    seen = "No handshake of anybody" if device else "No valid handshake"
    return (
        f"{seen} has come to UDP port {port} so far: either nobody has tried, or it is closed on"
        " the way, by a firewall here or a router without port forwarding."
    )


def endpoint_in_tunnel(facts: Facts) -> Verdict | None:
    way = facts.endpoint_way
    if way is None or way.device != facts.state.name:
        return None
    return Verdict(
        "endpoint_in_tunnel",
        f"Its endpoint {facts.endpoint} is routed into the tunnel itself.",
        (
            (
                f"The kernel sends {way.target} by {way.device}, with the mark"
                f" {facts.state.fwmark:#x} of the device's own datagrams."
            ),
        ),
        "Take the endpoint out of AllowedIPs; or give it a route outside: `ip route add"
        f" {way.target} via GATEWAY`; or use a mark as `wiresnake up` does for 0.0.0.0/0.",
    )


def cannot_send(facts: Facts) -> Verdict | None:
    """The kernel refused our datagrams; the last attempt counts, not what once was."""
    report, probe = facts.report, facts.probe
    failed = report and report.send_error not in (0, errno.EAGAIN)  # That was a full buffer.
    if report and failed and recent(report.send_error_age_ms):
        attempt, refused = report.last_initiation_age_ms, report.send_error_age_ms or 0
        number, since = report.send_error, ago(refused)
        if attempt is not None and refused > attempt + 1000:
            return None
        said = f"{times(report.send_errors, 'datagram')} could not be sent, the last {since}:"
    elif probe and probe.udp_error in _REFUSED:
        number, said = probe.udp_error, "An empty datagram could not be sent:"
    else:
        return None
    evidence = (f"{said} {error(number)}.",)
    if number in _UNREACHABLE:
        return _no_route(facts, evidence)
    if number in _REFUSED:
        return Verdict(
            "blocked_here",
            f"This host itself does not let datagrams to {facts.endpoint} out: a firewall.",
            evidence,
            "Look for what drops UDP to it in `nft list ruleset`, and let it pass.",
        )
    says = f"Datagrams to {facts.endpoint} cannot be sent from here."
    return Verdict("cannot_send", says, evidence)


def no_route(facts: Facts) -> Verdict | None:
    way = facts.endpoint_way
    if way is None or not way.error:
        return None
    if cannot_send(facts):  # It says the same with numbers, or something else that is nearer.
        return None
    return _no_route(facts, (f"Asked for {way.target}, the kernel says {error(way.error)}.",))


def no_socket(facts: Facts) -> Verdict | None:
    if facts.device is None or facts.device.bound or not facts.up:
        return None
    name = facts.state.name
    number, port = facts.device.bind_error, facts.state.listen_port
    return Verdict(
        "no_socket",
        f"{name} has no UDP socket: it could not have its port.",
        (f"It is set to port {port}.", *([f"{error(number)}."] if number else [])),
        f"Choose another: `wiresnake set {name} listen-port 0`; or end who has it (ss -lunp), and"
        f" within 5 s {name} does."
        if number in (0, errno.EADDRINUSE, errno.EACCES)
        else f"See the log of {name}'s daemon, started with LOG_LEVEL=debug.",
    )


def no_inner_route(facts: Facts) -> Verdict | None:
    """Nothing was ever asked of the peer, and no route leads to it."""
    name = facts.state.name
    if facts.address or not facts.inner_ways or asked_in_vain(facts):
        return None
    if any(way.device == name for way in facts.inner_ways):
        return None
    first = facts.inner_ways[0]
    where = f"{error(first.error)}." if first.error else _by_way(first.device, first.gateway)
    return Verdict(
        "not_routed",
        f"Nothing is sent to it: no route leads to its allowed IPs by {name}.",
        (f"{first.target}: {where}",),
        _route_remedy(name, first.target),
    )


def _no_route(facts: Facts, evidence: tuple[str, ...]) -> Verdict:
    return Verdict(
        "no_route",
        f"This host has no route to its endpoint {facts.endpoint}.",
        evidence,
        f"Is the network up? See `ip route get {host_of(facts.endpoint)}`.",
    )


def _route_remedy(name: str, target: str) -> str:
    return (
        f"Add a route: `ip route add {target} dev {name}`; `wiresnake up` does so for all"
        " AllowedIPs, unless Table=off."
    )


def _by_way(device: str, gateway: str) -> str:
    return f"The kernel routes it by {device}{f' via {gateway}' if gateway else ''}."
