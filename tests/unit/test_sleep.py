"""What happens once the machine is awake again; that it sleeps is played."""

import asyncio
import os

import pytest

from wiresnake.linux import sleep


def test_a_sleep_is_told_from_a_clock_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep, woken = [5_000_000_000], []
    monkeypatch.setattr(sleep, "slept", lambda: asleep[0])

    async def main() -> None:
        watch = sleep.SleepWatch(lambda: woken.append(asleep[0]))
        try:
            kind = os.readlink(f"/proc/self/fd/{watch._timer}")
            assert kind == "anon_inode:[timerfd]"
            with os.fdopen(os.open(f"/proc/self/fdinfo/{watch._timer}", os.O_RDONLY)) as file:
                text = file.read().split()
            # Of CLOCK_REALTIME, absolute and cancelled as that is set.
            assert (text[text.index("clockid:") + 1], text[text.index("flags:", 5) + 1]) == (
                "0",
                "03",
            )
            for more, count in ((0, 0), (400_000_000, 0), (1_000_000_000, 1), (0, 1)):
                asleep[0] += more
                watch._look()
                assert len(woken) == count, more
        finally:
            watch.close()

    asyncio.run(main())


def test_the_clocks_of_this_machine_agree() -> None:
    assert abs(sleep.slept() - sleep.slept()) < sleep._NAP
