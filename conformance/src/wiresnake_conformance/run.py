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
from dataclasses import asdict, dataclass, field

from . import namespaces
from .oracle import Unopened
from .stand import Stand, open_stand
from .subject import Subject
from .verdict import Check, Differs, Failed, Log, NotApplicable, Result, printable

EVIDENCE_LINES = 60
WAITING = 12.0
"""A check that takes longer than that mostly waits, so many of them can run at once."""


@dataclass
class Outcome:
    """What one check found on one implementation."""

    subject: str
    number: int
    check: str
    result: Result
    reason: str
    """In one line; empty if it passed."""
    seconds: float
    evidence: list[str] = field(default_factory=list)


@dataclass
class _Job:
    subject: Subject
    check: Check
    pid: int = 0
    pipe: int = -1
    data: bytes = b""
    start: float = 0

    @property
    def limit(self) -> float:
        return self.start + self.check.seconds * 3 + 60


def run(
    checks: Sequence[Check], subjects: Sequence[Subject], tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Every check on every implementation; `tell` hears of each outcome at once."""
    jobs = [_Job(subject, check) for check in checks for subject in subjects]
    outcomes: list[Outcome] = []

    def finish(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    for job in jobs:
        if job.subject.kind == "interface" and not job.check.shared:
            reason = "needs a device of its own, which it may reconfigure"
            name, number = job.check.name, job.check.number
            finish(Outcome(job.subject.label, number, name, Result.NOT_APPLICABLE, reason, 0))
    jobs = [job for job in jobs if job.check.shared or job.subject.kind != "interface"]
    together = [job for job in jobs if not job.check.alone]
    waiting = [job for job in together if job.check.seconds > WAITING]
    quick = [job for job in together if job.check.seconds <= WAITING]
    one_at_a_time = any(subject.kind == "interface" for subject in subjects)
    cores = os.cpu_count() or 1
    _run_all(
        sorted(waiting, key=lambda job: -job.check.seconds) + quick,
        lambda running: (
            not running
            if one_at_a_time
            else sum(job.check.seconds <= WAITING for job in running) < 2 * cores
        ),
        finish,
    )
    _run_all([job for job in jobs if job.check.alone], lambda running: not running, finish)
    return outcomes


def _run_all(
    jobs: list[_Job],
    may_start: Callable[[list[_Job]], bool],
    finish: Callable[[Outcome], None],
) -> None:
    jobs, running = list(jobs), list[_Job]()
    with selectors.DefaultSelector() as selector:
        while jobs or running:
            while jobs and may_start(running):
                job = jobs.pop(0)
                _start(job)
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
                finish(_end(job))
            for job in running:
                late = time.monotonic() - job.limit
                if late > 0:  # its pipe closes with it
                    gently = job.subject.kind == "interface" and late < 30
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(job.pid, signal.SIGTERM if gently else signal.SIGKILL)


def _start(job: _Job) -> None:
    job.pipe, theirs = os.pipe()
    job.start = time.monotonic()
    job.pid = os.fork()
    if job.pid:
        os.close(theirs)
        return
    try:
        os.close(job.pipe)
        os.setsid()
        if job.subject.kind == "interface":  # its peers are to be taken away whatever happens
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
        os.write(theirs, json.dumps(asdict(_judge(job))).encode())
    finally:
        os._exit(0)


def _end_once(*_: object) -> None:
    """Leaves by the exception that lets `with` clean up, and is not disturbed in that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit()


def _end(job: _Job) -> Outcome:
    os.close(job.pipe)
    os.waitpid(job.pid, 0)
    with contextlib.suppress(ValueError):  # nothing was written, or not all of it
        read = json.loads(job.data)
        return Outcome(**read | {"result": Result(read["result"])})
    seconds = time.monotonic() - job.start
    late = time.monotonic() > job.limit
    result = Result.FAILED if late else Result.ERROR
    reason = f"hangs: no end after {seconds:.0f} s" if late else "the check's process ended"
    return Outcome(job.subject.label, job.check.number, job.check.name, result, reason, seconds)


def _judge(job: _Job) -> Outcome:
    log, start = Log(), time.monotonic()
    result, reason = Result.PASS, ""
    try:
        with open_stand(job.subject, log) as stand:
            result, reason = _verdict(job.check, stand)
    except Failed as error:
        result, reason = Result.FAILED, str(error)
    except Exception:
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
    )


def _verdict(check: Check, stand: Stand) -> tuple[Result, str]:
    result, reason = Result.PASS, ""
    try:
        check.function(stand)
    except (Differs, Unopened) as error:
        result, reason = Result.DIFFERS, str(error)
    except NotApplicable as error:
        result, reason = Result.NOT_APPLICABLE, str(error)
    except (Failed, OSError) as error:
        if not isinstance(error, Failed) and stand.alive():
            raise  # the suite's own fault
        result, reason = Result.FAILED, str(error)
    if not stand.alive():
        last = f": {words}" if (words := stand.last_words()) else ""
        return Result.FAILED, f"died or hangs after item {check.number}{last}"
    return result, reason
