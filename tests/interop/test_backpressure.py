"""Floods from within and a slow road: other peers do not suffer, and SIGTERM is heard."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    assert_pings,
    count_pings,
    join,
    tunnel,
    unavailable,
)

from lab import hosts
from lab.hosts import Host, Process

pytestmark = pytest.mark.alone

# As fast as the kernel takes them; what it refuses is as good as sent.
FLOOD = """
import contextlib, socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
data = bytes(1300)
while True:
    with contextlib.suppress(OSError):
        out.sendto(data, (sys.argv[1], 9))
"""
NOBODY = "10.9.0.77"
"""Of a peer that is configured and never answers."""
UNROUTED = "10.77.0.1"
"""Routed to the interface, and of no peer."""


def flood(host: Host, target: str) -> Process:
    return host.start(sys.executable, "-c", FLOOD, target)


def seconds_to_end(ours: Implementation, host: Host) -> float:
    """From SIGTERM to the daemon's end, 5 at the most."""
    (pid,) = host.processes(Path(ours.program).name)
    os.kill(pid, signal.SIGTERM)
    begun = time.monotonic()
    while time.monotonic() < begun + 5:
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.005)
    return time.monotonic() - begun


def longest(output: str) -> float:
    """The longest round trip of a `ping`, in ms."""
    found = re.search(r"rtt min/avg/max/mdev = [\d.]+/[\d.]+/([\d.]+)/", output)
    assert found is not None, output
    return float(found[1])


def slow_down(end: End, limit: str) -> None:
    """The end's cable carries 50 kbit/s: whoever waits for room in its queue waits for seconds."""
    command = f"tc qdisc add dev {end.device} root tbf rate 50kbit burst 70k limit {limit}"
    done = end.host.run(command, check=False)
    if "qdisc kind is unknown" in done.stderr:
        pytest.skip("this kernel has no sch_tbf")
    if done.returncode:
        unavailable(f"tc fails: {done.stderr}")


def await_full(end: End) -> None:
    """Until the queue grows no more: it is full, or the daemon's socket has no room."""

    def queued() -> int:
        shown = end.host.output(f"tc -s qdisc show dev {end.device}")
        found = re.search(r"backlog (\d+)([KM]?)b", shown)
        assert found is not None, shown
        return int(found[1]) * {"": 1, "K": 1 << 10, "M": 1 << 20}[found[2]]

    hosts.wait_for("a queue", lambda: queued() > 1 << 20)
    last = -1
    while (now := queued()) > last:
        last = now
        time.sleep(0.2)


def test_sigterm_is_heard_on_a_slow_road(make_host: MakeHost, ours: Implementation) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_pings(a, b)
    slow_down(a, "1gb")  # more than a socket may send
    flooding = flood(a.host, b.inner[4])
    await_full(a)
    ended = seconds_to_end(ours, a.host)
    flooding.stop(signal.SIGKILL)
    assert ended <= 1, f"{ended:.1f} s"


def test_a_slow_road_does_not_hold_up_another_peer(
    make_host: MakeHost, ours: Implementation
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    c = join(a, make_host("c"), ours)
    assert_pings(a, b)
    assert_pings(a, c)
    slow_down(a, "20mb")
    flooding = flood(a.host, b.inner[4])
    await_full(a)
    command = "ping -n -q -c 30 -i 0.04 -W 1"
    flooded = count_pings(a.host.run(command, c.inner[4], check=False).stdout)
    flooding.stop(signal.SIGKILL)
    calm = count_pings(a.host.run(command, c.inner[4], check=False).stdout)
    # While the flood lasts, the queue of the interface itself is full, too, and drops some.
    said = f"to the other peer: {flooded} in the flood, {calm} when only the slow road is full"
    assert calm.received >= 0.9 * calm.sent, said
    assert flooded.received >= 0.5 * flooded.sent, said


def test_floods_to_nobody_leave_the_others_alone(make_host: MakeHost, ours: Implementation) -> None:
    """Of packets that are staged for a session that never comes, and of those without a peer."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    _, public = hosts.keypair()
    a.wg("set", "wg0", "peer", public, "endpoint", "192.0.2.77:9", "allowed-ips", f"{NOBODY}/32")
    a.host.run("ip route add 10.77.0.0/24 dev wg0")
    assert_pings(a, b)
    for target in (NOBODY, UNROUTED):
        flooding = flood(a.host, target)
        command = "ping -n -q -c 50 -i 0.03 -W 1"
        pinging = [end.host.start(command, other.inner[4]) for end, other in ((a, b), (b, a))]
        outputs = [process.wait(10)[1] for process in pinging]
        flooding.stop(signal.SIGKILL)
        for output in outputs:
            assert longest(output) < 500, f"flood to {target}: {output}"
            # The flood fills the queue of the interface, where the kernel drops ours, too.
            pings = count_pings(output)
            assert pings.received >= 0.5 * pings.sent, f"flood to {target}: {pings}"
    assert_pings(a, b)


@pytest.mark.parametrize(
    "target", [NOBODY, UNROUTED, "10.9.0.2"], ids=["no-session", "no-peer", "a-peer"]
)
def test_sigterm_is_heard_in_a_flood(
    make_host: MakeHost, ours: Implementation, target: str
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    _, public = hosts.keypair()
    a.wg("set", "wg0", "peer", public, "endpoint", "192.0.2.77:9", "allowed-ips", f"{NOBODY}/32")
    a.host.run("ip route add 10.77.0.0/24 dev wg0")
    assert_pings(a, b)
    floods = [flood(a.host, target) for _ in range(2)]
    time.sleep(0.3)
    ended = seconds_to_end(ours, a.host)
    for flooding in floods:
        flooding.stop(signal.SIGKILL)
    assert ended <= 1, f"{ended:.1f} s"
    assert "wg0" not in a.host.output("ip -o link")
