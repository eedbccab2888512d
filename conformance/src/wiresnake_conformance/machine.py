"""Measures how late this machine is, so that a slow machine is not taken for a wrong device.

A process on each CPU sleeps for short times and does a small task each second. The excess time is
the lateness, which affects a device in the same way. It may come from other programs, a hypervisor
or a slow CPU.
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
"""Seconds that the task takes on an idle machine like those for which the checks' limits were set
(9 ms on an AMD EPYC of 2024)."""
CALM = 0.03
"""Lateness up to which every limit holds. The suite's own checks, side by side, cause as much."""
PIECES = 4
"""A device's answer consists of up to this many steps, each of which may be late."""
STRETCH = 6.0
"""The largest factor by which a limit for work, not for a timer, grows."""

_NAP = 0.02
_NAPS = 50
_TEXT = bytes(1 << 22)
_CPUS = 8
_SECONDS = 4096


@dataclass(frozen=True)
class Lateness:
    """The lateness during some period, in seconds."""

    worst: float = 0
    typical: float = 0
    """The median of the worst lateness in each second."""

    def explains(self, needs: float) -> bool:
        """Returns whether the machine may have caused a result `needs` seconds beyond a limit."""
        return self.worst >= CALM and PIECES * self.worst >= needs

    @property
    def leeway(self) -> float:
        """Seconds by which a measured time may exceed its limits.

        It is small, so that checks still find errors. Beyond it the check is repeated.
        """
        return min(2 * self.worst, 0.25) if self.worst >= CALM else 0

    @property
    def stretch(self) -> float:
        """The factor by which to allow more time for work than on an idle machine."""
        return min(1 + self.typical / TASK, STRETCH)


@dataclass
class Watch:
    """Watches the machine while it is open. Forked processes can read it, too."""

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
        """Returns the lateness from that moment of the monotonic clock until now."""
        now = time.monotonic()
        first, last = self._second(moment), self._second(now)
        first = max(first, last - _SECONDS + 2)
        each = [self._worst(second) for second in range(first, last + 1)]
        # A watcher that has not reported for long is late, too.
        beats = [self._read(number, _SECONDS) for number in range(len(self.cpus))]
        silent = max((now - max(beat, moment) for beat in beats if beat), default=0) - 2 * _NAP
        return Lateness(max(*each, silent, 0.0), median(each))

    def measure(self) -> Lateness:
        """Returns the lateness of the next second or so, including every CPU's task."""
        moment = time.monotonic()
        time.sleep((_NAPS + 10) * _NAP)
        return self.since(moment)

    def rest(self, most: float) -> None:
        """Waits until the machine is not late, for at most `most` seconds."""
        deadline = time.monotonic() + most
        while self.measure().worst >= CALM and time.monotonic() < deadline:
            pass

    def note(self, number: int, began: float, late: float) -> None:
        """Records what a watcher saw: something that began then ended this late."""
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
    """How much lateness of the machine a check allows."""

    watch: Watch | None = None
    """Without it, the machine counts as never late."""
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
        """Seconds by which to extend a wait for silence, as a late device may send later.

        It is 0 in a check that depends on time.
        """
        return 0 if self.timed else self.late.leeway

    def patience(self, seconds: float) -> float:
        """Returns how long to wait for something that must come: longer if the machine is late.

        In a check that depends on time it is not longer, as what comes later may be something else.
        """
        if self.timed:
            return seconds
        late = self.late
        return round(seconds + min(seconds * (late.stretch - 1), PIECES * late.worst, 2.0), 1)


_ROW = 16 * _SECONDS + 16
