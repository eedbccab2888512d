"""A slow machine is not taken for a wrong device, nor a wrong device for a slow machine."""

import mmap
import multiprocessing
import os
import time

import pytest
from wiresnake_conformance import machine, namespaces, run, testbed
from wiresnake_conformance.device import NO_ANSWER
from wiresnake_conformance.machine import CALM, PIECES, STRETCH, TASK, Allowance, Lateness, Watch
from wiresnake_conformance.run import REST, TRIES, Outcome, settle
from wiresnake_conformance.subject import Subject
from wiresnake_conformance.verdict import (
    CERTAIN,
    UNASKED,
    Check,
    Differs,
    Failed,
    Inconclusive,
    Log,
    Result,
)

SLOW, FREE = 0.2, 0.001


class Watched(Watch):
    """A machine with a given lateness."""

    def __init__(self, late: float) -> None:
        self.late = late

    def since(self, moment: float) -> Lateness:
        return Lateness(self.late, self.late)

    def rest(self, most: float) -> None:
        assert most == REST


class Fine(testbed.Testbed):
    """A device that is always alive."""

    def alive(self) -> bool:
        return True

    def last_words(self) -> str:
        return ""


def fine(late: float) -> Fine:
    return Fine(Subject("a", "daemon"), Log(), Allowance(Watched(late)))


def outcome(needs: float, late: float, result: Result = Result.DIFFERS) -> Outcome:
    return Outcome("a", 62, "retries", result, "why", 1, late=late, needs=needs)


def test_a_busy_cpu_is_late_and_the_watch_sees_it() -> None:
    """Four processes share its CPU, so that the watch's tasks take several times as long."""
    cpu = min(os.sched_getaffinity(0))
    with Watch([cpu]) as watch:
        began = time.monotonic()
        busy = [multiprocessing.Process(target=_spin, args=(cpu,), daemon=True) for _ in range(4)]
        for one in busy:
            one.start()
        time.sleep(4)
        loaded = watch.since(began)
        for one in busy:
            one.kill()
            one.join()
    assert loaded.worst > TASK
    assert loaded.stretch > 1.5


def _spin(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def test_the_watch_keeps_the_worst_of_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Watch([0, 1], start=100.0)
    watch.table = mmap.mmap(-1, 2 * machine._ROW)
    for number, moment, late in ((0, 100.5, 0.1), (1, 100.6, 0.3), (0, 101.5, 0.02), (1, 101.5, 0)):
        now = moment
        watch.note(number, moment, late)
    seen = watch.since(100)
    assert (seen.worst, round(seen.typical, 3)) == (0.3, 0.16)
    assert watch.since(101.2).worst == 0.02
    now = 104.5
    watch.note(0, 102.1, 2.4)  # it slept through these seconds, each of which was as bad
    watch.note(1, 104.4, 0)
    assert watch.since(103).worst == 2.4
    now = 106.5  # nobody has been heard of for two seconds
    assert 1.9 < watch.since(106).worst + 1.5 < 2.1
    now = 100.5 + machine._SECONDS  # the table begins again, and its content is old
    watch.note(0, now, 0.01)
    watch.note(1, now, 0)
    assert watch.since(now - 0.2).worst == 0.01


def test_only_so_much_is_explained() -> None:
    """An idle machine explains nothing; a slow one explains what its lateness can cause."""
    assert not Lateness(CALM / 2).explains(0)
    assert Lateness(SLOW).explains(PIECES * SLOW)
    assert not Lateness(SLOW).explains(PIECES * SLOW + 0.01)
    assert not Lateness(1e6).explains(CERTAIN)


def test_limits_widen_with_the_machine_and_only_a_little() -> None:
    free, slow, frozen = Lateness(FREE, FREE), Lateness(0.1, 0.02), Lateness(9, 9)
    assert (free.leeway, frozen.leeway) == (0, 0.25)
    assert slow.leeway == pytest.approx(0.2)
    assert (slow.stretch, frozen.stretch) == (3, STRETCH)
    assert Allowance(Watched(FREE)).patience(4) == 4
    assert Allowance(Watched(9)).patience(4) == 6
    timed = Allowance(Watched(9), timed=True)  # where the next timer may be a second away
    assert timed.patience(4) == 4


def test_a_time_beyond_its_limits() -> None:
    """A value just outside its limits is wrong on an idle machine, and passes with a note on a late
    one. Far outside it is wrong there, too."""
    with pytest.raises(Differs) as found:
        fine(FREE).expect_between(5.9, 5, 5.8, "after")
    assert found.value.needs == pytest.approx(0.1)
    late = fine(SLOW)
    late.expect_between(5.9, 5, 5.8, "after")
    late.expect_between(4.9, 5, 5.8, "after")
    late.expect_between(5.4, 5, 5.8, "after")
    assert len(late.notes) == 2
    assert "passed, as the machine was 0.200 s late" in late.notes[0]
    with pytest.raises(Differs) as found:
        late.expect_between(8, 5, 5.8, "after")
    assert not Lateness(SLOW).explains(found.value.needs or 0)


@pytest.mark.parametrize(
    "error, timed, result, needs",
    [
        (None, True, Result.PASS, CERTAIN),
        (Differs("nothing came"), False, Result.DIFFERS, 0.5),
        (Differs("an answer", needs=UNASKED), False, Result.DIFFERS, UNASKED),
        (Differs("an answer", needs=UNASKED), True, Result.DIFFERS, 0.5),
        (Differs("a changed packet", needs=CERTAIN), True, Result.DIFFERS, CERTAIN),
        (Differs("3 s late", needs=3), True, Result.DIFFERS, 3),
        (Failed("no answer", needs=NO_ANSWER), False, Result.FAILED, NO_ANSWER),
        (Failed("exit code 1", needs=CERTAIN), True, Result.FAILED, CERTAIN),
        (Inconclusive("busy"), True, Result.INCONCLUSIVE, 0),
    ],
)
def test_each_verdict_knows_what_would_excuse_it(
    error: Exception | None, timed: bool, result: Result, needs: float
) -> None:
    def function(testbed: testbed.Testbed) -> None:
        if error:
            raise error

    check = Check(62, function, 1, False, True, 0.5, timed)
    found, _, needed = run._verdict(check, fine(FREE))
    assert (found, needed) == (result, needs)


def test_what_the_machine_may_have_caused_is_tried_again_and_then_left_open() -> None:
    first = outcome(0.5, SLOW)
    assert settle(first, []) is None
    assert settle(first, [first]) is None
    last = settle(first, [first, first])
    assert last is not None
    assert last.result is Result.INCONCLUSIVE
    assert last.reason == "the machine is too slow, 0.200 s late; seen: differs: why"
    assert len(last.notes) == TRIES - 1
    assert last.notes[0] == "try 1: differs: why; the machine was 0.200 s late"


@pytest.mark.parametrize(
    "second, result",
    [
        (outcome(CERTAIN, SLOW, Result.PASS), Result.PASS),
        (outcome(0.5, FREE), Result.DIFFERS),
        (outcome(3, SLOW), Result.DIFFERS),
        (outcome(CERTAIN, SLOW), Result.DIFFERS),
    ],
)
def test_the_first_try_without_an_excuse_stands(second: Outcome, result: Result) -> None:
    found = settle(second, [outcome(0.5, SLOW)])
    assert found is not None
    assert found.result is result
    assert len(found.notes) == 1


def test_a_device_that_is_wrong_differs_at_once_on_a_free_machine() -> None:
    for needs in (0, 0.5, CERTAIN):
        assert settle(outcome(needs, FREE), []) == outcome(needs, FREE)


def test_what_the_check_itself_could_not_tell_is_tried_again() -> None:
    busy = outcome(0, FREE, Result.INCONCLUSIVE)
    assert settle(busy, []) is None
    last = settle(busy, [busy] * (TRIES - 1))
    assert last is not None
    assert last.result is Result.INCONCLUSIVE


def flaky(testbed: testbed.Testbed) -> None:
    """Differs on its first try."""


@pytest.mark.parametrize("late, results", [(SLOW, [Result.PASS]), (FREE, [Result.DIFFERS])])
def test_a_run_repeats_with_a_bound(
    monkeypatch: pytest.MonkeyPatch, late: float, results: list[Result]
) -> None:
    """The first try of each differs, the second passes. On a late machine the result is a pass with
    a note, on an idle one it is the first try."""
    started: list[run._Job] = []

    def judge(job: run._Job, watch: Watch) -> Outcome:
        if job.tries:
            return outcome(CERTAIN, 0, Result.PASS)
        return outcome(0.5, 0)

    def start(job: run._Job, watch: Watch) -> None:
        started.append(job)
        _real_start(job, watch)

    _real_start = run._start
    monkeypatch.setattr(run, "_judge", judge)
    monkeypatch.setattr(run, "_start", start)
    monkeypatch.setattr(namespaces, "unshare", lambda flags: None)  # no root is needed
    check = Check(62, flaky, 1, False, True, 0.5, True)
    told: list[Outcome] = []
    watch = Watched(late)
    outcomes = run.run([check], [Subject("a", "daemon")], told.append, watch)
    assert [one.result for one in outcomes] == results
    assert told == outcomes
    assert len(started) == (2 if late == SLOW else 1)
    assert outcomes[0].late == late
