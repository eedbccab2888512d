"""The possible results of a check, and the list of checks."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    PASS = "pass"
    DIFFERS = "differs"
    FAILED = "failed"
    """The device died, hung, could not be configured or gave a senseless answer."""
    NOT_APPLICABLE = "not applicable"
    INCONCLUSIVE = "inconclusive"
    """At every try, the machine was too slow to attribute the result to the device."""
    ERROR = "error"
    """The suite failed. This says nothing about the device."""


CERTAIN = float("inf")
"""`needs` of a result that no lateness explains, such as a changed packet."""
UNASKED = 1e9
"""`needs` of an unexpected packet: certain, except in a check that depends on time."""


class Doubtable(Exception):
    """A result that a slow machine may have caused."""

    def __init__(self, text: str, *, needs: float | None = None) -> None:
        """`needs` is how late the machine would have to be to cause it, in seconds. The default is
        the check's margin."""
        super().__init__(text)
        self.needs = needs


class Differs(Doubtable):
    """The device behaves differently from the item."""


class Failed(Doubtable):
    """The device cannot be tested any further."""


class Inconclusive(Exception):
    """The check itself found that the machine is too slow or too busy to tell."""


class NotApplicable(Exception):
    """The item does not apply to this device, or cannot be seen on it."""


@dataclass
class Log:
    """The evidence: what was sent, what came back, what was expected."""

    lines: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.start:8.3f} {printable(text)}")


def printable(text: str) -> str:
    """Replaces control characters, which a device may print but a report cannot contain."""
    return "".join(one if one.isprintable() else "?" for one in text)


@dataclass(frozen=True)
class Check:
    """A check of an item of the list."""

    number: int
    """The number of the item."""
    function: Callable[[Any], None]
    seconds: float
    """How long it takes with a device that passes, mostly waiting."""
    alone: bool
    """It loads the machine, so nothing else may run at the same time."""
    shared: bool
    """It only adds its own peers, so it can use a configured interface."""
    margin: float = 1.0
    """How late the machine may be, in seconds, before it may cause a difference: the shortest time
    between a step of the check and the device's deadline for it."""
    timed: bool = False
    """Even a wrong answer may be caused by a late check or a late device."""

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
    """Registers a function that takes a `Testbed`. Its docstring says what it expects.

    A check that depends on time has a `margin`. One that loads the machine always has one.
    """
    timed = alone or margin is not None
    if margin is None:
        margin = 0.4 if alone else 1.0

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS.append(Check(number, function, seconds, alone, shared, margin, timed))
        return function

    return register
