"""Either end moves to another address and port while packets flow; the other follows."""

from dataclasses import replace

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    assert_pings,
    assert_tcp,
    count_pings,
    move,
    tunnel,
)

from lab import hosts


def moves_unharmed(mover: End, other: End, version: int) -> None:
    """Both ping at 50 Hz: what is on its way in the moment of the move may be lost, no more."""
    command = "ping -n -q -i 0.02 -c 100 -W 2"
    running = [
        end.host.start(command, far.inner[4]) for end, far in ((mover, other), (other, mover))
    ]
    hosts.wait_for("traffic", lambda: mover.handshake() > 0)
    move(mover, version)
    for process in running:
        pings = count_pings(process.wait(20)[1])
        assert pings.lost <= 5, pings
    assert other.peer_endpoint() == mover.endpoint(version)
    assert_pings(mover, other)
    assert_tcp(mover, other)


version = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])


@version
@pytest.mark.item(76)
def test_initiator_moves(
    make_host: MakeHost, either: Implementation, peer: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), either, peer, outer=version)
    assert_pings(a, b)
    moves_unharmed(a, b, version)


@version
@pytest.mark.item(76)
def test_responder_moves(
    make_host: MakeHost, ours: Implementation, peer: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), peer, ours, outer=version)
    assert_pings(a, b)
    moves_unharmed(b, a, version)


@version
@pytest.mark.item(76, 77)
def test_peer_moves_and_we_follow(
    make_host: MakeHost, either: Implementation, peer: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), either, peer, outer=version)
    assert_pings(a, b)
    moves_unharmed(b, a, version)


@version
@pytest.mark.item(78)
def test_answers_from_the_address_that_was_asked(
    make_host: MakeHost, ours: Implementation, peer: Implementation, version: int
) -> None:
    """A host with several addresses must not answer from another: a firewall would drop that."""
    a, b = tunnel(make_host("a"), make_host("b"), peer, ours, outer=version)
    asked = replace(b, outer={4: "192.0.2.202", 6: "2001:db8::202"})
    hosts.address(b.host, b.device, f"{asked.outer[4]}/24", f"{asked.outer[6]}/64")
    a.wg("set", "wg0", "peer", b.public, "endpoint", asked.endpoint(version))
    assert_pings(a, b)
    assert a.peer_endpoint() == asked.endpoint(version)
