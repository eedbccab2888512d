"""Finds the events of the kernel's devices and of other daemons, which report none, by polling.

What polling cannot see is missing: who started a handshake, and what happened between two readings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from wiresnake import events
from wiresnake.events import Ended, PeerEvent
from wiresnake.protocol.constants import SECOND, SESSION_SECONDS, SILENCE_SECONDS
from wiresnake.protocol.messages import KEEPALIVE_SIZE
from wiresnake.uapi.events import Reported
from wiresnake.uapi.snapshot import InterfaceState, PeerState

_SESSION = SESSION_SECONDS * SECOND
KEYS = 3 * _SESSION
"""Seconds after which keys are wiped: a peer without a new handshake is then disconnected."""


@dataclass(slots=True)
class _Seen:
    """A peer at the last reading, and what follows from all readings."""

    peer: PeerState
    shaken: int = 0
    """When its session was made, on the clock of `boot`. Without `connected` it has none."""
    connected: bool = False
    unanswered_since: int = 0
    told: bool = False
    """Whether it was reported that the peer does not answer."""


class Watcher:
    """Compares each reading with the previous one. The first one yields no events."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._seen: dict[str, _Seen] | None = None

    def look(self, state: InterfaceState | None, up: bool, wall: int, boot: int) -> list[Reported]:
        """Yields the events since the last reading. `state` None is an interface that has gone;
        `wall` is ns since 1970, `boot` a clock that counts time asleep."""
        before = self._seen
        self._seen = after = {}
        found: list[PeerEvent] = []
        for peer in state.peers if state else ():
            after[peer.public_key] = seen = _Seen(peer)
            age = max(wall - _handshake(peer), 0) if _handshake(peer) else KEYS
            if before is None:
                seen.connected, seen.shaken = up and age < KEYS, boot - age
            else:
                new = _Seen(peer._replace(latest_handshake=(0, 0), received=0, sent=0))
                old = before.pop(peer.public_key, new)
                found += self._compare(old, seen, up, boot, age)
        for seen in (before or {}).values():
            if seen.connected:
                key, endpoint = seen.peer.public_key, seen.peer.endpoint
                found.append(events.Disconnected(key, endpoint, "removed" if state else "down"))
        return [Reported(wall, self._interface, event) for event in found]

    def connected(self) -> list[PeerState]:
        return [seen.peer for seen in (self._seen or {}).values() if seen.connected]

    def _compare(
        self, old: _Seen, seen: _Seen, up: bool, boot: int, age: int
    ) -> Iterator[PeerEvent]:
        peer, before = seen.peer, old.peer
        key, endpoint = peer.public_key, peer.endpoint
        if peer.received == before.received:
            seen.unanswered_since, seen.told = old.unanswered_since, old.told
            if peer.sent > before.sent + KEEPALIVE_SIZE and not seen.unanswered_since:
                seen.unanswered_since = boot
        seen.connected, seen.shaken = old.connected, old.shaken
        if _handshake(peer) and peer.latest_handshake != before.latest_handshake:
            yield (events.Rekeyed if old.connected else events.HandshakeCompleted)(key, endpoint)
            seen.connected, seen.shaken = True, boot - age
            if not old.connected:
                yield events.Connected(key, endpoint)
        if before.endpoint and endpoint and before.endpoint != endpoint:
            yield events.Roamed(key, endpoint, before.endpoint)
        silent = seen.unanswered_since and boot - seen.unanswered_since > SILENCE_SECONDS * SECOND
        if silent and not seen.told:
            seen.told = True
            yield events.Unreachable(key, endpoint, "no_answer")
        if not seen.connected:
            return
        passed = boot - seen.shaken
        reason: Ended = "down" if not up else "expired" if passed >= KEYS else "no_answer"
        if reason != "no_answer" or (silent and passed >= _SESSION):
            seen.connected = False
            yield events.Disconnected(key, endpoint, reason)


def _handshake(peer: PeerState) -> int:
    seconds, nanoseconds = peer.latest_handshake
    return seconds * SECOND + nanoseconds
