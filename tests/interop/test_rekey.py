"""Sessions are replaced while traffic flows, and no packet is lost over it."""

import sys
import time
from pathlib import Path

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    assert_pings,
    assert_tcp,
    configure,
    count_pings,
    ends,
)

from lab import hosts

RUNNER = str(Path(__file__).with_name("short_timers.py"))


def begin(a: End, b: End, other: Implementation | None) -> None:
    """We begin, with short timers; the other end is a peer, or ourselves with short timers."""
    for end in (a, b) if other is None else (a,):
        daemon = end.host.start(Path(sys.executable), RUNNER, "wg0")
        socket = f"/proc/{daemon.pid}/root/run/wireguard/wg0.sock"
        hosts.wait_for("the daemon's socket", Path(socket).exists)
    if other is not None:
        other.start(b.host)
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
@pytest.mark.item(55, 67)
def test_we_rekey_among_ourselves(make_host: MakeHost) -> None:
    a, b = ends(make_host("a"), make_host("b"))
    begin(a, b, None)
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
