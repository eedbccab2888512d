"""The real plane on loopback sockets and a socket pair for a TUN device: no root, no namespaces.

The test itself is the peer: it holds the other half of each session, so that it sees and sends
every byte of the wire.
"""

import errno
import fcntl
import os
import resource
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from wiresnake._native import Endpoint, Entropy, Plane, PrivateKey, Session, SymmetricState
from wiresnake.model import DeviceChange
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.device import Device
from wiresnake.protocol.plane import PlaneEvent, Stamps
from wiresnake.protocol.timers import Now

VNET = bytes(10)
US, THEM, STRANGER = "10.9.0.1", "10.9.0.2", "10.9.7.7"


def boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ipv4(source: str, destination: str, payload: bytes, tos: int = 0, protocol: int = 17) -> bytes:
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    )
    header += ip_address(source).packed + ip_address(destination).packed
    total = sum(struct.unpack("!10H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = struct.pack("!H", total ^ 0xFFFF)
    return bytes(header) + payload


def ipv6(source: str, destination: str, payload: bytes) -> bytes:
    header = struct.pack("!IHBB", 0x60000000, len(payload), 59, 64)
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def readable(*sockets: socket.socket, timeout: float = 0.15) -> bool:
    return bool(select.select(sockets, [], [], timeout)[0])


def unread(sender: socket.socket) -> int:
    """Returns how many bytes the other end has not read yet; 0 for a closed socket."""
    if sender.fileno() < 0:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0])


class Rig:
    """A plane with one peer, which is the test."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.plane = Plane()
        self.app, tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.plane.attach_tun(tun.fileno(), 1420, True, True)
        tun.close()
        self.udp = self.bind(family)
        if family == socket.AF_INET:
            self.udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
            self.udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            self.plane.attach_sockets(self.udp.fileno(), None)
        else:
            self.plane.attach_sockets(None, self.udp.fileno())
        self.wire = self.bind(family)
        self.peer = self.add_peer(f"{THEM}/32")
        self.plane.set_endpoint(self.peer, self.endpoint(self.wire))

    def bind(self, family: socket.AddressFamily) -> socket.socket:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((self.host, 0))
        return udp

    def where(self) -> Endpoint:
        """Where the plane sends the peer's datagrams."""
        [text] = self.plane.describe([(self.peer, bytes(32), 0, 0, {})])
        host, _, port = text.decode().partition("endpoint=")[2].partition("\n")[0].rpartition(":")
        return Endpoint(host.strip("[]"), int(port))

    def endpoint(self, udp: socket.socket) -> Endpoint:
        return Endpoint(self.host, udp.getsockname()[1])

    def add_peer(self, *networks: str) -> int:
        peer = self.plane.add_peer()
        for network in networks:
            address, length = network.split("/")
            self.plane.allow(peer, ip_address(address).packed, int(length))
        return peer

    def session(
        self, initiator: bool = True, age: int = 0, peer: int | None = None, name: bytes = b"x"
    ) -> Session:
        """Installs a session in the plane; returns the other half."""
        peer = self.peer if peer is None else peer
        index = self.plane.reserve(peer)
        created = boottime() - age
        lifetimes = Timing().lifetimes
        ours = SymmetricState(name).split(initiator, index, 77, created, lifetimes)
        theirs = SymmetricState(name).split(not initiator, 77, index, created, lifetimes)
        self.plane.install(peer, ours)
        return theirs

    def state(self) -> tuple[dict[str, str], dict[str, str]]:
        """What the plane says of the peer, and of the device."""
        [peer] = self.plane.describe_state([self.peer], boottime())
        texts = peer.decode(), self.plane.describe_drops(boottime())
        said, device = (dict(line.split("=") for line in text.splitlines()) for text in texts)
        return said, device

    def out(self, packet: bytes, header: bytes = VNET) -> None:
        self.app.send(header + packet)

    def datagrams(self, wire: socket.socket | None = None) -> list[bytes]:
        self.wait()
        wire = wire or self.wire
        datagrams = []
        while readable(wire):
            datagrams.append(wire.recv(70_000))
        return datagrams

    def wait(self) -> None:
        """Waits until the plane's threads have read what was sent to them, which a busy machine
        may delay."""
        until = time.monotonic() + 1
        while time.monotonic() < until and (unread(self.app) or readable(self.udp, timeout=0)):
            time.sleep(0.001)

    def arrive(self, datagram: bytes, wire: socket.socket | None = None) -> None:
        (wire or self.wire).sendto(datagram, self.udp.getsockname())

    def delivered(self) -> list[bytes]:
        self.wait()
        packets = []
        while readable(self.app):
            packets.append(self.app.recv(70_000)[10:])
        return packets

    def seal(self, session: Session, packet: bytes) -> bytes:
        message = session.seal(packet + bytes(-len(packet) % 16), boottime())
        assert message is not None
        return message

    def events(self) -> list[tuple[int, int]]:
        """Without SOURCE_MOVED: a first datagram comes from where nobody knew."""
        self.wait()
        time.sleep(0.05)
        return [one for one in self.plane.take_events() if one[0] != PlaneEvent.SOURCE_MOVED]

    def stamps(self) -> Stamps:
        return Stamps(*self.plane.stamps(self.peer))

    def close(self) -> None:
        self.plane.close()
        for each in (self.app, self.udp, self.wire):
            each.close()


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(request.param)
    yield rig
    rig.close()


@pytest.fixture
def rig4() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


@pytest.mark.item(97)
def test_a_packet_crosses_both_ways_padded_on_the_wire(rig: Rig) -> None:
    theirs = rig.session()
    packet = ipv4(US, THEM, b"hello")
    rig.out(packet)
    [datagram] = rig.datagrams()
    assert len(datagram) == 16 + 32 + 16
    assert theirs.open(datagram, boottime()) == packet + bytes(7)
    answer = ipv4(THEM, US, b"world!")
    rig.arrive(rig.seal(theirs, answer))
    assert rig.delivered() == [answer]
    assert rig.plane.transfer(rig.peer) == (64, 64)


@pytest.mark.item(24)
def test_packets_wait_for_a_session_and_leave_in_order(rig: Rig) -> None:
    packets = [ipv4(US, THEM, bytes([n])) for n in range(5)]
    for packet in packets:
        rig.out(packet)
    assert rig.events() == [(PlaneEvent.HANDSHAKE_WANTED, rig.peer)]
    assert rig.stamps().wanted
    assert rig.datagrams() == []
    theirs = rig.session()
    opened = [theirs.open(datagram, boottime()) for datagram in rig.datagrams()]
    assert [plain[:21] for plain in opened if plain] == packets
    rig.out(packets[0])
    assert rig.events() == [(PlaneEvent.DATA_SENT, rig.peer)]


def test_128_packets_are_staged_and_the_oldest_dropped(rig4: Rig) -> None:
    for n in range(150):
        rig4.out(ipv4(US, THEM, n.to_bytes(2)))
    time.sleep(0.2)
    theirs = rig4.session()
    opened = [theirs.open(datagram, boottime()) for datagram in rig4.datagrams()]
    assert [int.from_bytes(plain[20:22]) for plain in opened if plain] == list(range(22, 150))


def test_purge_drops_what_is_staged(rig4: Rig) -> None:
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.events() == [(PlaneEvent.HANDSHAKE_WANTED, rig4.peer)]
    rig4.plane.purge(rig4.peer)
    rig4.session()
    assert rig4.datagrams() == []


@pytest.mark.item(23)
def test_a_responder_waits_for_the_first_message(rig4: Rig) -> None:
    theirs = rig4.session(initiator=False)
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.datagrams() == []
    assert rig4.events() == [(PlaneEvent.HANDSHAKE_WANTED, rig4.peer)]
    rig4.arrive(rig4.seal(theirs, b""))
    [datagram] = rig4.datagrams()
    assert theirs.open(datagram, boottime())
    assert rig4.events() == [
        (PlaneEvent.SESSION_CONFIRMED, rig4.peer),
        (PlaneEvent.DATA_SENT, rig4.peer),
    ]
    rig4.arrive(rig4.seal(theirs, b""))
    assert rig4.events() == []


@pytest.mark.item(55)
def test_the_previous_session_still_opens(rig4: Rig) -> None:
    old = rig4.session(name=b"old")
    new = rig4.session(name=b"new")
    packet = ipv4(THEM, US, b"in flight")
    rig4.arrive(rig4.seal(old, packet))
    assert rig4.delivered() == [packet]
    rig4.out(ipv4(US, THEM, b"x"))
    [datagram] = rig4.datagrams()
    assert new.open(datagram, boottime())
    rig4.session(name=b"newest")
    rig4.arrive(rig4.seal(old, packet))
    assert rig4.delivered() == []  # c025: at most three, the oldest is gone


@pytest.mark.item(51, 56)
def test_replays_and_unknown_indices_are_nothing(rig4: Rig) -> None:
    theirs = rig4.session()
    message = rig4.seal(theirs, ipv4(THEM, US, b"once"))
    rig4.arrive(message)
    rig4.arrive(message)
    assert len(rig4.delivered()) == 1
    rig4.arrive(message[:4] + b"\x01\x02\x03\x04" + message[8:])
    assert rig4.delivered() == []
    assert rig4.datagrams() == []


@pytest.mark.item(76)
def test_only_what_is_authentic_moves_the_endpoint(rig: Rig) -> None:
    theirs = rig.session()
    family = rig.wire.family
    with rig.bind(family) as elsewhere:
        replay = rig.seal(theirs, b"")
        rig.arrive(replay)
        rig.wait()
        time.sleep(0.05)
        bad = bytearray(rig.seal(theirs, b""))
        bad[-1] ^= 1
        for datagram in (replay, bytes(bad), bytes(148), b"\x04" + bytes(31)):
            rig.arrive(datagram, elsewhere)
        rig.wait()
        time.sleep(0.05)
        assert rig.where() == rig.endpoint(rig.wire)
        rig.arrive(rig.seal(theirs, ipv4(STRANGER, US, b"wrong source, right key")), elsewhere)
        assert rig.delivered() == []
        assert rig.where() == rig.endpoint(elsewhere)
        rig.out(ipv4(US, THEM, b"follow"))
        assert len(rig.datagrams(elsewhere)) == 1
        assert rig.datagrams() == []


@pytest.mark.item(52)
def test_a_forged_counter_does_not_move_the_window(rig4: Rig) -> None:
    theirs = rig4.session()
    message = rig4.seal(theirs, ipv4(THEM, US, b"real"))
    forged = bytearray(message)
    forged[8:16] = (1 << 40).to_bytes(8, "little")
    rig4.arrive(bytes(forged))
    rig4.arrive(message)
    assert len(rig4.delivered()) == 1


@pytest.mark.item(59)
def test_padding_is_not_looked_at_and_never_delivered(rig4: Rig) -> None:
    theirs = rig4.session()
    packet = ipv4(THEM, US, b"x" * 9)
    for padding in (b"", b"\xff", bytes(3), b"\x45\0\0\x14" * 5, bytes(1000)):
        message = theirs.seal(packet + padding, boottime())
        assert message is not None
        rig4.arrive(message)
    assert rig4.delivered() == [packet] * 5


@pytest.mark.item(60)
def test_packets_of_a_peer_keep_their_order(rig: Rig) -> None:
    theirs = rig.session()
    out = [ipv4(US, THEM, bytes([n]), protocol=253) for n in range(100)]
    back = [ipv4(THEM, US, bytes([n]) * (1 + 7 * n % 50), protocol=253) for n in range(100)]
    for one, other in zip(out, back, strict=True):
        rig.out(one)
        rig.arrive(rig.seal(theirs, other))
    assert rig.delivered() == back
    opened = [theirs.open(datagram, boottime()) for datagram in rig.datagrams()]
    assert [plain[:21] for plain in opened if plain] == out


@pytest.mark.item(86)
def test_the_source_check_is_device_wide(rig4: Rig) -> None:
    wide = rig4.add_peer("10.9.0.0/16")
    theirs = rig4.session(peer=wide, name=b"wide")
    good = ipv4("10.9.1.1", US, b"mine")
    rig4.arrive(rig4.seal(theirs, good))
    assert rig4.delivered() == [good]
    rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"the narrower peer's")))
    assert rig4.delivered() == []
    rig4.plane.disallow(ip_address(THEM).packed, 32)
    rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"mine now")))
    assert len(rig4.delivered()) == 1


@pytest.mark.parametrize(
    "inner",
    [
        b"\x45" + bytes(18),
        ipv4(THEM, US, b"x")[:20].replace(b"\x00\x15", b"\x00\x13", 1),
        ipv4(THEM, US, b"x").replace(b"\x00\x15", b"\x7f\xff", 1),
        b"\x60" + bytes(3) + b"\xff\xff" + bytes(34),
        b"\x55" + bytes(63),
        bytes(64),
    ],
)
@pytest.mark.item(58)
def test_implausible_inner_packets_are_dropped(rig4: Rig, inner: bytes) -> None:
    theirs = rig4.session()
    rig4.arrive(rig4.seal(theirs, inner))
    good = ipv4(THEM, US, b"after")
    rig4.arrive(rig4.seal(theirs, good))
    assert rig4.delivered() == [good]


@pytest.mark.item(81)
def test_a_message_of_its_own_session_goes_no_second_round(rig4: Rig) -> None:
    """As where the route to the peer leads through the tunnel. Another tunnel's may pass."""
    theirs = rig4.session()
    rig4.out(ipv4(US, THEM, b"x"))
    [datagram] = rig4.datagrams()
    back = ipv4(US, THEM, struct.pack("!HHHH", 1, 1, 8 + len(datagram), 0) + datagram)
    rig4.out(back)
    assert rig4.datagrams() == []
    other = back.replace(datagram[:8], datagram[:4] + b"else")
    rig4.out(other)
    opened = [theirs.open(datagram, boottime()) for datagram in rig4.datagrams()]
    assert [plain[: len(other)] for plain in opened if plain] == [other]


@pytest.mark.item(84)
def test_an_error_of_one_path_ends_nothing(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.udp.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: refusals are errors to receive
    with rig4.bind(socket.AF_INET) as closed:
        nowhere = rig4.endpoint(closed)
    for _ in range(20):
        rig4.plane.set_endpoint(rig4.peer, nowhere)
        rig4.out(ipv4(US, THEM, b"refused"))
        time.sleep(0.005)
        packet = ipv4(THEM, US, b"received")
        rig4.arrive(rig4.seal(theirs, packet))
        assert readable(rig4.app, timeout=2)
        assert rig4.app.recv(2000)[10:] == packet
    rig4.datagrams()  # a packet that met the endpoint when it had moved back
    for _ in range(3):  # the kernel may report the last refusal to the next who sends
        rig4.out(ipv4(US, THEM, b"sent"))
    opened = [theirs.open(datagram, boottime()) for datagram in rig4.datagrams()]
    assert opened and all(plain and plain[20:24] == b"sent" for plain in opened)


@pytest.mark.item(89)
def test_no_peer_and_no_endpoint_are_unreachable(rig4: Rig) -> None:
    rig4.out(ipv4(US, "10.77.0.1", b"nobody"))
    [reply] = rig4.delivered()
    assert reply[20:22] == b"\x03\x01"
    assert reply[12:20] == ip_address("10.77.0.1").packed + ip_address(US).packed
    rig4.add_peer("10.78.0.0/16")
    rig4.out(ipv4(US, "10.78.0.1", b"no endpoint"))
    assert rig4.delivered()[0][20:22] == b"\x03\x01"
    rig4.out(ipv6("fd00::1", "fd00::2", b"nobody"))
    assert rig4.delivered()[0][40:42] == b"\x01\x03"
    for _ in range(300):
        rig4.out(ipv4(US, "10.77.0.1", b"a flood"))
    assert 0 < len(rig4.delivered()) < 120


@pytest.mark.item(60, 100)
def test_a_super_packet_is_split_and_merged_again(rig: Rig) -> None:
    theirs = rig.session()
    payload = bytes(range(256)) * 40
    header = bytearray(ipv4(US, THEM, b"", protocol=6))
    tcp = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 1, 0x50, 0x18, 1000, 0, 0)
    header[2:4] = (40 + len(payload)).to_bytes(2)
    vnet = struct.pack("=BBHHHH", 1, 1, 40, 1380, 20, 16)
    rig.out(bytes(header) + tcp + payload, vnet)
    datagrams = rig.datagrams()
    assert [len(datagram) for datagram in datagrams[:-1]] == [1420 + 32] * 7
    packets = [theirs.open(datagram, boottime()) for datagram in datagrams]
    assert b"".join(packet[40:] for packet in packets if packet)[: len(payload)] == payload
    lengths = [int.from_bytes(packet[2:4]) for packet in packets if packet]
    back = SymmetricState(b"back")
    index = rig.plane.reserve(rig.peer)
    far = back.copy().split(False, 5, index, boottime(), Timing().lifetimes)
    rig.plane.install(rig.peer, back.split(True, index, 5, boottime(), Timing().lifetimes))
    rig.plane.disallow(ip_address(THEM).packed, 32)
    rig.plane.allow(rig.peer, ip_address(US).packed, 32)
    for packet, length in zip(packets, lengths, strict=True):
        assert packet
        rig.arrive(rig.seal(far, packet[:length]))
    arrived = b"".join(packet[40:] for packet in rig.delivered())
    assert arrived == payload


@pytest.mark.item(85)
def test_oversized_and_odd_datagrams_are_survived(rig: Rig) -> None:
    """Each is followed by a packet that must come out: what waits unread in a full buffer is lost,
    and proves nothing."""
    theirs = rig.session()
    packet = ipv4(THEM, US, b"alive")
    for length in [*range(200), 1500, 4096, 4097, 9000, 65_000, 65_507]:
        for first in (0, 1, 2, 3, 4, 5, 255):
            rig.arrive((bytes([first, 0, 0, 0]) + bytes(length))[:length])
            rig.arrive(rig.seal(theirs, packet))
            assert readable(rig.app, timeout=2), f"dead after {length} bytes of type {first}"
            assert rig.app.recv(70_000)[10:] == packet
    assert rig.datagrams() == []


@pytest.mark.item(91)
def test_what_is_no_packet_goes_nowhere(rig4: Rig) -> None:
    theirs = rig4.session()
    good = ipv4(US, THEM, b"good")
    for junk in [
        b"",
        b"\x45",
        bytes(60),
        b"\x55" * 60,
        good[:19],
        ipv6("fd00::1", "fd00::2", b"")[:39],
    ]:
        rig4.out(junk)
    rig4.app.send(b"short")
    for kind in range(8):
        rig4.out(good[:30], struct.pack("=BBHHHH", 1, kind, 2000, 3, 4000, 5000))
    rig4.datagrams()
    assert rig4.delivered() == [], "no ICMP error about what is not a packet"
    rig4.out(good)
    opened = [theirs.open(datagram, boottime()) for datagram in rig4.datagrams()]
    assert [plain[: len(good)] for plain in opened if plain] == [good]


@pytest.mark.item(93)
def test_bad_datagrams_are_not_spoken_of(
    rig4: Rig, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    device, own = Device(rig4.plane, Entropy()), PrivateKey.generate()
    list(device.configure(DeviceChange(private_key=own), lambda: Now(boottime(), 0)))
    list(device.up(lambda: Now(boottime(), 0)))
    theirs = rig4.session()
    live = rig4.seal(theirs, ipv4(STRANGER, US, b"not yours"))
    bodies = [struct.pack("<I", kind) + bytes(size - 4) for kind, size in ((1, 116), (2, 60))]
    signed = [Cookies(own.public).add_macs(body, 0) for body in bodies]
    bad = [live[:-1] + b"x", live, live, bytes(148), b"\3\0\0\0" + bytes(60), *signed]
    for message in bad:
        for length in (0, 1, 4, 15, 16, 31, 32, len(message) - 1, len(message)):
            rig4.arrive(message[:length])
    good = ipv4(THEM, US, b"after all of them")
    rig4.arrive(rig4.seal(theirs, good))
    assert rig4.delivered() == [good]
    handled = 0
    while taken := rig4.plane.take_message():
        device.receive(*taken, Now(boottime(), 0))
        handled += 1
    assert handled == 1, "the signed initiation reached Python"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.item(98)
def test_padding_follows_the_mtu(rig4: Rig) -> None:
    theirs = rig4.session()
    packet = ipv4(US, THEM, bytes(1299 - 20))
    for mtu, length in ((1420, 1312), (1300, 1300), (1299, 1299), (0, 1312), (65_535, 1312)):
        rig4.plane.set_mtu(mtu)
        rig4.out(packet)
        [datagram] = rig4.datagrams()
        plain = theirs.open(datagram, boottime())
        assert plain is not None and len(plain) == length


def test_armed_events_come_once_until_disarmed(rig4: Rig) -> None:
    theirs = rig4.session()
    for _ in range(100):
        rig4.out(ipv4(US, THEM, b"ping"))
        rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"pong")))
    time.sleep(0.2)
    events = rig4.events()
    assert sorted(events) == [
        (PlaneEvent.DATA_SENT, rig4.peer),
        (PlaneEvent.DATA_RECEIVED, rig4.peer),
    ]
    rig4.arrive(rig4.seal(theirs, b""))
    time.sleep(0.05)
    assert rig4.stamps().data_sent == 0
    assert not rig4.plane.disarm(rig4.peer, PlaneEvent.DATA_SENT, 1)
    assert rig4.plane.disarm(rig4.peer, PlaneEvent.DATA_SENT, 0)
    rig4.out(ipv4(US, THEM, b"again"))
    assert rig4.events() == [(PlaneEvent.DATA_SENT, rig4.peer)]
    assert rig4.stamps().data_received == 0


@pytest.mark.item(57, 66)
def test_keepalives_neither_ask_for_nor_count_as_data(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.plane.send_keepalive(rig4.peer)
    [datagram] = rig4.datagrams()
    assert len(datagram) == 32
    assert theirs.open(datagram, boottime()) == b""
    rig4.arrive(rig4.seal(theirs, b""))
    assert rig4.events() == []
    stamps = rig4.stamps()
    assert stamps.data_sent == stamps.data_received == stamps.last_data_received == 0
    assert stamps.sent
    assert stamps.received
    assert rig4.plane.transfer(rig4.peer) == (32, 32)
    assert rig4.delivered() == []


@pytest.mark.item(67, 68)
def test_an_old_session_asks_for_a_new_one(rig4: Rig) -> None:
    second = 10**9
    rig4.session(age=121 * second)
    rig4.out(ipv4(US, THEM, b"still goes"))
    assert (PlaneEvent.HANDSHAKE_WANTED, rig4.peer) in rig4.events()
    assert len(rig4.datagrams()) == 1
    theirs = rig4.session(age=170 * second)
    rig4.arrive(rig4.seal(theirs, b""))
    assert rig4.events() == [(PlaneEvent.HANDSHAKE_WANTED, rig4.peer)]
    confirmed = rig4.session(initiator=False, age=170 * second)
    rig4.arrive(rig4.seal(confirmed, b""))
    rig4.out(ipv4(US, THEM, b"a responder does not"))
    assert (PlaneEvent.HANDSHAKE_WANTED, rig4.peer) not in rig4.events()


@pytest.mark.item(54, 69)
def test_a_session_of_180_s_is_dead_both_ways(rig4: Rig) -> None:
    theirs = rig4.session(age=181 * 10**9)
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.datagrams() == []
    assert rig4.events() == [(PlaneEvent.HANDSHAKE_WANTED, rig4.peer)]
    young = SymmetricState(b"x").split(False, 77, theirs.remote_index, boottime(), (10**12,) * 3)
    rig4.arrive(rig4.seal(young, ipv4(THEM, US, b"late")))
    assert rig4.delivered() == []


@pytest.mark.item(70, 103)
def test_an_expired_session_still_opens_until_it_is_wiped(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.plane.expire(rig4.peer)
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.datagrams() == []
    packet = ipv4(THEM, US, b"still opens")
    rig4.arrive(rig4.seal(theirs, packet))
    assert rig4.delivered() == [packet]
    rig4.plane.wipe(rig4.peer)
    rig4.arrive(rig4.seal(theirs, packet))
    assert rig4.delivered() == []


def test_a_removed_peer_leaves_nothing(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.plane.disallow(ip_address(THEM).packed, 32)
    rig4.plane.remove_peer(rig4.peer)
    with pytest.raises(KeyError):
        rig4.plane.stamps(rig4.peer)
    rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"x")))
    assert rig4.delivered() == []
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.delivered()[0][20:22] == b"\x03\x01"


@pytest.mark.item(95, 99)
def test_the_outer_tos_has_the_ecn_bits_alone(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.wire.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)

    def outer() -> int:
        assert readable(rig4.wire)
        _, control, _, _ = rig4.wire.recvmsg(2000, 100)
        return control[0][2][0]

    for inner, expected in [(0, 0), (1, 1), (2, 2), (3, 2), (0xB8, 0), (0xBB, 2)]:
        rig4.out(ipv4(US, THEM, b"x", tos=inner))
        assert outer() == expected
    rig4.plane.send(rig4.peer, bytes(148))
    assert outer() == 0x88
    rig4.wire.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 3)
    rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"x", tos=2)))
    assert rig4.delivered() == [ipv4(THEM, US, b"x", tos=3)]


def test_the_end_of_the_tun_device_is_reported_once(rig4: Rig) -> None:
    rig4.app.close()
    deadline = time.monotonic() + 2
    while not (events := rig4.events()) and time.monotonic() < deadline:
        pass
    assert events == [(PlaneEvent.TUN_LOST, 0)]


@pytest.mark.item(83)
def test_sockets_are_exchanged_and_taken_away(rig4: Rig) -> None:
    theirs = rig4.session()
    second = rig4.bind(socket.AF_INET)
    rig4.plane.attach_sockets(second.fileno(), None)
    rig4.out(ipv4(US, THEM, b"x"))
    assert readable(rig4.wire)
    _, source = rig4.wire.recvfrom(2000)
    assert source == second.getsockname()
    packet = ipv4(THEM, US, b"x")
    rig4.wire.sendto(rig4.seal(theirs, packet), second.getsockname())
    assert rig4.delivered() == [packet]
    rig4.plane.attach_sockets(None, None)
    rig4.out(ipv4(US, THEM, b"x"))
    assert rig4.datagrams() == []
    second.close()


def test_close_is_quick_and_can_be_repeated(rig4: Rig) -> None:
    start = time.monotonic()
    rig4.plane.close()
    rig4.plane.close()
    assert time.monotonic() - start < 1


def test_the_timer_descriptor_fires_at_its_deadline() -> None:
    plane = Plane()
    plane.set_timer(deadline := boottime() + 500_000_000)
    early = select.select([plane.timer_fd], [], [], 0.01)[0]
    assert not early or boottime() >= deadline
    assert select.select([plane.timer_fd], [], [], 30)[0]
    assert boottime() >= deadline
    plane.clear_timer()
    assert not select.select([plane.timer_fd], [], [], 0.01)[0]
    plane.set_timer(1)
    assert select.select([plane.timer_fd], [], [], 1)[0]
    plane.set_timer(None)
    assert not select.select([plane.timer_fd], [], [], 0.01)[0]
    plane.close()


def test_what_is_dropped_for_its_address_is_noted(rig4: Rig) -> None:
    theirs = rig4.session()
    for source in ("10.66.0.1", "10.66.0.2"):
        rig4.arrive(rig4.seal(theirs, ipv4(source, US, b"not the peer's")))
        rig4.out(ipv4(US, source, b"nobody's"))
    assert rig4.delivered()  # The ICMP errors for the latter.
    said, device = rig4.state()
    assert (said["rejected_sources"], said["rejected_source"]) == ("2", "10.66.0.2")
    assert 0 <= int(said["rejected_source_age_ms"]) < 5000
    assert (device["no_peer_packets"], device["no_peer_destination"]) == ("2", "10.66.0.2")


def test_messages_for_another_key_are_noted_and_others_are_not(rig4: Rig) -> None:
    rig4.plane.set_identity(bytes(31) + b"9")
    garbage = [b"\1\0\0\0" + bytes(144), b"\2\0\0\0" + bytes(88)]
    for datagram in (*garbage, b"\3\0\0\0" + bytes(60), b"\4\0\0\0" + bytes(60), bytes(148)):
        rig4.arrive(datagram)
    time.sleep(0.05)
    device = rig4.state()[1]
    assert device["invalid_mac1"] == "2"
    assert device["invalid_mac1_endpoint"] == str(rig4.endpoint(rig4.wire))


def test_sends_that_the_kernel_refuses_are_noted_and_told_once_a_second(rig4: Rig) -> None:
    rig4.session()
    rig4.plane.watch(True)
    rig4.plane.set_endpoint(rig4.peer, Endpoint("192.0.2.1", 0))  # EINVAL
    for _ in range(3):
        rig4.plane.send_keepalive(rig4.peer)
        rig4.plane.send(rig4.peer, bytes(148))
    assert rig4.events() == [(PlaneEvent.UNREPORTED, rig4.peer)]
    assert rig4.plane.take_unreported(rig4.peer) == (None, None, (6, errno.EINVAL))
    assert rig4.plane.take_unreported(rig4.peer) == (None, None, None)
    said, _ = rig4.state()
    assert (said["send_errors"], said["send_error"]) == ("6", str(errno.EINVAL))
    rig4.plane.send_keepalive(rig4.peer)
    assert rig4.events() == []


def test_drops_are_posted_once_until_they_are_taken_and_only_while_watched(rig: Rig) -> None:
    theirs = rig.session()
    for watched in (False, True):
        rig.plane.watch(watched)
        with rig.bind(rig.wire.family) as elsewhere:
            rig.arrive(rig.seal(theirs, b""), elsewhere)
            time.sleep(0.05)
            rig.arrive(rig.seal(theirs, b""))
            if watched:
                assert rig.events() == [(PlaneEvent.UNREPORTED, rig.peer)]
                assert rig.plane.take_unreported(rig.peer)[0] == rig.endpoint(rig.wire)
            assert rig.events() == []
    assert rig.plane.take_unreported(rig.peer) == (None, None, None)


def test_state_follows_the_session(rig4: Rig) -> None:
    assert rig4.state()[0]["session"] == "none"
    rig4.out(ipv4(US, THEM, b"waits"))
    time.sleep(0.05)
    assert rig4.state()[0]["staged"] == "1"
    rig4.session(initiator=False)
    assert rig4.state()[0]["session"] == "none"
    rig4.session(age=170_000_000_000, name=b"old")
    said, _ = rig4.state()
    assert said["session"] == "live" and 170_000 <= int(said["session_age_ms"]) < 175_000
    assert "staged" not in said and int(said["sent_age_ms"]) < 5000
    rig4.plane.expire(rig4.peer)
    assert rig4.state()[0]["session"] == "expired"
    rig4.plane.remove_peer(rig4.peer)
    assert rig4.plane.describe_state([rig4.peer], boottime()) == [b""]


def test_drops_are_posted_again_once_they_were_taken(rig4: Rig) -> None:
    theirs = rig4.session()
    rig4.plane.watch(True)
    with rig4.bind(socket.AF_INET) as elsewhere:
        for wire, before in ((elsewhere, rig4.wire), (rig4.wire, elsewhere)):
            rig4.arrive(rig4.seal(theirs, b""), wire)
            assert rig4.events() == [(PlaneEvent.UNREPORTED, rig4.peer)]
            assert rig4.plane.take_unreported(rig4.peer)[0] == rig4.endpoint(before)


def test_a_device_whose_thread_could_not_be_made_is_not_kept() -> None:
    """Nor are sockets: the next try finds nothing in its way."""
    plane = Plane()
    _, tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(tun.fileno())
    os.close(free)
    try:
        # For the duplicate, and not for what ends the thread.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        attempts: list[Callable[[], object]] = [
            lambda: plane.attach_tun(tun.fileno(), 1420, True, True),
            lambda: plane.attach_sockets(udp.fileno(), None),
        ]
        for attach in attempts:
            with pytest.raises(OSError, match="Too many open files"):
                attach()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    plane.attach_tun(tun.fileno(), 1420, True, True)
    plane.attach_sockets(udp.fileno(), None)
    plane.close()


@pytest.mark.item(78)
def test_a_source_that_moves_is_posted_once_and_what_is_known_of_it_stays(rig4: Rig) -> None:
    theirs = rig4.session()

    def arrives(to: str) -> list[tuple[int, int]]:
        rig4.wire.sendto(rig4.seal(theirs, b""), (to, rig4.udp.getsockname()[1]))
        time.sleep(0.05)
        return [one for one in rig4.plane.take_events() if one[0] == PlaneEvent.SOURCE_MOVED]

    def held() -> tuple[str, int]:
        found = rig4.plane.take_source(rig4.peer)
        assert found is not None and found.route is not None
        remote, local, interface, hold = found.route
        assert (remote, interface) == (bytes([127, 0, 0, 1]), 1)
        return str(ip_address(local)), hold

    rig4.udp.close()
    rig4.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rig4.udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    rig4.udp.bind(("0.0.0.0", 0))
    rig4.plane.attach_sockets(rig4.udp.fileno(), None)
    moved = [(PlaneEvent.SOURCE_MOVED, rig4.peer)]
    assert rig4.plane.take_source(rig4.peer) is None
    assert [arrives("127.0.0.1"), arrives("127.0.0.1"), arrives("127.0.0.2")] == [moved, [], []]
    assert held() == ("127.0.0.2", 1), "the address sticks alone before anybody has asked"
    earlier = rig4.plane.take_source(rig4.peer)
    assert earlier is not None
    rig4.plane.hold_source(rig4.peer, earlier, 4)
    assert held() == ("127.0.0.2", 4)
    assert arrives("127.0.0.3") == moved
    rig4.plane.hold_source(rig4.peer, earlier, 7)
    assert held() == ("127.0.0.3", 1), "nothing is said of it"
    assert arrives("127.0.0.2") == moved
    assert held() == ("127.0.0.2", 4), "a datagram that was late brings nothing back"
    rig4.plane.forget_sources(None)
    assert rig4.plane.take_source(rig4.peer) is None
    arrives("127.0.0.2")
    assert held() == ("127.0.0.2", 4 | 128), "to be judged again"
    rig4.plane.forget_sources(rig4.peer)
    arrives("127.0.0.2")
    assert held() == ("127.0.0.2", 1), "suspected itself, it starts again"


def test_what_is_not_wireguards_can_be_asked_for(rig4: Rig) -> None:
    theirs = rig4.session()

    def arrive() -> list[tuple[bytes, Endpoint]]:
        rig4.arrive(b"not WireGuard's")
        rig4.arrive(rig4.seal(theirs, ipv4(THEM, US, b"behind it")))
        assert rig4.delivered()
        return list(iter(rig4.plane.take_other, None))

    assert arrive() == []
    rig4.plane.keep_others(True)
    assert arrive() == [(b"not WireGuard's", rig4.endpoint(rig4.wire))]
    rig4.plane.keep_others(False)
    assert arrive() == []
    assert rig4.plane.take_message() is None
