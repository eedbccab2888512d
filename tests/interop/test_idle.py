"""An idle tunnel is silent on the wire and asleep in the machine."""

import time
from pathlib import Path

import pytest
from interop.harness import Implementation, MakeHost, Wiretap, assert_pings, tunnel


def context_switches(pid: int) -> int:
    """Of all the threads of a process, voluntary or not: any look at the world is one."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


@pytest.mark.slow
def test_c066_c096_idle_is_silent(make_host: MakeHost, ours: Implementation) -> None:
    """A minute, from 30 s after the last packet: no datagram, no context switch, on either end.

    Everything is routed to the peer, so that whatever the kernel itself sends would show.
    """
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, allowed="0.0.0.0/0, ::/0")
    assert_pings(a, b)
    program = Path(ours.program).name
    pids = [pid for end in (a, b) for pid in end.host.processes(program)]
    assert len(pids) == 2
    time.sleep(30)
    tap = Wiretap(a.host, a.device)
    before = [context_switches(pid) for pid in pids]
    time.sleep(60)
    assert [context_switches(pid) for pid in pids] == before
    assert tap.packets() == []
    tap.close()
    assert_pings(a, b)
