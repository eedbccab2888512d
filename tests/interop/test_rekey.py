"""Sessions are replaced while traffic flows, and no packet is lost over it."""

import time

import pytest
from interop.harness import (
    OURS,
    PORTABLE,
    End,
    Implementation,
    MakeHost,
    ShortTimers,
    assert_pings,
    assert_tcp,
    configure,
    count_pings,
    ends,
)

LINUX = ShortTimers("wiresnaked", OURS.program, OURS.hint)


def begin(a: End, b: End, other: Implementation | None, ours: Implementation = LINUX) -> None:
    """We begin, with short timers; the other end is a peer, or ourselves with short timers."""
    ours.start(a.host)
    (other or LINUX).start(b.host)
    configure(a, b)
    assert_pings(a, b)


def rekeys_without_loss(a: End, b: End) -> None:
    times = {a.handshake()}
    pings = a.host.start("ping -n -q -i 0.005 -c 2400 -W 2", b.inner[4])  # 12 s
    while pings.popen.poll() is None:
        assert_tcp(a, b, window=64 << 10)  # without it a slower peer drops packets
        times.add(a.handshake())
    counted = count_pings(pings.wait(5)[1])
    assert len(times) > 3, f"too few handshakes to prove anything: {times}"
    assert counted.lost == 0, counted


@pytest.mark.item(67)
def test_we_rekey_with_a_peer(make_host: MakeHost, peer: Implementation) -> None:
    a, b = ends(make_host("a"), make_host("b"))
    begin(a, b, peer)
    rekeys_without_loss(a, b)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("plane", [LINUX, PORTABLE], ids=["linux", "portable"])
@pytest.mark.item(55, 67)
def test_we_rekey_among_ourselves(make_host: MakeHost, plane: Implementation) -> None:
    a, b = ends(make_host("a"), make_host("b"))
    begin(a, b, None, plane)
    rekeys_without_loss(a, b)


@pytest.mark.usefixtures("ours")
@pytest.mark.item(69)
def test_expired_session_is_not_used(make_host: MakeHost) -> None:
    """After a silence longer than a session's life the next packet brings a new handshake."""
    a, b = ends(make_host("a"), make_host("b"))
    begin(a, b, None)
    first = a.handshake()
    time.sleep(9)
    assert_pings(a, b)
    assert a.handshake() > first
