"""Runs the tests that must fail with a fault, and returns their results."""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Literal, NamedTuple, get_args

from wiresnake_conformance import checks
from wiresnake_conformance.run import WAITING
from wiresnake_conformance.verdict import CHECKS

from mutants.trees import Tree

_QUICK = 120
_SLOW = 600
"""Seconds that a test may take. The slow ones wait for the protocol's timers, in real time."""
_NOT_FOUND = 4
"""pytest's exit code for a missing node."""
_NO_CODE = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
"""A test that fails with one of these has not seen the fault: the planted code is broken."""


Pace = Literal["working", "waiting", "alone"]
"""How tests may be run: some at a time, many at a time, or alone."""
PACES: tuple[Pace, ...] = get_args(Pace)


class Outcome(NamedTuple):
    """The result of a test. `void`: it is missing, or failed before its own code ran."""

    state: Literal["red", "green", "void"]
    note: str = ""


GREEN = Outcome("green")
_running: set[subprocess.Popen[str]] = set()
_stopped = Event()


def kind(kill: str) -> Literal["pytest", "cargo", "chapoly", "stack", "conformance"]:
    word = kill.partition(" ")[0]
    words = ("cargo", "chapoly", "stack", "conformance")
    return word if word in words else "pytest"  # type: ignore[return-value]


def argument(kill: str) -> str:
    """Returns the word of a `cargo`, `chapoly` or `stack`, or the number of a `conformance`."""
    return kill.partition(" ")[2]


def pace(kill: str) -> Pace:
    return items().get(int(argument(kill)), "working") if kind(kill) == "conformance" else "working"


@functools.cache
def items() -> dict[int, Pace]:
    """Returns the items with checks in the black-box suite, and their pace by its decorators."""
    checks.load()
    found: dict[int, Pace] = {}
    for check in CHECKS:
        own: Pace = "waiting" if check.seconds > WAITING else "working"
        if check.alone:
            own = "alone"
        found[check.number] = max(own, found.get(check.number, own), key=PACES.index)
    return found


def run_pytest(tree: Tree, nodes: list[str]) -> dict[str, Outcome]:
    """Runs all nodes in one run."""
    report = tree.path / "report"
    report.unlink(missing_ok=True)
    done = _run(
        [sys.executable, "-m", "pytest", "-p", "mutants.witness", "-p", "no:cacheprovider", *nodes],
        tree,
        _SLOW if any(node.startswith("tests/interop") for node in nodes) else _QUICK,
        {"MUTANTS_REPORT": str(report)},
    )
    if isinstance(done, Outcome):
        return dict.fromkeys(nodes, done)
    if done.returncode == _NOT_FOUND and len(nodes) > 1:  # One is missing, so none was run.
        return {node: run_pytest(tree, [node])[node] for node in nodes}
    ran, *phases = [json.loads(line) for line in report.read_text().splitlines()] or [["", ""]]
    if not all(str(place).startswith(f"{tree.path}/") for place in ran):
        return dict.fromkeys(nodes, Outcome("void", f"other code ran: {ran}"))
    if done.returncode not in (0, 1):
        return dict.fromkeys(nodes, Outcome("void", f"pytest: {_last_words(done)}"))
    return {node: _judge(node, phases) for node in nodes}


def _judge(node: str, phases: list[list[str]]) -> Outcome:
    """Judges a test: red if a case of it failed in its own code, not in its setup."""
    own = [phase for phase in phases if phase[0] == node or phase[0].startswith(f"{node}[")]
    failed = [message for _, when, outcome, message in own if (when, outcome) == ("call", "failed")]
    if slips := [message for message in failed if message.startswith(_NO_CODE)]:
        return Outcome("void", slips[0])
    if failed:
        return Outcome("red", failed[0])
    for _, when, outcome, message in own:
        if outcome == "failed":
            return Outcome("void", f"{when}: {message}")
        if outcome == "skipped":
            return Outcome("void", "skipped")
    return GREEN if own else Outcome("void", "there is no such test")


def run_cargo(tree: Tree, program: Path, word: str) -> Outcome:
    done = _run([str(program), word], tree, _QUICK)
    if isinstance(done, Outcome):
        return done
    results = re.findall(r"^test (\S+).* \.\.\. (ok|FAILED)$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 101) or not results:
        return Outcome("void", f"cargo: {_last_words(done)}")
    failed = [name for name, result in results if result == "FAILED"]
    return Outcome("red", failed[0]) if failed else GREEN


def run_conformance(tree: Tree, item: str) -> Outcome:
    """Runs an item of the suite of this tree, not of the copy: only the daemon has the fault."""
    program, report = Path(sys.executable).with_name("wiresnake-conformance"), tree.path / "items"
    command = [program, "--daemon", f"wiresnaked={tree.daemon}", "--item", item, "--json", report]
    limit = 3 * _SLOW  # on a busy machine it tries again what may have failed for that reason
    done = _run([str(word) for word in command], tree, limit, {"PYTHONPATH": ""})
    if isinstance(done, Outcome):
        return done
    if done.returncode not in (0, 1):
        return Outcome("void", f"conformance: {_last_words(done)}")
    [entry] = json.loads(report.read_text())["items"]
    checks = entry["results"]["wiresnaked"]["checks"]
    reasons = {check["result"]: check["reason"] for check in checks}
    if "differs" in reasons:
        return Outcome("red", reasons["differs"])
    for result, reason in reasons.items():
        if result not in ("pass", "not applicable"):
            return Outcome("void", f"{result}: {reason}")
    return GREEN if "pass" in reasons else Outcome("void", "not applicable")


def stop() -> None:
    """Ends all running tests, from another thread. No more are started."""
    _stopped.set()
    for process in list(_running):
        _kill(process)


def _run(
    command: list[str], tree: Tree, limit: int, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str] | Outcome:
    """Runs a command in the tree. If it takes too long, it is killed with all its children."""
    if _stopped.is_set():
        return Outcome("void", "interrupted")
    try:
        process = subprocess.Popen(
            command,
            cwd=tree.path,
            env=tree.environment() | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome("void", f"{command[0]}: {error.strerror}")
    _running.add(process)
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.communicate()
        return Outcome("void", f"it took over {limit} s")
    finally:
        _running.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return f"exit code {done.returncode}, {lines[-1] if lines else 'without output'}"
