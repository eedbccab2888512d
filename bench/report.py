"""Writes the tables for people, for a terminal and as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import FIGURES
from bench.goals import GOALS, Goal
from bench.notes import NOTES
from bench.plan import ROOTLESS, TOOL
from bench.ratios import Spread, ratios, values
from bench.record import Record
from bench.subjects import INTERFACE, LABELS, NETSTACK, STOCK, WIREGUARD_GO

_NOTE = (
    "Both ends of every tunnel run on this machine. Each cell is the median of the rounds, with the"
    " least and the greatest; `ratio` is to the newest wireguard-go in the same round. Subjects"
    " take turns within a round. Tunnel CPU is that of both daemons, total CPU that of the whole"
    " machine. Measurements take 3 s (QUICK: 2 s); the inner MTU is 1420, except for jumbo frames."
    " Slow subjects and minor scenarios have fewer rounds. A subject without a row in a table was"
    " not measured there."
)
_OPERATOR = (
    "`wiresnake` and the commands that it replaces, both with wiresnaked as the daemon; `ratio` is"
    " to stock in the same round."
)
_ROOTLESS = (
    "What carries the tunnel, and what uses it, runs as an ordinary user; the far end is an"
    " interface of wiresnaked. `ratio` is to the interface of root, or to wireguard-go with"
    " gVisor's netstack, in the same round. Tunnel CPU is that of the far end's daemon and of"
    " all processes that carry the tunnel here."
)
_SECTIONS = (
    (TOOL, "The operator's tool", _OPERATOR),
    (ROOTLESS, "Tunnels without root", _ROOTLESS),
)
"""Scenarios that have a part of the page, and their goals with them; all others come first."""
_COMPARED = (WIREGUARD_GO, STOCK, INTERFACE, NETSTACK)
"""With whom a table compares: the first that is in it."""


@dataclass(frozen=True)
class Table:
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        lines = [self.headings, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = (
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return "\n".join([self.title, *rows, *self.notes, ""])

    def markdown(self) -> str:
        lines = [self.headings, ("---",) * len(self.headings), *self.rows]
        rows = ("| " + " | ".join(line) + " |" for line in lines)
        notes = (f"\n{note}" for note in self.notes)
        return "\n".join([f"### {self.title}", "", *rows, *notes, ""])


def text(record: Record) -> str:
    return _page(record, Table.text)


def markdown(record: Record) -> str:
    return _page(record, Table.markdown)


def _page(record: Record, form: Callable[[Table], str]) -> str:
    scenarios = dict.fromkeys(result.scenario for result in record.results)
    versions = ", ".join(f"{LABELS[name]} {version}" for name, version in record.versions.items())
    missing = [f"Not measured: {LABELS[name]}; {why}.\n" for name, why in record.absent.items()]
    head = (
        f"{record.date}, {record.machine}, load before the run {record.load:.1f},"
        f" commit {record.commit}; {versions}.\n"
    )
    apart = {name for names, _, _ in _SECTIONS for name in names}
    parts = [head, *missing]
    if speed := [name for name in scenarios if name not in apart]:
        goals = [goal for goal in GOALS if goal.scenario not in apart]
        parts += [f"{_NOTE}\n", *map(form, _section(record, speed, goals))]
    for names, title, note in _SECTIONS:
        if here := [name for name in scenarios if name in names]:
            goals = [goal for goal in GOALS if goal.scenario in names]
            parts += [f"## {title}\n", f"{note}\n", *map(form, _section(record, here, goals))]
    return "\n".join(parts)


def _section(record: Record, scenarios: Sequence[str], goals: Sequence[Goal]) -> list[Table]:
    return [*(_scenario(record, scenario) for scenario in scenarios), _goals(record, goals)]


def _scenario(record: Record, scenario: str) -> Table:
    here = [result for result in record.results if result.scenario == scenario]
    subjects = [name for name in LABELS if any(result.subject == name for result in here)]
    figures = [name for name in FIGURES if any(name in result.figures for result in here)]
    compared = next((name for name in _COMPARED if name in subjects), None)
    headings = ["", "rounds"]
    for name in figures:
        headings.append(FIGURES[name].label)
        if compared and FIGURES[name].compared:
            headings.append("ratio")
    rows = []
    notes = [NOTES[scenario]] if scenario in NOTES else []
    for subject in subjects:
        mine = [result for result in here if result.subject == subject]
        failures = [result.failed for result in mine if result.failed]
        cells = [LABELS[subject], str(len(mine) - len(failures))]
        for name in figures:
            measured = values(mine, subject, scenario, name)
            cells.append(_cell(list(measured.values()), FIGURES[name].digits))
            if compared and FIGURES[name].compared:
                theirs = values(here, compared, scenario, name)
                cells.append(_cell(ratios(measured, theirs), 2))
        if failures:
            count = f"{len(failures)} of {len(mine)} rounds"
            notes.append(f"{LABELS[subject]}: {count} {failures[0]}")
        rows.append(tuple(cells))
    return Table(scenario, tuple(headings), tuple(rows), tuple(notes))


def _goals(record: Record, goals: Sequence[Goal]) -> Table:
    rows = []
    for goal in goals:
        measured = goal.measured(record.results)
        if measured is None:
            rows.append((goal.text, "not measured", ""))
        else:
            verdict = "reached" if goal.reached(measured) else "not reached"
            rows.append((goal.text, _said(measured, 2), verdict))
    return Table("Goals", ("goal", "measured", ""), tuple(rows))


def _cell(numbers: Sequence[float], digits: int) -> str:
    return _said(Spread.of(numbers), digits) if numbers else "-"


def _said(spread: Spread, digits: int) -> str:
    middle = f"{spread.median:,.{digits}f}"
    if spread.rounds == 1:
        return middle
    return f"{middle} ({spread.low:,.{digits}f} to {spread.high:,.{digits}f})"
