"""Verdicts, which rules return, and sentences that several rules share."""

from collections.abc import Callable
from dataclasses import dataclass

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.units import ago, duration, size, times
from wiresnake.protocol.constants import SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """The finding of a rule, in sentences that end with a full stop."""

    reason: str
    """An identifier for scripts."""
    says: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    """What to do."""
    talking: bool = False


Rule = Callable[[Facts], Verdict | None]


def recent(age_ms: int | None) -> bool:
    """Whether it happened within the age of a session."""
    return age_ms is not None and age_ms <= SESSION_SECONDS * 1000


def unanswered(facts: Facts) -> str:
    """Says how often, and since when, we sent initiations without success; empty if we did not."""
    report, peer = facts.report, facts.peer
    if report is not None:
        if not report.initiations:
            return ""
        number = times(report.initiations, "initiation")
        since = ago(report.first_initiation_age_ms)
        return f"{number} sent, the first {since}, the last {ago(report.last_initiation_age_ms)}."
    # A device without reports: before the first session it sends only initiations.
    if peer and peer.sent and facts.handshake_age is None:
        return f"{size(peer.sent)} sent without an answer, about {peer.sent // 148} initiations."
    if facts.handshake_age is not None and facts.probe and facts.probe.udp_error:
        return f"The last handshake was {duration(facts.handshake_age)} ago."
    return ""


def unknown_initiator(facts: Facts) -> str:
    """Describes initiations by keys that belong to no peer."""
    assert facts.device is not None
    device = facts.device
    return (
        f"Unknown keys sent {times(device.unknown_initiations, 'handshake initiation')}, the last"
        f" {ago(device.unknown_initiator_age_ms)} by {device.unknown_initiator} from"
        f" {device.unknown_initiator_endpoint}."
    )


def wrong_mac1(facts: Facts) -> str:
    """Describes handshake messages that were meant for another public key."""
    assert facts.device is not None
    device = facts.device
    return (
        f"{times(device.invalid_mac1, 'handshake message')} arrived for a public key other than"
        f" this device's, the last {ago(device.invalid_mac1_age_ms)} from"
        f" {device.invalid_mac1_endpoint}."
    )
