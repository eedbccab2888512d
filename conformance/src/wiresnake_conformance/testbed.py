"""A device under test and the world around it.

The device and the world each have their own network, joined by a virtual cable, so a check sees
everything that the device sends and nothing else.
"""

import contextlib
import os
import signal
import socket
import struct
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from . import namespaces
from .device import Device, tool
from .machine import Allowance, Watch
from .oracle import (
    COOKIE_REPLY,
    INITIATION,
    NO_PSK,
    Key,
    initiate,
    with_macs,
)
from .peer import Peer
from .peer_socket import SO_RCVBUFFORCE, PeerSocket, Tap
from .subject import Subject
from .verdict import Differs, Failed, Log


@dataclass
class Testbed(Device):
    """A device in one network, and the world in another. Use it with `with`."""

    peers: list[Peer] = field(default_factory=list)
    default_mtu: int = 0
    """The MTU of the interface before it was set."""
    notes: list[str] = field(default_factory=list)
    """Results that were accepted because the machine was late."""

    outer: ClassVar = {4: "192.0.2.1", 6: "2001:db8::1"}
    """The device's addresses on the cable `d0`."""
    world: ClassVar = {4: "192.0.2.2", 6: "2001:db8::2"}
    """The world's addresses on `w0`. It also has all of 198.51.100.0/24 and 2001:db8:1::/48."""
    link_local: ClassVar = "fe80::1%w0"
    """The device's link-local address, seen from the world, which has fe80::2."""

    def __enter__(self) -> "Testbed":
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
        tool(
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

    def another(self) -> "Testbed":
        """Starts a second device of that kind on the same host, up, with a key, without peers."""
        subject = replace(self.subject, interface="wg1")
        other = Testbed(subject, self.log, self.allowance, port=self.port + 1, notes=self.notes)
        other.network = self.network
        with namespaces.inside(self.network):
            other._start()
        other._configure()
        return other

    # The world.

    @staticmethod
    def world_command(line: str) -> str:
        """Runs a command in the world's network; it must succeed."""
        return tool(line)

    @staticmethod
    def now() -> float:
        """The clock of `Datagram.time`."""
        return time.time()

    def expect_between(self, value: float, least: float, most: float, why: str) -> None:
        """Checks that a measured value in seconds is in that range, or slightly outside it if the
        machine was late."""
        self.log(f"{why} {value:.3f} s")
        beyond, late = max(least - value, value - most), self.allowance.late
        if beyond <= 0:
            return
        said = f"{why} {value:.3f} s, not {least:g} to {most:g} s"
        if beyond > late.leeway:
            raise Differs(said, needs=beyond)
        self.notes.append(f"{said}: passed, as the machine was {late.worst:.3f} s late")

    def socket(self, address: str | None = None, *, port: int = 0, version: int = 4) -> PeerSocket:
        """Opens a socket of the world, on any address of `world` or of the networks there."""
        if address is None:
            address = self.world[version]
        version = 6 if ":" in address else 4
        outer = self.link_local if address.startswith("fe80:") else self.outer[version]
        return PeerSocket(address, port, (outer, self.port), version, self.log, self.allowance)

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
        """Adds a peer. With `endpoint` the device knows where it is. `version` is the outer one."""
        inner = self.inner(len(self.peers) + 2)
        peer = Peer(self, key or Key.new(), self.socket(version=version), inner, psk)
        self.peers.append(peer)
        if configured:
            words = ["allowed-ips", allowed or f"{inner[4]}/32,{inner[6]}/128"]
            if endpoint:
                words += ["endpoint", peer.socket.name]
            if keepalive:
                words += ["persistent-keepalive", str(keepalive)]
            if psk != NO_PSK:
                words += ["preshared-key", "/dev/stdin"]
            peer.configure(*words, text=Key(psk, b"").private_text if psk != NO_PSK else None)
        return peer

    def tap(self, name: str = "w0") -> Tap:
        """Opens a tap on the world's end of the cable, or on another of the world's devices."""
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        opened.bind((name, 3))  # ETH_P_ALL
        return Tap(opened)

    @contextlib.contextmanager
    def flood(
        self, datagrams: Sequence[bytes], *, addresses: int = 16, rate: float | None = None
    ) -> Iterator[None]:
        """Sends the datagrams in a loop during the block, `rate` per second.

        They come from the world's own address and many others, from 198.51.100.100 on.
        """
        peer_sockets = [self.socket()]
        peer_sockets += [self.socket(f"198.51.100.{100 + number}") for number in range(addresses)]
        self.log(f"flood of {len(datagrams)} datagrams from {addresses} addresses begins")
        child = os.fork()
        if not child:
            try:
                _send_forever(peer_sockets, datagrams, rate)
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
        """Keeps the device under load during the block.

        It floods the device with noise with a right mac1, faster and faster until a stranger gets a
        cookie. Messages may be lost meanwhile, so use `Peer.insist`, from addresses of the flood:
        load may depend on the address.
        """
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
        peer_socket, stranger = self.socket("198.51.100.100"), Key.new()
        for _ in range(40):
            peer_socket.send(initiate(stranger, self.public).message, quietly=True)
            answer = peer_socket.receive(0.05)
            if answer and answer.kind == COOKIE_REPLY:
                return True
        return False


class SharedTestbed(Testbed):
    """An interface that is already configured. Peers are added and removed again.

    The world is this machine's loopback.
    """

    outer: ClassVar = {4: "127.0.0.1", 6: "::1"}
    world: ClassVar = {4: "127.0.0.2", 6: "::1"}

    def __enter__(self) -> "Testbed":
        self.network = namespaces.network()
        self.key = Key(b"", b64decode(self.wg("show", self.interface, "public-key")))
        self.port = int(self.wg("show", self.interface, "listen-port"))
        self._open_tunnel()
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self.peers:
            with contextlib.suppress(Failed):  # the others must be removed all the same
                self.wg("set", self.interface, "peer", peer.key.text, "remove", check=False)

    @staticmethod
    def inner(number: int) -> dict[int, str]:
        """Addresses of the benchmark range (RFC 2544) and of a unique local network."""
        return {4: f"198.18.{number >> 8}.{number & 255}", 6: f"fd57:6972:6573::{number:x}"}

    def tap(self, name: str = "lo") -> Tap:
        return super().tap("lo" if name == "w0" else name)

    def _ours(self, packet: bytes) -> bool:
        return b"\xc6\x12" in packet[12:20] or b"\xfd\x57\x69\x72\x65\x73" in packet[8:40]


def open_testbed(
    subject: Subject, log: Log, watch: Watch | None = None, *, timed: bool = False
) -> Testbed:
    kind = SharedTestbed if subject.kind == "interface" else Testbed
    return kind(subject, log, Allowance(watch, log.start, timed))


def _send_forever(
    peer_sockets: list[PeerSocket], datagrams: Sequence[bytes], rate: float | None
) -> None:
    start, sent = time.monotonic(), 0
    while True:
        for peer_socket in peer_sockets:
            begin = sent % len(datagrams)
            for datagram in datagrams[begin : begin + 32]:
                with contextlib.suppress(OSError):
                    peer_socket.udp.sendto(datagram, peer_socket.target)
                sent += 1
            if rate and (ahead := sent / rate - (time.monotonic() - start)) > 0:
                time.sleep(ahead)


def _prepare_mounts() -> None:
    """Mounts a private /run, so that the sockets of interfaces do not collide."""
    tool("mount --make-rprivate /")
    tool("mount -t tmpfs -o mode=755 tmpfs /run")
    if not Path("/var/run").is_symlink():
        tool("mount --bind /run /var/run")
    with contextlib.suppress(Failed):
        tool("mount -t sysfs sysfs /sys")


def _addresses(device: str, number: int) -> str:
    """Returns lines for `ip -batch` that bring up one end of the cable."""
    return f"""link set {device} addrgenmode none up
        address add 192.0.2.{number}/24 dev {device}
        address add 2001:db8::{number}/64 dev {device} nodad
        address add fe80::{number}/64 dev {device} nodad"""
