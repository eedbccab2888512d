"""The device under test, in a network of its own.

Packets enter and leave the tunnel through a packet socket on the interface itself: what the host's
own stack does with them does not matter.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import namespaces, packets
from .machine import PIECES, Allowance
from .oracle import Key
from .peer_socket import PATIENCE, SO_RCVBUFFORCE
from .subject import Subject
from .verdict import CERTAIN, UNASKED, Differs, Failed, Log, NotApplicable

SPACING = 0.03
"""Seconds between initiations of a peer: one each 1/50 s is taken."""
NO_ANSWER = 1.0
"""`needs` of what did not end in the most time that a `stretch` gives: a machine so late has it."""
REFUSED = (errno.ENOKEY, errno.EDESTADDRREQ, errno.EPROTONOSUPPORT, errno.ELOOP)
"""What the kernel's interface says to the sender of a packet that it cannot take."""


@dataclass
class Device:
    """The device under test: its interface, its daemon, and the inner end of its tunnel."""

    subject: Subject
    log: Log
    allowance: Allowance = field(default_factory=Allowance)
    key: Key = field(default_factory=Key.new)
    port: int = 51820
    output: str = ""
    """A file with what a daemon printed."""
    network: int = field(init=False)
    """A descriptor of the network that it is in."""

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

    # From its own host.

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
        timeout *= self.allowance.late.stretch
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
        limit = within * self.allowance.late.stretch
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
        patience = self.allowance.patience(within)
        found = self.delivered(patience)
        if not found:
            raise Differs(f"{why}: nothing came out of the tunnel within {patience:g} s")
        if found[0] != packet:
            text = f"{why}: another packet came out, {found[0].hex()} for {packet.hex()}"
            raise Differs(text, needs=CERTAIN)

    def expect_dropped(self, why: str, within: float = 0.5) -> None:
        """Nothing may come out of the tunnel; a late machine is given more time to be wrong."""
        if found := self.delivered(within + self.allowance.leeway):
            text = f"{why}: delivered {packets.read(found[0]) or found[0].hex()}"
            raise Differs(text, needs=UNASKED)

    def pause(self, seconds: float) -> None:
        """Lets time pass, and says so in the evidence."""
        self.log(f"{seconds:g} s pass")
        time.sleep(seconds)

    def apart(self) -> None:
        """Lets so much time pass that an initiation is not refused for coming too soon after
        another, by a device that takes the first one late."""
        self.pause(SPACING + min(PIECES * self.allowance.late.worst, 0.5))

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
            if code or took > 10 * self.allowance.late.stretch:
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
        while time.monotonic() < start + 5 * self.allowance.late.stretch:
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
            tool(f"mount -t proc proc {proc}")
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


def tool(line: str, text: str | None = None) -> str:
    done = subprocess.run(line.split(), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`{line}`: {done.stderr.strip()}")
    return done.stdout
