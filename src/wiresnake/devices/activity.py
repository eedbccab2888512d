"""Computes rates and health of peers by polling any device."""

import math
from typing import Literal, NamedTuple

from wiresnake.protocol.constants import SESSION_SECONDS, SILENCE_SECONDS
from wiresnake.protocol.messages import KEEPALIVE_SIZE
from wiresnake.uapi.snapshot import InterfaceState, PeerState

Health = Literal["live", "idle", "silent", "no answer", "never"]
"""live: it has a session; idle: it has none and needs none; silent: it does not answer; no answer:
it has never answered; never: neither end has tried."""
_SMOOTH = 3.0
"""The time constant of rates, in seconds."""


class Activity(NamedTuple):
    """One peer at one reading."""

    peer: PeerState
    received_rate: float
    """Bytes per second."""
    sent_rate: float
    handshake_age: float | None
    health: Health

    @property
    def order(self) -> tuple[float, float]:
        """A sort key: the busiest first, in steps, so that rows do not jump; then the latest
        handshake."""
        rate = self.received_rate + self.sent_rate
        age = math.inf if self.handshake_age is None else self.handshake_age // SESSION_SECONDS
        return -math.floor(math.log2(rate + 1) / 2), age


class _Counted(NamedTuple):
    received: int
    sent: int
    received_rate: float
    sent_rate: float
    asked_since: float
    """When the first unanswered packet was sent; 0: none."""


class Meter:
    """Turns the counters of one interface into rates."""

    def __init__(self) -> None:
        self._before: dict[str, _Counted] = {}
        self._at = 0.0

    def look(self, state: InterfaceState, wall: float, now: float) -> list[Activity]:
        """Takes a reading. `wall` is in seconds since 1970, `now` on a monotonic clock."""
        passed = now - self._at
        share = 1 - math.exp(-passed / _SMOOTH) if self._at else 0.0
        counted: dict[str, _Counted] = {}
        found = []
        for peer in state.peers:
            before = self._before.get(peer.public_key)
            at = counted[peer.public_key] = _count(peer, before, passed, share, now)
            seconds, nanoseconds = peer.latest_handshake
            age = max(wall - seconds - nanoseconds / 1e9, 0.0) if seconds else None
            waits = now - at.asked_since if at.asked_since else 0.0
            found.append(
                Activity(peer, at.received_rate, at.sent_rate, age, _health(peer, age, waits))
            )
        self._before, self._at = counted, now
        return found


def _count(
    peer: PeerState, before: _Counted | None, passed: float, share: float, now: float
) -> _Counted:
    if before is None or not passed:
        return _Counted(peer.received, peer.sent, 0.0, 0.0, 0.0)
    # A smaller counter has started again.
    received, sent = max(peer.received - before.received, 0), max(peer.sent - before.sent, 0)
    asked_since = 0.0 if received else before.asked_since or (now if sent > KEEPALIVE_SIZE else 0.0)
    return _Counted(
        peer.received,
        peer.sent,
        before.received_rate + share * (received / passed - before.received_rate),
        before.sent_rate + share * (sent / passed - before.sent_rate),
        asked_since,
    )


def _health(peer: PeerState, age: float | None, waits: float) -> Health:
    if age is None:
        return "no answer" if peer.sent else "never"
    if waits > SILENCE_SECONDS:
        return "silent"
    return "live" if age < SESSION_SECONDS else "idle"
