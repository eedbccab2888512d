"""Runs the tests that a fault must turn red, and says what they gave."""

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
"""Seconds: no test lasts longer. The slow ones wait for the protocol's timers, in real time."""
_NOT_FOUND = 4
"""pytest's exit code for a node that is not there."""
_NO_CODE = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError")
"""A test that fails by one of these has met no fault of WireGuard's but a slip of the pen."""


Pace = Literal["working", "waiting", "alone"]
"""How tests may be run: some at a time, many at a time, beside nothing else."""
PACES: tuple[Pace, ...] = get_args(Pace)


class Outcome(NamedTuple):
    """What a test gave. `void` is neither: it is missing, or did not come so far."""

    state: Literal["red", "green", "void"]
    note: str = ""


GREEN = Outcome("green")
_running: set[subprocess.Popen[str]] = set()
_stopped = Event()


def kind(kill: str) -> Literal["pytest", "cargo", "chapoly", "conformance"]:
    word = kill.partition(" ")[0]
    words = ("cargo", "chapoly", "conformance")
    return word if word in words else "pytest"  # type: ignore[return-value]


def argument(kill: str) -> str:
    """The word of a `cargo` or a `chapoly`, or the number of a `conformance`."""
    return kill.partition(" ")[2]


def pace(kill: str) -> Pace:
    return items().get(int(argument(kill)), "working") if kind(kill) == "conformance" else "working"


@functools.cache
def items() -> dict[int, Pace]:
    """The items that the black-box suite has checks for, and what its decorators say of them."""
    checks.load()
    found: dict[int, Pace] = {}
    for check in CHECKS:
        own: Pace = "waiting" if check.seconds > WAITING else "working"
        if check.alone:
            own = "alone"
        found[check.number] = max(own, found.get(check.number, own), key=PACES.index)
    return found


def run_pytest(tree: Tree, nodes: list[str]) -> dict[str, Outcome]:
    """All nodes in one run."""
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
    if done.returncode == _NOT_FOUND and len(nodes) > 1:  # One of them, and so none was run.
        return {node: run_pytest(tree, [node])[node] for node in nodes}
    ran, *phases = [json.loads(line) for line in report.read_text().splitlines()] or [["", ""]]
    if not all(str(place).startswith(f"{tree.path}/") for place in ran):
        return dict.fromkeys(nodes, Outcome("void", f"other code ran: {ran}"))
    if done.returncode not in (0, 1):
        return dict.fromkeys(nodes, Outcome("void", f"pytest: {_last_words(done)}"))
    return {node: _judge(node, phases) for node in nodes}


def _judge(node: str, phases: list[list[str]]) -> Outcome:
    """Red if a case of the test failed in its own code, not in what was to come before it."""
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
    """The suite is this tree's own and not the copy's: only the daemon has the fault."""
    program, report = Path(sys.executable).with_name("wiresnake-conformance"), tree.path / "items"
    command = [program, "--daemon", f"wiresnaked={tree.daemon}", "--item", item, "--json", report]
    limit = 3 * _SLOW  # on a busy machine it tries again what that may be the cause of
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
    """Ends all that runs, from another thread; nothing is started any more."""
    _stopped.set()
    for process in list(_running):
        _kill(process)


def _run(
    command: list[str], tree: Tree, limit: int, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str] | Outcome:
    """Runs a command in the tree; one that takes too long ends with all of its children."""
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
    return f"exit code {done.returncode}, {lines[-1] if lines else 'without a word'}"
