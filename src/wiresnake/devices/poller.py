"""The events of devices that tell none, the kernel's and other daemons', by looking at them.

What a look cannot see is missing: who began a handshake, and what came and went between two looks.
"""

from dataclasses import dataclass
from typing import Protocol

from wiresnake.uapi.events import Detail, Event, Kind
from wiresnake.uapi.snapshot import InterfaceState, PeerState

SECOND = 10**9
SESSION = 180 * SECOND
"""A session carries nothing once it is as old."""
KEYS = 3 * SESSION
"""Then its keys are wiped: whoever has not talked since is disconnected."""
KEEPALIVE_SIZE = 32
"""Nobody answers a keepalive."""
SILENCE = 15 * SECOND
"""A peer that lives answers within KEEPALIVE_TIMEOUT and REKEY_TIMEOUT."""


@dataclass(slots=True)
class _Seen:
    """A peer at the last look, and what follows from all looks."""

    peer: PeerState
    shaken: int = 0
    """When its session was made, on the clock of `boot`; it has none if not `connected`."""
    connected: bool = False
    unanswered_since: int = 0
    told: bool = False
    """That it does not answer."""


class _Tell(Protocol):
    def __call__(self, peer: PeerState, kind: Kind, **details: Detail) -> None: ...


class Watcher:
    """Compares each look with the one before. The first one finds what is there: no event."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._seen: dict[str, _Seen] | None = None

    def look(self, state: InterfaceState | None, up: bool, wall: int, boot: int) -> list[Event]:
        """What has happened by now. None is an interface that has gone; `wall` is ns since 1970,
        `boot` any clock that counts time asleep."""
        before = self._seen
        self._seen = after = {}
        events: list[Event] = []

        def tell(peer: PeerState, kind: Kind, **details: Detail) -> None:
            events.append(Event(wall, self._interface, peer.public_key, kind, details))

        for peer in state.peers if state else ():
            after[peer.public_key] = seen = _Seen(peer)
            age = max(wall - _handshake(peer), 0) if _handshake(peer) else KEYS
            if before is None:
                seen.connected, seen.shaken = up and age < KEYS, boot - age
            else:
                new = _Seen(peer._replace(latest_handshake=(0, 0), received=0, sent=0))
                old = before.pop(peer.public_key, new)
                self._compare(old, seen, up, boot, age, tell)
        for seen in (before or {}).values():
            if seen.connected:
                reason = "removed" if state else "down"
                tell(seen.peer, "disconnected", reason=reason, endpoint=seen.peer.endpoint or "")
        return events

    def connected(self) -> list[PeerState]:
        return [seen.peer for seen in (self._seen or {}).values() if seen.connected]

    def _compare(self, old: _Seen, seen: _Seen, up: bool, boot: int, age: int, tell: _Tell) -> None:
        peer, before = seen.peer, old.peer
        endpoint = peer.endpoint or ""
        if peer.received == before.received:
            seen.unanswered_since, seen.told = old.unanswered_since, old.told
            if peer.sent > before.sent + KEEPALIVE_SIZE and not seen.unanswered_since:
                seen.unanswered_since = boot
        seen.connected, seen.shaken = old.connected, old.shaken
        if _handshake(peer) and peer.latest_handshake != before.latest_handshake:
            tell(peer, "rekey" if old.connected else "handshake", endpoint=endpoint)
            seen.connected, seen.shaken = True, boot - age
            if not old.connected:
                tell(peer, "connected", endpoint=endpoint)
        if before.endpoint and endpoint and before.endpoint != endpoint:
            tell(peer, "roamed", endpoint=endpoint, old_endpoint=before.endpoint)
        silent = seen.unanswered_since and boot - seen.unanswered_since > SILENCE
        if silent and not seen.told:
            seen.told = True
            tell(peer, "unreachable", reason="no_answer", endpoint=endpoint)
        if not seen.connected:
            return
        passed = boot - seen.shaken
        reason = "down" if not up else "expired" if passed >= KEYS else "no_answer"
        if reason != "no_answer" or (silent and passed >= SESSION):
            seen.connected = False
            tell(peer, "disconnected", reason=reason, endpoint=endpoint)


def _handshake(peer: PeerState) -> int:
    seconds, nanoseconds = peer.latest_handshake
    return seconds * SECOND + nanoseconds
