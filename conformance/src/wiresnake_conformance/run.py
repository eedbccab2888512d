"""Runs the checks: each in a process of its own, most of them at the same time.

Such a process is the first of a process namespace, so when it ends, for whatever reason, the
device and all else that it started end with it.
"""

import contextlib
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from subprocess import TimeoutExpired

from . import namespaces
from .device import NO_ANSWER
from .machine import Lateness, Watch
from .oracle import Unopened
from .subject import Subject
from .testbed import Testbed, open_testbed
from .verdict import (
    CERTAIN,
    UNASKED,
    Check,
    Differs,
    Doubtable,
    Failed,
    Inconclusive,
    Log,
    NotApplicable,
    Result,
    printable,
)

EVIDENCE_LINES = 60
WAITING = 12.0
"""Seconds: a longer check mostly waits, so many of them can run at once."""
TRIES = 3
"""How often a check runs at most if a late machine may be the cause of its result."""
REST = 20.0
"""Seconds that another try waits until the machine is not late."""


@dataclass
class Outcome:
    """The result of one check on one implementation."""

    subject: str
    number: int
    check: str
    result: Result
    reason: str
    """In one line; empty if it passed."""
    seconds: float
    evidence: list[str] = field(default_factory=list)
    late: float = 0
    """The worst lateness of the machine during the check, in seconds."""
    notes: list[str] = field(default_factory=list)
    """How the machine's lateness affected the result: widened limits, and earlier tries."""
    needs: float = CERTAIN
    """How late the machine would have to be to cause a bad result, in seconds."""


@dataclass
class _Job:
    subject: Subject
    check: Check
    pid: int = 0
    pipe: int = -1
    data: bytes = b""
    start: float = 0
    tries: list[Outcome] = field(default_factory=list)

    def limit(self, watch: Watch) -> float:
        stretch = watch.since(self.start).stretch
        return self.start + self.check.seconds * 3 + 60 * stretch


def run(
    checks: Sequence[Check],
    subjects: Sequence[Subject],
    tell: Callable[[Outcome], None],
    watch: Watch,
) -> list[Outcome]:
    """Runs every check on every implementation, and calls `tell` with each outcome at once.

    A result that the machine may have caused is tried again, up to `TRIES` times, with fewer
    checks beside it.
    """
    jobs = [_Job(subject, check) for check in checks for subject in subjects]
    outcomes: list[Outcome] = []

    def finish(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    for job in jobs:
        if job.subject.kind == "interface" and not job.check.shared:
            reason = "needs its own device, which it may reconfigure"
            name, number = job.check.name, job.check.number
            finish(Outcome(job.subject.label, number, name, Result.NOT_APPLICABLE, reason, 0))
    jobs = [job for job in jobs if job.check.shared or job.subject.kind != "interface"]
    again = list[_Job]()

    def ended(job: _Job, outcome: Outcome) -> None:
        settled = settle(outcome, job.tries)
        if settled:
            finish(settled)
        else:
            again.append(_Job(job.subject, job.check, tries=[*job.tries, outcome]))

    _run_once(jobs, subjects, watch, ended, 2 * (os.cpu_count() or 1))
    while again:
        watch.rest(REST)
        jobs, again = again, []
        _run_once(jobs, subjects, watch, ended, 1)
    return outcomes


def settle(outcome: Outcome, before: Sequence[Outcome]) -> Outcome | None:
    """Returns the final outcome of a check after that try; None if it must be tried again."""
    notes = [
        f"try {number}: {one.result}: {one.reason}; the machine was {one.late:.3f} s late"
        for number, one in enumerate(before, 1)
    ]
    outcome = replace(outcome, notes=[*notes, *outcome.notes])
    itself = outcome.result is Result.INCONCLUSIVE
    if not itself and not Lateness(outcome.late).explains(outcome.needs):
        return outcome
    if len(before) + 1 < TRIES:
        return None
    said = f"the machine is too slow, {outcome.late:.3f} s late; seen: "
    said += "" if itself else f"{outcome.result}: "
    return replace(outcome, result=Result.INCONCLUSIVE, reason=said + outcome.reason)


def _run_once(
    jobs: list[_Job],
    subjects: Sequence[Subject],
    watch: Watch,
    ended: Callable[[_Job, Outcome], None],
    most: int,
) -> None:
    """Runs each job once. Of those that do not mostly wait, at most `most` run at a time."""
    together = [job for job in jobs if not job.check.alone]
    waiting = [job for job in together if job.check.seconds > WAITING]
    quick = [job for job in together if job.check.seconds <= WAITING]
    one_at_a_time = any(subject.kind == "interface" for subject in subjects)
    _run_all(
        sorted(waiting, key=lambda job: -job.check.seconds) + quick,
        lambda running: (
            not running
            if one_at_a_time
            else sum(job.check.seconds <= WAITING for job in running) < most
        ),
        watch,
        ended,
    )
    alone = [job for job in jobs if job.check.alone]
    _run_all(alone, lambda running: not running, watch, ended)


def _run_all(
    jobs: list[_Job],
    may_start: Callable[[list[_Job]], bool],
    watch: Watch,
    ended: Callable[[_Job, Outcome], None],
) -> None:
    jobs, running = list(jobs), list[_Job]()
    with selectors.DefaultSelector() as selector:
        while jobs or running:
            while jobs and may_start(running):
                job = jobs.pop(0)
                _start(job, watch)
                selector.register(job.pipe, selectors.EVENT_READ, job)
                running.append(job)
                time.sleep(0.02)  # not all at the same instant: they measure time
            for key, _ in selector.select(0.2):
                job = key.data
                if data := os.read(job.pipe, 1 << 16):
                    job.data += data
                    continue
                selector.unregister(job.pipe)
                running.remove(job)
                ended(job, _end(job, watch))
            for job in running:
                late = time.monotonic() - job.limit(watch)
                if late > 0:  # its pipe closes with it
                    gently = job.subject.kind == "interface" and late < 30
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(job.pid, signal.SIGTERM if gently else signal.SIGKILL)


def _start(job: _Job, watch: Watch) -> None:
    job.pipe, theirs = os.pipe()
    job.start = time.monotonic()
    job.pid = os.fork()
    if job.pid:
        os.close(theirs)
        return
    try:
        os.close(job.pipe)
        os.setsid()
        if job.subject.kind == "interface":  # its peers must be removed in any case
            signal.signal(signal.SIGTERM, _end_once)
            namespaces.die_with_parent(signal.SIGTERM)
        else:
            namespaces.die_with_parent()
            namespaces.unshare(namespaces.NEWPID)
            child = os.fork()
            if child:
                os.close(theirs)
                os.waitpid(child, 0)
                os._exit(0)
            namespaces.die_with_parent()
        os.write(theirs, json.dumps(asdict(_judge(job, watch))).encode())
    finally:
        os._exit(0)


def _end_once(*_: object) -> None:
    """Exits by an exception, so that `with` cleans up, and ignores further signals."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit()


def _end(job: _Job, watch: Watch) -> Outcome:
    os.close(job.pipe)
    os.waitpid(job.pid, 0)
    machine = watch.since(job.start)
    with contextlib.suppress(ValueError):  # nothing was written, or only a part
        read = json.loads(job.data)
        return Outcome(**read | {"result": Result(read["result"]), "late": machine.worst})
    seconds = time.monotonic() - job.start
    late = time.monotonic() > job.limit(watch)
    return Outcome(
        job.subject.label,
        job.check.number,
        job.check.name,
        Result.FAILED if late else Result.ERROR,
        f"hangs: no end after {seconds:.0f} s" if late else "the check's process ended",
        seconds,
        late=machine.worst,
        needs=NO_ANSWER if late else CERTAIN,
    )


def _judge(job: _Job, watch: Watch) -> Outcome:
    log, start = Log(), time.monotonic()
    result, reason, needs = Result.PASS, "", CERTAIN
    notes = list[str]()
    try:
        with open_testbed(job.subject, log, watch, timed=job.check.timed) as testbed:
            notes = testbed.notes
            result, reason, needs = _verdict(job.check, testbed)
    except Failed as error:
        result, reason, needs = Result.FAILED, str(error), _needs(job.check, error)
    except Exception as error:
        needs = NO_ANSWER if isinstance(error, TimeoutError | TimeoutExpired) else CERTAIN
        result = Result.ERROR
        reason = traceback.format_exc().strip().splitlines()[-1]
        log.lines += traceback.format_exc().splitlines()
    return Outcome(
        job.subject.label,
        job.check.number,
        job.check.name,
        result,
        printable(reason),
        round(time.monotonic() - start, 2),
        log.lines[-EVIDENCE_LINES:],
        notes=notes,
        needs=needs,
    )


def _verdict(check: Check, testbed: Testbed) -> tuple[Result, str, float]:
    """Returns the result of the check, and how late the machine would have to be to cause it."""
    result, reason, needs = Result.PASS, "", CERTAIN
    try:
        check.function(testbed)
    except (Differs, Unopened) as error:
        result, reason, needs = Result.DIFFERS, str(error), _needs(check, error)
    except NotApplicable as error:
        result, reason = Result.NOT_APPLICABLE, str(error)
    except Inconclusive as error:
        result, reason, needs = Result.INCONCLUSIVE, str(error), 0
    except (Failed, OSError) as error:
        if not isinstance(error, Failed) and testbed.alive():
            raise  # the suite's own fault
        result, reason, needs = Result.FAILED, str(error), _needs(check, error)
    if not testbed.alive():
        last = f": {words}" if (words := testbed.last_words()) else ""
        return Result.FAILED, f"died or hangs after item {check.number}{last}", NO_ANSWER
    return result, reason, needs


def _needs(check: Check, error: Exception) -> float:
    given = error.needs if isinstance(error, Doubtable) else CERTAIN
    if given is None or (given == UNASKED and check.timed):
        return check.margin
    return given
