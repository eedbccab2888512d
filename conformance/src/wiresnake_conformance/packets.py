"""Builds IP packets of both families with right checksums, and parses them."""

import ipaddress
import os
import struct
from dataclasses import dataclass

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) & 1:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ip(
    source: str,
    target: str,
    payload: bytes,
    *,
    protocol: int = UDP,
    tos: int = 0,
    ttl: int = 64,
    identification: int = 0,
    length: int | None = None,
) -> bytes:
    """Makes a packet of the addresses' family. `length` replaces the header's length field."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if a.version == 4:
        total = 20 + len(payload) if length is None else length
        fields = (0x45, tos, total, identification, 0, ttl, protocol, 0, a.packed, b.packed)
        header = struct.pack(">BBHHHBBH4s4s", *fields)
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload
    length = len(payload) if length is None else length
    first = 6 << 28 | tos << 20
    return struct.pack(">IHBB16s16s", first, length, protocol, ttl, a.packed, b.packed) + payload


def udp(
    source: str, target: str, payload: bytes = b"", *, ports: tuple[int, int] = (9, 9), tos: int = 0
) -> bytes:
    """Makes a UDP packet. Port 9 is discard, so only an ICMP error may answer."""
    length = 8 + len(payload)
    bare = struct.pack(">HHHH", *ports, length, 0) + payload
    summed = checksum(_pseudo(source, target, UDP, length) + bare) or 0xFFFF
    return ip(source, target, bare[:6] + struct.pack(">H", summed) + bare[8:], tos=tos)


def sized(source: str, target: str, size: int, *, tos: int = 0) -> bytes:
    """Makes a UDP packet of exactly that many bytes, at least 28 (IPv6: 48)."""
    empty = len(udp(source, target))
    return udp(source, target, bytes(i & 0xFF for i in range(size - empty)), tos=tos)


def tcp(source: str, target: str, header: bytes) -> bytes:
    """Makes a TCP segment without data. The header, with any options, has a zero checksum."""
    summed = checksum(_pseudo(source, target, TCP, len(header)) + header)
    return ip(source, target, header[:16] + struct.pack(">H", summed) + header[18:], protocol=TCP)


def reset(source: str, target: str) -> bytes:
    """Makes a TCP reset. No host answers it, and each one is different."""
    header = struct.pack(">HH4sIBBHHH", 9, 9, os.urandom(4), 0, 5 << 4, 4, 0, 0, 0)
    return tcp(source, target, header)


def echo(source: str, target: str, *, sequence: int = 1, payload: bytes = bytes(32)) -> bytes:
    """Makes an ICMP echo request."""
    six = ":" in source
    bare = struct.pack(">BBHHH", 128 if six else 8, 0, 0, 0x5753, sequence) + payload
    pseudo = _pseudo(source, target, ICMP6, len(bare)) if six else b""
    summed = struct.pack(">H", checksum(pseudo + bare))
    protocol = ICMP6 if six else ICMP
    return ip(source, target, bare[:2] + summed + bare[4:], protocol=protocol)


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    form = ">HH" if a.version == 4 else ">II"
    return a.packed + b.packed + struct.pack(form, protocol, length)


def sound(packet: "Packet") -> bool:
    """Returns whether the checksums of the IPv4 header and of TCP or UDP are right."""
    header = packet.raw[: (packet.raw[0] & 15) * 4] if packet.version == 4 else b""
    pseudo = _pseudo(packet.source, packet.target, packet.protocol, len(packet.payload))
    return not checksum(header) % 0xFFFF and not checksum(pseudo + packet.payload) % 0xFFFF


@dataclass(frozen=True)
class Packet:
    """A parsed IP packet."""

    version: int
    source: str
    target: str
    protocol: int
    tos: int
    ttl: int
    dont_fragment: bool
    fragment: bool
    """True for any fragment (IPv4 only)."""
    payload: bytes
    raw: bytes

    def __str__(self) -> str:
        names = {ICMP: "ICMP", ICMP6: "ICMPv6", UDP: "UDP", TCP: "TCP"}
        name = names.get(self.protocol, f"protocol {self.protocol}")
        if self.protocol in (ICMP, ICMP6) and len(self.payload) >= 2:
            name += f" {self.payload[0]}/{self.payload[1]}"
        return f"{name} {self.source} to {self.target}, {len(self.raw)} B, tos {self.tos:#x}"


def read(raw: bytes) -> Packet | None:
    """Parses a packet; None if it is not IP."""
    if len(raw) >= 20 and raw[0] >> 4 == 4:
        flags = int.from_bytes(raw[6:8])
        total = int.from_bytes(raw[2:4])
        return Packet(
            4,
            str(ipaddress.ip_address(raw[12:16])),
            str(ipaddress.ip_address(raw[16:20])),
            raw[9],
            raw[1],
            raw[8],
            bool(flags & 0x4000),
            bool(flags & 0x3FFF),
            raw[(raw[0] & 15) * 4 : total],
            raw,
        )
    if len(raw) >= 40 and raw[0] >> 4 == 6:
        source, target = (str(ipaddress.ip_address(raw[at : at + 16])) for at in (8, 24))
        tos = int.from_bytes(raw[:2]) >> 4 & 0xFF
        return Packet(6, source, target, raw[6], tos, raw[7], True, raw[6] == 44, raw[40:], raw)
    return None
