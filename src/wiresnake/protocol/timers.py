"""When to look at a peer again, and why (§6; kernel timers.c).

A deadline is no promise that something happens: it is the moment at which a peer looks at the
plane's stamps, and then acts, moves the deadline, or lets it go.
"""

from collections.abc import Iterator
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import NamedTuple


class Now(NamedTuple):
    """The time, in ns, by the two clocks that matter."""

    boot: int
    """CLOCK_BOOTTIME: it counts suspend and never steps. All ages and deadlines are of it."""
    wall: int
    """CLOCK_REALTIME since 1970: for TAI64N, and to tell the user when. Nothing else."""


class Timer(IntEnum):
    """The kinds of deadline; a peer has at most one of each."""

    RETRANSMIT = 0
    """rekey_timeout + jitter after an initiation: send another, 20 in all, then give up."""
    NEW_HANDSHAKE = 1
    """keepalive_timeout + rekey_timeout + jitter after data was sent and nothing came back."""
    KEEPALIVE = 2
    """keepalive_timeout after data was received and nothing was sent: say that we live."""
    PERSISTENT_KEEPALIVE = 3
    """The peer's interval after anything authenticated was sent or received."""
    ZERO_KEYS = 4
    """3 * reject_after_time after the last session: forget every key."""
    UNREPORTED = 5
    """A second after a subscriber was told that the peer roamed: what else there is to tell."""

    @property
    def reason(self) -> str:
        return self.name.lower().replace("_", " ")


class Timers:
    """The deadlines of all peers: a heap with lazy deletion. A peer without any costs nothing."""

    def __init__(self) -> None:
        self._deadlines: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def set(self, peer: int, timer: Timer, deadline: int) -> None:
        key = peer * len(Timer) + timer
        self._deadlines[key] = deadline
        heappush(self._heap, (deadline, key))
        # A peer that shakes hands 50 times a second must not fill the heap with what is dead.
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
        """The earliest deadline and its reason."""
        while self._heap:
            deadline, key = self._heap[0]
            if self._deadlines.get(key) == deadline:
                return deadline, Timer(key % len(Timer)).reason
            heappop(self._heap)
        return None

    def expired(self, now: int) -> Iterator[tuple[int, Timer]]:
        """Takes out what has passed, earliest first. A deadline set meanwhile may wait a turn."""
        for _ in range(len(self._heap)):
            if not self._heap or self._heap[0][0] > now:
                return
            deadline, key = heappop(self._heap)
            if self._deadlines.get(key) == deadline:
                del self._deadlines[key]
                yield key // len(Timer), Timer(key % len(Timer))
