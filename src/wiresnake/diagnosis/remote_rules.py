"""Rules on what came back from the peer, or did not. Each is pure."""

import errno
import ipaddress
from collections.abc import Iterator

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.units import ago, counted, duration, error, size, times
from wiresnake.diagnosis.verdict import Verdict, asked_in_vain, knock, recent, wrong_number
from wiresnake.text import host_of, split_endpoint


def rejected_sources(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.rejected_sources or not recent(report.rejected_source_age_ms):
        return None
    if ipaddress.ip_address(report.rejected_source or "::").is_link_local:
        return None  # A host's chatter about its links, such as router solicitations.
    assert facts.peer is not None
    return Verdict(
        "source_not_allowed",
        f"It sends packets from {report.rejected_source}, which is not among its allowed IPs"
        " here: they are dropped.",
        (
            counted(report.rejected_sources, "packet", "dropped", report.rejected_source_age_ms),
            f"Its allowed IPs here: {', '.join(facts.peer.allowed_ips) or 'none'}.",
        ),
        f"Add the address: `wiresnake set {facts.state.name} peer {facts.peer.public_key}"
        f" allowed-ips +{report.rejected_source}`; or give the peer one of its allowed IPs.",
    )


def talking(facts: Facts) -> Verdict | None:
    if not facts.talking:
        return None
    return Verdict(
        "talking",
        "It is talking: there is a session, and nothing is wrong with it that can be seen here.",
        tuple(_how_far(facts)),
        "If packets to it get no answer all the same, look at its end: its allowed IPs for this"
        " host, its routes, its firewall, IP forwarding. `wiresnake why` there sees the same for"
        " this host.",
        talking=True,
    )


def not_forwarded(facts: Facts) -> Verdict | None:
    """It is to reach more than this host, by the look of the firewall, and does not."""
    forwarding, name = facts.forwarding, facts.state.name
    if not facts.talking or not forwarding or not forwarding.masked or not forwarding.dropped_by:
        return None
    return Verdict(
        "not_forwarded",
        "It is talking, but what it sends to others than this host is dropped here.",
        (
            f"It is dropped by {', '.join(forwarding.dropped_by)}.",
            "There is a rule that would give it this host's address on the way out.",
        ),
        f"Let it pass: `iptables -I FORWARD -i {name} -j ACCEPT` and `iptables -I FORWARD -o {name}"
        " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, or the like in that table, and"
        " into PostUp. `wiresnake new server --nat` writes such rules.",
    )


def _how_far(facts: Facts) -> Iterator[str]:
    """What a peer that calls this host reaches besides it."""
    forwarding = facts.forwarding
    if forwarding is None:
        return
    if forwarding.off:
        versions = " and ".join(f"IPv{version}" for version in forwarding.off)
        yield (
            f"This host does not forward {versions} for it (net.ipv4.ip_forward,"
            " net.ipv6.conf.all.forwarding): it reaches this host alone, no other peer and no"
            " internet."
        )
    if forwarding.unread:
        yield "Whether the firewall here forwards its packets only root can see."
    elif forwarding.dropped_by:
        yield (
            "What it sends to others than this host is dropped here, by"
            f" {', '.join(forwarding.dropped_by)}."
        )
    elif not forwarding.off and not forwarding.masked:
        yield (
            "No rule here gives its packets this host's address (masquerade): what is behind this"
            " host must know the way back to it, which the internet does not."
        )


def psk_differs(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.bad_responses:
        return None
    assert facts.peer is not None
    ours = "has one" if facts.peer.preshared_key else "has none"
    return Verdict(
        "key_or_psk_differs",
        "It answers, but its answers do not open: the preshared key differs, or a key does.",
        (
            (
                f"{times(report.bad_responses, 'response')} did not open, the last"
                f" {ago(report.bad_response_age_ms)}, to {times(report.initiations, 'initiation')}."
            ),
            (
                "To answer at all it had to open our initiation, so both public keys are most"
                " probably right."
            ),
            f"This end {ours} for it.",
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
        "Its initiations are genuine but older than one it has sent before: its clock has been"
        " set back, and this end must take them for repetitions.",
        (counted(number, "initiation", "of an earlier time", last),),
        "Set the peer's clock right. If it once ran ahead: remove the peer here and add it"
        " again, which forgets the time.",
    )


def stranger(facts: Facts) -> Verdict | None:
    """Whoever calls from the peer's address is not whom the configuration expects."""
    device = facts.device
    if facts.peer is None or device is None:
        return None
    if _from_peer(facts, device.unknown_initiator_endpoint, device.unknown_initiator_age_ms):
        if facts.handshake_age is None:
            why = "the key that is set for it here is probably wrong"
        else:
            why = "it has a new key, or another device is behind the same router"
        where = "from there" if facts.endpoint else "here, and only this one has not called yet"
        return Verdict(
            "public_key_differs",
            f"A peer with another public key knocks {where}: {why}.",
            (knock(facts), f"Here its public key is {facts.peer.public_key}."),
            "Compare with `wiresnake show IFACE public-key` on the peer's end, and set that"
            " key here.",
        )
    if _from_peer(facts, device.invalid_mac1_endpoint, device.invalid_mac1_age_ms):
        return Verdict(
            "our_public_key_differs",
            "Somebody there calls another public key than this device's: it has the wrong key"
            " for this host.",
            (wrong_number(facts), f"The key of {facts.state.name} is {facts.state.public_key}."),
            "Set this key for this host on the peer's end.",
        )
    return None


def answers_lost(facts: Facts) -> Verdict | None:
    """It calls and we answer, but no session comes of it."""
    remedy = (
        "Compare PresharedKey on both ends; and see whether UDP from here reaches"
        f" {facts.endpoint}: a firewall, NAT or an asymmetric route on the way back."
    )
    says = (
        "Its initiations arrive and are right, but our responses do not reach it or do not open"
        " there."
    )
    report, peer = facts.report, facts.peer
    if report and report.unconfirmed_responses and recent(report.unconfirmed_response_age_ms):
        number = times(report.unconfirmed_responses, "response")
        return Verdict("answers_lost", says, (f"{number} sent, none was confirmed.",), remedy)
    # A device that tells nothing counts bytes of authentic messages only.
    if report is None and peer and peer.received and facts.handshake_age is None:
        counted = f"{size(peer.received)} of authentic messages came from it, and no session."
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
        f"The name in the file leads elsewhere by now: {lookup.name} is"
        f" {', '.join(lookup.addresses)}, but the device sends to {facts.endpoint}.",
        remedy=f"Take the new address: `wiresnake reload {facts.state.name}`.",
    )


def under_load(facts: Facts) -> Verdict | None:
    report = facts.report
    if not report or not report.cookie_replies or not report.initiations:
        return None
    return Verdict(
        "under_load",
        "It is under load: it answers initiations with cookies. The way and the keys are right.",
        (
            asked_in_vain(facts),
            counted(report.cookie_replies, "cookie", "came", report.cookie_reply_age_ms),
        ),
        "Wait; if it lasts, look for what floods the peer with handshakes.",
    )


def no_answer(facts: Facts) -> Verdict | None:
    """Nothing comes back, and the probe says how far datagrams get."""
    probe, to = facts.probe, facts.endpoint
    if not (asked := asked_in_vain(facts)) or _answered(facts):
        return None
    evidence = [asked]
    if facts.others_talk:
        evidence.append("Other peers talk: this host's network and the device's socket work.")
    assert facts.peer is not None
    if facts.handshake_age is None:
        or_key = ", or one end has a wrong key: PublicKey here is not its own, or it does not know"
        or_key += " this host's"
        and_key = (
            " Compare the keys: `wiresnake show IFACE public-key` on its end must print"
            f" {facts.peer.public_key}, and its peer for this host must be"
            f" {facts.state.public_key}."
        )
    else:
        or_key = and_key = ""
        evidence.append("It did talk before, so that the keys are right.")
        if facts.file_endpoint and not facts.lookup and facts.file_endpoint != to:
            evidence.append(f"In the file it is {facts.file_endpoint}: it came from {to} since.")
    if probe and probe.udp_error:
        evidence.append(f"An empty datagram to {to} brought back {error(probe.udp_error)}.")
    elif probe and probe.answers_ping:
        evidence.append(f"{host_of(to)} answers pings, or the router in front of it does.")
    if facts.handshake_age is not None and not facts.file_endpoint:
        # Phones sleep, and what answers a ping at their address is a router.
        return Verdict(
            "away",
            f"It does not answer at {to}, from where it talked last: it is off or asleep, or has"
            " another address by now.",
            tuple(evidence),
            "It is there again as soon as it calls. To be reached at any time it needs"
            " PersistentKeepalive = 25 on its end.",
        )
    if probe and probe.udp_error == errno.ECONNREFUSED:
        return Verdict(
            "nobody_listens",
            f"Its host says that nothing listens at {to}.",
            tuple(evidence),
            "Start WireGuard there, or correct the port: `wiresnake show IFACE listen-port`.",
        )
    if probe and probe.answers_ping:
        port = split_endpoint(to)[1]
        return Verdict(
            "udp_filtered",
            f"Its host is there, but nothing answers UDP at {to}: it is filtered on the way, or"
            f" WireGuard does not run there{or_key}.",
            tuple(evidence),
            f"{and_key} Let UDP port {port} in there: firewall, router, port forwarding.".strip(),
        )
    return Verdict(
        "no_answer",
        f"Nothing at all comes back from {to}: its host is off or at another address, or UDP is"
        f" filtered on the way{or_key}.",
        tuple(evidence),
        f"See whether its address and port are still right, and whether it runs.{and_key}",
    )


def idle(facts: Facts) -> Verdict | None:
    if facts.peer is None:
        return None
    before = facts.handshake_age
    says = (
        "Nothing is wrong that can be seen here: nothing was sent to it lately, nor came from it."
        if facts.report
        else "There is no session; whether packets wait for one cannot be seen on this device."
    )
    return Verdict(
        "idle",
        says,
        (f"The last handshake: {'never' if before is None else f'{duration(before)} ago'}.",),
        "Send it something, such as a ping, and ask again; PersistentKeepalive would do so.",
    )


def _answered(facts: Facts) -> bool:
    """Something came back to our last initiation, though no session of it."""
    report = facts.report
    if report is None or report.last_initiation_age_ms is None:
        return False
    ages = (report.bad_response_age_ms, report.cookie_reply_age_ms)
    return any(age is not None and age <= report.last_initiation_age_ms for age in ages)


def _from_peer(facts: Facts, endpoint: str | None, age_ms: int | None) -> bool:
    """Whether that came lately from where the peer should be; from anywhere if nobody knows, and
    every other peer's place is known.

    What was before the last handshake has been mended since.
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
