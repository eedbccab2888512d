"""How late this machine is: what is slow must not read as wrong.

A process on each CPU sleeps for moments and does a small task each second. What these take beyond
their time is the lateness that a device meets, too, whether others use the CPU, a hypervisor has
taken it away or it is a slow one.
"""

import contextlib
import mmap
import os
import signal
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from statistics import median
from typing import Self

from . import namespaces

TASK = 0.01
"""Seconds that the task takes on a machine like those that the checks' limits were tried on, when
it has nothing else to do (9 ms on an AMD EPYC of 2024)."""
CALM = 0.03
"""Lateness up to which every limit holds: the suite's own checks, side by side, cause as much."""
PIECES = 4
"""What a device does in answer is done in up to so many pieces, each of which may be late."""
STRETCH = 6.0
"""The most by which a limit for work, not for a timer, grows."""

_NAP = 0.02
_NAPS = 50
_TEXT = bytes(1 << 22)
_CPUS = 8
_SECONDS = 4096


@dataclass(frozen=True)
class Lateness:
    """Of some period, in seconds."""

    worst: float = 0
    typical: float = 0
    """The median of the worst of each second."""

    def explains(self, needs: float) -> bool:
        """Whether what is `needs` seconds beyond its limit may be so by the machine's fault."""
        return self.worst >= CALM and PIECES * self.worst >= needs

    @property
    def leeway(self) -> float:
        """Seconds by which a measured time may be beyond its limits. It is little, so that what a
        check is to find it still finds; beyond it the check is repeated."""
        return min(2 * self.worst, 0.25) if self.worst >= CALM else 0

    @property
    def stretch(self) -> float:
        """By how much more time to allow for work than on a free machine."""
        return min(1 + self.typical / TASK, STRETCH)


@dataclass
class Watch:
    """Watches the machine while it is open, also for the processes that are forked meanwhile."""

    cpus: Sequence[int] = field(default_factory=lambda: sorted(os.sched_getaffinity(0))[:_CPUS])
    start: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        self.table = mmap.mmap(-1, len(self.cpus) * _ROW)
        self.children = [self._fork(number, cpu) for number, cpu in enumerate(self.cpus)]
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def since(self, moment: float) -> Lateness:
        """From that moment of the monotonic clock until now."""
        now = time.monotonic()
        first, last = self._second(moment), self._second(now)
        first = max(first, last - _SECONDS + 2)
        each = [self._worst(second) for second in range(first, last + 1)]
        # Who has not been heard of for long is late, too.
        beats = [self._read(number, _SECONDS) for number in range(len(self.cpus))]
        silent = max((now - max(beat, moment) for beat in beats if beat), default=0) - 2 * _NAP
        return Lateness(max(*each, silent, 0.0), median(each))

    def measure(self) -> Lateness:
        """Of the next second or so, with every CPU's task in it."""
        moment = time.monotonic()
        time.sleep((_NAPS + 10) * _NAP)
        return self.since(moment)

    def rest(self, most: float) -> None:
        """Waits until the machine is not late, for so many seconds at most."""
        deadline = time.monotonic() + most
        while self.measure().worst >= CALM and time.monotonic() < deadline:
            pass

    def note(self, number: int, began: float, late: float) -> None:
        """What a watcher has seen: something that began then ended so late."""
        now = time.monotonic()
        for second in range(self._second(began), self._second(now) + 1):
            at = second % _SECONDS
            of, worst = struct.unpack_from("dd", self.table, number * _ROW + at * 16)
            worst = max(worst, late) if of == second else late
            struct.pack_into("dd", self.table, number * _ROW + at * 16, second, worst)
        struct.pack_into("d", self.table, number * _ROW + _SECONDS * 16, now)

    def _second(self, moment: float) -> int:
        return max(int(moment - self.start), 0)

    def _worst(self, second: int) -> float:
        pairs = [
            struct.unpack_from("dd", self.table, number * _ROW + second % _SECONDS * 16)
            for number in range(len(self.cpus))
        ]
        return max((worst for of, worst in pairs if of == second), default=0.0)

    def _read(self, number: int, at: int) -> float:
        return float(struct.unpack_from("d", self.table, number * _ROW + at * 16)[0])

    def _fork(self, number: int, cpu: int) -> int:
        child = os.fork()
        if child:
            return child
        try:
            namespaces.die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with contextlib.suppress(OSError):  # it may have been taken away
                os.sched_setaffinity(0, {cpu})
            self._watch(number)
        finally:
            os._exit(0)

    def _watch(self, number: int) -> None:
        while True:
            began = time.monotonic()
            blake2s(_TEXT)
            self.note(number, began, max(time.monotonic() - began - TASK, 0))
            for _ in range(_NAPS):
                began = time.monotonic()
                time.sleep(_NAP)
                self.note(number, began, max(time.monotonic() - began - _NAP, 0))


@dataclass
class Allowance:
    """What a check allows the machine for being late."""

    watch: Watch | None = None
    """Knows how late the machine is. Without it, it never is."""
    start: float = 0
    """When the check began, by the monotonic clock."""
    timed: bool = False
    """Whether the check depends on when things happen."""

    @property
    def late(self) -> Lateness:
        """How late the machine has been since the check began."""
        return self.watch.since(self.start) if self.watch else Lateness()

    @property
    def leeway(self) -> float:
        """Seconds by which silence is to last longer, so that a late machine has more time to be
        wrong. In a check that depends on time there are none."""
        return 0 if self.timed else self.late.leeway

    def patience(self, seconds: float) -> float:
        """So many seconds, or some more where the machine is late: for what must come at all. In a
        check that depends on time it is no more, as what comes then may be another thing."""
        if self.timed:
            return seconds
        late = self.late
        return round(seconds + min(seconds * (late.stretch - 1), PIECES * late.worst, 2.0), 1)


_ROW = 16 * _SECONDS + 16
