"""The world's sockets: the present place of a peer, and taps that see everything."""

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from . import packets
from .machine import Allowance
from .oracle import (
    COOKIE_REPLY,
    KINDS,
    LENGTHS,
    RESPONSE,
    TRANSPORT,
    describe,
    kind_of,
)
from .verdict import UNASKED, Differs, Log

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
IPV6_FREEBIND = 78
IP_FREEBIND = 15
PATIENCE = 4.0
"""Seconds within which anything that does not depend on a timer must come."""


@dataclass(frozen=True)
class Datagram:
    """A datagram from the device to one of the world's sockets."""

    data: bytes
    time: float
    """When it arrived, in seconds since 1970, by the kernel's clock."""
    source: str
    port: int
    tos: int

    @property
    def kind(self) -> int:
        return kind_of(self.data)

    @property
    def receiver(self) -> int:
        """The receiver index; -1 if it has none."""
        at = {RESPONSE: 8, COOKIE_REPLY: 4, TRANSPORT: 4}.get(self.kind, len(self.data))
        return int.from_bytes(self.data[at : at + 4], "little") if self.data[at : at + 4] else -1


class PeerSocket:
    """A UDP socket of the world, on any address: the present place of a peer."""

    def __init__(
        self,
        address: str,
        port: int,
        device: tuple[str, int],
        version: int,
        log: Log,
        allowance: Allowance,
    ) -> None:
        """Opens the socket. `device` is the address and port that it sends to."""
        self.version, self.log, self.allowance = version, log, allowance
        self.udp = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if version == 4:
            self.udp.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            self.udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            self.udp.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        with contextlib.suppress(OSError):
            self.udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        host = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0][4]
        self.udp.bind(host)
        self.target = socket.getaddrinfo(*device)[0][4]

    @property
    def name(self) -> str:
        """The address and port, as `wg` writes an endpoint."""
        host, port, *scope = self.udp.getsockname()
        if scope and scope[1]:
            host = socket.getnameinfo((host, port, *scope), socket.NI_NUMERICHOST)[0]
        return f"[{host}]:{port}" if self.version == 6 else f"{host}:{port}"

    def send(self, datagram: bytes, *, quietly: bool = False) -> None:
        if not quietly:
            self.log(f"{self.name} -> {describe(datagram)}")
        self.udp.sendto(datagram, self.target)

    def receive(self, within: float = PATIENCE, *, quietly: bool = False) -> Datagram | None:
        """Returns the next datagram, from any sender; None if none comes in time."""
        self.udp.settimeout(max(within, 1e-4))
        deadline = time.monotonic() + within
        while True:
            try:
                data, ancillary, _, (source, port, *_) = self.udp.recvmsg(1 << 16, 256)
                break
            except TimeoutError:
                return None
            except OSError as error:  # an ICMP error for something sent earlier
                if time.monotonic() > deadline:
                    return None
                self.log(f"{self.name}: {error.strerror}")
        moment, tos = time.time(), 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value)
                moment = seconds + nanoseconds / 1e9
            elif kind in (socket.IP_TOS, socket.IPV6_TCLASS):
                tos = value[0]
        if not quietly:
            self.log(f"{self.name} <- {describe(data)}")
        return Datagram(data, moment, source, port, tos)

    def drain(self) -> list[Datagram]:
        """Returns all datagrams that have already come."""
        found = []
        while datagram := self.receive(0):
            found.append(datagram)
        return found

    def expect(self, kind: int, why: str, within: float = PATIENCE) -> Datagram:
        """Returns the next datagram, which must be of that kind and of the right size."""
        patience = self.allowance.patience(within)
        datagram = self.receive(patience)
        if datagram is None:
            raise Differs(f"{why}: nothing came within {patience:g} s")
        wrong = datagram.kind != kind or len(datagram.data) != LENGTHS.get(kind, len(datagram.data))
        if wrong:
            raise Differs(f"{why}: wanted {KINDS[kind]}, got {describe(datagram.data)}")
        return datagram

    def silence(self, seconds: float, why: str) -> None:
        """Checks that nothing comes. A late machine is watched for longer."""
        seconds += self.allowance.leeway if seconds else 0
        if datagram := self.receive(seconds):
            got = f"{why}: expected silence, got {describe(datagram.data)}"
            raise Differs(got, needs=UNASKED)


@dataclass
class Tap:
    """Sees all packets on a network device, with their IP headers."""

    socket: socket.socket

    def packets(self, within: float = 0) -> list[packets.Packet]:
        """Returns the packets since the last call, after waiting for `within` seconds."""
        time.sleep(within)
        found = []
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                raw, _ = self.socket.recvfrom(1 << 17)
                packet = packets.read(raw)
                if packet and not _neighbour_discovery(packet):
                    found.append(packet)
        return found


def _neighbour_discovery(packet: packets.Packet) -> bool:
    """Returns whether it is MLD, router or neighbour discovery of IPv6."""
    return packet.version == 6 and packet.protocol in (0, packets.ICMP6) and (
        packet.protocol == 0 or packet.payload[:1] in (b"\x82", b"\x83", b"\x84", b"\x85", b"\x86",
                                                      b"\x87", b"\x88", b"\x8f")
    )  # fmt: skip
