"""Tunnels between wiresnaked in a host and Linux's WireGuard in an inner kernel."""

import contextlib
import ipaddress
import os
import socket
import struct
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from interop.harness import End, Implementation, Wiretap, configure, on_cable
from kernel.uml import Uml
from sim.forge import with_macs

from lab import hosts
from lab.hosts import Host

FOLDER = Path(__file__).parent
PYTHON = [sys.executable, "-IS"]
"""Starts Python quickly, as the scripts in this folder only need the standard library."""
INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4


@dataclass(frozen=True)
class KernelModule(Implementation):
    """Linux's own WireGuard."""

    def need(self) -> None:
        pass

    def start(self, host: Host, interface: str = "wg0") -> None:
        host.run(f"ip link add {interface} type wireguard")


LINUX = KernelModule("linux", "", "")


def connect(
    host: Host,
    kernel: Uml,
    ours: Implementation,
    *,
    first: str = "ours",
    outer: int = 4,
) -> tuple[End, End]:
    """Makes a tunnel where only `first` knows the other's endpoint, so it must initiate."""
    theirs, our = on_cable(kernel, host, kernel.cable(0, host))
    ours.start(host)
    LINUX.start(kernel)
    begins, answers = (our, theirs) if first == "ours" else (theirs, our)
    configure(begins, answers, outer=outer)
    return our, theirs


def assert_stream(listener: End, caller: End, version: int, size: int = 4 << 20) -> None:
    """Checks that a TCP connection carries random bytes both ways at the same time, unchanged."""
    script = [*PYTHON, str(FOLDER / "stream.py")]
    target = listener.inner[version]
    server = listener.host.start(*script, "listen", target, str(size))
    called = caller.host.run(*script, "call", target, str(size)).stdout.split()
    code, output = server.wait(60)
    assert code == 0, output
    assert len(called) == 2
    assert called == output.split()[::-1], "what one sent, the other received"


class Lasting:
    """A tunnel with pings both ways for more than REKEY_AFTER_TIME, from its creation on."""

    COUNT, INTERVAL = 650, 0.2

    def __init__(self, our: End, their: End, first: str) -> None:
        self.begins, self.answers = (our, their) if first == "ours" else (their, our)
        self.start = time.monotonic()
        self.tap = OuterTap(our.host, our.device)
        command = f"ping -n -q -c {self.COUNT} -i {self.INTERVAL} -W 5"
        self.pings = [self.begins.host.start(command, self.answers.inner[4])]
        hosts.wait_for("the first handshake", self.begins.handshake)
        self.handshake = self.begins.handshake()
        self.pings.append(self.answers.host.start(command, self.begins.inner[6]))


class Packets:
    """Sends and receives raw IP packets on an interface, on either end."""

    def __init__(self, host: Host, device: str) -> None:
        self.host, self.device = host, device
        self.script = [*PYTHON, str(FOLDER / "packets.py")]

    def send(self, packets: Iterable[bytes], pause: float = 0.005) -> None:
        text = "".join(packet.hex() + "\n" for packet in packets)
        self.host.run(*self.script, "send", self.device, str(pause), text=text)

    def route(self, packets: Iterable[bytes], pause: float = 0.005) -> None:
        """Sends packets by the host's routes."""
        text = "".join(packet.hex() + "\n" for packet in packets)
        self.host.run(*self.script, "route", str(pause), text=text)

    @contextlib.contextmanager
    def caught(self) -> Iterator[list[bytes]]:
        """Collects packets that come in during the block, in a list that is filled at its end."""
        before = self._taps()
        catcher = self.host.start(*self.script, "catch", self.device)
        hosts.wait_for("the catcher", lambda: self._taps() > before)
        packets: list[bytes] = []
        try:
            yield packets
            time.sleep(0.2)  # lets late packets arrive
        finally:
            _, output = catcher.stop()
        packets += map(bytes.fromhex, output.split())

    def _taps(self) -> int:
        return len(self.host.output("cat /proc/net/packet").splitlines())


class Flood:
    """A flood of initiations with a right mac1, all different and from unknown keys."""

    def __init__(self, out: socket.socket, target: tuple[str, int], public: str, rate: int) -> None:
        self.out, self.target, self.rate = out, target, rate
        self.public = b64decode(public)
        self.sent = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _send(self) -> None:
        begun = time.monotonic()
        body = bytearray(struct.pack("<II", INITIATION, 1) + os.urandom(108))
        while not self.over.is_set():
            body[8:16] = self.sent.to_bytes(8)
            self.out.sendto(with_macs(bytes(body), self.public), self.target)
            self.sent += 1
            if self.sent % 50 == 0:
                time.sleep(max(0.0, begun + self.sent / self.rate - time.monotonic()))


class Outer(NamedTuple):
    """A UDP datagram on the cable, with the header fields that a sender chooses."""

    source: str
    target: str
    tos: int
    ttl: int
    dont_fragment: bool
    flow: int
    has_checksum: bool
    payload: bytes

    @property
    def kind(self) -> int:
        return self.payload[0] if self.payload else 0


class OuterTap(Wiretap):
    """Records what the other tap leaves out, on the host's end of the cable."""

    def datagrams(self, source: str | None = None, kind: int | None = None) -> list[Outer]:
        """Returns the datagrams since the last call."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, (_, protocol, *_) = self.socket.recvfrom(1 << 17)
                if protocol == self.IPV4 and data[9] == socket.IPPROTO_UDP:
                    found.append(_outer4(data))
                elif protocol == self.IPV6 and data[6] == socket.IPPROTO_UDP:
                    found.append(_outer6(data))
        return [one for one in found if source in (None, one.source) and kind in (None, one.kind)]


def _outer4(data: bytes) -> Outer:
    source, target = (str(ipaddress.ip_address(data[at : at + 4])) for at in (12, 16))
    udp = data[20:]
    return Outer(source, target, data[1], data[8], bool(data[6] & 0x40), 0, any(udp[6:8]), udp[8:])


def _outer6(data: bytes) -> Outer:
    source, target = (str(ipaddress.ip_address(data[at : at + 16])) for at in (8, 24))
    first = int.from_bytes(data[:4])
    udp = data[40:]
    tos, flow = first >> 20 & 255, first & 0xFFFFF
    return Outer(source, target, tos, data[7], False, flow, any(udp[6:8]), udp[8:])


def inner_packet(
    source: str, target: str, *, tos: int = 0, ttl: int = 64, body: bytes = b"packet"
) -> bytes:
    """Makes a UDP packet from port 7000 to port 7001, where nobody listens."""
    addresses = b"".join(ipaddress.ip_address(one).packed for one in (source, target))
    udp = struct.pack(">HHHH", 7000, 7001, 8 + len(body), 0) + body
    pseudo = addresses + struct.pack(">II", len(udp), socket.IPPROTO_UDP)
    udp = udp[:6] + (checksum(pseudo + udp) or 0xFFFF).to_bytes(2) + udp[8:]
    return ip_packet(source, target, socket.IPPROTO_UDP, udp, tos=tos, ttl=ttl)


def ip_packet(
    source: str,
    target: str,
    protocol: int,
    body: bytes,
    *,
    tos: int = 0,
    ttl: int = 64,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    addresses = b"".join(ipaddress.ip_address(one).packed for one in (source, target))
    if ":" in source:
        start = struct.pack(">IHBB", 6 << 28 | tos << 20, len(body), protocol, ttl)
        return start + addresses + body
    length = 20 + len(options)
    start = struct.pack(
        ">BBHHHBB", 0x40 | length // 4, tos, length + len(body), 0x1234, fragment, ttl, protocol
    )
    header = start + bytes(2) + addresses + options
    return header[:10] + checksum(header).to_bytes(2) + header[12:] + body


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def inner_tos(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else int.from_bytes(packet[:2]) >> 4 & 255
