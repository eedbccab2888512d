"""The plan of a run: scenarios, rounds and times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.record import Record
from bench.subjects import Subject

TOOL = ("show 1 peer", "show 10k peers", "up and down 1k peers", "reload 1 of 10k peers")
"""The scenarios of the operator's tool, which have tables and a page of their own."""
ROOTLESS = (
    "TCP exec",
    "TCP exec reverse",
    "TCP forward",
    "TCP forward reverse",
    "TCP SOCKS5",
    "TCP SOCKS5 reverse",
    "connect SOCKS5",
    "start exec",
    "100 tunnels",
    "connections",
    "import wiresnake",
)
"""The scenarios of tunnels without root, which have tables and a page of their own, too."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    """Of one measurement."""
    quick: bool
    only: frozenset[str] = frozenset()
    """The scenarios that are wanted; none means all."""
    sparing: bool = True
    """Whether slow peers and side scenarios get fewer rounds, so that a run stays short."""

    def wants(self, scenario: str) -> bool:
        return not self.only or scenario in self.only


@dataclass(frozen=True)
class Part:
    """Scenarios that are measured together. Each module of a part has one, by the name of PART."""

    scenarios: tuple[str, ...]
    run: Callable[[Sequence[Subject], Plan, Record], None]
    """Measures the scenarios that the plan wants of the subjects, in turns within each round.
    Every figure goes through `Record.measure`, so that a failure does not end the run."""
