"""Rates and health of peers, from looks at counters."""

import pytest

from wiresnake.devices.activity import Activity, Meter
from wiresnake.uapi.snapshot import InterfaceState, PeerState

WALL = 1_800_000_000.0
PEER = PeerState("A=", None, None, (), (0, 0), 0, 0, 0)


def state(*peers: PeerState) -> InterfaceState:
    return InterfaceState("wg0", "user", None, None, 0, 0, peers)


def looks(*steps: tuple[float, PeerState]) -> Activity:
    """The last of several looks, each at a time and a peer."""
    meter = Meter()
    for now, peer in steps:
        (activity,) = meter.look(state(peer), WALL + now, 100 + now)
    return activity


def test_a_rate_follows_its_counter_smoothly() -> None:
    steps = [(float(n), PEER._replace(received=n * 1000, sent=n * 10)) for n in range(30)]
    assert looks(*steps[:1]).received_rate == 0
    assert 200 < looks(*steps[:2]).received_rate < 500
    assert looks(*steps).received_rate == pytest.approx(1000, rel=0.01)
    assert looks(*steps).sent_rate == pytest.approx(10, rel=0.01)
    steps.append((30.0, PEER))
    assert 0 < looks(*steps).received_rate < 1000, "it started again: no negative rate"


@pytest.mark.parametrize(
    ("health", "steps"),
    [
        ("never", [(0, PEER)]),
        ("no answer", [(0, PEER._replace(sent=148))]),
        ("live", [(0, PEER._replace(latest_handshake=(int(WALL) - 100, 0)))]),
        ("idle", [(0, PEER._replace(latest_handshake=(int(WALL) - 200, 0)))]),
    ],
)
def test_health_at_one_look(health: str, steps: list[tuple[float, PeerState]]) -> None:
    assert looks(*steps).health == health


def test_a_peer_that_does_not_answer_is_silent_until_it_does() -> None:
    shaken = PEER._replace(latest_handshake=(int(WALL), 0), received=92, sent=148)
    steps = [(float(n), shaken._replace(sent=148 + 48 * n)) for n in range(20)]
    assert looks(*steps[:16]).health == "live"
    assert looks(*steps).health == "silent"
    assert looks(*steps, (20.0, shaken._replace(sent=1200, received=200))).health == "live"


def test_nobody_answers_keepalives() -> None:
    shaken = PEER._replace(latest_handshake=(int(WALL), 0), received=92, sent=148)
    steps = [(25.0 * n, shaken._replace(sent=148 + 32 * n)) for n in range(6)]
    assert looks(*steps).health == "live"


def test_the_busiest_come_first_then_who_talked_last() -> None:
    old, never = PEER._replace(public_key="B="), PEER._replace(public_key="C=")
    old = old._replace(latest_handshake=(int(WALL) - 500, 0))
    meter = Meter()
    meter.look(state(PEER, never, old), WALL, 100)
    busy = PEER._replace(received=10_000)
    found = sorted(meter.look(state(never, busy, old), WALL, 101), key=lambda one: one.order)
    assert [one.peer.public_key for one in found] == ["A=", "B=", "C="]
