"""An idle tunnel is silent on the wire and asleep in the machine."""

import time
from pathlib import Path

import pytest
from interop.harness import (
    Implementation,
    MakeHost,
    Wiretap,
    assert_pings,
    context_switches,
    tunnel,
)

SETTLES, WATCHED = 30, 60
"""Seconds: from the last packet, and from then on."""


@pytest.mark.slow
@pytest.mark.item(66, 96)
def test_idle_is_silent(make_host: MakeHost, ours: Implementation) -> None:
    """A minute, from 30 s after the last packet: no datagram, no context switch, on either end.

    Everything is routed to the peer, so that whatever the kernel itself sends would show.
    """
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, allowed="0.0.0.0/0, ::/0")
    assert_pings(a, b)
    pids = [pid for end in (a, b) for pid in end.host.processes(Path(ours.program).name)]
    assert len(pids) == 2
    tap = Wiretap(a.host, a.device)
    time.sleep(SETTLES)
    before = [*map(context_switches, pids)]
    tap.packets()
    time.sleep(WATCHED)
    assert [*map(context_switches, pids)] == before
    assert tap.packets() == []
    tap.close()
    assert_pings(a, b)
