"""Notices that the machine slept, once it is awake again."""

import asyncio
import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Callable

# <sys/timerfd.h>
_CLOEXEC, _NONBLOCK = 0o2000000, 0o4000
_ABSTIME, _CANCEL_ON_SET = 1, 2
_LATE = min(9_000_000_000, (1 << (8 * struct.calcsize("l") - 1)) - 1)
"""A time in the far future, in seconds since 1970."""
_NAP = 500_000_000
"""The shortest sleep that counts, in ns."""


class SleepWatch:
    """Calls `on_wake` after the machine slept. Needs a running loop.

    The kernel cancels a timer of the wall clock as the machine wakes up (timerfd_resume), and when
    somebody sets that clock. The difference between the clocks that do and do not count sleep tells
    these apart. Without such timers nothing is noticed.
    """

    def __init__(self, on_wake: Callable[[], None]) -> None:
        self._on_wake = on_wake
        self._slept = slept()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer: int = self._libc.timerfd_create(time.CLOCK_REALTIME, _CLOEXEC | _NONBLOCK)
        self._loop = asyncio.get_running_loop()
        if self._timer >= 0:
            self._loop.add_reader(self._timer, self._look)
            self._wait()

    def close(self) -> None:
        if self._timer >= 0:
            self._loop.remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1

    def _wait(self) -> None:
        late = ctypes.create_string_buffer(struct.pack("llll", 0, 0, _LATE, 0))
        self._libc.timerfd_settime(self._timer, _ABSTIME | _CANCEL_ON_SET, late, None)

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # ECANCELED is what we wait for.
            os.read(self._timer, 8)
        self._wait()
        before, self._slept = self._slept, slept()
        if self._slept - before >= _NAP:
            self._on_wake()


def slept() -> int:
    """Returns for how many ns the machine has slept since it started."""
    boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boot - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
