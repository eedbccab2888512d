"""Tunnels between hosts of our own, each end run by any WireGuard, all driven by stock `wg`."""

import contextlib
import hashlib
import ipaddress
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import pytest

from lab import hosts, ordinary
from lab.hosts import Host, LabError

ROOT = Path(__file__).parents[2]
PORT = 51820
NEW_PORT = PORT + 7
NEW_OUTER = {4: "192.0.2.101", 6: "2001:db8::101"}
MakeHost = Callable[..., Host]

RESOLVCONF = """#!/bin/sh
# Keeps what it is given, as openresolv does: resolvconf -a NAME -m 0 -x | -d NAME -f | -l NAME
mkdir -p /run/records
case "$1" in
-a) { echo "# $*"; cat; } >/run/records/"$2" ;;
-d) rm -f /run/records/"$2" ;;
-l) cat /run/records/"$2" ;;
esac
"""


def unavailable(reason: str) -> NoReturn:
    """What the test needs is missing: a skip that says so, but a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have everything: {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Implementation:
    """A daemon that takes an interface's name, as wireguard-go does."""

    name: str
    program: str
    hint: str

    def need(self) -> None:
        if not hosts.missing_programs(self.program):
            return
        unavailable(f"{self.name} is missing: {self.hint}")

    def start(self, host: Host, interface: str = "wg0") -> None:
        """Returns once the daemon answers, as a daemon must."""
        host.run(Path(self.program), interface)


WIRESNAKE = Path(sys.executable).parent / "wiresnake"
OURS = Implementation("wiresnaked", str(WIRESNAKE.parent / "wiresnaked"), "run `make`")
GO_DEBIAN = Implementation("wireguard-go", "wireguard-go", "apt-get install wireguard-go")
GO_NEW = Implementation(
    "wireguard-go-new", str(ROOT / ".tools/wireguard-go-new"), "tools/setup wireguard_go"
)
PEERS = (GO_DEBIAN, GO_NEW)
SHORT_TIMERS = Path(__file__).with_name("short_timers.py")


@dataclass(frozen=True)
class ShortTimers(Implementation):
    """Our daemon with short timers, on one of its planes."""

    plane: Literal["linux", "portable"] = "linux"

    def start(self, host: Host, interface: str = "wg0") -> None:
        plane = [self.plane] if self.plane == "portable" else []
        daemon = host.start(Path(sys.executable), SHORT_TIMERS, interface, *plane)
        socket = f"/proc/{daemon.pid}/root/run/wireguard/{interface}.sock"
        hosts.wait_for("the daemon's socket", Path(socket).exists)


PORTABLE = ShortTimers("wiresnake-portable", OURS.program, OURS.hint, "portable")


@dataclass
class End:
    """One end of a tunnel."""

    host: Host
    device: str
    """Its end of the cable."""
    outer: dict[int, str]
    """Its addresses on the cable, by IP version."""
    inner: dict[int, str]
    """Its addresses in the tunnel, by IP version."""
    interface: str = "wg0"
    port: int = PORT
    private: str = ""
    public: str = ""

    def __post_init__(self) -> None:
        if not self.private:
            self.private, self.public = hosts.keypair()

    def wg(self, *words: str, text: str | None = None) -> str:
        return self.host.run("wg", *words, text=text).stdout

    def show(self, what: str) -> list[list[str]]:
        """The fields of each peer's line of `wg show INTERFACE WHAT`."""
        return [line.split() for line in self.wg("show", self.interface, what).splitlines()]

    def transfer(self) -> tuple[int, int]:
        _, received, sent = self.show("transfer")[0]
        return int(received), int(sent)

    def handshake(self) -> int:
        return int(self.show("latest-handshakes")[0][1])

    def endpoint(self, version: int) -> str:
        outer = self.outer[version]
        return f"[{outer}]:{self.port}" if version == 6 else f"{outer}:{self.port}"

    def peer_endpoint(self) -> str:
        return self.show("endpoints")[0][1]

    def up(self) -> None:
        """Addresses with their network, so that the other end is on the link."""
        for version, length in ((4, 24), (6, 64)):
            hosts.address(self.host, self.interface, f"{self.inner[version]}/{length}")
        self.host.run(f"ip link set {self.interface} mtu 1420 up")


def ends(left: Host, right: Host, *, mtu: int = 1500) -> tuple[End, End]:
    """Two hosts on a cable, with addresses, without a tunnel as yet."""
    return on_cable(left, right, hosts.cable(left, right, mtu=mtu))


def on_cable(left: Host, right: Host, devices: tuple[str, str]) -> tuple[End, End]:
    """Two hosts that these devices join, with addresses."""
    made = []
    for number, (host, device) in enumerate(zip((left, right), devices, strict=True), start=1):
        outer = {4: f"192.0.2.{number}", 6: f"2001:db8::{number}"}
        hosts.address(host, device, f"{outer[4]}/24", f"{outer[6]}/64")
        made.append(End(host, device, outer, {4: f"10.9.0.{number}", 6: f"fd09::{number}"}))
    return made[0], made[1]


def configuration(
    end: End,
    other: End,
    *,
    outer: int | None = None,
    psk: str | None = None,
    allowed: str | None = None,
    extra: str = "",
) -> str:
    """What `wg setconf` reads. With an outer IP version the end knows where the other is."""
    lines = [
        "[Interface]",
        f"PrivateKey = {end.private}",
        f"ListenPort = {end.port}",
        "[Peer]",
        f"PublicKey = {other.public}",
        f"AllowedIPs = {allowed or f'{other.inner[4]}/32, {other.inner[6]}/128'}",
    ]
    if outer is not None:
        lines.append(f"Endpoint = {other.endpoint(outer)}")
    if psk is not None:
        lines.append(f"PresharedKey = {psk}")
    return "\n".join([*lines, extra, ""])


def tunnel(
    left: Host,
    right: Host,
    initiator: Implementation,
    responder: Implementation,
    *,
    outer: int = 4,
    psk: bool = False,
    mtu: int = 1500,
    allowed: str | None = None,
) -> tuple[End, End]:
    """A tunnel whose left end alone knows where the other is: so it has to begin."""
    a, b = ends(left, right, mtu=mtu)
    initiator.start(left)
    responder.start(right)
    configure(a, b, outer=outer, psk=psk, allowed=allowed)
    return a, b


def join(a: End, host: Host, implementation: Implementation) -> End:
    """A third end, on a cable of its own to `a`; each knows where the other is."""
    near, far = hosts.cable(a.host, host)
    hosts.address(a.host, near, "198.51.100.1/24")
    hosts.address(host, far, "198.51.100.3/24")
    c = End(host, far, {4: "198.51.100.3"}, {4: "10.9.0.3", 6: "fd09::3"})
    implementation.start(host)
    c.wg("setconf", c.interface, "/dev/stdin", text=configuration(c, a))
    c.up()
    section = configuration(a, c, outer=4).partition("[Peer]")
    a.wg("addconf", a.interface, "/dev/stdin", text="[Peer]" + section[2])
    hosts.await_tunnel(host)
    return c


def configure(
    a: End, b: End, *, outer: int = 4, psk: bool = False, allowed: str | None = None
) -> None:
    """Configures both ends with stock `wg` and brings their interfaces up."""
    shared = hosts.tool("wg genpsk") if psk else None
    for end, other, version in ((a, b, outer), (b, a, None)):
        text = configuration(end, other, outer=version, psk=shared, allowed=allowed)
        end.wg("setconf", end.interface, "/dev/stdin", text=text)
        end.up()
    for end in (a, b):
        hosts.await_tunnel(end.host, port=end.port)


def move(end: End, version: int) -> None:
    """To another address, then to another port. The old address is gone: nobody can use it."""
    length = 24 if version == 4 else 64
    hosts.address(end.host, end.device, f"{NEW_OUTER[version]}/{length}")
    end.host.run(f"ip address delete {end.outer[version]}/{length} dev {end.device}")
    end.wg("set", end.interface, "listen-port", str(NEW_PORT))
    end.outer[version], end.port = NEW_OUTER[version], NEW_PORT


def move_interface(interface: str, source: Host, target: Host) -> None:
    """From a host's network into another's; the daemon stays, and so do its sockets."""
    # In no host's process namespace: there the target's pid would be another.
    hosts.tool(f"nsenter --target {source.pid} --net ip link set {interface} netns {target.pid}")


def memory(pid: int) -> int:
    """KiB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])


class Pings(NamedTuple):
    sent: int
    received: int

    @property
    def lost(self) -> int:
        return self.sent - self.received


def count_pings(output: str) -> Pings:
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert found is not None, output
    return Pings(int(found[1]), int(found[2]))


def network(host: Host) -> list[str]:
    """All that `up` adds to a host, and `down` has to undo."""
    commands = (
        "ip -4 rule",
        "ip -6 rule",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "nft list ruleset",
        "ip -o address",
        "ip -o link",
    )
    return [host.output(command) for command in commands]


def ping(
    host: Host, target: str, *options: str, count: int = 3, interval: float = 0.02, wait: float = 2
) -> Pings:
    command = [*f"ping -n -q -c {count} -i {interval} -W {wait}".split(), *options, target]
    return count_pings(host.run(*command, check=False, timeout=60 + count * interval).stdout)


def assert_answered(host: Host, target: str, count: int = 3) -> None:
    """The first pings are all answered within 3 s: in time for no handshake's repetition.

    Until then ping sends others. With -c alone it would wait for its last answer no longer than
    an interval or two round trips, and on a busy machine that looks like loss.
    """
    said = host.run(f"ping -n -c {count} -i 0.02 -w 3", target, check=False).stdout
    answered = {int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+) ", said)}
    assert answered.issuperset(range(1, count + 1)), f"{host.name} to {target}: {said}"


def assert_pings(a: End, b: End) -> None:
    """Each end reaches the other in both IP versions, and nothing is lost."""
    for end, other in ((a, b), (b, a)):
        for version in (4, 6):
            assert_answered(end.host, other.inner[version])


def assert_tcp(
    a: End, b: End, version: int = 4, *, size: int = 4 << 20, window: int | None = None
) -> None:
    """A TCP connection carries other random bytes each way at the same time, unchanged.

    A window keeps the sender from filling the queues on the way, which then drop other packets.
    """
    target = b.inner[version]
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    server, client = (end.host.inside(lambda: socket.socket(family)) for end in (b, a))
    with server:
        for one in (server, client):
            one.settimeout(10)
            if window is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window // 2)
        server.bind((target, 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        streams = [_Stream(client, accepted, size), _Stream(accepted, client, size)]
        for stream in streams:
            stream.join()
    for stream in streams:
        assert not stream.error, stream.error
        assert stream.received == stream.sent


def assert_udp(a: End, b: End, version: int = 4) -> None:
    """Datagrams of every kind of length arrive unchanged and in order, the long in fragments.

    A busy machine may lose a few: all its virtual cables share one short queue a processor.
    """
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    sender, receiver = (hosts.udp_socket(end.host, family) for end in (a, b))
    sent = [os.urandom(size) for size in (1, *[1000] * 100, 1500, 20_000, 60_000)]
    received: list[bytes] = []
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        receiver.settimeout(2)
        for datagram in sent:
            sender.sendto(datagram, (b.inner[version], receiver.getsockname()[1]))
        with contextlib.suppress(TimeoutError):
            while len(received) < len(sent):
                received.append(receiver.recv(1 << 16))
    assert len(received) >= len(sent) - 5
    rest = iter(sent)
    assert all(datagram in rest for datagram in received)


@dataclass
class _Stream:
    """One direction of a connection: a thread that sends and one that receives."""

    source: socket.socket
    target: socket.socket
    size: int
    sent: str = ""
    received: str = ""
    error: str = ""
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for end in (self.source, self.target):
            end.settimeout(20)
        self.threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        for thread in self.threads:
            thread.join()

    def _send(self) -> None:
        data = os.urandom(self.size)
        self.sent = hashlib.sha256(data).hexdigest()
        try:
            self.source.sendall(data)
            self.source.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = f"sending: {error!r}"

    def _receive(self) -> None:
        digest = hashlib.sha256()
        try:
            while data := self.target.recv(1 << 16):
                digest.update(data)
        except OSError as error:
            self.error = f"receiving: {error!r}"
        self.received = digest.hexdigest()


class Datagram(NamedTuple):
    """A UDP datagram seen on a cable; anything that is not UDP has ports 0 and its whole body."""

    protocol: int
    source: str
    target: str
    source_port: int
    target_port: int
    payload: bytes


class Wiretap:
    """All IP packets of a device, both directions; ARP and neighbour discovery left out.

    It counts on a device's far side that the near side sees too: the cable loses nothing.
    """

    IPV4, IPV6 = 0x0800, 0x86DD

    def __init__(self, host: Host, device: str) -> None:
        def make() -> socket.socket:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            with contextlib.suppress(OSError):  # more than the limit needs root outside
                tap.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            tap.bind((device, 3))  # ETH_P_ALL
            return tap

        self.socket = host.inside(make)
        self.socket.setblocking(False)

    def packets(self) -> list[Datagram]:
        """What has passed since the last call."""
        return list(self._drain())

    def close(self) -> None:
        self.socket.close()

    def _drain(self) -> Iterator[Datagram]:
        while True:
            try:
                data, (_, protocol, *_) = self.socket.recvfrom(1 << 17)
            except BlockingIOError:
                return
            if protocol == self.IPV4:
                yield _ipv4(data)
            elif protocol == self.IPV6:
                packet = _ipv6(data)
                if not (packet.protocol in (0, 58) and packet.payload[:1] in _NEIGHBOURS):
                    yield packet


# Types of ICMPv6 that a link needs by itself: MLD, router and neighbour discovery. MLD reports
# come behind a hop-by-hop header, whose first byte says that ICMPv6 follows.
_NEIGHBOURS = tuple(bytes([kind]) for kind in (58, 130, 131, 132, 133, 134, 135, 136, 143))


def _ipv4(data: bytes) -> Datagram:
    source, target = (str(ipaddress.ip_address(data[at : at + 4])) for at in (12, 16))
    first = not int.from_bytes(data[6:8]) & 0x1FFF
    return _datagram(data[9] if first else 44, source, target, data[(data[0] & 15) * 4 :])


def _ipv6(data: bytes) -> Datagram:
    source, target = (str(ipaddress.ip_address(data[at : at + 16])) for at in (8, 24))
    return _datagram(data[6], source, target, data[40:])


def _datagram(protocol: int, source: str, target: str, body: bytes) -> Datagram:
    if protocol != socket.IPPROTO_UDP:
        return Datagram(protocol, source, target, 0, 0, body)
    source_port, target_port = struct.unpack_from(">HH", body)
    return Datagram(protocol, source, target, source_port, target_port, body[8:])


def context_switches(pid: int) -> int:
    """Of all the threads of a process, voluntary or not: any look at the world is one."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def as_user(host: Host, mode: str) -> list[str]:
    """Gives the host a /dev/net/tun of that mode; returns the command that becomes a user."""
    try:
        return ordinary.as_user(host, mode)
    except LabError as error:
        unavailable(str(error))
