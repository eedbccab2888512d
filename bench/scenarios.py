"""Throughput and latency: all scenarios on one tunnel, for each subject and round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from bench import subjects, traffic, tunnel
from bench.plan import Part, Plan
from bench.record import FAILURES, Record
from bench.subjects import BORINGTUN, DEBIAN, GOTATUN, NULL, RAW, WIREGUARD_GO, WIRESNAKE, Subject
from bench.tunnel import FAR6, Network

Figures = dict[str, float]
SIZES = (64, 1372)
"""Of UDP datagrams: the second fills a packet of the tunnel, all but a few bytes."""

# The most rounds of each subject: enough for the goals, and for the others what shows where they
# stand. A subject that is not named is not measured.
_EVERY = 1000
_PAIR = {WIRESNAKE: _EVERY, WIREGUARD_GO: _EVERY}
_MAIN = _PAIR | {RAW: _EVERY, NULL: _EVERY}
_HEADLINE = _MAIN | {BORINGTUN: 2, GOTATUN: 2, DEBIAN: 1}
_FIRST = _MAIN | {BORINGTUN: _EVERY, GOTATUN: _EVERY, DEBIAN: 2}
_SIDE = {RAW: 3, NULL: 3, WIRESNAKE: 3, WIREGUARD_GO: 3}
_SEARCH = _PAIR | {RAW: 1, NULL: 1}
_QUICK_FIRST = _PAIR | {RAW: 1, NULL: 1, BORINGTUN: 1, GOTATUN: 1}
_QUICK_UDP = _PAIR | {RAW: 1}
_ONCE = {WIRESNAKE: 1, WIREGUARD_GO: 1}


@dataclass(frozen=True)
class Conditions:
    seconds: int
    """Of one measurement; iperf3 knows whole seconds only."""
    steps: int
    """Of the search for a rate without loss."""
    ceilings: Mapping[int, float]
    """How many datagrams of each size the bare cable delivers in a second when it is flooded."""


@dataclass(frozen=True)
class Scenario:
    name: str
    measure: Callable[[Network, Conditions], Figures]
    rounds: Mapping[str, int]
    quick: Mapping[str, int]
    variant: Callable[[Network], AbstractContextManager[None]] = tunnel.plain

    def due(self, subject: Subject, number: int, plan: Plan) -> bool:
        if not plan.wants(self.name):
            return False
        most = self.quick if plan.quick else self.rounds
        return not plan.sparing or number <= most.get(subject.name, 0)


def _tcp(options: str = "", far: str = tunnel.FAR) -> Callable[[Network, Conditions], Figures]:
    return lambda net, at: traffic.tcp(net, at.seconds, options, far)


def _delivered(size: int) -> Callable[[Network, Conditions], Figures]:
    def measure(net: Network, at: Conditions) -> Figures:
        offered = at.ceilings[size]
        return {"delivered": traffic.udp(net, size, offered, at.seconds)[0], "offered": offered}

    return measure


def _lossless(size: int) -> Callable[[Network, Conditions], Figures]:
    def measure(net: Network, at: Conditions) -> Figures:
        def offer(rate: float) -> tuple[float, float]:
            return traffic.udp(net, size, rate, max(1, at.seconds // 2))

        # Twice the ceiling: a flooded cable carries less than one that has time to spare.
        return {"lossless": traffic.highest_rate(offer, 2 * at.ceilings[size], at.steps)}

    return measure


def _idle(net: Network, _: Conditions) -> Figures:
    """Of three short runs the middle one: which processors the scheduler wakes changes a lot, and
    mostly stays as it is for as long as a run lasts."""
    runs = [traffic.ping_pong(net, 1) for _ in range(3)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _loaded(net: Network, at: Conditions) -> Figures:
    with traffic.stream(net, at.seconds + 10):
        return traffic.ping_pong(net, at.seconds)


SCENARIOS = (
    Scenario("TCP 1 stream", _tcp(), _FIRST, _QUICK_FIRST),
    Scenario("TCP 4 streams", _tcp("-P 4"), _HEADLINE, _PAIR),
    Scenario("TCP bidirectional", _tcp("--bidir"), _HEADLINE, _PAIR),
    Scenario("TCP reverse", _tcp("--reverse"), _SIDE, {}),
    Scenario("TCP IPv6 inside", _tcp(far=FAR6), _SIDE, {}),
    Scenario("TCP NIC-like cable", _tcp(), _MAIN, _PAIR, tunnel.nic_like),
    Scenario("TCP jumbo 8920", _tcp(), _SIDE, {}, tunnel.jumbo),
    *(Scenario(f"UDP {size} B overload", _delivered(size), _MAIN, _QUICK_UDP) for size in SIZES),
    *(Scenario(f"UDP {size} B lossless", _lossless(size), _SEARCH, _ONCE) for size in SIZES),
    Scenario("latency idle", _idle, _HEADLINE, _PAIR),
    Scenario("latency under load", _loaded, _HEADLINE, _PAIR),
)


def run(chosen: Sequence[Subject], plan: Plan, record: Record) -> None:
    at = Conditions(max(1, round(plan.seconds)), 5 if plan.quick else 7, _ceilings(plan))
    for number in range(1, plan.rounds + 1):
        # The other way round in every second round, so that nobody always comes first.
        for subject in chosen if number % 2 else reversed(chosen):
            due = [scenario for scenario in SCENARIOS if scenario.due(subject, number, plan)]
            if due:
                _turn(subject, number, due, at, record)


def _turn(
    subject: Subject, number: int, due: Sequence[Scenario], at: Conditions, record: Record
) -> None:
    """All scenarios on one tunnel. Where there is none, that is what all of them say."""
    left = list(due)
    try:
        with tunnel.network(subject) as net:
            while left:
                scenario = left[0]
                take = partial(_measure, scenario, net, at)
                record.measure(subject, scenario.name, number, take)
                left.pop(0)
    except FAILURES as error:
        for scenario in left:
            record.fail(subject, scenario.name, number, error)


def _measure(scenario: Scenario, net: Network, at: Conditions) -> Figures:
    with scenario.variant(net):
        return scenario.measure(net, at)


def _ceilings(plan: Plan) -> dict[int, float]:
    """What every subject is offered: as much as saturates the bare cable on this machine."""
    if not any(plan.wants(scenario.name) for scenario in SCENARIOS if "UDP" in scenario.name):
        return {}
    (raw,) = (subject for subject in subjects.subjects()[0] if subject.name == RAW)
    with tunnel.network(raw) as net:
        return {size: traffic.udp(net, size, 0, 2)[0] for size in SIZES}


PART = Part(tuple(scenario.name for scenario in SCENARIOS), run)
