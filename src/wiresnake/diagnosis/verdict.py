"""What rules return, and what several of them say."""

from collections.abc import Callable
from dataclasses import dataclass

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.units import ago, duration, size, times
from wiresnake.protocol.constants import SESSION_SECONDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule found, in sentences that end with a full stop."""

    reason: str
    """One word, for scripts."""
    says: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""
    """What to do."""
    talking: bool = False


Rule = Callable[[Facts], Verdict | None]


def recent(age_ms: int | None) -> bool:
    """Whether it happened within the age of a session."""
    return age_ms is not None and age_ms <= SESSION_SECONDS * 1000


def asked_in_vain(facts: Facts) -> str:
    """How often and since when we asked in vain; empty if we did not."""
    report, peer = facts.report, facts.peer
    if report is not None:
        if not report.initiations:
            return ""
        number = times(report.initiations, "initiation")
        since = ago(report.first_initiation_age_ms)
        return f"{number} sent, the first {since}, the last {ago(report.last_initiation_age_ms)}."
    # A device that tells nothing: before the first session all that it sends are initiations.
    if peer and peer.sent and facts.handshake_age is None:
        return f"{size(peer.sent)} sent without an answer, about {peer.sent // 148} initiations."
    if facts.handshake_age is not None and facts.probe and facts.probe.udp_error:
        return f"The last handshake was {duration(facts.handshake_age)} ago."
    return ""


def unknown_initiator(facts: Facts) -> str:
    assert facts.device is not None
    device = facts.device
    return (
        f"{device.unknown_initiator} knocks from {device.unknown_initiator_endpoint}:"
        f" {times(device.unknown_initiations, 'initiation')} by keys that are no peer's, the last"
        f" {ago(device.unknown_initiator_age_ms)}."
    )


def wrong_mac1(facts: Facts) -> str:
    assert facts.device is not None
    device = facts.device
    return (
        f"{times(device.invalid_mac1, 'handshake message')} for another key than this device's, the"
        f" last {ago(device.invalid_mac1_age_ms)} from {device.invalid_mac1_endpoint}."
    )
