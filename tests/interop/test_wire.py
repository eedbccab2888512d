"""What a tunnel looks like from outside: headers, lengths and sources of its datagrams."""

import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    Wiretap,
    assert_answered,
    assert_pings,
    assert_tcp,
    tunnel,
)

from lab import hosts

version = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
INITIATION, RESPONSE, DATA = 1, 2, 4
ECT0, ECT1, CE = 2, 1, 3
OTHER = {4: "192.0.2.202", 6: "2001:db8::202"}
LENGTH = {4: 24, 6: 64}


class Outer(NamedTuple):
    """An IP packet with UDP, or a fragment of one (`payload` is empty in all but the first)."""

    source: str
    tos: int
    length: int
    dont_fragment: bool
    fragment: bool
    payload: bytes

    @property
    def kind(self) -> int:
        return self.payload[0] if self.payload else 0


class HeaderTap(Wiretap):
    """Keeps what the other tap leaves out: TOS, flags and fragments."""

    def outer(self) -> list[Outer]:
        found: list[Outer] = []
        while True:
            try:
                data, (_, protocol, *_) = self.socket.recvfrom(1 << 17)
            except BlockingIOError:
                return found
            if protocol == self.IPV4 and data[9] == socket.IPPROTO_UDP:
                found.append(_ipv4(data))
            elif protocol == self.IPV6 and data[6] in (socket.IPPROTO_UDP, 44):
                found.append(_ipv6(data))


def _ipv4(data: bytes) -> Outer:
    flags = int.from_bytes(data[6:8])
    return Outer(
        str(ipaddress.ip_address(data[12:16])),
        data[1],
        int.from_bytes(data[2:4]),
        bool(flags & 0x4000),
        bool(flags & 0x3FFF),
        b"" if flags & 0x1FFF else data[28:],
    )


def _ipv6(data: bytes) -> Outer:
    fragment = data[6] == 44
    later = fragment and int.from_bytes(data[42:44]) & 0xFFF8
    tos = int.from_bytes(data[:2]) >> 4 & 255
    length = 40 + int.from_bytes(data[4:6])
    payload = b"" if later else data[56 if fragment else 48 :]
    return Outer(str(ipaddress.ip_address(data[8:24])), tos, length, False, fragment, payload)


def of_kind(packets: Iterable[Outer], kind: int) -> list[Outer]:
    return [packet for packet in packets if packet.kind == kind]


def send_ping(end: End, other: End, *options: str) -> None:
    """One that arrives, with its answer."""
    end.host.run("ping -n -q -c1 -W2", *options, other.inner[4])


@version
@pytest.mark.item(95, 100)
def test_handshakes_are_marked_and_nothing_forbids_fragments(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, outer=version)
    tap = HeaderTap(a.host, a.device)
    assert_pings(a, b)
    assert_tcp(a, b, size=1 << 20)
    seen = tap.outer()
    tap.close()
    for kind, end, length in ((INITIATION, a, 148), (RESPONSE, b, 92)):
        messages = of_kind(seen, kind)
        assert messages
        assert {(one.source, one.tos, len(one.payload)) for one in messages} == {
            (end.outer[version], 0x88, length)
        }
    # TCP inside forbids fragments and is ECN-capable or not: the first must not show outside.
    assert {one.source for one in of_kind(seen, DATA)} == {a.outer[version], b.outer[version]}
    assert not [one for one in seen if one.dont_fragment]
    assert not [one for one in of_kind(seen, DATA) if one.tos & ~3]


@version
@pytest.mark.item(95, 99)
def test_ecn_is_copied_and_dscp_is_not(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    """As the kernel encapsulates: CE inside becomes ECT(0) outside (RFC 3168 9.1.1)."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, outer=version)
    assert_pings(a, b)
    tap = HeaderTap(a.host, a.device)
    for inner, outer in (
        (0xB8, 0),
        (0xFC, 0),
        (0xB8 | ECT0, ECT0),
        (ECT0, ECT0),
        (0x28 | ECT1, ECT1),
        (0xB8 | CE, ECT0),
    ):
        send_ping(a, b, "-Q", str(inner))
        messages = of_kind(tap.outer(), DATA)
        asked = [one.tos for one in messages if one.source == a.outer[version]]
        assert asked == [outer], f"inner {inner:#04x}: {asked}"
    tap.close()


@pytest.mark.item(99)
def test_congestion_outside_shows_inside(make_host: MakeHost, ours: Implementation) -> None:
    """A router on the way marks CE: who speaks ECN inside learns it, for others nothing changes."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_pings(a, b)
    a.host.run("nft add table ip road")
    a.host.run("nft add chain ip road out { type filter hook postrouting priority 0 ; }")
    a.host.run("nft add rule ip road out oifname eth0 udp dport 51820 ip ecn set ce")
    inside, outside = HeaderTap(b.host, b.interface), HeaderTap(b.host, b.device)
    received = b.host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = a.host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with received, sender:
        received.bind((b.inner[4], 0))
        received.settimeout(5)
        for tos, arrives in ((0xB8 | ECT0, 0xB8 | CE), (ECT1, CE), (CE, CE), (0xB8, 0xB8)):
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            sender.sendto(b"x", received.getsockname())
            assert received.recv(9) == b"x"
            assert [one.tos for one in inside.outer() if one.source == a.inner[4]] == [arrives]
    came = [one.tos for one in of_kind(outside.outer(), DATA) if one.source == a.outer[4]]
    assert came == [CE] * 4
    inside.close()
    outside.close()


@version
@pytest.mark.item(100)
def test_a_smaller_outer_mtu_means_fragments(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, outer=version, mtu=1400)
    assert_pings(a, b)
    taps = [HeaderTap(end.host, end.device) for end in (a, b)]
    for _ in range(3):
        send_ping(a, b, "-s", "1392", "-M", "do")
    for tap in taps:
        seen = tap.outer()
        for end in (a, b):
            sent = [one for one in seen if one.source == end.outer[version]]
            assert len([one for one in sent if one.fragment]) == 6, sent
        assert not [one for one in seen if one.length > 1400 or one.dont_fragment]
        tap.close()
    assert_tcp(a, b, 4, size=1 << 20)
    assert_tcp(a, b, 6, size=1 << 20)


@pytest.mark.item(97)
def test_lengths_are_padded(make_host: MakeHost, ours: Implementation) -> None:
    """To 16 bytes, but never beyond the MTU; 32 bytes are the message's own."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_pings(a, b)
    tap = HeaderTap(a.host, a.device)
    for size in (0, 1, 3, 4, 5, 19, 20, 21, 100, 1375, 1379, 1380, 1381, 1391, 1392):
        send_ping(a, b, "-s", str(size))
        inner = 28 + size
        expected = 32 + min(-(-inner // 16) * 16, 1420)
        lengths = [len(one.payload) for one in of_kind(tap.outer(), DATA)]
        assert lengths == [expected, expected], f"{size}: {lengths}"
    tap.close()


@version
@pytest.mark.item(78)
def test_the_source_sticks_until_its_address_goes(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, outer=version)
    asked = replace(b, outer=OTHER)
    hosts.address(b.host, b.device, f"{OTHER[version]}/{LENGTH[version]}")
    a.wg("set", "wg0", "peer", b.public, "endpoint", asked.endpoint(version))
    tap = HeaderTap(b.host, b.device)

    def sources() -> set[str]:
        return {one.source for one in tap.outer()} - {a.outer[version]}

    assert_pings(a, b)
    assert_tcp(b, a, size=1 << 20)
    assert sources() == {OTHER[version]}, "from first to last, handshake and data"
    assert a.peer_endpoint() == asked.endpoint(version)

    b.host.run(f"ip address delete {OTHER[version]}/{LENGTH[version]} dev {b.device}")
    sources()  # what the stream's end has sent until now
    assert_answered(b.host, a.inner[4])
    assert sources() == {b.outer[version]}
    assert a.peer_endpoint() == b.endpoint(version)
    assert_pings(a, b)
    tap.close()


@pytest.mark.item(57, 71)
def test_a_keepalive_is_32_bytes(make_host: MakeHost, ours: Implementation) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_pings(a, b)
    tap = HeaderTap(a.host, a.device)
    a.wg("set", "wg0", "peer", b.public, "persistent-keepalive", "1")
    seen: list[Outer] = []

    def came() -> bool:
        seen.extend(of_kind(tap.outer(), DATA))
        return bool(seen)

    hosts.wait_for("a keepalive", came)
    tap.close()
    assert {(one.source, one.tos, len(one.payload)) for one in seen} == {(a.outer[4], 0, 32)}
    assert struct.unpack_from("<I", seen[0].payload)[0] == DATA
