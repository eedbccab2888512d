"""Traffic over a network, and what arrives of it: TCP and UDP by iperf3, latency by sockperf, and
a stream of our own that shows when nothing came."""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.tunnel import FAR, Network
from lab import hosts
from lab.hosts import LabError

IPERF_PORT = 5201
_SOCKPERF_PORT = 11111
_LEAST = 64
"""The search for a rate without loss begins at this fraction of the cable's: 1 / 64."""
MOST_LOSS = 0.001
_PATIENCE = 10
"""Seconds after which a stream counts as dead."""


def tcp(
    net: Network,
    seconds: float,
    options: str = "",
    far: str = FAR,
    port: int = IPERF_PORT,
    through: Sequence[str] = (),
) -> dict[str, float]:
    """Returns the Gbit/s that arrived, in all streams and both directions, and their cost.

    `far` and `port` are where the client connects to, `through` the command that runs it."""
    tunnel, total = sum(map(hosts.cpu_seconds, net.pids)), _busy()
    end = _iperf(net, f"-t {seconds} {options}", far, seconds, port, through)
    tunnel, total = sum(map(hosts.cpu_seconds, net.pids)) - tunnel, _busy() - total
    directions = [end[name] for name in end if name.startswith("sum_received")]
    gigabytes = sum(direction["bytes"] for direction in directions) / 1e9
    figures = {
        "gbit": sum(direction["bits_per_second"] for direction in directions) / 1e9,
        "total_cpu": total / gigabytes,
        "retransmits": sum(
            end[name].get("retransmits", 0) for name in end if name.startswith("sum_sent")
        ),
    }
    return figures | ({"tunnel_cpu": tunnel / gigabytes} if net.pids else {})


def udp(net: Network, size: int, rate: float, seconds: float) -> tuple[float, float]:
    """Offers that many datagrams a second (0: all it can). Returns what arrived of them in a
    second, and which part was lost."""
    # A timer of 100 us keeps the bursts short; a large buffer bridges the time in which the
    # receiver waits for a processor, so that what is lost was lost by the tunnel.
    options = f"-u -l {size} -b {rate * size * 8:.0f} --pacing-timer 100 -w {_buffer()}"
    end = _iperf(net, f"-t {seconds} {options}", FAR, seconds)
    arrived = end["sum"]["packets"] - end["sum"]["lost_packets"]
    return arrived / end["sum"]["seconds"], end["sum"]["lost_percent"] / 100


def highest_rate(
    offer: Callable[[float], tuple[float, float]], ceiling: float, steps: int
) -> float:
    """The highest rate that arrived with less than 0.1 % loss, by bisection of the logarithm of
    what is offered. `offer` answers as `udp` does.

    A rate has two chances: one disturbance by others must not halve what is found.
    """
    good, bad = ceiling / _LEAST, ceiling
    highest = 0.0
    for _ in range(steps):
        middle = (good * bad) ** 0.5
        for _ in range(2):
            arrived, lost = offer(middle)
            if lost < MOST_LOSS:
                # Not the offered rate, as the sender may be slower than requested.
                good, highest = middle, max(highest, arrived)
                break
        else:
            bad = middle
    return highest


def ping_pong(net: Network, seconds: float) -> dict[str, float]:
    """Measures round trips of 64 bytes, one at a time."""
    server = net.b.start(f"sockperf server -i {FAR} -p {_SOCKPERF_PORT}")
    try:
        hosts.wait_for("sockperf", lambda: hosts.listens(net.b, _SOCKPERF_PORT, "udp"))
        said = net.a.run(
            f"sockperf ping-pong -i {FAR} -p {_SOCKPERF_PORT} -m 64 -t {max(1, round(seconds))}"
            " --full-rtt",
            timeout=seconds + 15,
        ).stdout
    finally:
        server.stop()
    found = dict(re.findall(r"percentile (\d+\.\d+) *= *([\d.]+)", said))
    if "50.000" not in found:
        raise LabError("sockperf had no answers in time")
    return {"p50": float(found["50.000"]), "p99": float(found["99.000"])}


@contextmanager
def stream(net: Network, seconds: float) -> Iterator[None]:
    """Runs a TCP stream during the block, for at most that many seconds."""
    with _listener(net):
        client = net.a.start(f"iperf3 -c {FAR} -p {IPERF_PORT} -t {seconds}")
        try:
            yield
            if client.popen.poll() is not None:
                raise LabError(f"iperf3 ended too early: {client.wait(1)[1]}")
        finally:
            client.stop()


@dataclass
class Steady:
    """The result of a steady stream."""

    gap: float = 0.0
    """The longest time in which the receiver got nothing, in seconds."""
    resent: int = 0
    """Segments that were sent again."""


@contextmanager
def steady(net: Network) -> Iterator[Steady]:
    """Runs a TCP stream of 16 KiB every 4 ms, a small part of what the tunnel can carry."""
    found, over = Steady(), threading.Event()
    listener = net.b.inside(lambda: socket.create_server((FAR, 0)))
    with listener:
        out = net.a.inside(lambda: socket.create_connection(listener.getsockname(), _PATIENCE))
        into, _ = listener.accept()
    into.settimeout(_PATIENCE)

    def send() -> None:
        with out, contextlib.suppress(TimeoutError):
            while not over.wait(0.004):
                out.sendall(bytes(16 << 10))
            info = out.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            found.resent = int.from_bytes(info[100:104], sys.byteorder)  # tcpi_total_retrans

    def receive() -> None:
        last = time.monotonic()
        with into, contextlib.suppress(TimeoutError):
            while into.recv(1 << 20):
                found.gap, last = max(found.gap, time.monotonic() - last), time.monotonic()
        found.gap = max(found.gap, time.monotonic() - last)

    threads = [threading.Thread(target=work) for work in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _iperf(
    net: Network,
    options: str,
    far: str,
    seconds: float,
    port: int = IPERF_PORT,
    through: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the `end` of iperf3's report."""
    with _listener(net):
        done = net.a.run(
            *through,
            *hosts.words(f"iperf3 -c {far} -p {port} -J --connect-timeout 3000 {options}"),
            check=False,
            timeout=seconds + 15,
        )
    report = json.loads(done.stdout)
    if "error" in report:
        raise LabError(f"iperf3: {report['error']}")
    end: dict[str, Any] = report["end"]
    return end


@contextmanager
def _listener(net: Network) -> Iterator[None]:
    """Runs an iperf3 server for one client, and ends it, as it waits forever for a failed
    client."""
    listener = net.b.start(f"iperf3 -s -1 -p {IPERF_PORT}")
    try:
        hosts.wait_for("iperf3 to listen", lambda: hosts.listens(net.b, IPERF_PORT))
        yield
    finally:
        listener.stop()


def _busy() -> float:
    """Returns the seconds that all CPUs have worked so far, without idle and stolen time."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _buffer() -> int:
    limits = (int(Path(f"/proc/sys/net/core/{name}mem_max").read_text()) for name in "rw")
    return min(2**21, *limits)
