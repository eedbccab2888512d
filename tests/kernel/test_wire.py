"""The same packets through wiresnaked and through Linux must be treated the same way."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from interop.harness import End, Implementation, assert_pings
from kernel.harness import (
    DATA,
    INITIATION,
    RESPONSE,
    Outer,
    OuterTap,
    Packets,
    checksum,
    connect,
    inner_packet,
    inner_tos,
)
from kernel.uml import Uml

from lab.hosts import Host

VERSIONS = (4, 6)
NOT_ECT, ECT1, ECT0, CE = range(4)
NFT_ECN = ("not-ect", "ect1", "ect0", "ce")
TOS = [*range(4), 0x88, *(dscp | ecn for dscp in (0xB8, 0xFC, 0x28) for ecn in range(4))]


@dataclass
class Pair:
    our: End
    their: End
    outer: int
    tap: OuterTap
    handshake: list[Outer]

    def directions(self) -> tuple[tuple[End, End], tuple[End, End]]:
        return (self.our, self.their), (self.their, self.our)

    def through(self, sender: End, packets: list[bytes]) -> list[Outer]:
        """Returns the datagrams that carry these packets, one each and in order."""
        self.tap.datagrams()
        Packets(sender.host, sender.interface).send(packets)
        sent = self.tap.datagrams(sender.outer[self.outer], DATA)
        carrying = [one for one in sent if len(one.payload) > 32]  # the others are keepalives
        assert len(carrying) == len(packets)
        return carrying


@pytest.fixture(scope="module", params=VERSIONS, ids=["outer-v4", "outer-v6"])
def pair(
    inner_kernel: None, ours: Implementation, request: pytest.FixtureRequest
) -> Iterator[Pair]:
    """A tunnel for each outer IP version, shared by the tests, as packets leave no traces."""
    with Host("ours") as host, Uml() as kernel:
        our, their = connect(host, kernel, ours, outer=request.param)
        tap = OuterTap(our.host, our.device)
        assert_pings(our, their)
        yield Pair(our, their, request.param, tap, tap.datagrams()[:2])
        tap.close()


def packets_between(sender: End, receiver: End, version: int) -> list[bytes]:
    return [
        inner_packet(sender.inner[version], receiver.inner[version], tos=tos, ttl=ttl)
        for tos in TOS
        for ttl in (1, 64)
    ]


def test_outer_headers(pair: Pair) -> None:
    """Compares all header fields that a sender chooses, for each inner TOS and TTL, and for
    handshake messages."""
    assert [one.kind for one in pair.handshake] == [INITIATION, RESPONSE]
    initiation, response = map(_header, pair.handshake)
    assert initiation == response
    assert initiation.tos == 0x88
    for version in VERSIONS:
        ours, theirs = (
            [_header(one) for one in pair.through(a, packets_between(a, b, version))]
            for a, b in pair.directions()
        )
        assert ours == theirs


def _header(datagram: Outer) -> Outer:
    return datagram._replace(source="", target="", payload=b"")


def test_lengths(pair: Pair) -> None:
    """Compares the padding, up to the MTU."""
    sizes = [*range(1, 34), 100, *range(1350, 1393)]
    for version, header in ((4, 28), (6, 48)):
        bodies = [bytes(size) for size in sizes if header + size <= 1420]
        ours, theirs = (
            [
                len(one.payload)
                for one in pair.through(
                    a,
                    [
                        inner_packet(a.inner[version], b.inner[version], body=body)
                        for body in bodies
                    ],
                )
            ]
            for a, b in pair.directions()
        )
        assert ours == theirs
        assert max(ours) == 32 + 1420


ROAD = """
add table inet road
add chain inet road out {{ type filter hook output priority 0; }}
add chain inet road in {{ type filter hook prerouting priority -400; }}
flush table inet road
add rule inet road out oifname "eth0" udp dport 51820 {ip} ecn set {ecn}
add rule inet road in iifname "eth0" udp sport 51820 {ip} ecn set {ecn}
"""


def test_ecn_of_the_road_shows_inside(pair: Pair) -> None:
    """For each outer and inner ECN, Linux and wiresnaked deliver the same TOS. The rest of the
    packet is unchanged, with a right checksum."""
    for ecn, name in enumerate(NFT_ECN):
        ip = "ip" if pair.outer == 4 else "ip6"
        pair.our.host.run("nft -f -", text=ROAD.format(ip=ip, ecn=name))
        tos_of = {}
        for sender, receiver in pair.directions():
            sent = [
                one for version in VERSIONS for one in packets_between(sender, receiver, version)
            ]
            with Packets(receiver.host, receiver.interface).caught() as caught:
                Packets(sender.host, sender.interface).send(sent)
            found = [one for one in caught if one.endswith(b"packet")]
            assert len(found) == len(sent), (receiver.host.name, name)
            tos_of[receiver.host.name] = [inner_tos(one) for one in found]
            for before, after in zip(sent, found, strict=True):
                assert after == with_tos(before, inner_tos(after))
                changed = inner_tos(before) != inner_tos(after)
                assert changed <= (ecn in (ECT1, CE)), (before.hex(), after.hex())
        assert tos_of["ours"] == tos_of["kernel"], name
        if ecn == CE:
            assert tos_of["ours"].count(CE) > tos_of["ours"].count(ECT0), "the road changes it"


def with_tos(packet: bytes, tos: int) -> bytes:
    if packet[0] >> 4 == 6:
        return (int.from_bytes(packet[:4]) & ~(255 << 20) | tos << 20).to_bytes(4) + packet[4:]
    header = packet[:1] + bytes([tos]) + packet[2:10] + bytes(2) + packet[12:20]
    return header[:10] + checksum(header).to_bytes(2) + header[12:] + packet[20:]
