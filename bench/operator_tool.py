"""The operator's tool beside stock `wg` and `wg-quick`, on the same daemon: what a person or a
script waits for, and whether traffic notices a reload."""

import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench import scale, traffic
from bench.plan import TOOL, Part, Plan
from bench.record import FAILURES, Record
from bench.subjects import COMMANDS, PYTHON, STOCK, WIRESNAKE, Subject
from bench.tunnel import Network
from lab import hosts
from lab.hosts import Host, LabError

ONE, MANY, UP, RELOAD = TOOL
SHOWN = {ONE: 1, MANY: 10_000}
ROUTES, RELOADED = 1000, 10_000
SECONDS = 5
"""Seconds of traffic, from a second before a reload, which must be finished by then."""

_WIRESNAKE = str(Path(sys.executable).with_name("wiresnake"))
_DAEMON = str(Path(sys.executable).with_name("wiresnaked"))
_FILE = "/run/wg0.conf"
_SHOW = {STOCK: "wg", WIRESNAKE: _WIRESNAKE}
_UP = {STOCK: f"wg-quick up {_FILE}", WIRESNAKE: f"{_WIRESNAKE} up --backend user {_FILE}"}
_DOWN = {STOCK: f"wg-quick down {_FILE}", WIRESNAKE: f"{_WIRESNAKE} down {_FILE}"}
# Stock's command is that of the unit wg-quick@.
_RELOAD = {
    STOCK: f"bash -c 'exec wg syncconf wg0 <(exec wg-quick strip {_FILE})'",
    WIRESNAKE: f"{_WIRESNAKE} reload {_FILE}",
}
_USERSPACE = {"WG_QUICK_USERSPACE_IMPLEMENTATION": _DAEMON}
_PASS = (sys.executable, "-c", "pass")

# Within the host, so that the way into it does not count; in turns with a Python that does nothing.
_TIMES = """
import subprocess, sys, time
for _ in range(int(sys.argv[1])):
    for command in ([sys.executable, "-c", "pass"], sys.argv[2:]):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        print(time.perf_counter() - began)
"""


def run(subjects: Sequence[Subject], plan: Plan, record: Record) -> None:
    ours = [subject for subject in subjects if subject.name == WIRESNAKE]
    chosen = [*COMMANDS, *ours] if ours else []
    both = [subject for subject in chosen if subject.name != PYTHON]
    for name in filter(plan.wants, SHOWN):
        with ExitStack() as stack:
            try:
                host = stack.enter_context(listed(SHOWN[name]))
            except FAILURES as error:
                for subject in chosen:
                    record.fail(subject, name, 1, error)
                continue
            for number, subject in turns(plan.rounds, chosen if name == ONE else both):
                record.measure(subject, name, number, partial(show, host, subject))
    for name, take in ((UP, up_and_down), (RELOAD, reload)):
        if plan.wants(name):
            for number, subject in turns(1 if plan.quick else min(3, plan.rounds), both):
                record.measure(subject, name, number, partial(take, subject))


def turns(rounds: int, subjects: Sequence[Subject]) -> Iterator[tuple[int, Subject]]:
    """The other way round in every second round, so that nobody always comes first."""
    for number in range(1, rounds + 1):
        for subject in subjects if number % 2 else reversed(subjects):
            yield number, subject


@contextmanager
def listed(peers: int) -> Iterator[Host]:
    """Makes a host whose wg0 has that many peers."""
    with Host("b") as host:
        host.run(Path(_DAEMON), "wg0")
        text = interface() + scale.idle(peers)
        host.run("wg setconf wg0 /dev/stdin", text=text, timeout=90)
        yield host


def show(host: Host, subject: Subject) -> Mapping[str, float]:
    """Measures output for people, for scripts, and as JSON, which stock does not have."""
    if subject.name == PYTHON:
        return {"show": times(host, *_PASS)[0]}
    command = hosts.words(f"{_SHOW[subject.name]} show wg0")
    took, above = times(host, *command)
    figures = {"show": took, "show_dump": times(host, *command, "dump")[0]}
    if subject.name == WIRESNAKE:
        figures |= {"show_json": times(host, *command, "--json")[0], "above": above}
    return figures


def times(host: Host, *command: str) -> tuple[float, float]:
    """Returns a command's time in ms, and above an idle Python: the medians of ten runs."""
    said = host.run(sys.executable, "-", "10", *command, text=_TIMES, timeout=90).stdout
    taken = [1000 * float(line) for line in said.splitlines()]
    nothing, command_ = (statistics.median(taken[which::2]) for which in (0, 1))
    return command_, command_ - nothing


def up_and_down(subject: Subject) -> Mapping[str, float]:
    with stock_host("b") as host:
        write(host, interface("Address = 10.9.0.2/24\n") + scale.idle(ROUTES))
        up, down = (
            partial(host.run, command[subject.name], env=_USERSPACE, timeout=120)
            for command in (_UP, _DOWN)
        )
        took = {"up": scale.timed(up)}
        if len(routes(host)) != ROUTES:
            raise LabError(f"{len(routes(host))} routes instead of {ROUTES}")
        took["down"] = scale.timed(down)
        if routes(host) or "wg0" in host.output("ip -o link"):
            raise LabError("down left something behind")
        return took


def reload(subject: Subject) -> Mapping[str, float]:
    """Changes one peer's allowed IPs, during 1,000 pings per second and a steady stream."""
    with served(subject) as (net, changed):
        write(net.b, changed)
        with traffic.steady(net) as stream:
            pings = net.a.start(f"ping -n -q -i 0.001 -c {SECONDS * 1000} -W 2 10.9.0.2")
            time.sleep(1)
            took = scale.timed(lambda: net.b.run(_RELOAD[subject.name], timeout=90))
            if pings.popen.poll() is not None:
                raise LabError(f"it took {took:.1f} s, longer than there was traffic")
            counted = answered(pings.wait(60)[1])
        if "10.127.0.1/32" not in net.b.output("wg show wg0 allowed-ips"):
            raise LabError("the change was not made")
    return {
        "reload": took,
        "lost": counted[0] - counted[1],
        "pings": counted[0] / counted[2],
        "gap": stream.gap * 1000,
        "retransmits": stream.resent,
    }


@contextmanager
def served(subject: Subject) -> Iterator[tuple[Network, str]]:
    """A client's tunnel to a server of 10,000 more peers, each with a route; and the server's file
    with one peer changed. Stock's is brought up without wg-quick, which takes minutes for that."""
    with Host("a") as a, stock_host("b") as b:
        devices = hosts.cable(a, b)
        for number, (host, device) in enumerate(zip((a, b), devices, strict=True), start=1):
            hosts.address(host, device, f"192.0.2.{number}/24")
        keys = hosts.keypair(), hosts.keypair()
        client = f"[Peer]\nPublicKey = {keys[0][1]}\nAllowedIPs = 10.9.0.1/32\n"
        peers = client + scale.idle(RELOADED)
        head = f"[Interface]\nPrivateKey = {keys[1][0]}\nListenPort = 51820\n"
        address = "Address = 10.9.0.2/24\n"
        write(b, head + address + peers)
        if subject.name == WIRESNAKE:
            b.run(_UP[WIRESNAKE], env=_USERSPACE, timeout=90)
        else:
            b.run(Path(_DAEMON), "wg0")
            b.run("wg setconf wg0 /dev/stdin", text=head + peers, timeout=90)
            hosts.address(b, "wg0", "10.9.0.2/24")
            b.run("ip link set wg0 mtu 1420 up")
            inner = re.findall(r"10\.6\d\.\S+/32", peers)
            batch = "".join(f"route add {each} dev wg0\n" for each in inner)
            b.run("ip -batch -", text=batch)
        a.run(Path(_DAEMON), "wg0")
        text = (
            f"[Interface]\nPrivateKey = {keys[0][0]}\nListenPort = 51820\n"
            f"[Peer]\nPublicKey = {keys[1][1]}\nAllowedIPs = 10.9.0.2/32\n"
            "Endpoint = 192.0.2.2:51820\n"
        )
        a.run("wg setconf wg0 /dev/stdin", text=text)
        hosts.address(a, "wg0", "10.9.0.1/24")
        a.run("ip link set wg0 mtu 1420 up")
        hosts.await_tunnel(a, b)
        a.run("ping -q -c 1 -w 8 10.9.0.2", timeout=10)
        yield Network(a, b, devices, ()), head + address + changed(peers)


def changed(peers: str) -> str:
    """Returns the peers, with other allowed IPs for the one in the middle."""
    lines = peers.splitlines(keepends=True)
    middle = next(
        number
        for number in range(len(lines) // 2, len(lines))
        if lines[number].startswith("AllowedIPs")
    )
    lines[middle] = "AllowedIPs = 10.127.0.1/32\n"
    return "".join(lines)


def interface(more: str = "") -> str:
    return f"[Interface]\nPrivateKey = {hosts.keypair()[0]}\nListenPort = 51820\n{more}"


def write(host: Host, text: str) -> None:
    host.run("sh -c", f"umask 077; cat >{_FILE}", text=text)


def routes(host: Host) -> list[str]:
    """Returns the number of the peers' routes; the interface's own address has one, too."""
    return re.findall(r"^10\.6\d\..* dev wg0", host.output("ip -4 route"), re.MULTILINE)


def stock_host(name: str) -> Host:
    """Where the kernel has WireGuard, stock wg-quick must not see it: both are to have ours."""
    return Host(name, kernel_wireguard=not Path("/sys/module/wireguard").exists())


def answered(output: str) -> tuple[int, int, float]:
    """Parses how many pings were sent and answered, and in how many seconds."""
    found = re.search(r"(\d+) packets transmitted, (\d+) received.* time (\d+)ms", output)
    if found is None:
        raise LabError(f"ping: {output}")
    return int(found[1]), int(found[2]), int(found[3]) / 1000


PART: Part = Part(TOOL, run)
