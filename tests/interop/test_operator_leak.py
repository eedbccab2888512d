"""A full tunnel whose daemon dies: nothing goes around it until the next `up`, or `down`."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from interop.harness import OURS, WIRESNAKE, MakeHost, unavailable

from lab import hosts
from lab.hosts import Host

OUTSIDE = {4: "198.51.100.1", 6: "2001:db8:99::1"}
ENDPOINT = "203.0.113.9"
PRIVATE, _ = hosts.keypair()
_, PUBLIC = hosts.keypair()
FILE = f"""[Interface]
PrivateKey = {PRIVATE}
Address = 10.9.0.1/24, fd09::1/64

[Peer]
PublicKey = {PUBLIC}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = {ENDPOINT}:51820
PersistentKeepalive = 1
"""


class Uplink:
    """The host's way out, and what of our packets leaves by it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._stop = Event()
        host.run("ip link add eth0 type veth peer name eth1")
        hosts.address(host, "eth0", "192.0.2.1/24", "2001:db8::1/64")
        for device in ("eth0", "eth1"):
            host.run(f"ip link set {device} up")
        for version, gateway in ((4, "192.0.2.254"), (6, "2001:db8::fe")):
            host.run(f"ip -{version} neighbour add {gateway} lladdr 02:00:00:00:00:01 dev eth0")
            host.run(f"ip -{version} route add default via {gateway} dev eth0")

    def __enter__(self) -> "Uplink":
        self._wire = self.host.inside(self._tap)
        families = (socket.AF_INET, socket.AF_INET6)
        self._senders = self.host.inside(
            lambda: [socket.socket(family, socket.SOCK_DGRAM) for family in families]
        )
        self._thread = Thread(target=self._send)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for one in (self._wire, *self._senders):
            one.close()

    @staticmethod
    def _tap() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        tap.bind(("eth0", 0))
        tap.setblocking(False)
        return tap

    def _send(self) -> None:
        """A datagram of each version every millisecond, all the time."""
        while not self._stop.wait(0.001):
            for version, one in zip((4, 6), self._senders, strict=True):
                with contextlib.suppress(OSError):
                    one.sendto(b"secret", (OUTSIDE[version], 9))

    def leaked(self) -> dict[int, int]:
        """Datagrams that left in the clear since the last look, by version."""
        found = {4: 0, 6: 0}
        while True:
            try:
                packet = self._wire.recv(2000)
            except BlockingIOError:
                return found
            if b"secret" in packet:
                found[packet[0] >> 4] += 1


@pytest.fixture
def uplink(make_host: MakeHost) -> Iterator[Uplink]:
    if missing := hosts.missing_programs("nft"):
        unavailable(f"missing programs: {', '.join(missing)}")
    with Uplink(make_host()) as one:
        yield one


def test_a_daemon_that_is_killed_leaves_nothing_in_the_clear(
    uplink: Uplink, tmp_path: Path
) -> None:
    host, file = uplink.host, tmp_path / "wg0.conf"
    file.touch(mode=0o600)
    file.write_text(FILE)

    def run(*command: str, check: bool = True) -> str:
        env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
        done = host.run(WIRESNAKE, *command, file, check=check, env=env)
        return done.stderr

    def stays(what: str, condition: Callable[[dict[int, int]], bool]) -> None:
        time.sleep(0.3)
        leaked = uplink.leaked()
        assert condition(leaked), f"{what}: {leaked}"

    def none(leaked: dict[int, int]) -> bool:
        return not any(leaked.values())

    stays("without a tunnel", lambda leaked: all(leaked.values()))
    run("up", "--backend", "user")
    uplink.leaked()
    for again in ("up", "up", "down"):
        (daemon,) = host.processes("wiresnaked")
        os.kill(daemon, signal.SIGKILL)
        hosts.wait_for("the interface's end", lambda: not host.processes("wiresnaked"))
        stays("its daemon is dead", none)
        for version, address in OUTSIDE.items():
            way = host.run(f"ip -{version} route get {address}", check=False)
            assert (way.returncode, "No route to host" in way.stderr) == (2, True), way
        # The next daemon's own datagrams, by their mark.
        assert "dev eth0" in host.output(f"ip route get {ENDPOINT} mark 51820")
        if again == "up":
            assert "already exists" not in run("up", "--backend", "user")
            stays("and up again, at every moment", none)
            assert host.output("ip rule").count("fwmark") == 1
    # An `up` that fails in the end, and a reload of what is not there, change nothing.
    file.write_text(FILE.replace("[Peer]", "PostUp = exit 3\n[Peer]"))
    assert "exit 3" in run("up", "--backend", "user", check=False)
    hosts.wait_for("the interface's end", lambda: not host.processes("wiresnaked"))
    assert "is not a WireGuard interface" in run("reload", check=False)
    stays("an up that failed", none)
    run("down")
    stays("down", lambda leaked: all(leaked.values()))
    assert host.output("ls /run/wiresnake") == ""
    assert "unreachable" not in host.output("ip route show table all")


def kill_daemon(host: Host, interface: str) -> None:
    for daemon in host.processes("wiresnaked"):
        if interface in Path(f"/proc/{daemon}/cmdline").read_text().split("\0"):
            os.kill(daemon, signal.SIGKILL)
    hosts.wait_for("its end", lambda: host.run(f"ip link show {interface}", check=False).returncode)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.conf"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def test_another_full_tunnel_leaves_what_holds_a_dead_ones_traffic(
    make_host: MakeHost, tmp_path: Path
) -> None:
    """Neither its up nor its down; and each one's own up takes over what it left itself."""
    if missing := hosts.missing_programs("nft"):
        unavailable(f"missing programs: {', '.join(missing)}")
    host = make_host()
    dead, other = (
        write(tmp_path, name, FILE.replace("10.9.0.1", address))
        for name, address in (
            ("wg0", "10.9.0.1"),
            ("wg1", "10.9.0.2"),
        )
    )

    def run(command: str, file: Path, check: bool = True) -> str:
        env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
        backend = ["--backend", "user"] if command == "up" else []
        return host.run(WIRESNAKE, command, *backend, file, env=env, check=check).stderr

    def held(table: int) -> bool:
        rules = host.output("ip rule"), host.output("ip -6 rule")
        tables = (host.run(f"ip -{v} route show table {table}", check=False) for v in (4, 6))
        shut = {"unreachable" in one.stdout for one in tables}
        shut |= {f"lookup {table}" in one for one in rules}
        assert len(shut) == 1, (table, rules)
        return shut.pop()

    run("up", dead)
    kill_daemon(host, "wg0")
    run("up", other)
    assert held(51820) and held(51821)
    run("up", dead)
    run("down", dead)
    assert not held(51820) and held(51821)
    run("up", dead)
    kill_daemon(host, "wg0")
    run("down", other)
    assert held(51820) and not held(51821)
    # Somebody else has its name by now.
    host.run("ip tuntap add dev wg0 mode tun")
    assert "still held back. Remove it (`ip link delete dev wg0')" in run("down", dead, check=False)
    host.run("ip link delete dev wg0")
    assert held(51820)
    # The same mark, by the file.
    other.write_text(other.read_text().replace("[Peer]", "FwMark = 51820\n[Peer]"))
    assert "`wiresnake down wg0' first" in run("up", other, check=False)
    assert held(51820)
    run("down", dead)
    assert not held(51820)
    run("up", other)
    run("down", other)
    assert host.output("ls /run/wiresnake") == ""


def answer(names: socket.socket, known: bytes, address: str) -> None:
    """A name server that has one address of one name, and else no answer for now."""
    with contextlib.suppress(OSError):
        while True:
            query, client = names.recvfrom(1000)
            if not query:  # It was shut down.
                return
            end = query.index(b"\0", 12) + 5
            name, kind = query[12 : end - 4], query[end - 4 : end - 2]
            record = b""
            if kind == b"\0\1":
                record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
            code = b"\x81\x80" if name == known else b"\x81\x82"
            count = bool(record and name == known).to_bytes(2)
            reply = query[:2] + code + b"\0\1" + count + bytes(4) + query[12:end]
            names.sendto(reply + (record if name == known else b""), client)


def test_a_dead_tunnel_is_open_for_names_known_around_it_and_shut_again(
    uplink: Uplink, make_host: MakeHost, tmp_path: Path
) -> None:
    host, outside = uplink.host, make_host("outside")
    hosts.tool(f"nsenter --target {host.pid} --net ip link set eth1 netns {outside.pid}")
    outside.run("ip link set lo up")
    outside.run("ip link set eth1 address 02:00:00:00:00:01 up")
    hosts.address(outside, "eth1", "192.0.2.254/24")
    hosts.address(outside, "lo", "203.0.113.53/32")
    for name, text in (
        ("hosts", f"{ENDPOINT} near.example\n"),
        ("resolv.conf", "nameserver 203.0.113.53\noptions timeout:1 attempts:1\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ):
        (tmp_path / name).write_text(text)
        host.run("mount --bind", tmp_path / name, f"/etc/{name}")
    names = outside.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    names.bind(("203.0.113.53", 53))
    server = Thread(target=answer, args=(names, b"\3far\7example\0", ENDPOINT), daemon=True)
    server.start()

    def up(text: str, check: bool = True) -> str:
        file = write(tmp_path, "wg0", text)
        env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
        return host.run(WIRESNAKE, "up", "--backend", "user", file, env=env, check=check).stderr

    def assert_shut() -> None:
        time.sleep(0.3)
        assert not any(uplink.leaked().values())
        assert "unreachable" in host.output("ip route show table 51820")
        assert "unreachable" in host.output("ip -6 route show table 51820")

    try:
        up(FILE)
        uplink.leaked()
        kill_daemon(host, "wg0")
        # Known on this host: no need to open it.
        assert "traffic bypasses" not in up(FILE.replace(ENDPOINT, "near.example"))
        assert_shut()
        kill_daemon(host, "wg0")
        # A hook of PreUp has time to make the name known.
        known = f"PreUp = echo {ENDPOINT} late.example >>/etc/hosts\n[Peer]"
        late = FILE.replace("[Peer]", known).replace(ENDPOINT + ":", "late.example:")
        assert "traffic bypasses" not in up(late)
        assert_shut()
        kill_daemon(host, "wg0")
        # Known to nobody: a short while, and shut again.
        began = time.monotonic()
        says = up(FILE.replace(ENDPOINT, "nowhere.example"), check=False)
        assert "until that is done, traffic bypasses wg0" in says
        assert "cannot resolve 'nowhere.example:51820'" in says.splitlines()[-1]
        assert time.monotonic() - began < 30
        assert any(uplink.leaked().values())
        assert_shut()
        # Known around the tunnel alone.
        assert "traffic bypasses" in up(FILE.replace(ENDPOINT, "far.example"))
        uplink.leaked()
        assert_shut()
        assert host.output("ip rule").count("fwmark") == 1
        assert f"{ENDPOINT}:51820" in host.output("wg show wg0 endpoints")
        host.run(WIRESNAKE, "down", tmp_path / "wg0.conf")
        assert host.output("ls /run/wiresnake") == ""
        assert host.output("ip rule").count("\n") == 3
    finally:
        with contextlib.suppress(OSError):
            names.shutdown(socket.SHUT_RDWR)
        names.close()
        server.join(5)
