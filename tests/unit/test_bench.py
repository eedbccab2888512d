"""What the benchmark makes of its figures."""

from pathlib import Path

import pytest

from bench import record as record_module
from bench import report, scenarios, traffic
from bench.__main__ import PARTS
from bench.figures import FIGURES
from bench.goals import GOALS, Goal
from bench.plan import Plan
from bench.ratios import Spread, ratios, values
from bench.record import Record, Result
from bench.subjects import Subject
from lab.hosts import LabError

STREAM = "TCP 1 stream"


def results(subject: str, *speeds: float) -> list[Result]:
    return [
        Result(subject, STREAM, number, {"gbit": speed}) for number, speed in enumerate(speeds, 1)
    ]


def make_record(*found: Result) -> Record:
    return Record({"wiresnake": "1"}, {"gotatun": "it is missing"}, [*found], "m", "c", 0.5, "d")


def test_a_ratio_is_of_one_round() -> None:
    mine, others = {1: 4.0, 2: 9.0, 3: 5.0}, {1: 2.0, 2: 3.0}
    assert ratios(mine, others) == [2.0, 3.0]


def test_no_ratio_to_nothing() -> None:
    assert ratios({1: 4.0}, {1: 0.0}) == []


def test_values_are_of_one_subject_scenario_and_figure() -> None:
    found = [
        *results("wiresnake", 1, 2),
        *results("null", 7),
        Result("wiresnake", "another", 1, {"gbit": 8}),
        Result("wiresnake", STREAM, 3, {}, "failed: why"),
    ]
    assert values(found, "wiresnake", STREAM, "gbit") == {1: 1, 2: 2}
    assert values(found, "wiresnake", STREAM, "p50") == {}


def test_a_spread_is_the_median_with_the_least_and_the_greatest() -> None:
    assert Spread.of([3.0, 1.0, 9.0]) == Spread(3.0, 1.0, 9.0, 3)


@pytest.mark.parametrize("limit", [1_010, 20_000, 63_000])
def test_the_search_finds_the_highest_rate_without_loss(limit: float) -> None:
    asked: list[float] = []

    def offer(rate: float) -> tuple[float, float]:
        asked.append(rate)
        return rate, 0.0 if rate <= limit else 0.5

    found = traffic.highest_rate(offer, 64_000, 10)
    assert limit * 0.99 < found <= limit
    assert len(set(asked)) == 10


def test_the_search_asks_again_before_it_believes_in_loss() -> None:
    asked: set[float] = set()

    def offer(rate: float) -> tuple[float, float]:
        """Disturbs every rate once."""
        first = rate not in asked
        asked.add(rate)
        return rate, 0.5 if first else 0.0

    assert traffic.highest_rate(offer, 64_000, 10) > 63_000


def test_the_search_allows_less_than_one_in_a_thousand() -> None:
    assert traffic.highest_rate(lambda rate: (rate, 0.0009), 64_000, 10) > 63_000
    assert traffic.highest_rate(lambda rate: (rate, 0.001), 64_000, 10) == 0


def test_the_search_goes_by_what_arrived() -> None:
    assert traffic.highest_rate(lambda rate: (min(rate, 5_000), 0.0), 64_000, 10) == 5_000


@pytest.mark.parametrize(
    ("goal", "measured", "reached"),
    [
        (Goal(STREAM, "gbit", 2.0), 2.0, True),
        (Goal(STREAM, "gbit", 2.0), 1.9, False),
        (Goal(STREAM, "tunnel_cpu", 0.4), 0.4, True),
        (Goal(STREAM, "tunnel_cpu", 0.4), 0.5, False),
    ],
)
def test_whether_a_goal_is_reached(goal: Goal, measured: float, reached: bool) -> None:
    assert goal.reached(Spread.of([measured])) == reached


def test_a_goal_is_the_median_of_the_ratios_not_the_ratio_of_the_medians() -> None:
    found = [*results("wiresnake", 2, 8, 9), *results("wireguard-go", 1, 2, 9)]
    measured = Goal(STREAM, "gbit", 2.0).measured(found)
    assert measured is not None
    assert (measured.median, measured.low, measured.high) == (2.0, 1.0, 4.0)


def test_a_goal_without_figures_was_not_measured() -> None:
    assert Goal(STREAM, "gbit", 2.0).measured(results("wiresnake", 1)) is None


def test_a_goal_may_compare_two_scenarios_of_ours() -> None:
    goal = Goal("many peers", "gbit", 0.95, to="wiresnake", base=STREAM)
    many = Result("wiresnake", "many peers", 1, {"gbit": 3})
    measured = goal.measured([many, *results("wiresnake", 4)])
    assert measured is not None
    assert measured.median == 0.75
    assert goal.text == f"many peers: Gbit/s at least 0.95 x {STREAM}"


def test_every_goal_says_what_it_is() -> None:
    texts = [goal.text for goal in GOALS]
    assert len(set(texts)) == len(texts)
    assert "TCP 1 stream: tunnel CPU s/GB at most 0.4 x wireguard-go" in texts


def test_every_goal_is_of_something_that_is_measured() -> None:
    names = {name for part in PARTS for name in part.scenarios}
    assert {goal.scenario for goal in GOALS} <= names
    assert {goal.base for goal in GOALS} <= names | {None}
    assert {goal.figure for goal in GOALS} <= set(FIGURES)


def test_the_report_has_medians_spreads_and_ratios() -> None:
    found = [*results("wiresnake", 2, 8, 9), *results("wireguard-go", 1, 2, 9)]
    text = report.text(make_record(*found))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "wiresnake 3 8.00 (2.00 to 9.00) 2.00 (1.00 to 4.00)" in rows
    assert "wireguard-go 3 2.00 (1.00 to 9.00) 1.00 (1.00 to 1.00)" in rows


def test_the_report_says_what_failed_and_what_is_missing() -> None:
    failed = Result("null", STREAM, 1, {}, "failed: no cable")
    text = report.text(make_record(*results("wiresnake", 2), failed))
    assert "wiresnake, no crypto: 1 of 1 rounds failed: no cable" in text
    assert "Not measured: gotatun; it is missing." in text


def test_the_report_as_markdown_is_a_table() -> None:
    found = [*results("wiresnake", 4), *results("wireguard-go", 2)]
    text = report.markdown(make_record(*found))
    assert f"### {STREAM}\n\n|  | rounds | Gbit/s | ratio |\n| --- | --- | --- | --- |\n" in text
    assert "\n| wiresnake | 1 | 4.00 | 2.00 |\n" in text


def test_a_failure_is_kept_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> dict[str, float]:
        raise LabError("no\nnamespaces")

    record = make_record()
    record.measure(Subject("wiresnake", ""), STREAM, 1, fails)
    record.measure(Subject("wiresnake", ""), STREAM, 2, lambda: {"gbit": 1.0})
    assert [result.failed for result in record.results] == ["failed: no namespaces", ""]
    assert "failed: no namespaces" in capsys.readouterr().out


def test_a_record_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "FOLDER", tmp_path)
    kept = make_record(*results("wiresnake", 1, 2))
    assert record_module.read(kept.write()) == kept


def test_a_slow_subject_has_fewer_rounds_unless_it_is_asked_for() -> None:
    first = scenarios.SCENARIOS[0]
    slow, ours = Subject("debian", ""), Subject("wiresnake", "")
    plan, named = Plan(5, 1, False), Plan(5, 1, False, sparing=False)
    assert [first.due(slow, number, plan) for number in (1, 2, 3)] == [True, True, False]
    assert first.due(slow, 5, named)
    assert first.due(ours, 5, plan)
    assert not first.due(slow, 1, Plan(2, 1, True))
    assert not first.due(ours, 1, Plan(5, 1, False, frozenset({"another"})))
