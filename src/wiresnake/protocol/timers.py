"""The deadlines of all peers (§6; kernel timers.c).

At a deadline a peer reads the plane's stamps. Then it acts, sets a later deadline, or does nothing.
"""

from collections.abc import Iterator
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple


class Now(NamedTuple):
    """The time in ns, by two clocks."""

    boot: int
    """CLOCK_BOOTTIME, which counts suspend and never steps. For all ages and deadlines."""
    wall: int
    """CLOCK_REALTIME, since 1970. Only for TAI64N and for times shown to the user."""


class Timer(IntEnum):
    """The kinds of deadline; a peer has at most one of each."""

    RETRANSMIT = 0
    """rekey_timeout + jitter after an initiation: send another, 20 in all, then give up."""
    NEW_HANDSHAKE = 1
    """keepalive_timeout + rekey_timeout + jitter after data was sent and nothing came back."""
    KEEPALIVE = 2
    """keepalive_timeout after data was received and nothing was sent: send a keepalive."""
    PERSISTENT_KEEPALIVE = 3
    """The peer's interval after the last authenticated message sent or received."""
    ZERO_KEYS = 4
    """3 * reject_after_time after the last session was made: wipe all keys."""
    UNREPORTED = 5
    """A second after an event reported that the peer roamed: report what has happened since."""

    @property
    def reason(self) -> str:
        return self.name.lower().replace("_", " ")


class Timers:
    """The deadlines of all peers, in a heap with lazy deletion."""

    def __init__(self) -> None:
        self._deadlines: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def set(self, peer: int, timer: Timer, deadline: int) -> None:
        key = peer * len(Timer) + timer
        self._deadlines[key] = deadline
        heappush(self._heap, (deadline, key))
        # 50 handshakes a second must not fill the heap with deadlines that were replaced.
        if len(self._heap) > 2 * len(self._deadlines) + 64:
            self._heap = [(deadline, key) for key, deadline in self._deadlines.items()]
            heapify(self._heap)

    def is_set(self, peer: int, timer: Timer) -> bool:
        return peer * len(Timer) + timer in self._deadlines

    def cancel(self, peer: int, timer: Timer) -> None:
        self._deadlines.pop(peer * len(Timer) + timer, None)

    def cancel_all(self, peer: int) -> None:
        for timer in Timer:
            self.cancel(peer, timer)

    def next(self) -> tuple[int, str] | None:
        """Returns the earliest deadline and its reason."""
        while self._heap:
            deadline, key = self._heap[0]
            if self._deadlines.get(key) == deadline:
                return deadline, Timer(key % len(Timer)).reason
            heappop(self._heap)
        return None

    def expired(self, now: int) -> Iterator[tuple[int, Timer]]:
        """Removes and yields passed deadlines, earliest first. New ones may wait for the next."""
        for _ in range(len(self._heap)):
            if not self._heap or self._heap[0][0] > now:
                return
            deadline, key = heappop(self._heap)
            if self._deadlines.get(key) == deadline:
                del self._deadlines[key]
                yield key // len(Timer), Timer(key % len(Timer))
