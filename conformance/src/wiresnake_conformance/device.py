"""The device under test, in a network of its own.

Packets enter and leave the tunnel through a packet socket on the interface, independently of the
host's own network stack.
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
"""Seconds between initiations of a peer, of which one per 1/50 s is accepted."""
NO_ANSWER = 1.0
"""`needs` of something that did not end even within the longest `stretch` of its time."""
REFUSED = (errno.ENOKEY, errno.EDESTADDRREQ, errno.EPROTONOSUPPORT, errno.ELOOP)
"""The kernel interface's errors for a packet that it cannot send."""


@dataclass
class Device:
    """The device under test: its interface, its daemon, and the inner end of its tunnel."""

    subject: Subject
    log: Log
    allowance: Allowance = field(default_factory=Allowance)
    key: Key = field(default_factory=Key.new)
    port: int = 51820
    output: str = ""
    """A file with the output of a daemon."""
    network: int = field(init=False)
    """A descriptor of the device's network namespace."""

    @property
    def interface(self) -> str:
        return self.subject.interface

    @property
    def public(self) -> bytes:
        """The device's public key."""
        return self.key.public

    @staticmethod
    def inner(number: int) -> dict[int, str]:
        """Returns addresses in the tunnel, by IP version: 1 is the device, peers count from 2."""
        return {4: f"10.0.{number >> 8}.{number & 255}", 6: f"fd00::{number:x}"}

    # On its own host.

    def wg(self, *words: str, text: str | None = None, check: bool = True) -> str:
        """Runs stock `wg` and returns its output. With `check` an error ends the check."""
        if words[0] != "show":
            self.log(f"wg {' '.join(words)}")
        done = self.run(["wg", *words], text=text)
        if check and done.returncode:
            raise Failed(f"could not be configured: `wg {' '.join(words)}`: {done.stderr.strip()}")
        return done.stdout

    def show(self, field_name: str) -> list[list[str]]:
        """Returns the fields of each line of `wg show INTERFACE FIELD`."""
        return [line.split() for line in self.wg("show", self.interface, field_name).splitlines()]

    def addresses(self) -> None:
        """Gives the interface its inner addresses.

        Most checks do not need them: with them, the host's own stack would answer packets that come
        out of the tunnel.
        """
        for version, length in ((4, 24), (6, 64)):
            own = self.inner(1)[version]
            self._at_device(
                f"ip address add {own}/{length} dev {self.interface}{' nodad' * (version == 6)}"
            )

    def mtu(self) -> int:
        """Returns the present MTU of the interface."""
        shown = json.loads(self._at_device(f"ip -j link show dev {self.interface}"))
        return int(shown[0]["mtu"])

    def stack(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Opens a socket on the device's host, which sends through the host's stack."""
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
        """Runs a command in the device's network, which may fail."""
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
        else:  # clears the error that the next send would get
            self.tunnel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def uapi(self, request: bytes, within: float = 5) -> bytes:
        """Returns the device's answer on its UAPI socket, up to the final empty line."""
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
        """Returns whether a daemon serves that interface. Else `wg` would delete its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            return not probe.connect_ex(f"/var/run/wireguard/{name}.sock")

    def launch(
        self, name: str, output: int = subprocess.DEVNULL, extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a daemon for that interface in the device's network. `extra` is added to its
        environment. The umask is 0, so that the modes of its files are its own choice."""
        return subprocess.Popen(
            [*self.subject.command, name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(extra or {}) | os.environ,
            umask=0,
            preexec_fn=lambda: namespaces.setns(self.network),
        )

    def alive(self) -> bool:
        """Returns whether the interface exists and the device still answers."""
        with contextlib.suppress(Failed):
            done = self.run(["wg", "show", self.interface, "public-key"], timeout=5)
            return not done.returncode
        return False

    def last_words(self) -> str:
        """Returns the last lines that a daemon printed."""
        text = Path(self.output).read_text(errors="replace") if self.output else ""
        return " | ".join(text.strip().splitlines()[-5:])

    def cpu_time(self) -> float:
        """Returns the CPU seconds that the daemon has used; 0 for the kernel."""
        ticks = 0
        for process in self._processes():
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Returns the resident memory of the daemon in bytes; 0 for the kernel."""
        pages = sum(int((one / "statm").read_text().split()[1]) for one in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    # The inner end of the tunnel.

    def inject(self, packet: bytes, *, quietly: bool = False) -> None:
        """Gives the device a packet to send, with any content."""
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
        """Returns packets that come out of the tunnel, up to `count` or until the time is over."""
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
        """Checks that the next packet out of the tunnel is exactly that one."""
        patience = self.allowance.patience(within)
        found = self.delivered(patience)
        if not found:
            raise Differs(f"{why}: nothing came out of the tunnel within {patience:g} s")
        if found[0] != packet:
            text = f"{why}: another packet came out, {found[0].hex()} for {packet.hex()}"
            raise Differs(text, needs=CERTAIN)

    def expect_dropped(self, why: str, within: float = 0.5) -> None:
        """Checks that nothing comes out of the tunnel. A late machine is watched for longer."""
        if found := self.delivered(within + self.allowance.leeway):
            text = f"{why}: delivered {packets.read(found[0]) or found[0].hex()}"
            raise Differs(text, needs=UNASKED)

    def pause(self, seconds: float) -> None:
        """Waits, and notes that in the evidence."""
        self.log(f"{seconds:g} s pass")
        time.sleep(seconds)

    def apart(self) -> None:
        """Waits until the next initiation cannot be too soon, even if the device was late with
        the last one."""
        self.pause(SPACING + min(PIECES * self.allowance.late.worst, 0.5))

    # Steps that depend on the kind of device.

    def _start(self) -> None:
        if self.subject.kind == "kernel":
            done = self.run(["ip", "link", "add", self.interface, "type", "wireguard"])
            if done.returncode:
                raise Failed(f"this kernel makes no WireGuard interface: {done.stderr.strip()}")
            return
        with tempfile.NamedTemporaryFile("a", prefix="conformance-", dir="/run", delete=False) as f:
            self.output = f.name
            # Daemons go to the background, where some only log with these variables.
            extra = {"LOG_LEVEL": "error", "WG_LOG_FILE": f.name}
            try:
                daemon = self.launch(self.interface, f.fileno(), extra)
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
        """Waits for the sockets, which a daemon opens a moment after its link came up."""
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
        """Returns the directories in /proc of all processes that this check has started."""
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
        """Returns whether a packet out of the tunnel belongs to this check."""
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
