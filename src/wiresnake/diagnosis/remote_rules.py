"""Rules about what came back from the peer, or did not. Each is a pure function."""

import errno
import ipaddress
from collections.abc import Iterator

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.units import ago, counted, duration, error, size, times
from wiresnake.diagnosis.verdict import (
    Verdict,
    recent,
    unanswered,
    unknown_initiator,
    wrong_mac1,
)
from wiresnake.text import host_of, split_endpoint


def rejected_sources(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.rejected_sources or not recent(report.rejected_source_age_ms):
        return None
    if ipaddress.ip_address(report.rejected_source or "::").is_link_local:
        return None  # Hosts talk about their links, for example with router solicitations.
    assert facts.peer is not None
    return Verdict(
        "source_not_allowed",
        f"The peer sends packets from {report.rejected_source}, which is not among its allowed IPs"
        " here. They are dropped.",
        (
            counted(report.rejected_sources, "packet", "dropped", report.rejected_source_age_ms),
            f"Its allowed IPs here: {', '.join(facts.peer.allowed_ips) or 'none'}.",
        ),
        f"Add the address: `wiresnake set {facts.state.name} peer {facts.peer.public_key}"
        f" allowed-ips +{report.rejected_source}`. Or give the peer one of its allowed IPs.",
    )


def talking(facts: Facts) -> Verdict | None:
    if not facts.talking:
        return None
    return Verdict(
        "talking",
        "The peer is talking: it has a session, and nothing seems wrong from here.",
        tuple(_how_far(facts)),
        "If packets to it still get no answer, look at the peer's end: its allowed IPs for this"
        " host, its routes, its firewall, IP forwarding. Run `wiresnake why` there too.",
        talking=True,
    )


def not_forwarded(facts: Facts) -> Verdict | None:
    """Finds that the firewall should let the peer reach more than this host, and does not."""
    forwarding, name = facts.forwarding, facts.state.name
    if not facts.talking or not forwarding or not forwarding.masked or not forwarding.dropped_by:
        return None
    return Verdict(
        "not_forwarded",
        "The peer is talking, but this host drops what it sends to other hosts.",
        (
            f"The packets are dropped by {', '.join(forwarding.dropped_by)}.",
            "A rule would give them this host's address on the way out.",
        ),
        f"Allow it: `iptables -I FORWARD -i {name} -j ACCEPT` and `iptables -I FORWARD -o {name}"
        " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, or similar rules in that table,"
        " and add them to PostUp. `wiresnake new server --nat` writes such rules.",
    )


def _how_far(facts: Facts) -> Iterator[str]:
    """Says what a peer can reach through this host."""
    forwarding = facts.forwarding
    if forwarding is None:
        return
    if forwarding.off:
        versions = " and ".join(f"IPv{version}" for version in forwarding.off)
        yield (
            f"This host does not forward {versions} for it (net.ipv4.ip_forward,"
            " net.ipv6.conf.all.forwarding), so it can reach only this host: no other peer, and"
            " not the internet."
        )
    if forwarding.unread:
        yield "Only root can see whether the firewall here forwards its packets."
    elif forwarding.dropped_by:
        yield (
            "This host drops what the peer sends to other hosts, in"
            f" {', '.join(forwarding.dropped_by)}."
        )
    elif not forwarding.off and not forwarding.masked:
        yield (
            "No rule here gives its packets this host's address (masquerade), so hosts beyond this"
            " one need a route back to the peer, which the internet does not have."
        )


def psk_differs(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.bad_responses:
        return None
    assert facts.peer is not None
    ours = "has a" if facts.peer.preshared_key else "has no"
    return Verdict(
        "key_or_psk_differs",
        "The peer answers, but its answers do not decrypt: the preshared key or a key differs.",
        (
            (
                f"{times(report.bad_responses, 'response')} did not decrypt, the last"
                f" {ago(report.bad_response_age_ms)}, after"
                f" {times(report.initiations, 'initiation')}."
            ),
            (
                "To answer at all, it had to decrypt our initiation, so both public keys are almost"
                " certainly right."
            ),
            f"This host {ours} preshared key for it.",
        ),
        "Set the same PresharedKey on both ends, or remove it from both.",
    )


def clock_behind(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.stale_initiations or not recent(report.stale_initiation_age_ms):
        return None
    number, last = report.stale_initiations, report.stale_initiation_age_ms
    return Verdict(
        "clock_behind",
        "The peer's initiations are genuine but older than one that it sent before. Its clock was"
        " set back, and this host must treat them as replays.",
        (counted(number, "initiation", "with an earlier time", last),),
        "Correct the peer's clock. If it was once ahead, remove the peer here and add it again,"
        " which forgets the time.",
    )


def stranger(facts: Facts) -> Verdict | None:
    """Finds that handshakes from the peer's address use another key than the configured one."""
    device = facts.device
    if facts.peer is None or device is None:
        return None
    if _from_peer(facts, device.unknown_initiator_endpoint, device.unknown_initiator_age_ms):
        if facts.handshake_age is None:
            why = "the key configured for it here is probably wrong"
        else:
            why = "it has a new key, or another device uses the same router"
        where = "from its address" if facts.endpoint else "and only this one has been silent"
        return Verdict(
            "public_key_differs",
            f"A peer with another public key sends handshakes {where}: {why}.",
            (
                unknown_initiator(facts),
                f"The public key configured here is {facts.peer.public_key}.",
            ),
            "Compare it with `wiresnake show IFACE public-key` on the peer, and set that key here.",
        )
    if _from_peer(facts, device.invalid_mac1_endpoint, device.invalid_mac1_age_ms):
        return Verdict(
            "our_public_key_differs",
            "Handshakes from there are for a public key other than this device's: the peer has the"
            " wrong key for this host.",
            (wrong_mac1(facts), f"The key of {facts.state.name} is {facts.state.public_key}."),
            "Set this key for this host on the peer.",
        )
    return None


def answers_lost(facts: Facts) -> Verdict | None:
    """Finds that the peer starts handshakes and we answer, but no session follows."""
    remedy = (
        "Compare PresharedKey on both ends. Check whether UDP from here reaches"
        f" {facts.endpoint}: a firewall, NAT or an asymmetric route may block the way back."
    )
    says = (
        "The peer's initiations arrive and are valid, but our responses do not reach it or do not"
        " decrypt there."
    )
    report, peer = facts.report, facts.peer
    if report and report.unconfirmed_responses and recent(report.unconfirmed_response_age_ms):
        number = times(report.unconfirmed_responses, "response")
        return Verdict("answers_lost", says, (f"{number} sent, none was confirmed.",), remedy)
    # A device without reports counts the bytes of authentic messages only.
    if report is None and peer and peer.received and facts.handshake_age is None:
        counted = f"{size(peer.received)} of authentic messages came from it, but no session."
        return Verdict("answers_lost", says, (counted,), remedy)
    return None


def endpoint_moved(facts: Facts) -> Verdict | None:
    lookup = facts.lookup
    if not facts.endpoint or lookup is None or not lookup.addresses:
        return None
    if host_of(facts.endpoint) in lookup.addresses:
        return None
    return Verdict(
        "endpoint_moved",
        f"The name in the file has a new address: {lookup.name} is {', '.join(lookup.addresses)},"
        f" but the device sends to {facts.endpoint}.",
        remedy=f"Use the new address: `wiresnake reload {facts.state.name}`.",
    )


def under_load(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.cookie_replies or not report.initiations:
        return None
    return Verdict(
        "under_load",
        "The peer is under load and answers initiations with cookies. Path and keys are right.",
        (
            unanswered(facts),
            counted(report.cookie_replies, "cookie", "arrived", report.cookie_reply_age_ms),
        ),
        "Wait. If it lasts, find out who floods the peer with handshakes.",
    )


def no_answer(facts: Facts) -> Verdict | None:
    """Finds that nothing comes back, and says how far datagrams get."""
    probe, to = facts.probe, facts.endpoint
    if not (asked := unanswered(facts)) or _answered(facts):
        return None
    evidence = [asked]
    if facts.others_talk:
        evidence.append("Other peers talk, so this host's network and the device's socket work.")
    assert facts.peer is not None
    if facts.handshake_age is None:
        or_key = ", or a key is wrong: PublicKey here is not the peer's, or the peer does not have"
        or_key += " this host's"
        and_key = (
            " Compare the keys: `wiresnake show IFACE public-key` on the peer must print"
            f" {facts.peer.public_key}, and its peer for this host must be"
            f" {facts.state.public_key}."
        )
    else:
        or_key = and_key = ""
        evidence.append("It has talked before, so the keys are right.")
        if facts.file_endpoint and not facts.lookup and facts.file_endpoint != to:
            evidence.append(f"The file says {facts.file_endpoint}, but it last came from {to}.")
    if probe and probe.udp_error:
        evidence.append(f"An empty datagram to {to} brought back {error(probe.udp_error)}.")
    elif probe and probe.answers_ping:
        evidence.append(f"{host_of(to)}, or the router in front of it, answers pings.")
    if facts.handshake_age is not None and not facts.file_endpoint:
        # Phones sleep, and what answers a ping at their address is a router.
        return Verdict(
            "away",
            f"The peer does not answer at {to}, its last address: it is off or asleep, or has a new"
            " address.",
            tuple(evidence),
            "It is reachable again as soon as it sends something. To be reachable at any time, it"
            " needs PersistentKeepalive = 25 in its own configuration.",
        )
    if probe and probe.udp_error == errno.ECONNREFUSED:
        return Verdict(
            "nobody_listens",
            f"The peer's host says that nothing listens at {to}.",
            tuple(evidence),
            "Start WireGuard there, or correct the port: `wiresnake show IFACE listen-port`.",
        )
    if probe and probe.answers_ping:
        port = split_endpoint(to)[1]
        return Verdict(
            "udp_filtered",
            f"The peer's host is up, but nothing answers UDP at {to}: a firewall filters it, or"
            f" WireGuard does not run there{or_key}.",
            tuple(evidence),
            f"{and_key} Allow UDP port {port} there: firewall, router, port forwarding.".strip(),
        )
    return Verdict(
        "no_answer",
        f"Nothing comes back from {to}: the peer's host is off or has another address, or a"
        f" firewall filters UDP on the way{or_key}.",
        tuple(evidence),
        f"Check its address and port, and whether it runs.{and_key}",
    )


def idle(facts: Facts) -> Verdict | None:
    if facts.peer is None:
        return None
    before = facts.handshake_age
    says = (
        "Nothing seems wrong from here: nothing was sent to the peer or received from it lately."
        if facts.report
        else "There is no session. This device does not report whether packets wait for one."
    )
    return Verdict(
        "idle",
        says,
        (f"Last handshake: {'never' if before is None else f'{duration(before)} ago'}.",),
        "Send it something, for example a ping, and ask again. PersistentKeepalive does so by"
        " itself.",
    )


def _answered(facts: Facts) -> bool:
    """Returns whether our last initiation was answered, though no session followed."""
    report = facts.report
    if report is None or report.last_initiation_age_ms is None:
        return False
    ages = (report.bad_response_age_ms, report.cookie_reply_age_ms)
    return any(age is not None and age <= report.last_initiation_age_ms for age in ages)


def _from_peer(facts: Facts, endpoint: str | None, age_ms: int | None) -> bool:
    """Returns whether that came recently from the peer's address, or from anywhere if its address
    is unknown and those of all other peers are known.

    Problems before the last handshake have been solved since.
    """
    if endpoint is None or age_ms is None or not recent(age_ms):
        return False
    if facts.handshake_age is not None and age_ms > facts.handshake_age * 1000:
        return False
    expected = {host_of(facts.endpoint)} if facts.endpoint else set()
    if facts.lookup:
        expected.update(facts.lookup.addresses)
    if not expected:
        return all(other.endpoint for other in facts.state.peers if other is not facts.peer)
    return host_of(endpoint) in expected
