"""Tunnels without root: `wiresnake exec`, the proxy and the library, beside our own interface of
root, wireguard-go's netstack, and onetun.

What carries the tunnel, and what uses it, runs as an ordinary user. The far end is always an
interface of wiresnaked.
"""

import base64
import compileall
import json
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench import traffic
from bench.operator_tool import times, turns
from bench.plan import ROOTLESS, Part, Plan
from bench.record import FAILURES, Record
from bench.subjects import (
    EXEC,
    EXEC_ROOT,
    INTERFACE,
    KERNEL,
    NETSTACK,
    ONETUN,
    ROOT,
    USER,
    WIRESNAKE,
    Subject,
    version,
)
from bench.subjects import ROOTLESS as SUBJECTS
from bench.tunnel import FAR, Network
from lab import hosts, ordinary
from lab.hosts import Host, LabError, Process

NEAR = "10.9.0.1"
TUNNELS = 100
CONNECTIONS = {KERNEL: 10_000, USER: 1000}
FORWARD, SOCKS = 5301, 1080
"""Ports of 127.0.0.1 that lead into the tunnel: to the far end's iperf3, and by SOCKS5."""
QUIET, IDLE = 30, 10
"""Seconds after which no timer of a session is left but those of minutes, and in which CPU is
counted."""
_MTU = 1420
_FILE = "/run/client.conf"
_WIRESNAKE = str(Path(sys.executable).with_name("wiresnake"))
_DAEMON = str(Path(sys.executable).with_name("wiresnaked"))
_WITHIN = (sys.executable, "-P", str(ROOT / "bench/within.py"))
_PROXY = f"--listen 127.0.0.1:{SOCKS} -L {FORWARD}:{FAR}:{traffic.IPERF_PORT}"


@dataclass(frozen=True)
class Client:
    """A host whose tunnel others carry, with the key that the far end knows."""

    net: Network
    user: tuple[str, ...]
    """The command that becomes an ordinary user."""
    private: str
    far_public: str

    def within(self, *arguments: str, timeout: float = 120) -> Mapping[str, float]:
        """Runs a command of `within` as an ordinary user, and returns what it measured."""
        done = self.net.a.run(*self.user, *_WITHIN, *arguments, timeout=timeout)
        found: Mapping[str, float] = json.loads(done.stdout)
        return found


Take = Callable[[Client, float], Mapping[str, float]]


def run(subjects: Sequence[Subject], plan: Plan, record: Record) -> None:
    if not any(subject.name == WIRESNAKE for subject in subjects):
        return
    # As pip does, because an ordinary user cannot.
    compileall.compile_dir(ROOT / "src", quiet=2)
    if plan.wants("import wiresnake"):
        (ours,) = (subject for subject in subjects if subject.name == WIRESNAKE)
        record.measure(ours, "import wiresnake", 1, import_)
    present = [each for each in SUBJECTS if _present(each)]
    record.absent = {
        **record.absent,
        **{each.name: f"tools/setup {each.name}" for each in SUBJECTS if each not in present},
    }
    record.versions = {
        **record.versions,
        **{each.name: version(each.command[0]) for each in present if each.command},
    }
    for number, subject in turns(plan.rounds, present):
        due = [
            name for name in ROOTLESS if plan.wants(name) and subject.name in TAKEN.get(name, {})
        ]
        due = [name for name in due if number == 1 or name not in ONCE]
        left = list(due)
        try:
            if left:
                with client(subject) as made:
                    while left:
                        take = partial(TAKEN[left[0]][subject.name], made, plan.seconds)
                        record.measure(subject, left[0], number, take)
                        left.pop(0)
        except FAILURES as error:
            for name in left:
                record.fail(subject, name, number, error)


def _present(subject: Subject) -> bool:
    return not subject.command or shutil.which(subject.command[0]) is not None


@contextmanager
def client(subject: Subject) -> Iterator[Client]:
    """Makes two hosts, and the tunnel as the subject carries it. Some tunnels are opened later."""
    with Host("a") as a, Host("b") as b:
        devices = hosts.cable(a, b)
        for number, (host, device) in enumerate(zip((a, b), devices, strict=True), start=1):
            hosts.address(host, device, f"192.0.2.{number}/24")
        (private, public), (far_private, far_public) = hosts.keypair(), hosts.keypair()
        far = _daemon(b, f"PrivateKey = {far_private}", _peer(public, f"{NEAR}/32"), f"{FAR}/16")
        hosts.await_tunnel(b)
        user = ("env", "-u", "XDG_RUNTIME_DIR", *ordinary.as_user(a, "666"))
        net = Network(a, b, devices, (far,))
        made = Client(net, user, private, far_public)
        write(a, _FILE, made.private, NEAR, far_public, root=subject.name == EXEC_ROOT)
        server = b.start(*_WITHIN, "serve", FAR)
        _await_line(server)
        with carried(subject, made) as pids:
            yield replace(made, net=replace(net, pids=(far, *pids)))


def write(
    host: Host, path: str, private: str, address: str, far_public: str, *, root: bool = False
) -> None:
    """Writes a file of a tunnel, which only the ordinary user may read, or root."""
    text = f"[Interface]\nPrivateKey = {private}\nAddress = {address}/32\nMTU = {_MTU}\n"
    text += _peer(far_public, f"{FAR}/32") + "Endpoint = 192.0.2.2:51820\n"
    owner = "0" if root else ordinary.USER
    host.run("sh -c", f"umask 077; cat >{path}; chown {owner} {path}", text=text)


@contextmanager
def carried(subject: Subject, made: Client) -> Iterator[tuple[int, ...]]:
    """Carries the tunnel during the block, if it lasts longer than one measurement. Yields the
    processes that do."""
    host = made.net.a
    if subject.name == INTERFACE:
        peer = _peer(made.far_public, f"{FAR}/32") + "Endpoint = 192.0.2.2:51820\n"
        yield (_daemon(host, f"PrivateKey = {made.private}", peer, f"{NEAR}/16"),)
    elif subject.name in (EXEC, EXEC_ROOT):
        by = () if subject.name == EXEC_ROOT else made.user
        host.start(*by, _WIRESNAKE, "exec", _FILE, "--", "sleep", "infinity")
        join = (*by, _WIRESNAKE, "exec", "--join", _FILE, "--")
        hosts.wait_for("the tunnel", lambda: not host.run(*join, "true", check=False).returncode)
        yield tuple(host.processes("wiresnake"))
    else:
        proxy = host.start(*made.user, *command(subject, made))
        ports = (FORWARD,) if subject.name == ONETUN else (FORWARD, SOCKS)
        try:
            for port in ports:
                hosts.wait_for(f"{subject.label} to listen", partial(_listens, host, proxy, port))
            yield tuple(family(proxy.pid))
        finally:
            proxy.stop()


def command(subject: Subject, made: Client) -> list[str]:
    """Returns the command that leads the two ports into the tunnel."""
    if subject.name in (KERNEL, USER):
        return hosts.words(f"{_WIRESNAKE} proxy {_FILE} --stack {subject.name} {_PROXY}")
    target = f"{FAR}:{traffic.IPERF_PORT}"
    if subject.name == NETSTACK:
        keys = (base64.b64decode(key).hex() for key in (made.private, made.far_public))
        text = "private_key={}\npublic_key={}\n".format(*keys)
        text += f"endpoint=192.0.2.2:51820\nallowed_ip={FAR}/32\n"
        made.net.a.run("sh -c", "cat >/run/client.uapi", text=text)
        line = f"/run/client.uapi {NEAR} {_MTU} {SOCKS} {FORWARD}:{target}"
    else:
        line = (
            f"127.0.0.1:{FORWARD}:{target}:TCP --endpoint-addr 192.0.2.2:51820"
            f" --endpoint-public-key {made.far_public} --private-key {made.private}"
            f" --source-peer-ip {NEAR} --max-transmission-unit {_MTU} --log error"
        )
    return [*subject.command, *hosts.words(line)]


def exec_(subject: str, options: str, made: Client, seconds: float) -> Mapping[str, float]:
    through: tuple[str, ...] = ()
    if subject != INTERFACE:
        by = () if subject == EXEC_ROOT else made.user
        through = (*by, _WIRESNAKE, "exec", "--join", _FILE, "--")
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text()) / 1e6
    figures = traffic.tcp(made.net, round(seconds), options, through=through)
    return {**figures, "rmem_max": limit}


def forward(options: str, made: Client, seconds: float) -> Mapping[str, float]:
    return traffic.tcp(made.net, round(seconds), options, "127.0.0.1", FORWARD)


def socks(direction: str, made: Client, seconds: float) -> Mapping[str, float]:
    used = sum(map(hosts.cpu_seconds, made.net.pids))
    figures = made.within(direction, str(SOCKS), FAR, str(seconds))
    used = sum(map(hosts.cpu_seconds, made.net.pids)) - used
    return {**figures, "tunnel_cpu": used / (figures["gbit"] / 8 * seconds)}


def connect(made: Client, _: float) -> Mapping[str, float]:
    figures = made.within("connect", str(SOCKS), FAR, "300")
    pings = made.net.b.output(f"ping -n -i 0.005 -c 300 {NEAR}")
    round_trip = median_ping(pings)
    above = figures["connect"] - round_trip
    return {**figures, "round_trip": round_trip, "connect_above": above}


def start(made: Client, _: float) -> Mapping[str, float]:
    file = "/run/start.conf"  # The tunnel of the other one runs.
    write(made.net.a, file, made.private, NEAR, made.far_public)
    return made.within("starts", "20", file, _WIRESNAKE, "exec", file, "--", "true")


def tunnels(subject: str, made: Client, _: float) -> Mapping[str, float]:
    a, b = made.net.hosts
    peers, files = "", list[str]()
    for number in range(1, TUNNELS + 1):
        private, public = hosts.keypair()
        peers += _peer(public, f"10.9.1.{number}/32")
        files.append(f"/run/client-{number}.conf")
        write(a, files[-1], private, f"10.9.1.{number}", made.far_public)
    b.run("wg addconf wg0 /dev/stdin", text=peers)
    program = a.start(*made.user, *_WITHIN, "tunnels", subject, FAR, *files)
    try:
        _await_line(program)
        time.sleep(QUIET)
        everyone = family(program.pid)
        used = sum(map(busy, everyone))
        time.sleep(IDLE)
        idle = 1000 * (sum(map(busy, everyone)) - used)
        memory = sum(map(pss, everyone)) / 1e6
    finally:
        program.stop()
    return {"pss": memory, "processes": len(everyone), "idle_cpu": idle}


def connections(subject: str, made: Client, _: float) -> Mapping[str, float]:
    count = str(CONNECTIONS[subject])
    file = "/run/connections.conf"
    private, public = hosts.keypair()
    made.net.b.run("wg addconf wg0 /dev/stdin", text=_peer(public, "10.9.2.1/32"))
    write(made.net.a, file, private, "10.9.2.1", made.far_public)
    return made.within("connections", file, subject, FAR, count, timeout=300)


def import_() -> Mapping[str, float]:
    with Host("a") as host:
        took, above = times(host, sys.executable, "-c", "import wiresnake")
    return {"import": took, "above": above}


def median_ping(output: str) -> float:
    """Returns the median round trip in ms."""
    taken = [float(each) for each in re.findall(r"time=([\d.]+) ms", output)]
    if not taken:
        raise LabError(f"ping: {output}")
    return statistics.median(taken)


def family(pid: int) -> list[int]:
    """Returns the process and all that it has started, directly or not."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return [pid, *(each for child in children for each in family(child))]


def pss(pid: int) -> int:
    """Returns the proportional share of a process's memory in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def busy(pid: int) -> float:
    """Returns the CPU seconds that a process's threads have used, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _peer(public: str, allowed: str) -> str:
    return f"[Peer]\nPublicKey = {public}\nAllowedIPs = {allowed}\n"


def _daemon(host: Host, key: str, peer: str, address: str) -> int:
    host.run(_DAEMON, "wg0")
    hosts.wait_for("one wiresnaked", lambda: len(host.processes("wiresnaked")) == 1)
    (pid,) = host.processes("wiresnaked")
    text = f"[Interface]\n{key}\nListenPort = 51820\n{peer}"
    host.run("wg setconf wg0 /dev/stdin", text=text)
    hosts.address(host, "wg0", address)
    host.run(f"ip link set wg0 mtu {_MTU} up")
    return pid


def _listens(host: Host, proxy: Process, port: int) -> bool:
    if proxy.popen.poll() is not None:
        raise LabError(f"it ended: {proxy.wait(1)[1]}")
    return hosts.listens(host, port)


def _await_line(program: Process) -> None:
    """Waits until the program says that it is ready."""
    assert program.popen.stdout is not None
    if (said := program.popen.stdout.readline()) != "{}\n":
        raise LabError(f"it ended: {said}{program.stop()[1]}")


TAKEN: dict[str, dict[str, Take]] = {
    "TCP exec": {each: partial(exec_, each, "") for each in (INTERFACE, EXEC, EXEC_ROOT)},
    "TCP exec reverse": {each: partial(exec_, each, "-R") for each in (INTERFACE, EXEC, EXEC_ROOT)},
    "TCP forward": dict.fromkeys((KERNEL, USER, NETSTACK, ONETUN), partial(forward, "")),
    "TCP forward reverse": dict.fromkeys((KERNEL, USER, NETSTACK, ONETUN), partial(forward, "-R")),
    "TCP SOCKS5": dict.fromkeys((KERNEL, USER, NETSTACK), partial(socks, "send")),
    "TCP SOCKS5 reverse": dict.fromkeys((KERNEL, USER, NETSTACK), partial(socks, "receive")),
    "connect SOCKS5": dict.fromkeys((KERNEL, USER, NETSTACK), connect),
    "start exec": {EXEC: start},
    "100 tunnels": {each: partial(tunnels, each) for each in (KERNEL, USER)},
    "connections": {each: partial(connections, each) for each in (KERNEL, USER)},
}
"""How each scenario is measured of each subject."""
ONCE = ("100 tunnels", "connections")
"""Scenarios that take long and vary little."""
PART: Part = Part(ROOTLESS, run)
