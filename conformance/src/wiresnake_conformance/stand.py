"""A device under test and the world around it.

The device and the world each have a network of their own, joined by a virtual cable, so a check
sees all that the device sends and nothing else. Packets enter and leave the tunnel through a
packet socket on the interface itself: what the host's own stack does with them does not matter.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from . import namespaces, packets
from .machine import PIECES, Lateness, Watch
from .oracle import (
    COOKIE_REPLY,
    INITIATION,
    NO_PSK,
    Key,
    initiate,
    with_macs,
)
from .peer import Peer
from .road import PATIENCE, SO_RCVBUFFORCE, Road, Tap
from .subject import Subject
from .verdict import CERTAIN, UNASKED, Differs, Failed, Log, NotApplicable

SPACING = 0.03
"""Seconds between initiations of a peer: one each 1/50 s is taken."""
NO_ANSWER = 1.0
"""`needs` of what did not end in the most time that a `stretch` gives: a machine so late has it."""
REFUSED = (errno.ENOKEY, errno.EDESTADDRREQ, errno.EPROTONOSUPPORT, errno.ELOOP)
"""What the kernel's interface says to the sender of a packet that it cannot take."""


@dataclass
class Stand:
    """A device in a network of its own, and the world in another. Make it by `with`."""

    subject: Subject
    log: Log
    key: Key = field(default_factory=Key.new)
    """The device's."""
    port: int = 51820
    peers: list[Peer] = field(default_factory=list)
    output: str = ""
    """A file with what a daemon printed."""
    default_mtu: int = 0
    """The interface's before anybody set it."""
    watch: Watch | None = None
    """Knows how late the machine is. Without it, it never is."""
    timed: bool = False
    """Whether the check depends on when things happen."""
    notes: list[str] = field(default_factory=list)
    """What was let pass because the machine was late."""

    outer: ClassVar = {4: "192.0.2.1", 6: "2001:db8::1"}
    """The device's addresses on the cable `d0`."""
    world: ClassVar = {4: "192.0.2.2", 6: "2001:db8::2"}
    """The world's, on `w0`; 198.51.100.0/24 and 2001:db8:1::/48 are behind it, every address."""
    link_local: ClassVar = "fe80::1%w0"
    """The device's, seen from the world, whose own is fe80::2."""

    def __enter__(self) -> "Stand":
        namespaces.unshare(namespaces.NEWNS | namespaces.NEWNET)
        _prepare_mounts()
        self.network = namespaces.network()
        self._start()
        self.default_mtu = self.mtu()
        namespaces.unshare(namespaces.NEWNET)
        self._at_device(
            "ip -batch -",
            f"""link set lo up
            link add d0 type veth peer name w0 netns {os.getpid()}
            {_addresses("d0", 1)}
            route add 198.51.100.0/24 via {self.world[4]}
            route add 2001:db8:1::/48 via {self.world[6]}""",
        )
        _tool(
            "ip -batch -",
            f"""link set lo up
            {_addresses("w0", 2)}
            route add local 198.51.100.0/24 dev lo
            route add local 2001:db8:1::/48 dev lo""",
        )
        self._configure()
        return self

    def __exit__(self, *_: object) -> None:
        pass  # the namespaces end with this process

    @property
    def interface(self) -> str:
        return self.subject.interface

    @property
    def public(self) -> bytes:
        """The device's public key."""
        return self.key.public

    @staticmethod
    def inner(number: int) -> dict[int, str]:
        """Addresses inside of the tunnel, by IP version: 1 is the device, peers count from 2."""
        return {4: f"10.0.{number >> 8}.{number & 255}", 6: f"fd00::{number:x}"}

    def another(self) -> "Stand":
        """A second device of that kind on the same host: up, with a key, without peers."""
        subject = replace(self.subject, interface="wg1")
        other = Stand(subject, self.log, port=self.port + 1, watch=self.watch)
        other.timed, other.notes = self.timed, self.notes
        other.network = self.network
        with namespaces.inside(self.network):
            other._start()
        other._configure()
        return other

    # The machine.

    @property
    def late(self) -> Lateness:
        """How late the machine has been since the check began."""
        return self.watch.since(self.log.start) if self.watch else Lateness()

    def patience(self, seconds: float) -> float:
        """So many seconds, or some more where the machine is late: for what must come at all. In a
        check that depends on time it is no more, as what comes then may be another thing."""
        if self.timed:
            return seconds
        late = self.late
        return round(seconds + min(seconds * (late.stretch - 1), PIECES * late.worst, 2.0), 1)

    # The device, from its own host.

    def wg(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """What stock `wg` prints; a refusal is the end of the check unless it is expected."""
        if words[0] != "show":
            self.log(f"wg {' '.join(words)}")
        done = self.run(["wg", *words], text=text)
        if check and done.returncode:
            raise Failed(f"could not be configured: `wg {' '.join(words)}`: {done.stderr.strip()}")
        return done.stdout

    def show(self, field_name: str) -> list[list[str]]:
        """The fields of each line of `wg show INTERFACE FIELD`."""
        return [line.split() for line in self.wg("show", self.interface, field_name).splitlines()]

    def addresses(self) -> None:
        """Gives the interface its inner addresses. Without them the host's own stack, which would
        answer what comes out of the tunnel, is silent; so most checks do without."""
        for version, length in ((4, 24), (6, 64)):
            own = self.inner(1)[version]
            self._at_device(
                f"ip address add {own}/{length} dev {self.interface}{' nodad' * (version == 6)}"
            )

    def mtu(self) -> int:
        """The interface's, as its host has it now."""
        shown = json.loads(self._at_device(f"ip -j link show dev {self.interface}"))
        return int(shown[0]["mtu"])

    def stack(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of the device's host: what it sends into the tunnel takes the usual way."""
        with namespaces.inside(self.network):
            opened = socket.socket(family, kind, protocol)
        opened.settimeout(PATIENCE)
        return opened

    def command(self, line: str) -> str:
        """Runs a command in the device's network; it must succeed."""
        return self._at_device(line)

    def run(
        self, words: Sequence[str], *, text: str | None = None, timeout: float = 20
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the device's network, whatever comes of it."""
        timeout *= self.late.stretch
        try:
            return subprocess.run(
                words,
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                preexec_fn=lambda: namespaces.setns(self.network),
            )
        except subprocess.TimeoutExpired:
            text = f"no answer within {timeout:.0f} s: {' '.join(words)}"
            raise Failed(text, needs=NO_ANSWER) from None

    def link(self, *, up: bool) -> None:
        self._at_device(f"ip link set {self.interface} {'up' if up else 'down'}")
        if up:
            self._await_socket()
        else:  # takes the error that the next send would meet
            self.tunnel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def uapi(self, request: bytes, within: float = 5) -> bytes:
        """What the device answers on its UAPI socket, up to the empty line that ends it."""
        if self.subject.kind == "kernel":
            raise NotApplicable("the kernel is configured by netlink and has no UAPI socket")
        limit = within * self.late.stretch
        with self.uapi_socket() as client:
            client.settimeout(limit)
            answer = b""
            try:
                client.sendall(request)
                while b"\n\n" not in answer:
                    data = client.recv(1 << 16)
                    if not data:
                        break
                    answer += data
            except TimeoutError:
                text = f"no answer on the UAPI socket within {limit:.0f} s"
                raise Differs(text, needs=NO_ANSWER) from None
            except ConnectionError as error:
                self.log(f"UAPI: {error.strerror}")
        return answer

    def uapi_socket(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(5)
        try:
            client.connect(f"/var/run/wireguard/{self.interface}.sock")
        except FileNotFoundError:
            raise NotApplicable("it has no UAPI socket, as an interface of the kernel") from None
        return client

    @staticmethod
    def serves(name: str) -> bool:
        """Whether a daemon listens for that interface; before that `wg` would delete its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            return not probe.connect_ex(f"/var/run/wireguard/{name}.sock")

    def launch(
        self, name: str, output: int = subprocess.DEVNULL, told: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A daemon in the device's network, for an interface of that name; `told` is of its
        environment. The modes of its files are its own affair: no umask helps."""
        return subprocess.Popen(
            [*self.subject.command, name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(told or {}) | os.environ,
            umask=0,
            preexec_fn=lambda: namespaces.setns(self.network),
        )

    def alive(self) -> bool:
        """Whether the interface is there and the device still answers."""
        with contextlib.suppress(Failed):
            done = self.run(["wg", "show", self.interface, "public-key"], timeout=5)
            return not done.returncode
        return False

    def last_words(self) -> str:
        """The end of what a daemon printed."""
        text = Path(self.output).read_text(errors="replace") if self.output else ""
        return " | ".join(text.strip().splitlines()[-5:])

    def cpu_time(self) -> float:
        """Seconds of CPU that the daemon has used; 0 for a kernel's device."""
        ticks = 0
        for process in self._processes():
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of memory that the daemon has resident; 0 for a kernel's device."""
        pages = sum(int((one / "statm").read_text().split()[1]) for one in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    # The tunnel, at its inner end.

    def inject(self, packet: bytes, *, quietly: bool = False) -> None:
        """Gives the device a packet to send, whatever it holds."""
        if not quietly:
            self.log(f"into the tunnel: {packets.read(packet) or packet[:40].hex()}")
        protocol = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
        try:
            self.tunnel.sendto(packet, (self.interface, protocol))
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            self.log(f"refused: {error.strerror}")

    def delivered(
        self, within: float = PATIENCE, count: int = 1, *, quietly: bool = False
    ) -> list[bytes]:
        """Packets that came out of the tunnel, until there are so many or the time is over."""
        found: list[bytes] = []
        deadline = time.monotonic() + within
        while len(found) < count:
            self.tunnel.settimeout(max(deadline - time.monotonic(), 1e-4))
            try:
                packet, (_, _, kind, *_) = self.tunnel.recvfrom(1 << 17)
            except TimeoutError:
                break
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue
            if kind != socket.PACKET_OUTGOING and self._ours(packet):
                if not quietly:
                    self.log(f"out of the tunnel: {packets.read(packet) or packet[:40].hex()}")
                found.append(packet)
        return found

    def expect_delivered(self, packet: bytes, why: str, within: float = PATIENCE) -> None:
        """The next packet out of the tunnel is exactly that one."""
        patience = self.patience(within)
        found = self.delivered(patience)
        if not found:
            raise Differs(f"{why}: nothing came out of the tunnel within {patience:g} s")
        if found[0] != packet:
            text = f"{why}: another packet came out, {found[0].hex()} for {packet.hex()}"
            raise Differs(text, needs=CERTAIN)

    def expect_dropped(self, why: str, within: float = 0.5) -> None:
        """Nothing may come out of the tunnel; a late machine is given more time to be wrong."""
        if found := self.delivered(within + (0 if self.timed else self.late.leeway)):
            text = f"{why}: delivered {packets.read(found[0]) or found[0].hex()}"
            raise Differs(text, needs=UNASKED)

    # The world.

    @staticmethod
    def world_command(line: str) -> str:
        """Runs a command in the world's network; it must succeed."""
        return _tool(line)

    @staticmethod
    def now() -> float:
        """The clock of `Datagram.time`."""
        return time.time()

    def pause(self, seconds: float) -> None:
        """Lets time pass, and says so in the evidence."""
        self.log(f"{seconds:g} s pass")
        time.sleep(seconds)

    def apart(self) -> None:
        """Lets so much time pass that an initiation is not refused for coming too soon after
        another, by a device that takes the first one late."""
        self.pause(SPACING + min(PIECES * self.late.worst, 0.5))

    def expect_between(self, value: float, least: float, most: float, why: str) -> None:
        """A measured value in seconds must lie in that range, or a little beyond it where the
        machine was so late."""
        self.log(f"{why} {value:.3f} s")
        beyond, late = max(least - value, value - most), self.late
        if beyond <= 0:
            return
        said = f"{why} {value:.3f} s, not {least:g} to {most:g} s"
        if beyond > late.leeway:
            raise Differs(said, needs=beyond)
        self.notes.append(f"{said}: passed, as the machine was {late.worst:.3f} s late")

    def road(self, address: str | None = None, *, port: int = 0, version: int = 4) -> Road:
        """A new socket of the world; any address of `world` or of the nets behind it."""
        if address is None:
            address = self.world[version]
        return Road(self, address, port, 6 if ":" in address else 4)

    def peer(
        self,
        *,
        allowed: str | None = None,
        endpoint: bool = False,
        psk: bytes = NO_PSK,
        keepalive: int = 0,
        version: int = 4,
        key: Key | None = None,
        configured: bool = True,
    ) -> Peer:
        """A new peer. With `endpoint` the device knows where it is; `version` is the outer one."""
        inner = self.inner(len(self.peers) + 2)
        peer = Peer(self, key or Key.new(), self.road(version=version), inner, psk)
        self.peers.append(peer)
        if configured:
            words = ["allowed-ips", allowed or f"{inner[4]}/32,{inner[6]}/128"]
            if endpoint:
                words += ["endpoint", peer.road.name]
            if keepalive:
                words += ["persistent-keepalive", str(keepalive)]
            if psk != NO_PSK:
                words += ["preshared-key", "/dev/stdin"]
            peer.configure(*words, text=Key(psk, b"").private_text if psk != NO_PSK else None)
        return peer

    def tap(self, name: str = "w0") -> Tap:
        """A tap on the world's end of the cable, or on any of the world's devices."""
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        opened.bind((name, 3))  # ETH_P_ALL
        return Tap(opened)

    @contextlib.contextmanager
    def flood(
        self, datagrams: Sequence[bytes], *, addresses: int = 16, rate: float | None = None
    ) -> Iterator[None]:
        """Sends them round and round meanwhile, from the world's own address and many others,
        198.51.100.100 and on; a rate is per second."""
        roads = [self.road()]
        roads += [self.road(f"198.51.100.{100 + number}") for number in range(addresses)]
        self.log(f"flood of {len(datagrams)} datagrams from {addresses} addresses begins")
        child = os.fork()
        if not child:
            try:
                _send_forever(roads, datagrams, rate)
            finally:
                os._exit(0)
        try:
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            self.log("flood ends")

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Keeps the device under load: initiations with a right mac1 and noise behind it, more
        and more until the device answers a stranger by a cookie. What is sent meanwhile can be
        lost, so use `Peer.insist`, from addresses of the flood: load may be a matter of those."""
        noise = [
            with_macs(struct.pack("<II", INITIATION, number) + os.urandom(108), self.public)
            for number in range(4096)
        ]
        for rate in (20_000, 60_000, None):
            with self.flood(noise, rate=rate):
                if self._under_load():
                    yield
                    return
        raise Differs("no cookie reply to anyone within 6 s of a flood of initiations")

    def _under_load(self) -> bool:
        road, stranger = self.road("198.51.100.100"), Key.new()
        for _ in range(40):
            road.send(initiate(stranger, self.public).message, quietly=True)
            answer = road.receive(0.05)
            if answer and answer.kind == COOKIE_REPLY:
                return True
        return False

    # What differs by the kind of device.

    def _start(self) -> None:
        if self.subject.kind == "kernel":
            done = self.run(["ip", "link", "add", self.interface, "type", "wireguard"])
            if done.returncode:
                raise Failed(f"this kernel makes no WireGuard interface: {done.stderr.strip()}")
            return
        with tempfile.NamedTemporaryFile("a", prefix="conformance-", dir="/run", delete=False) as f:
            self.output = f.name
            # Daemons go to the background, and some of them say nothing there unless told.
            told = {"LOG_LEVEL": "error", "WG_LOG_FILE": f.name}
            try:
                daemon = self.launch(self.interface, f.fileno(), told)
            except OSError as error:
                raise Failed(f"could not be started: {error}") from None
        start = time.monotonic()
        while not (self.serves(self.interface) and self.alive()):
            took, code = time.monotonic() - start, daemon.poll()
            if code or took > 10 * self.late.stretch:
                why = f"exit code {code}" if code else f"not ready in {took:.0f} s"
                text = f"could not be started: {why}: {self.last_words() or 'it says nothing'}"
                raise Failed(text, needs=CERTAIN if code else NO_ANSWER)
            time.sleep(0.02)

    def _configure(self) -> None:
        self.wg(
            "setconf",
            self.interface,
            "/dev/stdin",
            text=f"[Interface]\nPrivateKey = {self.key.private_text}\nListenPort = {self.port}\n",
        )
        self._at_device(f"ip link set {self.interface} addrgenmode none mtu 1420")
        self.link(up=True)
        self._open_tunnel()

    def _await_socket(self) -> None:
        """A daemon opens its sockets a moment after its link came up."""
        start = time.monotonic()
        while time.monotonic() < start + 5 * self.late.stretch:
            with namespaces.inside(self.network):
                tables = [Path(f"/proc/self/net/udp{six}").read_text() for six in ("", "6")]
            rows = [line.split()[1] for table in tables for line in table.splitlines()[1:]]
            if any(address.endswith(f":{self.port:04X}") for address in rows):
                return
            time.sleep(0.01)
        raise Failed("no UDP socket on its port within 5 s of being up", needs=NO_ANSWER)

    def _processes(self) -> list[Path]:
        """The directories in /proc of all that this check has started."""
        proc = Path("/run/proc")
        if not proc.exists():
            proc.mkdir()
            _tool(f"mount -t proc proc {proc}")
        own = str(os.getpid())
        return [one for one in proc.iterdir() if one.name.isdigit() and one.name != own]

    def _open_tunnel(self) -> None:
        with namespaces.inside(self.network):
            self.tunnel = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        with contextlib.suppress(OSError):
            self.tunnel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.tunnel.bind((self.interface, 3))  # ETH_P_ALL

    def _ours(self, packet: bytes) -> bool:
        """Whether a packet out of the tunnel is of this check."""
        return True

    def _at_device(self, line: str, text: str | None = None) -> str:
        done = self.run(line.split(), text=text)
        if done.returncode:
            raise Failed(f"at the device: `{line}`: {done.stderr.strip()}")
        return done.stdout


class SharedStand(Stand):
    """An interface that somebody has configured: only peers are added, and taken away again.

    The world is this machine's loopback.
    """

    outer: ClassVar = {4: "127.0.0.1", 6: "::1"}
    world: ClassVar = {4: "127.0.0.2", 6: "::1"}

    def __enter__(self) -> "Stand":
        self.network = namespaces.network()
        self.key = Key(b"", b64decode(self.wg("show", self.interface, "public-key")))
        self.port = int(self.wg("show", self.interface, "listen-port"))
        self._open_tunnel()
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self.peers:
            with contextlib.suppress(Failed):  # the others are to go all the same
                self.wg("set", self.interface, "peer", peer.key.text, "remove", check=False)

    @staticmethod
    def inner(number: int) -> dict[int, str]:
        """Addresses of the range for benchmarks (RFC 2544), and of a unique local net."""
        return {4: f"198.18.{number >> 8}.{number & 255}", 6: f"fd57:6972:6573::{number:x}"}

    def tap(self, name: str = "lo") -> Tap:
        return super().tap("lo" if name == "w0" else name)

    def _ours(self, packet: bytes) -> bool:
        return b"\xc6\x12" in packet[12:20] or b"\xfd\x57\x69\x72\x65\x73" in packet[8:40]


def open_stand(
    subject: Subject, log: Log, watch: Watch | None = None, *, timed: bool = False
) -> Stand:
    kind = SharedStand if subject.kind == "interface" else Stand
    return kind(subject, log, watch=watch, timed=timed)


def _send_forever(roads: list[Road], datagrams: Sequence[bytes], rate: float | None) -> None:
    start, sent = time.monotonic(), 0
    while True:
        for road in roads:
            begin = sent % len(datagrams)
            for datagram in datagrams[begin : begin + 32]:
                with contextlib.suppress(OSError):
                    road.socket.sendto(datagram, road.target)
                sent += 1
            if rate and (ahead := sent / rate - (time.monotonic() - start)) > 0:
                time.sleep(ahead)


def _prepare_mounts() -> None:
    """A /run of our own, so that no interface's socket meets that of another."""
    _tool("mount --make-rprivate /")
    _tool("mount -t tmpfs -o mode=755 tmpfs /run")
    if not Path("/var/run").is_symlink():
        _tool("mount --bind /run /var/run")
    with contextlib.suppress(Failed):
        _tool("mount -t sysfs sysfs /sys")


def _addresses(device: str, number: int) -> str:
    """Lines for `ip -batch` that bring up an end of the cable."""
    return f"""link set {device} addrgenmode none up
        address add 192.0.2.{number}/24 dev {device}
        address add 2001:db8::{number}/64 dev {device} nodad
        address add fe80::{number}/64 dev {device} nodad"""


def _tool(line: str, text: str | None = None) -> str:
    done = subprocess.run(line.split(), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{line}`: {done.stderr.strip()}")
    return done.stdout
