"""Evaluates figures: ratios within a round, the median, the spread."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.record import Result


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))


def values(results: Iterable[Result], subject: str, scenario: str, figure: str) -> dict[int, float]:
    """Returns the figure of each round that has one."""
    return {
        result.round: result.figures[figure]
        for result in results
        if (result.subject, result.scenario) == (subject, scenario) and figure in result.figures
    }


def ratios(mine: dict[int, float], others: dict[int, float]) -> list[float]:
    """Returns the ratio in each round that has both, as disturbances mostly affect both."""
    return [mine[number] / others[number] for number in mine if others.get(number)]
