"""ICMP errors about packets that cannot be sent are the same from wiresnaked and from Linux."""

from interop.harness import End, Implementation, MakeHost
from kernel.harness import Packets, connect, inner_packet, ip_packet
from kernel.uml import Uml

from lab import hosts

SOURCE = {4: "10.9.0.50", 6: "fd09::50"}
NOBODY = {4: "10.9.0.99", 6: "fd09::99"}
NOWHERE = {4: "10.9.0.77", 6: "fd09::77"}
"""An address of a peer that has no endpoint."""
ICMP_ERRORS, ICMP_OTHERS = (3, 4, 5, 11, 12), (0, 8, 13, 14, 17, 18)
ICMPV6_ERRORS, ICMPV6_OTHERS = (1, 2, 3, 4), (128, 129)
UDP, ICMPV6 = 17, 58
PAUSE = 0.012
"""Seconds between packets, as wiresnaked sends at most 100 errors per second."""
HOP_BY_HOP, FRAGMENT, DESTINATION = 0, 44, 60


def packets(version: int) -> list[bytes]:
    source = SOURCE[version]
    made = []
    for target in (NOBODY[version], NOWHERE[version]):
        made += [inner_packet(source, target, tos=tos) for tos in (0, 1, 2, 3, 0xB8, 0xBB, 0xFF)]
        made += [
            inner_packet(source, target, body=bytes(size)) for size in (0, 520, 521, 1183, 1185)
        ]
        made.append(inner_packet(source, target, ttl=1))
        made += v4(target) if version == 4 else v6(target)
    return made


def v4(target: str) -> list[bytes]:
    """IPv4 packets, among them errors and later fragments, which must not be answered."""
    source = SOURCE[4]
    udp = inner_packet(source, target)[20:]
    kinds = [*ICMP_ERRORS, *ICMP_OTHERS, 41, 255]
    made = [ip_packet(source, target, 1, bytes([kind, 0]) + bytes(30)) for kind in kinds]
    made += [ip_packet(source, target, UDP, udp, fragment=one) for one in (0x2000, 0x2001, 1)]
    made.append(ip_packet(source, target, UDP, udp, options=bytes([1, 1, 1, 0])))
    made += [ip_packet(source, target, 1, bytes(size)) for size in (0, 1)]
    return made


def v6(target: str) -> list[bytes]:
    """IPv6 packets, also with extension headers."""
    source = SOURCE[6]
    made = []
    for kind in (*ICMPV6_ERRORS, *ICMPV6_OTHERS, 5, 127, 130, 137, 200):
        body = bytes([kind, 0]) + bytes(30)
        made.append(ip_packet(source, target, ICMPV6, body))
        for extension in (HOP_BY_HOP, DESTINATION):
            header = bytes([ICMPV6, 0, 1, 4, 0, 0, 0, 0])  # PadN
            made.append(ip_packet(source, target, extension, header + body))
        for offset in (0, 8):
            header = bytes([ICMPV6, 0, 0, offset | 1, 0, 0, 0, 7])
            made.append(ip_packet(source, target, FRAGMENT, header + body))
    made += [ip_packet(source, target, ICMPV6, bytes(size)) for size in (0, 1)]
    made.append(ip_packet(source, target, 59, b""))  # no next header
    return made


def answers(end: End, device: str, sent: list[bytes]) -> list[list[bytes]]:
    """Returns the answers to each packet. A packet that always has an answer marks the end."""
    version = sent[0][0] >> 4
    marker = inner_packet(SOURCE[version], NOBODY[version], body=b"the end")
    with Packets(end.host, device).caught() as caught:
        parts = [part for one in sent for part in (one, marker)]
        Packets(end.host, device).route(parts, PAUSE)
    found: list[list[bytes]] = [[]]
    for one in caught:
        if one.endswith(b"the end"):
            found.append([])
        else:
            found[-1].append(_comparable(one))
    assert found.pop() == []
    return found


def _comparable(packet: bytes) -> bytes:
    """Clears what may differ: Linux answers from its own address, numbers its packets and sets flow
    labels."""
    if packet[0] >> 4 == 4:
        return packet[:4] + packet[6:10] + packet[16:]
    return packet[:1] + bytes([packet[1] & 0xF0]) + packet[4:8] + packet[24:42] + packet[44:]


def test_what_cannot_be_sent_is_answered(
    kernel: Uml, make_host: MakeHost, ours: Implementation
) -> None:
    our, their = connect(make_host("ours"), kernel, ours)
    stranger = hosts.keypair()[1]
    for end in (our, their):
        hosts.address(end.host, end.interface, f"{SOURCE[4]}/24", f"{SOURCE[6]}/64")
        allowed = f"{NOWHERE[4]}/32,{NOWHERE[6]}/128"
        end.wg("set", end.interface, "peer", stranger, "allowed-ips", allowed)
        end.host.run("sysctl -q -w net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
    for version in (4, 6):
        sent = packets(version)
        # Errors of wiresnaked come from the interface, those of Linux over the loopback.
        heard = [answers(our, our.interface, sent), answers(their, "lo", sent)]
        assert len(heard[0]) == len(heard[1]) == len(sent)
        differing = [
            f"{packet.hex()}: {heard_here}, Linux {linux}"
            for packet, heard_here, linux in zip(sent, *heard, strict=True)
            if heard_here != linux
        ]
        assert not differing, "\n".join(differing)
        assert 0 < sum(map(bool, heard[0])) < len(sent)
