"""The planted faults still fit the tree, and what plants them can tell one end from another."""

import ast
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from mutants.__main__ import judge
from mutants.faults import ROOT, Edit, Fault, FaultError, load
from mutants.runs import argument, items, kind

FAULTS = load()
ITEMS = range(1, 107)
TRAPS = 25
NO_FAULT: dict[int, str] = {}
"""Checks of the black-box suite that no fault is planted for, each with the reason."""

TIMERS = "src/wiresnake/protocol/timers.py"
A_TEST = "tests/unit/test_timers.py::test_the_next_deadline_comes_with_its_reason"
BOTH_CLOCKS = "return deadline, Timer(key % len(Timer)).reason"
A_FAULT = Fault(
    "a-fault", "deadlines never end", (Edit(TIMERS, BOTH_CLOCKS, "return None"),), (A_TEST,)
)


@cache
def python_tests(file: str) -> set[str]:
    """The names of a file's test functions."""
    path = ROOT / file
    body = ast.parse(path.read_text()).body if path.is_file() else []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in body if isinstance(node, functions)}


@cache
def rust_tests() -> list[str]:
    """The paths of the Rust tests, as cargo filters them."""
    return [
        f"{path.stem}::tests::{name}"
        for path in sorted((ROOT / "rust/src").glob("*.rs"))
        for name in re.findall(r"#\[test\]\s+(?:#\[.*\]\s+)*fn (\w+)", path.read_text())
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_fits_and_its_tests_exist(fault: Fault) -> None:
    for file, text in fault.texts().items():
        if file.endswith(".py"):
            ast.parse(text)
    for kill in fault.kills:
        if kind(kill) == "cargo":
            assert any(argument(kill) in name for name in rust_tests()), kill
        elif kind(kill) == "conformance":
            assert int(argument(kill)) in ITEMS, kill
        else:
            file, _, name = kill.partition("[")[0].partition("::")
            assert name in python_tests(file), kill


def test_each_trap_has_a_fault() -> None:
    numbers = {int(found[1]) for f in FAULTS if (found := re.match(r"trap-(\d\d)-", f.name))}
    assert numbers == set(range(1, TRAPS + 1))


def test_each_check_of_the_black_box_suite_has_a_fault() -> None:
    kills = {kill for fault in FAULTS for kill in fault.kills}
    killed = {int(argument(kill)) for kill in kills if kind(kill) == "conformance"}
    assert items().keys() - killed == set(NO_FAULT)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("no such text", "", "0 times"),
        ("deadline", "", "times, not once"),
        (BOTH_CLOCKS, BOTH_CLOCKS, "stays as it is"),
    ],
)
def test_a_fault_that_does_not_fit_is_found(old: str, new: str, why: str) -> None:
    with pytest.raises(FaultError, match=why):
        replace(A_FAULT, edits=(Edit(TIMERS, old, new),)).texts()


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ('name = "a"', 'name = "A"', "small letters"),
        ('kills = ["c"]', "kills = []", "a test to kill it"),
        ('kills = ["c"]', "", "kills"),
        ('new = ""', 'new = ""\nunknown = 1', "unknown"),
        ('name = "b"', 'name = "a"', "there are two of a"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(
    tmp_path: Path, good: str, bad: str, why: str
) -> None:
    entry = '[[fault]]\nfault = "b"\nfile = "a"\nold = "a"\nnew = ""\nkills = ["c"]\n'
    text = f'{entry}name = "a"\n{entry}name = "b"\n'
    (tmp_path / "faults.toml").write_text(text)
    assert [fault.name for fault in load(tmp_path)] == ["a", "b"]
    (tmp_path / "faults.toml").write_text(text.replace(good, bad))
    with pytest.raises(FaultError, match=why):
        load(tmp_path)


def test_only_a_test_that_fails_and_else_passes_kills() -> None:
    """All ends at once: each run of pytest costs a second or two."""
    edit = A_FAULT.edits[0]
    verdicts = judge(
        [
            A_FAULT,
            replace(A_FAULT, name="nothing-wrong", edits=(replace(edit, new=f"{edit.old}  #"),)),
            replace(A_FAULT, name="no-python", edits=(replace(edit, new="return )"),)),
            replace(A_FAULT, name="no-such-name", edits=(replace(edit, new="return nowhere"),)),
            replace(A_FAULT, name="no-such-test", kills=(A_TEST, f"{A_TEST}_twice")),
            replace(A_FAULT, name="no-place", edits=(replace(edit, old="nowhere"),)),
        ]
    )
    words = [verdict.word for verdict in verdicts]
    assert words == ["killed", "survived", "broken", "broken", "broken", "broken"]
    notes = [verdict.note for verdict in verdicts]
    for note, part in zip(
        notes, ["", A_TEST, "exit code 4", "NameError", "exit code 4", "0 times"], strict=True
    ):
        assert part in note, notes
