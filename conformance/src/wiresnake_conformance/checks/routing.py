"""F. Cryptokey routing, and ICMP errors about packets without a peer."""

import ipaddress
import os
import socket
import struct
import subprocess
import time

from .. import packets
from ..device import REFUSED
from ..packets import ICMP, ICMP6, Packet
from ..peer import Peer
from ..peer_socket import SO_RCVBUFFORCE
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check

UNREACHABLE = {4: (3, 1), 6: (1, 3)}
"""Type and code of ICMP "host unreachable" and of ICMPv6 "address unreachable"."""
NOBODY = 200
"""The number of inner addresses that no peer has."""
ICMP_PER_SECOND, ICMP_BURST = 1000, 50
"""The kernel's limits (icmp_msgs_per_sec, icmp_msgs_burst)."""


@check(86)
def sources_by_the_whole_table(testbed: Testbed) -> None:
    """The longest match of a packet's source, among all peers' routes, must belong to its sender: a
    wide route does not cover the narrower one of another peer."""
    wide, narrow = _wide_and_narrow(testbed)
    sessions = {id(peer): peer.handshake() for peer in (wide, narrow)}

    def expect(peer: Peer, number: int, delivered: bool) -> None:
        for version in (4, 6):
            packet = _packet(testbed.inner(number)[version], testbed.inner(1)[version])
            peer.send(sessions[id(peer)].seal(packet))
            if delivered:
                testbed.expect_delivered(packet, f"a source of its own, {packet[-8:].hex()}")
            else:
                testbed.expect_dropped("a source that is not routed to its sender", 0.2)

    expect(wide, 0x1001, True)
    expect(narrow, 0x1004, True)
    expect(wide, 0x1004, False)
    expect(narrow, 0x1001, False)
    expect(wide, 0x2001, False)
    expect(narrow, 1, False)
    expect(wide, 0x1003, True)


@check(86)
def sources_follow_the_table(testbed: Testbed) -> None:
    """When a route moves to another peer, the right to its addresses moves at once."""
    wide, narrow = _wide_and_narrow(testbed)
    inner = testbed.inner(0x1004)
    move = f"{inner[4]}/32,{inner[6]}/128"
    for owner, other in ((narrow, wide), (wide, narrow), (narrow, wide)):
        words = move if owner is narrow else ",".join([*_net(testbed), move])
        owner.configure("allowed-ips", words)
        testbed.apart()
        right, wrong = owner.handshake(), other.handshake()
        for version in (4, 6):
            packet = _packet(inner[version], testbed.inner(1)[version])
            other.send(wrong.seal(packet))
            testbed.expect_dropped("a source that is routed to another peer now", 0.2)
            owner.send(right.seal(packet))
            testbed.expect_delivered(packet, "a source that is routed to its sender now")


@check(86)
def targets_by_the_longest_match(testbed: Testbed) -> None:
    """A packet goes to the peer with the longest match for its target."""
    wide, narrow = _wide_and_narrow(testbed)
    for peer, other, number in ((wide, narrow, 0x1001), (narrow, wide, 0x1004)):
        session = peer.handshake()
        confirmed = _packet(testbed.inner(number)[4], testbed.inner(1)[4])
        peer.send(session.seal(confirmed))
        testbed.expect_delivered(confirmed, "a packet of this peer")
        for version in (4, 6):
            packet = _packet(testbed.inner(1)[version], testbed.inner(number)[version])
            testbed.inject(packet)
            if not peer.received(session, "a packet for this peer").startswith(packet):
                raise Differs("another packet came to the peer")
            other.socket.silence(0.1, "a packet for another peer")


@check(89, shared=False)
def nobody_is_told(testbed: Testbed) -> None:
    """The sender of a packet without a peer, or whose peer has no endpoint, gets an ICMP error
    "host unreachable" that quotes the packet."""
    testbed.addresses()
    homeless = testbed.peer()
    with Errors(testbed) as errors:
        for version in (4, 6):
            own = testbed.inner(1)[version]
            for target in (testbed.inner(NOBODY)[version], homeless.inner[version]):
                packet = packets.udp(own, target, os.urandom(64))
                errors.send(packet)
                error = errors.expect(f"a packet for {target}, where nobody is")
                errors.judge(error, packet, {own, target})
    testbed.log("the same host, once the peer has an endpoint, gets no error")
    homeless.configure("endpoint", homeless.socket.name)
    with Errors(testbed) as errors:
        errors.send(packets.udp(testbed.inner(1)[4], homeless.inner[4]))
        homeless.awaited()
        errors.silence(0.3, "a packet that waits for a handshake")


@check(89, shared=False)
def quotes_of_large_packets(testbed: Testbed) -> None:
    """For a large packet, the error quotes its beginning and has at most 576 bytes, for IPv6
    1280."""
    testbed.addresses()
    with Errors(testbed) as errors:
        for version, most in ((4, 576), (6, 1280)):
            own, target = testbed.inner(1)[version], testbed.inner(NOBODY)[version]
            packet = packets.sized(own, target, 1400)
            errors.send(packet)
            error = errors.expect(f"a packet of {len(packet)} B for nobody")
            errors.judge(error, packet, {own, target})
            header = 20 if version == 4 else 40
            if header + len(error.payload) > most:
                raise Differs(f"the error has {header + len(error.payload)} B, more than {most}")


@check(89, shared=False)
def told_through_translation(testbed: Testbed) -> None:
    """The error reaches a sender whose address the device's host translates (NAT). It quotes the
    packet as it was sent."""
    testbed.addresses()
    table = "add table ip c; add chain ip c out { type nat hook postrouting priority 100 ; }"
    rule = f'add rule ip c out oifname "{testbed.interface}" masquerade'
    try:
        done = testbed.run(["nft", f"{table}; {rule}"])
    except FileNotFoundError:
        raise NotApplicable("needs nft (Debian: apt-get install nftables)") from None
    if done.returncode:
        raise NotApplicable(f"needs a kernel with NAT: {done.stderr.strip().splitlines()[0]}")
    testbed.command("sysctl -qw net.ipv4.ip_forward=1")
    target, client = testbed.inner(NOBODY)[4], "198.51.100.77"
    there = f"ip route add {target}/32 via {testbed.outer[4]}"
    subprocess.run(there.split(), check=True)
    with Errors(testbed, at_device=False) as errors:
        packet = packets.udp(client, target, os.urandom(64))
        errors.send(packet)
        error = errors.expect("a packet for nobody, from a network behind the device's host")
        sources = {target, testbed.outer[4], testbed.inner(1)[4]}
        errors.judge(error, packet, sources, translated=True)


@check(90, shared=False)
def never_about_errors(testbed: Testbed) -> None:
    """No error is sent about an ICMP error, a later fragment or a multicast, but one is sent about
    an echo request."""
    testbed.addresses()
    for version in (4, 6):
        testbed.command(
            f"ip -{version} route add multicast {'239.1.2.3' if version == 4 else 'ff05::123'} "
            f"dev {testbed.interface} table local"
        )
    with Errors(testbed) as errors:
        for version in (4, 6):
            own, target = testbed.inner(1)[version], testbed.inner(NOBODY)[version]
            for kind in (3, 4, 5, 11, 12) if version == 4 else (1, 2, 3, 4, 100, 127):
                errors.send(_icmp(own, target, kind))
            errors.send(_packet(own, "239.1.2.3" if version == 4 else "ff05::123"))
            if version == 4:
                errors.send(_fragment(own, target))
            errors.silence(0.4, "ICMP errors, a multicast and a later fragment for nobody")
            errors.send(packets.echo(own, target))
            errors.some("an echo request for nobody")


@check(90)
def nothing_about_what_is_not_ip(testbed: Testbed) -> None:
    """No error is sent about a packet that is not IP or has no complete header."""
    own, target = testbed.inner(1), testbed.inner(NOBODY)
    four, six = (_packet(own[version], target[version]) for version in (4, 6))
    for garbage in (b"\0", bytes(100), b"\x50" + four[1:], b"\xf0" + six[1:], four[:19], six[:39]):
        testbed.inject(garbage)
    testbed.expect_dropped("ICMP about what is not IP")
    peer = testbed.peer()
    peer.works(peer.handshake())


@check(90, shared=False, seconds=4)
def errors_at_a_bounded_rate(testbed: Testbed) -> None:
    """With any number of packets without a peer, errors come at most as fast as from the kernel:
    1000 per second after the first 50."""
    testbed.addresses()
    with Errors(testbed) as errors:
        for version in (4, 6):
            testbed.pause(0.2)
            errors.drain()
            packet = _packet(testbed.inner(1)[version], testbed.inner(NOBODY)[version])
            sent, start = 0, time.monotonic()
            while time.monotonic() < start + 0.5:
                errors.send(packet, quietly=True)
                sent += 1
            time.sleep(0.2)
            allowed = int((time.monotonic() - start) * ICMP_PER_SECOND) + ICMP_BURST
            found = errors.drain()
            testbed.log(f"{len(found)} errors about {sent} packets; {allowed} are allowed")
            if len(found) > allowed:
                raise Differs(f"{len(found)} errors about {sent} packets, not {allowed} at most")
            time.sleep(0.3)
            errors.send(packet)
            errors.some("a packet for nobody after the flood")


@check(91, shared=False)
def what_is_no_packet(testbed: Testbed) -> None:
    """A packet that is not IP, or has no complete header, is dropped at the interface."""
    peer = testbed.peer(allowed="0.0.0.0/0,::/0", endpoint=True)
    testbed.inject(b"\x50" + peer.packet_here()[1:])
    peer.socket.silence(0.3, "no handshake for what is not IP")
    session = peer.handshake()
    peer.works(session)
    four, six = peer.packet_here(bytes(40)), peer.packet_here(bytes(40), version=6)
    garbage = [bytes(size) for size in (1, 2, 19, 20, 60, 1400)]
    garbage += [four[:size] for size in (1, 12, 16, 19)] + [six[:size] for size in (1, 20, 24, 39)]
    for version in (0, 1, 2, 3, 5, 7, 8, 15):
        garbage += [bytes([version << 4 | one[0] & 15]) + one[1:] for one in (four, six)]
    before = _tx_errors(testbed)
    for one in garbage:
        testbed.inject(one)
    peer.socket.silence(0.5, "a packet that is not IP")
    if testbed.subject.kind == "kernel" and (counted := _tx_errors(testbed) - before) != len(
        garbage
    ):
        raise Differs(f"{counted} of {len(garbage)} were counted as errors of the interface")
    peer.works(session)


class Errors:
    """Sends packets into the tunnel through the host's stack, and receives ICMP errors."""

    def __init__(self, testbed: Testbed, *, at_device: bool = True) -> None:
        """Sets up a sender at the device, or in the world."""
        make = testbed.stack if at_device else socket.socket
        self.testbed = testbed
        self.out4 = make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.out6 = make(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.errors4 = make(socket.AF_INET, socket.SOCK_RAW, ICMP)
        self.errors6 = make(socket.AF_INET6, socket.SOCK_RAW, ICMP6)
        self.all = (self.out4, self.out6, self.errors4, self.errors6)
        for one in self.all:
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.errors4.setblocking(False)
        self.errors6.setblocking(False)

    def __enter__(self) -> "Errors":
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.all:
            one.close()

    def send(self, packet: bytes, *, quietly: bool = False) -> None:
        if not quietly:
            self.testbed.log(f"by the host: {packets.read(packet)}")
        four = packet[0] >> 4 == 4
        raw = packet[16:20] if four else packet[24:40]
        target = (str(ipaddress.ip_address(raw)), 0)
        try:
            (self.out4 if four else self.out6).sendto(packet, target)
        except OSError as error:
            if error.errno not in REFUSED:
                raise

    def drain(self) -> list[Packet]:
        """Returns the errors that have come."""
        found = []
        for one, version in ((self.errors4, 4), (self.errors6, 6)):
            while True:
                try:
                    data, (source, *_) = one.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                except OSError:
                    continue
                if version == 6:  # without its header
                    source = source.partition("%")[0]
                    data = packets.ip(source, "::", data, protocol=ICMP6)
                packet = packets.read(data)
                echo = {4: (0, 8), 6: range(128, 256)}[version]
                if packet and packet.payload[0] not in echo:
                    found.append(packet)
        return found

    def expect(self, why: str) -> Packet:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            if found := self.drain():
                self.testbed.log(f"to the host: {found[0]}")
                self.testbed.delivered(0.01, 100)  # a daemon's errors come out of the tunnel
                return found[0]
            time.sleep(0.01)
        raise Differs(f"{why}: no ICMP error within 1.5 s")

    def some(self, why: str) -> None:
        """Checks that an error comes, if this device sends any (which item 89 checks)."""
        try:
            self.expect(why)
        except Differs as error:
            raise NotApplicable(f"no errors, as item 89 wants them: {error}") from None

    def silence(self, seconds: float, why: str) -> None:
        """Checks that no error comes, not even one that the host would ignore."""
        self.testbed.expect_dropped(why, seconds)
        if found := self.drain():
            raise Differs(f"{why}: {found[0]}")

    def judge(
        self, error: Packet, about: bytes, sources: set[str], *, translated: bool = False
    ) -> None:
        """Checks type, code, checksum, source and quotation."""
        wanted = UNREACHABLE[error.version]
        if tuple(error.payload[:2]) != wanted:
            raise Differs(f"type and code are {tuple(error.payload[:2])}, not {wanted}")
        if error.source not in sources:
            raise Differs(f"the error comes from {error.source}, not from {' or '.join(sources)}")
        if error.version == 4 and packets.checksum(error.payload):
            raise Differs("the checksum of the ICMP error is wrong")
        quoted, wanted_quote = (_comparable(one, translated) for one in (error.payload[8:], about))
        least = 28 if error.version == 4 else min(len(about), 1280 - 48)
        if not wanted_quote.startswith(quoted) or len(quoted) < least:
            raise Differs(f"it quotes {quoted[:60].hex()}, not {wanted_quote[:60].hex()}")


def _wide_and_narrow(testbed: Testbed) -> tuple[Peer, Peer]:
    """Adds two peers. A route of the second is inside that of the first."""
    wide = testbed.peer(allowed=",".join(_net(testbed)))
    inner = testbed.inner(0x1004)
    narrow = testbed.peer(allowed=f"{inner[4]}/32,{inner[6]}/128")
    return wide, narrow


def _net(testbed: Testbed) -> list[str]:
    inner = testbed.inner(0x1000)
    return [f"{inner[4]}/24", f"{inner[6]}/120"]


def _packet(source: str, target: str) -> bytes:
    return packets.udp(source, target, os.urandom(16))


def _icmp(source: str, target: str, kind: int) -> bytes:
    """Makes an ICMP error that quotes a packet."""
    quoted = packets.udp(target, source, bytes(8))
    body = struct.pack(">BBHI", kind, 0, 0, 0) + quoted
    protocol = ICMP6 if ":" in source else ICMP
    body = body[:2] + struct.pack(">H", packets.checksum(body)) + body[4:]
    return packets.ip(source, target, body, protocol=protocol)


def _fragment(source: str, target: str) -> bytes:
    """Makes the last fragment of an IPv4 packet."""
    packet = bytearray(packets.udp(source, target, bytes(64)))
    packet[6:8], packet[10:12] = struct.pack(">H", 185), bytes(2)
    packet[10:12] = struct.pack(">H", packets.checksum(bytes(packet[:20])))
    return bytes(packet)


def _comparable(packet: bytes, translated: bool) -> bytes:
    """Clears the fields that a host sets or changes: identification, TTL and checksum of IPv4, and
    with address translation UDP's checksum."""
    if packet[:1] and packet[0] >> 4 == 4:
        packet = packet[:4] + bytes(2) + packet[6:8] + b"\0" + packet[9:10] + bytes(2) + packet[12:]
        if translated:
            packet = packet[:26] + bytes(2) + packet[28:]
    return packet


def _tx_errors(testbed: Testbed) -> int:
    path = f"/sys/class/net/{testbed.interface}/statistics/tx_errors"
    return int(testbed.command(f"cat {path}"))
