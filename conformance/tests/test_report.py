"""The forms of the report, with made-up outcomes."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from wiresnake_conformance import items
from wiresnake_conformance.machine import Lateness
from wiresnake_conformance.report import Report
from wiresnake_conformance.run import Outcome
from wiresnake_conformance.verdict import Check, Result


def first(testbed: object) -> None:
    """One."""


def second(testbed: object) -> None:
    """Two."""


@pytest.fixture
def report() -> Report:
    checks = [
        Check(9, first, 1, False, True),
        Check(9, second, 1, False, True),
        Check(85, first, 1, False, True),
    ]
    outcomes = [
        Outcome("good", 9, "first", Result.PASS, "", 0.5, ["sent"]),
        Outcome("good", 9, "second", Result.NOT_APPLICABLE, "no such thing", 0.5),
        Outcome("good", 85, "first", Result.PASS, "", 0.5),
        Outcome("bad", 9, "first", Result.PASS, "", 0.5),
        Outcome(
            "bad", 9, "second", Result.DIFFERS, "got <another>", 0.5, ["sent this", "got that"]
        ),
        Outcome("bad", 85, "first", Result.FAILED, "died or hangs after item 85", 0.5),
    ]
    versions = {"good": "good 1.0", "bad": "bad 2.0"}
    return Report(outcomes, checks, items.load(), versions, "2026-01-02", "a machine")


def test_worst_check_is_the_items_result(report: Report) -> None:
    results = {(n, label): report.result(n, label) for n in (9, 85) for label in ("good", "bad")}
    assert results == {
        (9, "good"): Result.PASS,
        (9, "bad"): Result.DIFFERS,
        (85, "good"): Result.PASS,
        (85, "bad"): Result.FAILED,
    }


def test_text_and_markdown_show_each_difference_with_its_evidence(report: Report) -> None:
    for text in (report.text(), report.markdown()):
        assert "good 1.0" in text
        assert "got <another>" in text
        assert "got that" in text
        assert "died or hangs after item 85" in text
    assert "| **differs** |" in report.markdown()
    assert "### good\n\nNone." in report.markdown()


def test_json_holds_everything(report: Report) -> None:
    read = json.loads(report.json())
    assert read["implementations"] == {"good": "good 1.0", "bad": "bad 2.0"}
    item = next(item for item in read["items"] if item["number"] == 9)
    assert item["results"]["bad"]["result"] == "differs"
    assert item["results"]["bad"]["checks"][1]["evidence"] == ["sent this", "got that"]


def test_junit_counts(report: Report) -> None:
    suites = ElementTree.fromstring(report.junit())
    counts = {suite.get("name"): (suite.get("failures"), suite.get("skipped")) for suite in suites}
    assert counts == {"good": ("0", "1"), "bad": ("2", "0")}
    failure = suites.find("testsuite[@name='bad']//failure")
    assert failure is not None
    assert failure.get("message") == "got <another>"


def test_what_a_slow_machine_has_to_do_with_it_is_said(report: Report) -> None:
    """Every form shows how late it was, what was tried again, and that a check for which it was too
    slow has no result, neither a failure nor a pass."""
    slow = Outcome("bad", 85, "first", Result.INCONCLUSIVE, "the machine is too slow", 1, late=0.3)
    notes = ["try 1: differs: why; the machine was 0.412 s late"]
    again = Outcome("good", 85, "first", Result.PASS, "", 1, late=0.02, notes=notes)
    outcomes = [*(each for each in report.outcomes if each.number == 9), slow, again]
    late = replace(report, outcomes=outcomes, lateness=Lateness(0.412, 0.02))
    assert late.result(85, "bad") is Result.INCONCLUSIVE
    assert late.result(85, "good") is Result.PASS
    for text in (late.text(), late.markdown()):
        assert "The machine was 0.412 s late at worst, 0.020 s in most seconds." in text
        assert f"good, item 85, first: pass. {notes[0]}" in text
        assert "inconclusive: the machine is too slow" in text
    assert "| **inconclusive** |" in late.markdown()
    read = json.loads(late.json())
    assert read["lateness"] == {"worst": 0.412, "typical": 0.02}
    found = read["items"][1]["results"]
    assert found["good"]["checks"][0]["notes"] == notes
    assert found["bad"]["checks"][0]["late"] == 0.3
    suite = ElementTree.fromstring(late.junit()).find("testsuite[@name='bad']")
    assert suite is not None
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    beside = replace(late, outcomes=[], versions={}).beside(late.json())
    assert beside.of(85, "good")[0].notes == notes


def test_items_are_a_hundred_and_six() -> None:
    assert list(items.load()) == list(range(1, 107))


def test_another_run_stands_beside(report: Report) -> None:
    other = replace(
        report,
        outcomes=[replace(each, subject=f"old {each.subject}") for each in report.outcomes],
        versions={f"old {label}": version for label, version in report.versions.items()},
    )
    both = report.beside(other.json())
    assert list(both.versions) == ["good", "bad", "old good", "old bad"]
    assert both.result(85, "old bad") == Result.FAILED
    assert both.text().count("got <another>") == 2
