"""A data plane in Python, packet by packet: the executable specification of protocol/plane.py.

It carries packets between a simulated TUN device and a simulated network under a virtual clock,
with the real sessions, gate and endpoints. It has no threads, sockets, batches, offloads, ICMP and
ECN.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random

from wiresnake._native import Endpoint, Gate, Session
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.messages import DATA_HEADER_SIZE, KEEPALIVE_SIZE, TAG_SIZE, Data
from wiresnake.protocol.plane import PlaneEvent

STAGED_LIMIT = 128
QUEUE_LIMIT = 128
"""The same as in gate.rs."""


@dataclass(slots=True, eq=False)
class Slot:
    """A session in the table, and whether it may still send."""

    session: Session
    sends: bool = True


@dataclass(slots=True)
class DropCounter:
    """How often something happened, the last time, and how much of it was reported."""

    count: int = 0
    what: str = ""
    quiet_until: int = 0
    untold: bool = False

    def take(self) -> tuple[int, str] | None:
        untold, self.untold = self.untold, False
        return (self.count, self.what) if untold else None


@dataclass(slots=True, eq=False)
class FakePeer:
    id: int
    endpoint: Endpoint | None = None
    sticky: bool = False
    """A local address is remembered for the endpoint."""
    reserved: set[int] = field(default_factory=set)
    previous: Slot | None = None
    current: Slot | None = None
    next: Slot | None = None
    staged: deque[bytes] = field(default_factory=lambda: deque(maxlen=STAGED_LIMIT))
    """When it is full, the oldest is dropped."""
    armed: set[PlaneEvent] = field(default_factory=set)
    data_sent: int = 0
    data_received: int = 0
    last_data_received: int = 0
    wanted: int = 0
    sent: int = 0
    received: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    roamed_from: Endpoint | None = None
    rejected: DropCounter = field(default_factory=DropCounter)

    def clear_wanted(self) -> None:
        self.armed.discard(PlaneEvent.HANDSHAKE_WANTED)
        self.wanted = 0

    def slots(self) -> list[Slot]:
        return [slot for slot in (self.previous, self.current, self.next) if slot is not None]


class FakePlane:
    def __init__(
        self,
        clock: Callable[[], int],
        transmit: Callable[[bytes, Endpoint], None],
        seed: int = 0,
        mtu: int = 1420,
    ) -> None:
        self.mtu = mtu
        self.delivered: list[bytes] = []
        """Packets that were written to the TUN device."""
        self.unreachable: list[bytes] = []
        """Packets that a real plane answers with ICMP host unreachable."""
        self.refused: list[bytes] = []
        """Packets whose source is not their peer's, or that are not IP."""
        self.events: list[tuple[int, int]] = []
        self.messages: deque[tuple[bytes, Endpoint]] = deque()
        self.event_count = 0
        self.watched = False
        self.routes: dict[tuple[bytes, int], FakePeer] = {}
        self.peers: dict[int, FakePeer] = {}
        self.table: dict[int, tuple[FakePeer, Slot | None]] = {}
        """Receiver index to peer; with None the index is only reserved."""
        self._clock = clock
        self._transmit = transmit
        self._random = Random(seed)
        self._gate = Gate()
        self._last_id = 0

    # The world's side: packets and datagrams.

    def send_packet(self, packet: bytes) -> None:
        """Handles a packet from the TUN device."""
        destination = _destination(packet)
        if destination is None:
            return
        peer = self.route(destination)
        if peer is None or peer.endpoint is None:
            self.unreachable.append(packet)
            return
        peer.staged.append(packet)
        self._send_staged(peer)

    def receive_datagram(self, datagram: bytes, source: Endpoint) -> None:
        """Handles a datagram from the network."""
        verdict = self._gate.check(datagram, source, self._clock(), len(self.messages))
        if verdict == "data":
            self._receive_data(datagram, source)
        elif verdict == "queue":
            if len(self.messages) < QUEUE_LIMIT:
                self.messages.append((datagram, source))
        elif isinstance(verdict, bytes):
            self._transmit(verdict, source)

    def route(self, address: bytes) -> FakePeer | None:
        """Returns the longest match, by trying every route."""
        number = int.from_bytes(address)
        best: tuple[int, FakePeer] | None = None
        for (prefix, length), peer in self.routes.items():
            rest = 8 * len(address) - length
            if len(prefix) == len(address) and int.from_bytes(prefix) >> rest == number >> rest:
                best = max(best or (-1, peer), (length, peer), key=lambda match: match[0])
        return None if best is None else best[1]

    # The protocol's side.

    def set_identity(self, public: bytes | None) -> None:
        self._gate.set_identity(public)

    def take_events(self) -> list[tuple[int, int]]:
        events, self.events = self.events, []
        return events

    def take_message(self) -> tuple[bytes, Endpoint] | None:
        return self.messages.popleft() if self.messages else None

    def add_peer(self) -> int:
        self._last_id += 1
        self.peers[self._last_id] = FakePeer(self._last_id)
        return self._last_id

    def remove_peer(self, peer: int) -> None:
        gone = self.peers.pop(peer)
        assert gone not in self.routes.values()
        assert not gone.reserved
        self.table = {key: entry for key, entry in self.table.items() if entry[0] is not gone}

    def set_endpoint(self, peer: int, endpoint: Endpoint | None) -> None:
        self.peers[peer].endpoint = endpoint
        self.peers[peer].sticky = endpoint is not None

    def endpoint(self, peer: int) -> Endpoint | None:
        return self.peers[peer].endpoint

    def watch(self, watched: bool) -> None:
        self.watched = watched

    def take_unreported(
        self, peer: int
    ) -> tuple[Endpoint | None, tuple[int, str] | None, tuple[int, int] | None]:
        """Returns no failed sends, as nothing fails here."""
        at = self.peers[peer]
        at.armed.discard(PlaneEvent.UNREPORTED)
        roamed_from, at.roamed_from = at.roamed_from, None
        return roamed_from, at.rejected.take(), None

    def forget_sources(self, peer: int | None) -> None:
        for each in self.peers.values() if peer is None else [self.peers[peer]]:
            each.sticky = False

    def allow(self, peer: int, prefix: bytes, length: int) -> None:
        self.routes[prefix, length] = self.peers[peer]

    def disallow(self, prefix: bytes, length: int) -> None:
        self.routes.pop((prefix, length), None)

    def reserve(self, peer: int) -> int:
        while True:
            index = self._random.getrandbits(32)
            if index not in self.table:
                break
        self.table[index] = self.peers[peer], None
        self.peers[peer].reserved.add(index)
        return index

    def release(self, index: int) -> None:
        entry = self.table.get(index)
        if entry is not None and entry[1] is None:
            del self.table[index]
            entry[0].reserved.discard(index)

    def install(self, peer: int, session: Session) -> None:
        at, slot = self.peers[peer], Slot(session)
        assert session.local_index in at.reserved, "the index must be reserved, and is used once"
        at.reserved.remove(session.local_index)
        self.table[session.local_index] = at, slot
        if session.initiator:
            previous = at.next or at.current
            self._keep(at, previous, slot, None)
            at.clear_wanted()
            self._send_staged(at)
        else:
            self._keep(at, None, at.current, slot)

    def expire(self, peer: int) -> None:
        for slot in self.peers[peer].slots():
            slot.sends = False

    def wipe(self, peer: int) -> None:
        at = self.peers[peer]
        self._keep(at, None, None, None)
        at.clear_wanted()

    def purge(self, peer: int) -> None:
        self.peers[peer].staged.clear()
        self.peers[peer].clear_wanted()

    def send(self, peer: int, message: bytes) -> None:
        self._send_authenticated(self.peers[peer], message)

    def send_staged(self, peer: int) -> None:
        self._send_staged(self.peers[peer])

    def send_keepalive(self, peer: int) -> None:
        at = self.peers[peer]
        if not at.staged:
            at.staged.append(b"")
        self._send_staged(at)

    def count_received(self, peer: int, length: int) -> None:
        self._count_received(self.peers[peer], length)

    def stamps(self, peer: int) -> tuple[int, int, int, int, int, int]:
        at = self.peers[peer]
        data = at.data_sent, at.data_received, at.last_data_received
        return *data, at.wanted, at.sent, at.received

    def disarm(self, peer: int, kind: int, stamp: int) -> bool:
        at = self.peers[peer]
        if kind == PlaneEvent.DATA_SENT and at.data_sent == stamp:
            at.data_sent = 0
        elif kind == PlaneEvent.DATA_RECEIVED and at.data_received == stamp:
            at.data_received = 0
        else:
            return False
        at.armed.discard(PlaneEvent(kind))
        return True

    def transfer(self, peer: int) -> tuple[int, int]:
        return self.peers[peer].received_bytes, self.peers[peer].sent_bytes

    # Outbound.

    def _send_staged(self, peer: FakePeer) -> None:
        slot, now = peer.current, self._clock()
        while peer.staged:
            packet = peer.staged[0]
            padded = packet.ljust(
                max(len(packet), min(-(-len(packet) // 16) * 16, self.mtu)), b"\0"
            )
            message = slot.session.seal(padded, now) if slot is not None and slot.sends else None
            if slot is None or message is None:
                return self._want_handshake(peer)
            peer.staged.popleft()
            self._send_authenticated(peer, message)
            if packet and not peer.data_sent:
                peer.data_sent = now
                self._post(peer, PlaneEvent.DATA_SENT)
            if slot.session.rekey_due(now, True):
                self._want_handshake(peer)
        return None

    def _send_authenticated(self, peer: FakePeer, message: bytes) -> None:
        peer.sent, peer.data_received = self._clock(), 0
        if peer.endpoint is not None:
            peer.sent_bytes += len(message)
            self._transmit(message, peer.endpoint)

    def _want_handshake(self, peer: FakePeer) -> None:
        peer.wanted = self._clock()
        self._post(peer, PlaneEvent.HANDSHAKE_WANTED)

    def _post(self, peer: FakePeer, event: PlaneEvent) -> None:
        """Posts an event. An armed kind is posted only once until its bit is cleared."""
        if event in peer.armed:
            return
        if event is not PlaneEvent.SESSION_CONFIRMED:
            peer.armed.add(event)
        self.events.append((event, peer.id))
        self.event_count += 1

    # Inbound.

    def _receive_data(self, datagram: bytes, source: Endpoint) -> None:
        data, now = Data.parse(datagram), self._clock()
        entry = None if data is None else self.table.get(data.receiver)
        if entry is None or entry[1] is None:
            return
        peer, slot = entry
        assert slot is not None
        padded = slot.session.open(datagram, now)
        if padded is None:
            return
        # Authenticated and new: only now the datagram may change anything. It is counted before a
        # confirmed session sends staged packets, as these need their own answer.
        self._follow(peer, source)
        self._count_received(peer, len(datagram))
        assert len(padded) == len(datagram) - DATA_HEADER_SIZE - TAG_SIZE
        if slot is peer.next:
            self._keep(peer, peer.current, slot, None)
            peer.clear_wanted()
            self._post(peer, PlaneEvent.SESSION_CONFIRMED)
            self._send_staged(peer)
        if slot.session.rekey_due(now, False):
            self._want_handshake(peer)
        if len(datagram) == KEEPALIVE_SIZE:
            return
        peer.last_data_received = now
        if not peer.data_received:
            peer.data_received = now
            self._post(peer, PlaneEvent.DATA_RECEIVED)
        packet = _trim(padded)
        address = None if packet is None else _source(packet)
        if packet is None or address is None or self.route(address) is not peer:
            self.refused.append(padded)
            if address is not None:
                self._reject(peer, address, now)
        else:
            self.delivered.append(packet)

    def _follow(self, peer: FakePeer, source: Endpoint) -> None:
        if self.watched and peer.endpoint not in (None, source):
            peer.roamed_from = peer.roamed_from or peer.endpoint
            self._post(peer, PlaneEvent.UNREPORTED)
        peer.endpoint, peer.sticky = source, True

    def _reject(self, peer: FakePeer, address: bytes, now: int) -> None:
        rejected = peer.rejected
        rejected.count += 1
        rejected.what = str(ip_address(address))
        if self.watched and now >= rejected.quiet_until:
            rejected.quiet_until, rejected.untold = now + SECOND, True
            self._post(peer, PlaneEvent.UNREPORTED)

    def _count_received(self, peer: FakePeer, length: int) -> None:
        peer.received, peer.data_sent = self._clock(), 0
        peer.received_bytes += length

    def _keep(
        self, peer: FakePeer, previous: Slot | None, current: Slot | None, following: Slot | None
    ) -> None:
        """Fills the three slots. Sessions that drop out are wiped, and their indices are freed."""
        before = peer.slots()
        peer.previous, peer.current, peer.next = previous, current, following
        for slot in before:
            if slot not in peer.slots():
                del self.table[slot.session.local_index]


def ipv4(source: str, destination: str, payload: bytes = b"") -> bytes:
    """Makes an IPv4 packet without checksums, which are not checked here."""
    header = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2) + bytes([0, 0, 0, 0, 64, 253, 0, 0])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def _destination(packet: bytes) -> bytes | None:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return packet[16:20]
    return packet[24:40] if len(packet) >= 40 and packet[0] >> 4 == 6 else None


def _source(packet: bytes) -> bytes | None:
    return packet[12:16] if packet[0] >> 4 == 4 else packet[8:24]


def _trim(padded: bytes) -> bytes | None:
    """Cuts off the padding by the packet's own length; None if it is not an IP packet."""
    if len(padded) >= 20 and padded[0] >> 4 == 4:
        least, length = 20, int.from_bytes(padded[2:4])
    elif len(padded) >= 40 and padded[0] >> 4 == 6:
        least, length = 40, int.from_bytes(padded[4:6]) + 40
    else:
        return None
    return padded[:length] if least <= length <= len(padded) else None
