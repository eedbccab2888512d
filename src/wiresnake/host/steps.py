"""From what is there to what is wanted, as steps: each knows what it says and how it is undone."""

from dataclasses import dataclass

from wiresnake.host.model import Network


@dataclass(frozen=True)
class Step:
    """`str(step)` is wg-quick's line without `[#]`; `step.inverse()` undoes it."""

    interface: str


def plan(interface: str, present: Network | None, wanted: Network | None) -> list[Step]:
    """The steps from one to the other; pure. No step if they are equal."""
    raise NotImplementedError
