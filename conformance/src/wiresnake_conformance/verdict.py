"""What a check can say, and the list of checks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    PASS = "pass"
    DIFFERS = "differs"
    FAILED = "failed"
    """The device died, hung, could not be configured or answered nonsense."""
    NOT_APPLICABLE = "not applicable"
    INCONCLUSIVE = "inconclusive"
    """The machine was too slow, at every try, for what was seen to be the device's doing."""
    ERROR = "error"
    """The suite's own fault: nothing is said about the device."""


CERTAIN = float("inf")
"""`needs` of what no lateness explains, such as a packet that was changed."""
UNASKED = 1e9
"""That of what came and ought not to: certain, except in a check that depends on time."""


class Doubtable(Exception):
    """What a slow machine may be the cause of."""

    def __init__(self, text: str, *, needs: float | None = None) -> None:
        """`needs` is how late the machine would have to be, in seconds, to be the cause of it;
        the check's own margin if it is not given."""
        super().__init__(text)
        self.needs = needs


class Differs(Doubtable):
    """The device does other than the item says."""


class Failed(Doubtable):
    """The device cannot be tested any further."""


class Inconclusive(Exception):
    """The check itself has seen that the machine is too slow, or too busy, to tell."""


class NotApplicable(Exception):
    """The item says nothing about such a device, or cannot be seen on it."""


@dataclass
class Log:
    """The evidence: what was sent, what came back, what was expected."""

    lines: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.start:8.3f} {printable(text)}")


def printable(text: str) -> str:
    """Without what a device may have printed that no report can hold: control characters."""
    return "".join(one if one.isprintable() else "?" for one in text)


@dataclass(frozen=True)
class Check:
    """A way to see whether a device keeps an item of the list."""

    number: int
    """The item's."""
    function: Callable[[Any], None]
    seconds: float
    """What it takes with a device that passes; most of it is waiting."""
    alone: bool
    """It loads the machine: nothing else may run meanwhile."""
    shared: bool
    """It adds peers of its own and changes nothing else, so a configured interface will do."""
    margin: float = 1.0
    """How late the machine may be, in seconds, before a difference may be of its making: the least
    time between what the check does and what the device may do by then or no longer."""
    timed: bool = False
    """Even an answer that is wrong may be so because this check or the device was late."""

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def meaning(self) -> str:
        return " ".join((self.function.__doc__ or "").split())


CHECKS: list[Check] = []


def check(
    number: int,
    *,
    seconds: float = 2,
    alone: bool = False,
    shared: bool = True,
    margin: float | None = None,
) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Registers a function that takes a `Testbed`; its docstring says what it expects. One that
    depends on when things happen has a `margin`; one that loads the machine has one anyway."""
    timed = alone or margin is not None
    if margin is None:
        margin = 0.4 if alone else 1.0

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS.append(Check(number, function, seconds, alone, shared, margin, timed))
        return function

    return register
