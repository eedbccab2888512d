"""Either end moves to another address and port while packets flow; the other follows."""

import time

import pytest
from interop.harness import Implementation, MakeHost, assert_pings, count_pings, move
from kernel.harness import connect
from kernel.uml import Uml


@pytest.mark.parametrize("mover", ["ours", "theirs"])
@pytest.mark.parametrize("outer", [4, 6], ids=["v4", "v6"])
def test_an_end_moves(
    kernel: Uml, make_host: MakeHost, ours: Implementation, mover: str, outer: int
) -> None:
    """At 50 packets per second, only packets that are under way during the move may be lost. The
    move ends with its commands."""
    our, their = connect(make_host("ours"), kernel, ours, outer=outer)
    assert_pings(our, their)
    moves, follows = (our, their) if mover == "ours" else (their, our)
    pings = moves.host.start("ping -n -q -i 0.02 -c 100 -W 2", follows.inner[4])
    began = time.monotonic()
    move(moves, outer)
    took = time.monotonic() - began
    lost = count_pings(pings.wait(60)[1]).lost
    assert lost <= 5 + 50 * took
    assert lost < 90, "it never follows"
    assert follows.peer_endpoint() == moves.endpoint(outer)
    assert_pings(follows, moves)


def test_an_end_turns_to_the_other_ip_version(
    kernel: Uml, make_host: MakeHost, ours: Implementation
) -> None:
    """The other end follows, from the address that was used."""
    our, their = connect(make_host("ours"), kernel, ours)
    assert_pings(our, their)
    for turns, follows in ((our, their), (their, our)):
        for version in (6, 4):
            turns.wg("set", "wg0", "peer", follows.public, "endpoint", follows.endpoint(version))
            assert_pings(turns, follows)
            assert follows.peer_endpoint() == turns.endpoint(version)
            assert turns.peer_endpoint() == follows.endpoint(version)
