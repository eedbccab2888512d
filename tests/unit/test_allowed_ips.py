"""Whose is a packet? The device and the real plane, against `ipaddress`.

Peers are sockets: where a packet's ciphertext arrives is who was chosen.
"""

import ipaddress
import select
import socket
import struct
import time
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wiresnake._native import Endpoint, Entropy, Plane, Session, SymmetricState
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.device import Device
from wiresnake.protocol.timers import Now

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PEERS = 4
LAST = ipaddress.ip_address("203.0.113.77")
"""Of the peer 0 alone: it says that all packets before have arrived."""


def boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def packet_to(destination: Address, number: int) -> bytes:
    payload = struct.pack("!I", number)
    if destination.version == 6:
        header = struct.pack("!IHBB", 0x60000000, len(payload), 59, 64)
        return header + bytes(15) + b"\1" + destination.packed + payload
    length = 20 + len(payload)
    header = struct.pack("!BBHIBBHI", 0x45, 0, length, 0, 64, 253, 0, 0x0A090001)
    return header + destination.packed + payload


class Crowd:
    def __init__(self) -> None:
        self.plane = Plane()
        self.device = Device(self.plane, Entropy())
        self.app, tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.plane.attach_tun(tun.fileno(), 1420, True, True)
        tun.close()
        self.udp = self.bind()
        self.plane.attach_sockets(self.udp.fileno(), None)
        self.wires = [self.bind() for _ in range(PEERS)]
        self.sessions: list[Session] = []
        for number, wire in enumerate(self.wires):
            self.change(number, endpoint=Endpoint(*wire.getsockname()))
            peer = self.device.peers[bytes([number]) * 32].id
            index, lifetimes = self.plane.reserve(peer), Timing().lifetimes
            ours, theirs = SymmetricState(b"x"), SymmetricState(b"x")
            self.plane.install(peer, ours.split(True, index, 7, boottime(), lifetimes))
            self.sessions.append(theirs.split(False, 7, index, boottime(), lifetimes))

    def bind(self) -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        return one

    def change(self, peer: int, *allowed: tuple[bool, Prefix], **words: object) -> None:
        change = PeerChange(bytes([peer]) * 32, allowed_ips=allowed, **words)  # type: ignore[arg-type]
        for _ in self.device.configure(DeviceChange(peers=(change,)), lambda: Now(boottime(), 0)):
            pass

    def ask(self, destinations: list[Address]) -> dict[int, int]:
        """Sends a packet to each; of each number, the peer that got it."""
        self.change(0, (True, Prefix(LAST.packed, 32)))
        for number, destination in enumerate([*destinations, LAST]):
            self.app.send(bytes(10) + packet_to(destination, number))
            while select.select([self.app], [], [], 0)[0]:
                self.app.recv(2000)  # "unreachable", of those that nobody gets
        end, found = time.monotonic() + 60, dict[int, int]()
        complete = False
        while not complete:
            assert time.monotonic() < end
            complete = len(destinations) in found  # Then all others are in their sockets by now.
            for peer in range(PEERS):
                for datagram in self.arrived(peer):
                    plain = self.sessions[peer].open(datagram, boottime())
                    assert plain is not None
                    at = 20 if plain[0] >> 4 == 4 else 40
                    found[struct.unpack_from("!I", plain, at)[0]] = peer
        del found[len(destinations)]
        return found

    def arrived(self, peer: int) -> Iterator[bytes]:
        select.select([self.wires[0]], [], [], 0 if peer else 0.01)
        while True:
            try:
                yield self.wires[peer].recv(2000)
            except BlockingIOError:
                return

    def close(self) -> None:
        self.plane.close()
        for one in (self.app, self.udp, *self.wires):
            one.close()


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    crowd = Crowd()
    yield crowd
    crowd.close()


def networks(bits: int, bases: list[int]) -> st.SearchStrategy[tuple[int, int, int]]:
    """Address bits, address, length: near to one another, so that they nest and repeat."""
    flips = st.lists(st.integers(0, bits - 1), max_size=3)
    return st.builds(
        lambda base, flips, length: (bits, base ^ sum({1 << bit for bit in flips}), length),
        st.sampled_from(bases),
        flips,
        st.integers(0, bits),
    )


NETWORKS = networks(32, [0x0A000001, 0xC0A80180]) | networks(128, [1, 0xFD << 120 | 1 << 64])
STEPS = st.tuples(st.integers(0, PEERS - 1), st.sampled_from([True, True, True, False]), NETWORKS)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEPS, max_size=25), st.integers(0, 1 << 32))
@pytest.mark.item(87)
def test_the_longest_match_gets_the_packet(
    crowd: Crowd, steps: list[tuple[int, bool, tuple[int, int, int]]], seed: int
) -> None:
    for peer in range(PEERS):
        crowd.change(peer, replace_allowed_ips=True)
    owners: dict[Network, int] = {}
    draw = Random(seed)
    destinations: list[Address] = []
    for peer, add, (bits, number, length) in steps:
        address = ipaddress.ip_address(number.to_bytes(bits // 8))
        network = ipaddress.ip_network((address, length), strict=False)
        crowd.change(peer, (add, Prefix.parse(f"{address}/{length}")))
        if add:
            owners[network] = peer
        elif owners.get(network) == peer:
            del owners[network]
        near = number ^ 1 << draw.randrange(bits)
        inside = int(network[0]) + draw.randrange(1 << (bits - length))
        chosen = number, near, inside, draw.getrandbits(bits)
        destinations += [ipaddress.ip_address(one.to_bytes(bits // 8)) for one in chosen]
    expected = {}
    for count, destination in enumerate(destinations):
        matches = [network for network in owners if destination in network]
        if matches:
            expected[count] = owners[max(matches, key=lambda network: network.prefixlen)]
    assert crowd.ask(destinations) == expected
    for peer in range(PEERS):
        allowed = crowd.device.peers[bytes([peer]) * 32].allowed_ips
        listed = {str(ipaddress.ip_network((prefix.address, prefix.length))) for prefix in allowed}
        last = {f"{LAST}/32"} if peer == 0 else set()
        assert listed == last | {str(n) for n, owner in owners.items() if owner == peer}
