"""The planted faults still fit the tree, and what plants them can tell one end from another."""

import ast
import platform
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from test_laws import without_tests

from mutants import needs
from mutants.__main__ import judge, report
from mutants.faults import ROOT, Edit, Fault, FaultError, load
from mutants.runs import argument, items, kind, run_pytest
from mutants.trees import Tree

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
def rust_tests(crate: str) -> list[str]:
    """The paths of the Rust tests of the plane (`cargo`), `chapoly` or `stack`, as cargo filters
    them."""
    folder = ROOT / "rust" / ("plane" if crate == "cargo" else crate)
    folder /= "tests/core" if crate == "stack" else "src"
    within = "" if crate == "stack" else "tests::"
    return [
        f"{path.stem}::{within}{name}"
        for path in sorted(folder.rglob("*.rs"))
        for name in re.findall(r"#\[test\]\s+(?:#\[.*\]\s+)*fn (\w+)", path.read_text())
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_fits_and_its_tests_exist(fault: Fault) -> None:
    for file, text in fault.texts().items():
        if file.endswith(".py"):
            ast.parse(text)
        else:
            original = (ROOT / file).read_text()
            assert without_tests(text) != without_tests(original), "it is in the tests themselves"
    for kill in fault.kills:
        if kind(kill) in ("cargo", "chapoly", "stack"):
            assert any(argument(kill) in name for name in rust_tests(kind(kill))), kill
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
        (BOTH_CLOCKS, BOTH_CLOCKS, "does not change"),
    ],
)
def test_a_fault_that_does_not_fit_is_found(old: str, new: str, why: str) -> None:
    with pytest.raises(FaultError, match=why):
        replace(A_FAULT, edits=(Edit(TIMERS, old, new),)).texts()


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ('name = "a"', 'name = "A"', "lower case"),
        ('kills = ["c"]', "kills = []", "and a test"),
        ('kills = ["c"]', "", "kills"),
        ('new = ""', 'new = ""\nunknown = 1', "unknown"),
        ('new = ""', 'new = ""\nneeds = "a GPU"', "one of avx512"),
        ('name = "b"', 'name = "a"', "two faults have the name a"),
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


CPUINFO = "processor : 0\nflags\t\t: fpu {} sse2\n\nprocessor : 1\n"


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [
        ("avx512f avx512bw avx512ifma avx512_vbmi2", False),
        ("avx512f avx512bw avx512ifma", True),
        ("avx512f avx512bw avx512ifma avx512vbmi2_", True),
        ("avx2", True),
    ],
)
def test_a_fault_that_no_test_can_see_here_is_skipped_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    lacks: bool,
) -> None:
    monkeypatch.setattr(needs, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
    assert bool(needs.lacking("avx512")) is lacks
    assert not needs.lacking("")
    if lacks:
        nowhere = Edit(TIMERS, "nowhere", "")
        verdicts = judge([replace(A_FAULT, edits=(nowhere,), needs="avx512")])
        assert [verdict.word for verdict in verdicts] == ["skipped"]
        assert report(verdicts, 1) == 0
        said = capsys.readouterr().out
        assert "1 skipped" in said and said.count("needs a CPU with AVX-512") == 2


def test_code_from_elsewhere_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with Tree("elsewhere", {}) as tree:
        environment = tree.environment() | {"PYTHONPATH": str(ROOT)}
        monkeypatch.setattr(Tree, "environment", lambda _: environment)
        outcome = run_pytest(tree, [A_TEST])[A_TEST]
    assert outcome.state == "void" and outcome.note.startswith("other code ran")


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


def test_the_readme_names_their_number() -> None:
    """That of a machine without AVX-512, and how many it leaves out."""
    special = [fault for fault in FAULTS if fault.needs]
    number = len(FAULTS) - len(special)
    said = f"plants {number} faults, and {len(special)} more on CPUs with AVX-512"
    assert said in " ".join((ROOT / "README.md").read_text().split())
