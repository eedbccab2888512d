"""H. Padding, MTU, ECN and outer packets."""

import contextlib
import os
import socket
import struct
import threading
import time
from dataclasses import replace

from .. import packets
from ..oracle import TRANSPORT, Session, respond
from ..peer import Peer
from ..peer_socket import FAMILY, PATIENCE, SO_RCVBUFFORCE
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check
from ._common import UDP_SEGMENT, seen_from_device, what_waited

ECT1, ECT0, CE = 1, 2, 3
SYN, ACK = 2, 16
ENCAPSULATED = {0: 0, 1: 1, 2: 2, 3: 2, 0xB8: 0, 0xB9: 1, 0xBA: 2, 0xBB: 2}
"""The outer TOS for an inner one: no DSCP, and CE becomes ECT(0)."""


@check(97)
def padded_to_16(testbed: Testbed) -> None:
    """Packets are padded with zeros to the next multiple of 16, but not beyond the MTU."""
    peer, session = _connected(testbed)
    mtu = testbed.mtu()
    for size in (28, 41, 48, 49, 128, 1260, mtu - 12, mtu - 11, mtu - 1, mtu):
        _expect_padded(peer, session, size, mtu)
    for size in (48, 61, mtu - 1):
        _expect_padded(peer, session, size, mtu, version=6)


@check(97, shared=False)
def padded_within_odd_mtus(testbed: Testbed) -> None:
    """The MTU that limits the padding may be any number."""
    peer, session = _connected(testbed)
    for mtu in (1281, 1299, 1280, 1295):
        testbed.command(f"ip link set {testbed.interface} mtu {mtu}")
        _await_padding(peer, session, mtu, mtu)
        for size in (mtu, mtu - 1, mtu - mtu % 16, 100):
            _expect_padded(peer, session, size, mtu)


@check(97, shared=False)
def padded_within_the_mtu_of_a_route(testbed: Testbed) -> None:
    """A route's own MTU limits the padding as well."""
    if testbed.subject.kind != "kernel":
        raise NotApplicable("a TUN device does not tell the MTU of a route")
    peer, session = _connected(testbed)
    testbed.addresses()
    testbed.command(f"ip route add {peer.inner[4]}/32 dev {testbed.interface} mtu 1299")
    with testbed.stack(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for size, padded in ((1297, 1299), (1299, 1299), (1200, 1200), (1201, 1216)):
            out.sendto(bytes(size - 28), (peer.inner[4], 9))
            content = peer.received(session, f"a packet of {size} B")
            if len(content) != padded:
                raise Differs(f"{size} B are padded to {len(content)}, not to {padded}")


@check(97, shared=False)
def packets_beyond_the_mtu(testbed: Testbed) -> None:
    """An MTU of 0, if it can be set, and a waiting packet that is longer than a new MTU are
    survived. The packet is sent whole."""
    peer = testbed.peer(endpoint=True)
    packet = packets.sized(testbed.inner(1)[4], peer.inner[4], 1419)
    testbed.inject(packet)
    initiated = peer.awaited()
    for mtu in (0, 68):
        if not testbed.run(["ip", "link", "set", testbed.interface, "mtu", str(mtu)]).returncode:
            testbed.log(f"the MTU is {mtu}")
            break
    testbed.pause(0.3)
    message, session = respond(peer.key, initiated)
    peer.send(message)
    content = what_waited(peer, session, "a packet that waited")
    if content[: len(packet)] != packet or any(content[len(packet) :]):
        raise Differs(f"what was sent is not the packet of {len(packet)} B that waited")
    small = packets.sized(testbed.inner(1)[4], peer.inner[4], 60)
    with contextlib.suppress(OSError):  # the interface may refuse this
        testbed.inject(small)
    peer.socket.drain()
    testbed.command(f"ip link set {testbed.interface} mtu 1420")
    testbed.pause(0.3)
    peer.works(session)


@check(98, shared=False)
def the_default_mtu(testbed: Testbed) -> None:
    """A new interface has an MTU of 1420: 1500 minus the overhead of IPv6, UDP and WireGuard."""
    testbed.log(f"the interface was made with an MTU of {testbed.default_mtu}")
    if testbed.default_mtu != 1420:
        raise Differs(f"the MTU of a new interface is {testbed.default_mtu}")


@check(98, shared=False, seconds=4)
def mtus_change_at_run_time(testbed: Testbed) -> None:
    """Packets of the size of any MTU are carried both ways. The new MTU limits the padding at once.
    Extreme MTUs are survived."""
    peer, session = _connected(testbed)
    testbed.inject(packets.sized(testbed.inner(1)[4], peer.inner[4], 1419))
    limited = len(what_waited(peer, session, "a packet of 1419 B")) == 1420
    for mtu in (9000, 1300, 570, 68, 1420, 2001, 65535, 1420):
        if testbed.run(["ip", "link", "set", testbed.interface, "mtu", str(mtu)]).returncode:
            testbed.log(f"an MTU of {mtu} cannot be set")
            continue
        most = min(mtu, 9000)
        if limited:
            _await_padding(peer, session, most, mtu)
        for size in (60, most - 1, most):
            packet = packets.sized(testbed.inner(1)[4], peer.inner[4], size)
            testbed.inject(packet)
            if not what_waited(peer, session, f"a packet of {size} B").startswith(packet):
                raise Differs(f"a packet of {size} B was changed, with an MTU of {mtu}")
            there = packets.sized(peer.inner[4], testbed.inner(1)[4], size)
            peer.send(session.seal(there))
            testbed.expect_delivered(there, f"a packet of {size} B with an MTU of {mtu}")
        if mtu == 65535:
            testbed.inject(packets.sized(testbed.inner(1)[4], peer.inner[4], 65535))
            peer.socket.silence(0.3, "a packet that, with its overhead, is longer than UDP can be")
    peer.works(session)


@check(99)
def ecn_goes_out_over_ipv4(testbed: Testbed) -> None:
    """The outer IPv4 packet has the ECN bits of the inner one, with CE as ECT(0), but not its
    DSCP."""
    _ecn_goes_out(testbed, 4)


@check(99)
def ecn_goes_out_over_ipv6(testbed: Testbed) -> None:
    """The same for the outer IPv6 packet."""
    _ecn_goes_out(testbed, 6)


@check(99, seconds=3)
def ecn_comes_in_over_ipv4(testbed: Testbed) -> None:
    """Congestion of the outer packet is passed on as in RFC 6040: CE to a packet that can carry it,
    ECT(1) instead of ECT(0). The IPv4 checksum stays right, and the DSCP does not change."""
    _ecn_comes_in(testbed, 4)


@check(99, seconds=3)
def ecn_comes_in_over_ipv6(testbed: Testbed) -> None:
    """The same for congestion of the outer IPv6 packet."""
    _ecn_comes_in(testbed, 6)


@check(99)
def ecn_in_a_burst(testbed: Testbed) -> None:
    """Each of many messages that come at once gets the ECN bits of its own outer packet."""
    peer, session = _connected(testbed)
    wanted = {}
    for number in range(48):
        outer_tos = number % 4
        packet = peer.packet(struct.pack(">I", number) + bytes(60), tos=ECT0)
        _set_tos(peer, outer_tos)
        wanted[packet[28:32]] = _decapsulated(outer_tos, ECT0)
        peer.send(session.seal(packet))
    found = testbed.delivered(PATIENCE, len(wanted))
    for packet in found:
        read = packets.read(packet)
        if read and (tos := wanted.pop(packet[28:32], read.tos)) != read.tos:
            raise Differs(f"a packet of a burst came out with TOS {read.tos:#x}, not {tos:#x}")
    if wanted:
        raise Differs(f"{len(wanted)} of 48 packets did not come out")


@check(100)
def outer_packets_may_be_fragmented(testbed: Testbed) -> None:
    """Neither handshake messages nor data have "don't fragment" set in the outer IPv4 header."""
    tap = testbed.tap()
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    session = peer.answer()
    peer.received(session, "a packet that waited")
    testbed.inject(packets.sized(testbed.inner(1)[4], peer.inner[4], 1420))
    peer.received(session, "a large packet")
    testbed.peer().handshake()
    seen = [packet for packet in seen_from_device(testbed, tap) if packet.version == 4]
    for packet in seen:
        testbed.log(f"on the cable: {packet}, DF {packet.dont_fragment}")
        if packet.dont_fragment:
            raise Differs(f"an outer packet has DF set: {packet}")
    if len(seen) < 4:
        raise Differs(f"only {len(seen)} outer packets were seen on the cable")


@check(100, shared=False)
def large_packets_in_ipv4_fragments(testbed: Testbed) -> None:
    """With an MTU above the cable's, the outer packet is fragmented and arrives unchanged."""
    _large_packets(testbed, 4)


@check(100, shared=False)
def large_packets_in_ipv6_fragments(testbed: Testbed) -> None:
    """The same over IPv6."""
    _large_packets(testbed, 6)


@check(100, shared=False, seconds=4)
def offloads_change_no_byte(testbed: Testbed) -> None:
    """Large pieces of the host's TCP leave as packets with right headers, and no byte is changed,
    lost or repeated."""
    peer, session = _connected(testbed)
    testbed.addresses()
    for version in (4, 6):
        stream = os.urandom(200_000)
        with testbed.stack(FAMILY[version], socket.SOCK_STREAM) as client:
            sender = threading.Thread(target=_upload, args=(client, peer.inner[version], stream))
            sender.start()
            received = _listen(peer, session, version, len(stream))
            sender.join()
        if received != stream[: len(received)]:
            raise Differs("the bytes of a TCP stream were changed on their way")
        if len(received) < len(stream):
            raise Differs(f"only {len(received)} of {len(stream)} B of a TCP stream arrived")


@check(100, shared=False)
def datagrams_keep_their_bounds(testbed: Testbed) -> None:
    """Many UDP datagrams of one flow at once arrive unchanged, both ways."""
    peer, session = _connected(testbed)
    testbed.addresses()
    with testbed.stack(socket.AF_INET, socket.SOCK_DGRAM) as host:
        host.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        host.bind((testbed.inner(1)[4], 9))
        sizes = [1200] * 11 + [300] + [8] * 5 + [1000] * 8 + [3, 1, 0, 1]
        payloads = [os.urandom(size) for size in sizes]
        for message in [session.seal(peer.packet(payload)) for payload in payloads]:
            peer.socket.send(message, quietly=True)
        got: list[bytes] = []
        with contextlib.suppress(TimeoutError):
            while len(got) < len(payloads):
                got.append(host.recv(1 << 16))
        if got != payloads:
            raise Differs(f"{len(payloads)} datagrams were sent, {len(got)} came, or others")
        data = os.urandom(30_500)
        peer.socket.drain()
        host.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)  # one piece for many datagrams
        host.sendto(data, (peer.inner[4], 9))
        came: list[bytes] = []
        while len(came) < 31 and (datagram := peer.socket.receive()):
            came.append(_checked(peer.opened(session, datagram)).payload[8:])
        if came != [data[start : start + 1000] for start in range(0, len(data), 1000)]:
            raise Differs("datagrams that the host gave the tunnel in one piece were changed")


def _ecn_goes_out(testbed: Testbed, outer: int) -> None:
    peer, session = _connected(testbed, outer)
    for version in (4, 6):
        for tos, wanted in ENCAPSULATED.items():
            packet = peer.packet_here(os.urandom(9), version=version, tos=tos)
            testbed.inject(packet)
            datagram = peer.socket.expect(TRANSPORT, f"a packet with TOS {tos:#x}")
            if not peer.opened(session, datagram).startswith(packet):
                raise Differs(f"a packet with TOS {tos:#x} was changed inside")
            if datagram.tos != wanted:
                raise Differs(
                    f"TOS {tos:#x} of an inner IPv{version} packet makes the outer one"
                    f" {datagram.tos:#x}, not {wanted:#x}"
                )


def _ecn_comes_in(testbed: Testbed, outer: int) -> None:
    peer, session = _connected(testbed, outer)
    for version in (4, 6):
        for outer_tos in (*range(4), 0xB8 | CE, 0x20 | ECT1):
            _set_tos(peer, outer_tos)
            for inner_tos in (*range(4), 0xB8, 0xB8 | ECT0):
                payload = os.urandom(9)
                packet = peer.packet(payload, version=version, tos=inner_tos)
                peer.send(session.seal(packet))
                _expect_ecn(peer, payload, version, outer_tos, inner_tos)


def _large_packets(testbed: Testbed, outer: int) -> None:
    peer, session = _connected(testbed, outer)
    testbed.command(f"ip link set {testbed.interface} mtu 4000")
    for size in (1440, 3999, 4000):
        tap = testbed.tap()
        packet = packets.sized(testbed.inner(1)[4], peer.inner[4], size)
        testbed.inject(packet)
        content = what_waited(peer, session, f"a packet of {size} B over a cable with MTU 1500")
        if len(content) < size and packet.startswith(content):
            raise NotApplicable(f"it cuts packets to {len(content)} B: see item 98")
        if content[:size] != packet:
            raise Differs(f"a packet of {size} B was changed on its way")
        pieces = [one for one in tap.packets(0.1) if one.source in testbed.outer.values()]
        testbed.log(f"{len(pieces)} outer packets carried it")
        if size > 1500 and not (len(pieces) > 1 and all(one.fragment for one in pieces)):
            raise Differs(f"{size} B went over a cable with MTU 1500 unfragmented")
        there = packets.sized(peer.inner[4], testbed.inner(1)[4], size)
        peer.send(session.seal(there))
        testbed.expect_delivered(there, f"a packet of {size} B that came in fragments")


def _connected(testbed: Testbed, version: int = 4) -> tuple[Peer, Session]:
    peer = testbed.peer(version=version)
    session = peer.handshake()
    peer.works(session)
    return peer, session


def _padded(size: int, mtu: int) -> int:
    return min(mtu, -(-size // 16) * 16)


def _expect_padded(peer: Peer, session: Session, size: int, mtu: int, version: int = 4) -> None:
    """Checks that the device sends a packet of that size with the padding for that MTU."""
    packet = packets.sized(peer.device.inner(1)[version], peer.inner[version], size)
    peer.device.inject(packet)
    content = peer.received(session, f"a packet of {size} B with an MTU of {mtu}")
    if len(content) != _padded(size, mtu):
        wanted = _padded(size, mtu)
        raise Differs(f"{size} B with an MTU of {mtu} are padded to {len(content)}, not {wanted}")
    if content[:size] != packet:
        raise Differs(f"a packet of {size} B was changed")
    if any(content[size:]):
        raise Differs(f"the padding is not zero: {content[size:].hex()}")


def _await_padding(peer: Peer, session: Session, size: int, mtu: int) -> None:
    """Tries until the device follows a change of the MTU, which it learns a moment later."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _expect_padded(peer, session, size, mtu)
        except Differs:
            if time.monotonic() > deadline:
                raise


def _set_tos(peer: Peer, tos: int) -> None:
    if peer.socket.version == 4:
        peer.socket.udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    else:
        peer.socket.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)


def _decapsulated(outer: int, inner: int) -> int:
    """Returns the TOS of a packet out of the tunnel (RFC 6040, 4.2, as in the kernel)."""
    if outer & 3 == CE and inner & 3 in (ECT0, ECT1):
        return inner | CE
    if outer & 3 == ECT1 and inner & 3 == ECT0:
        return inner & ~3 | ECT1
    return inner


def _expect_ecn(peer: Peer, payload: bytes, version: int, outer: int, inner: int) -> None:
    device = peer.device
    wanted = peer.packet(payload, version=version, tos=_decapsulated(outer, inner))
    found = device.delivered()
    why = f"inner IPv{version} TOS {inner:#x} in outer IPv{peer.socket.version} TOS {outer:#x}"
    if not found:
        raise Differs(f"{why}: nothing came out of the tunnel")
    if found[0] != wanted:
        read, right = packets.read(found[0]), packets.read(wanted)
        if read and right and read.tos != right.tos:
            raise Differs(f"{why} comes out with TOS {read.tos:#x}, not {right.tos:#x}")
        raise Differs(f"{why} comes out as {found[0].hex()}, not {wanted.hex()}")


def _upload(client: socket.socket, address: str, stream: bytes) -> None:
    with contextlib.suppress(OSError):  # the received data decides
        client.connect((address, 9))
        client.sendall(stream)


def _listen(peer: Peer, session: Session, version: int, length: int) -> bytes:
    """Receives a TCP stream from the device's host. Segments in order are acknowledged, so that
    lost ones are sent again."""
    device, stream, start, deadline = peer.device, b"", 0, time.monotonic() + 12
    own, other = peer.inner[version], device.inner(1)[version]
    segments = 0
    while len(stream) < length and time.monotonic() < deadline:
        datagram = peer.socket.receive(0.5, quietly=True)
        if datagram is None or datagram.kind != TRANSPORT:
            continue
        content = peer.opened(session, datagram)
        if not content:
            continue
        packet = _checked(content)
        if packet.protocol != packets.TCP:
            continue
        segment = packet.payload
        source, _, sequence, _, offset, flags = struct.unpack_from(">HHIIBB", segment)
        options = b""
        if flags & SYN:
            start = sequence + 1 & 0xFFFFFFFF
            options = b"\2\4" + struct.pack(">H", 1340) + b"\1\3\3\7"  # its size, and a scale
        elif (sequence - start) & 0xFFFFFFFF == len(stream):
            stream += segment[(offset >> 4) * 4 :]
            segments += 1
        first, answer = (0, SYN | ACK) if flags & SYN else (1, ACK)
        wanted = (start + len(stream)) & 0xFFFFFFFF
        header = struct.pack(
            ">HHIIBBHHH", 9, source, first, wanted, (20 + len(options)) << 2, answer, 65535, 0, 0
        )
        peer.socket.send(session.seal(packets.tcp(own, other, header + options)), quietly=True)
    device.log(f"{len(stream)} B came over TCP in {segments} segments")
    return stream


def _checked(content: bytes) -> packets.Packet:
    """Returns the packet in a message, whose checksums must be right."""
    packet = packets.read(content)
    if packet is None:
        raise Differs(f"the device sent something that is not an IP packet: {content[:40].hex()}")
    if packet.version == 6:
        payload = packet.payload[: int.from_bytes(content[4:6])]
        packet = replace(packet, payload=payload)
    if not packets.sound(packet):
        raise Differs(f"a checksum is wrong in {packet}")
    return packet
