"""Ours against every other WireGuard: both roles, both IP versions, with and without PSK."""

import pytest
from interop.harness import Implementation, MakeHost, assert_pings, assert_tcp, tunnel

outer = pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
psk = pytest.mark.parametrize("psk", [False, True], ids=["no-psk", "psk"])


def carries_traffic(
    make_host: MakeHost, initiator: Implementation, responder: Implementation, outer: int, psk: bool
) -> None:
    a, b = tunnel(
        make_host("initiator"), make_host("responder"), initiator, responder, outer=outer, psk=psk
    )
    assert b.peer_endpoint() == "(none)"
    assert_pings(a, b)
    for end, other, version in ((a, b, 4), (b, a, 6)):
        assert_tcp(end, other, version)
    assert b.peer_endpoint() == a.endpoint(outer)
    for end in (a, b):
        assert end.handshake() > 0
        assert all(count > 8 << 20 for count in end.transfer())


@outer
@psk
def test_we_initiate(
    make_host: MakeHost, ours: Implementation, peer: Implementation, outer: int, psk: bool
) -> None:
    carries_traffic(make_host, ours, peer, outer, psk)


@outer
@psk
def test_we_respond(
    make_host: MakeHost, ours: Implementation, peer: Implementation, outer: int, psk: bool
) -> None:
    carries_traffic(make_host, peer, ours, outer, psk)


@outer
@psk
def test_among_ourselves(make_host: MakeHost, ours: Implementation, outer: int, psk: bool) -> None:
    carries_traffic(make_host, ours, ours, outer, psk)


@pytest.mark.item(6)
def test_different_psks_never_meet(
    make_host: MakeHost, ours: Implementation, peer: Implementation
) -> None:
    """A key on one side only must stop the tunnel (conformance item 6)."""
    a, b = tunnel(make_host("a"), make_host("b"), peer, ours)
    a.wg("set", "wg0", "peer", b.public, "preshared-key", "/dev/stdin", text=a.wg("genpsk"))
    a.host.run("ping -c1 -W1", b.inner[4], check=False)
    assert a.handshake() == 0
    assert b.handshake() == 0
