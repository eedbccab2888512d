"""Rules about this host: its interface, keys, routes and the way out. Each is a pure function."""

import errno

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.target import nearest
from wiresnake.diagnosis.units import ago, error, times
from wiresnake.diagnosis.verdict import (
    Verdict,
    recent,
    unanswered,
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
        f"The interface {name} is down, so it neither sends nor receives.",
        remedy=f"Bring it up: `ip link set {name} up`, or `wiresnake up {name}`.",
    )


def no_private_key(facts: Facts) -> Verdict | None:
    if facts.state.public_key is not None or facts.state.private_key is not None:
        return None
    name = facts.state.name
    return Verdict(
        "no_private_key",
        f"{name} has no private key, so it can neither start nor answer a handshake.",
        remedy=f"Set one: `wiresnake set {name} private-key FILE`.",
    )


def no_peer(facts: Facts) -> Verdict | None:
    name = facts.state.name
    if facts.peer is not None:
        return None
    if facts.missing is not None:
        evidence = [f"{name} has {times(len(facts.state.peers), 'peer')}, but none with this key."]
        if facts.device and facts.device.unknown_initiator == facts.missing:
            evidence.append(unknown_initiator(facts))
        add = f"`wiresnake set {name} peer {facts.missing} allowed-ips ...`"
        if facts.in_file:
            evidence.append("The configuration file has this peer, but the file was not applied.")
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
            f"The nearest is {text} of {peer.public_key}: the first {times(bits, 'bit')} agree."
        )
    if facts.device and facts.device.no_peer_packets:
        destination = facts.device.no_peer_destination
        evidence.append(
            f"{name} dropped {times(facts.device.no_peer_packets, 'packet')} for such addresses,"
            f" the last for {destination}."
        )
    return Verdict(
        "not_in_allowed_ips",
        f"No peer of {name} has allowed IPs that cover {facts.address}.",
        tuple(evidence),
        f"Add it to the right peer, and to the file: `wiresnake set {name} peer KEY"
        f" allowed-ips +{facts.address}`.",
    )


def not_routed(facts: Facts) -> Verdict | None:
    """Finds that the requested address is not routed into the interface."""
    name = facts.state.name
    if facts.peer is None or facts.address is None:
        return None
    for way in facts.inner_ways:
        if way.error:
            says = f"This host has no route to {way.target}, so nothing reaches {name}."
            evidence = f"{error(way.error)}."
        elif way.device == "lo":
            says = f"{way.target} is an address of this host, so nothing is sent to the peer."
            evidence = "The kernel routes it to lo, the loopback interface."
        elif way.device != name:
            says = f"Packets to {way.target} leave through {way.device}, not through {name}."
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
        "This host's clock is not set, and peers reject an initiation that is older than the last"
        " one.",
        (f"It shows {facts.wall:.0f} s since 1970, a time before 2024.",),
        "Set the clock, with NTP or `date -s`.",
    )


def unresolved(facts: Facts) -> Verdict | None:
    lookup = facts.lookup
    if facts.endpoint or lookup is None or not lookup.error:
        return None
    return Verdict(
        "endpoint_unresolved",
        f"The name in the peer's endpoint, {facts.file_endpoint}, does not resolve.",
        (f"The resolver says about {lookup.name}: {lookup.error}.",),
        "Correct the name or this host's DNS (does DNS go through this tunnel?), then run"
        f" `wiresnake reload {facts.state.name}`.",
    )


def no_endpoint(facts: Facts) -> Verdict | None:
    if facts.peer is None or facts.endpoint:
        return None
    name = facts.state.name
    if facts.file_endpoint:
        return Verdict(
            "no_endpoint",
            "The device has no endpoint for the peer, but the file has one: it was not applied.",
            (f"The file says {facts.file_endpoint}.",),
            f"Apply the file: `wiresnake reload {name}`.",
        )
    evidence = ["The peer has not contacted this host since it was configured."]
    if (report := facts.report) and report.staged:
        evidence.append(f"{times(report.staged, 'packet')} for the peer in the queue.")
    if (device := facts.device) and recent(device.unknown_initiator_age_ms):
        evidence.append(f"{unknown_initiator(facts)} If that was this peer, its key is wrong here.")
    if device and recent(device.invalid_mac1_age_ms):
        evidence.append(
            f"{wrong_mac1(facts)} If that was this peer, it has a wrong key for this host."
        )
    evidence.append(_what_arrives(facts))
    return Verdict(
        "no_endpoint",
        "No endpoint is known for this peer, and it has not contacted this host.",
        tuple(evidence),
        "Let the peer start: it needs an Endpoint for this host, and traffic or"
        " PersistentKeepalive. Or set its endpoint here: `wiresnake set"
        f" {name} peer {facts.peer.public_key} endpoint HOST:PORT`.",
    )


def _what_arrives(facts: Facts) -> str:
    """Says whether the way to the port is open, which distinguishes a closed port from a peer that
    has not tried."""
    port, device = facts.state.listen_port, facts.device
    ours = [peer for peer in facts.state.peers if peer is not facts.peer]
    if any(peer.latest_handshake != (0, 0) or peer.received for peer in ours):
        return f"Other peers have reached UDP port {port}, so it is open, at least for them."
    if device and (device.unknown_initiations or device.invalid_mac1):
        return f"Handshakes do arrive at UDP port {port}, so it is open."
    seen = "No handshake from anyone" if device else "No valid handshake"
    return (
        f"{seen} has reached UDP port {port} so far: either nobody has tried, or a firewall here or"
        " a router without port forwarding closes it."
    )


def endpoint_in_tunnel(facts: Facts) -> Verdict | None:
    way = facts.endpoint_way
    if way is None or way.device != facts.state.name:
        return None
    return Verdict(
        "endpoint_in_tunnel",
        f"The peer's endpoint {facts.endpoint} is routed into the tunnel itself.",
        (
            (
                f"The kernel sends {way.target} through {way.device}, with the mark"
                f" {facts.state.fwmark:#x} of the device's own datagrams."
            ),
        ),
        "Remove the endpoint from AllowedIPs; or add a route outside the tunnel: `ip route add"
        f" {way.target} via GATEWAY`; or use a mark, as `wiresnake up` does for 0.0.0.0/0.",
    )


def cannot_send(facts: Facts) -> Verdict | None:
    """Finds that the kernel refused our datagrams. Only the last attempt counts."""
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
            f"A firewall on this host blocks datagrams to {facts.endpoint}.",
            evidence,
            "Look in `nft list ruleset` for the rule that drops UDP to it, and allow it.",
        )
    says = f"This host cannot send datagrams to {facts.endpoint}."
    return Verdict("cannot_send", says, evidence)


def no_route(facts: Facts) -> Verdict | None:
    way = facts.endpoint_way
    if way is None or not way.error:
        return None
    if cannot_send(facts):  # That verdict has more detail.
        return None
    return _no_route(facts, (f"For {way.target} the kernel says {error(way.error)}.",))


def no_socket(facts: Facts) -> Verdict | None:
    if facts.device is None or facts.device.bound or not facts.up:
        return None
    name = facts.state.name
    number, port = facts.device.bind_error, facts.state.listen_port
    return Verdict(
        "no_socket",
        f"{name} has no UDP socket, because it could not open its port.",
        (f"Its port is {port}.", *([f"{error(number)}."] if number else [])),
        f"Choose another port: `wiresnake set {name} listen-port 0`. Or end the program that uses"
        f" it (ss -lunp); {name} takes the port within 5 s."
        if number in (0, errno.EADDRINUSE, errno.EACCES)
        else f"Read the log of {name}'s daemon, started with LOG_LEVEL=debug.",
    )


def no_inner_route(facts: Facts) -> Verdict | None:
    """Finds that nothing was ever sent to the peer, because no route leads to it."""
    name = facts.state.name
    if facts.address or not facts.inner_ways or unanswered(facts):
        return None
    if any(way.device == name for way in facts.inner_ways):
        return None
    first = facts.inner_ways[0]
    where = f"{error(first.error)}." if first.error else _by_way(first.device, first.gateway)
    return Verdict(
        "not_routed",
        f"Nothing is sent to the peer: no route to its allowed IPs goes through {name}.",
        (f"{first.target}: {where}",),
        _route_remedy(name, first.target),
    )


def _no_route(facts: Facts, evidence: tuple[str, ...]) -> Verdict:
    return Verdict(
        "no_route",
        f"This host has no route to the peer's endpoint {facts.endpoint}.",
        evidence,
        f"Is the network up? Try `ip route get {host_of(facts.endpoint)}`.",
    )


def _route_remedy(name: str, target: str) -> str:
    return (
        f"Add a route: `ip route add {target} dev {name}`. `wiresnake up` does so for all"
        " AllowedIPs unless Table is off."
    )


def _by_way(device: str, gateway: str) -> str:
    return f"The kernel routes it through {device}{f' via {gateway}' if gateway else ''}."
