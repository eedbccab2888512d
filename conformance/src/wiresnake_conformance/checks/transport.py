"""C. Transport data and the replay window."""

import os
import socket
import struct
from collections.abc import Iterable, Sequence
from itertools import count, pairwise

from .. import packets
from ..oracle import RESPONSE, TRANSPORT, Session, describe
from ..peer import Peer
from ..peer_socket import PATIENCE, Datagram, PeerSocket, Tap
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check
from ._common import UDP_SEGMENT, seen_from_device

WINDOW = 8128
"""How far below the greatest counter a counter may be to be accepted."""
LOWEST_LIMIT, HIGHEST_LIMIT = 2**64 - 2**13 - 1, 2**64 - 1 - WINDOW - 1
"""The limits of a counter in the whitepaper and in the kernel."""
EXPERIMENT = 253
"""A protocol number that no stack uses and no offload merges (RFC 3692)."""
IN_FLIGHT = 64
"""Datagrams that fit into any socket's buffer."""


@check(50)
def the_greatest_counters(testbed: Testbed) -> None:
    """2^64-2^13-2 is the greatest counter that all implementations accept. From 2^64-8130, the
    kernel's limit, no message is delivered. The whitepaper's limit, 63 below, is also accepted."""
    peer = testbed.peer()
    window = Window(testbed, peer)
    for counter in (2**64 - 1, HIGHEST_LIMIT + 1, HIGHEST_LIMIT):
        window.refuses(counter)
    window.accepts([LOWEST_LIMIT - 1])
    for counter in (LOWEST_LIMIT - 1, HIGHEST_LIMIT, 2**64 - 1, 0):
        window.refuses(counter)
    window.accepts([LOWEST_LIMIT - 2])
    window.settle()
    seen = "accepted, as the kernel does" if window.delivers(LOWEST_LIMIT) else "refused"
    testbed.log(f"{LOWEST_LIMIT}, the whitepaper's limit, is {seen}")
    peer.works(_anew(testbed, peer))


@check(51)
def the_width_of_the_window(testbed: Testbed) -> None:
    """Counters up to 8128 below the greatest one are accepted, and no lower ones."""
    peer = testbed.peer()
    window = Window(testbed, peer)
    greatest = 100_000
    window.accepts([greatest])
    try:
        window.accepts([greatest - WINDOW])
    except Differs as error:
        raise Differs(f"{error}; the window is {_width(testbed, peer)} wide") from None
    if window.delivers(greatest - WINDOW - 1):
        raise Differs(f"counters are accepted down to {_width(testbed, peer)} behind the greatest")
    window.accepts([greatest + 1, greatest + 1 - WINDOW])
    window.settle()


@check(51)
def nothing_twice(testbed: Testbed) -> None:
    """A message that comes three times is delivered once, anywhere in the window."""
    peer = testbed.peer()
    session = peer.handshake()
    counters = [5, 6, 7, 3, 900, 899, 63, 64, 65, 2]
    messages = [session.seal(_numbered(peer, counter), counter=counter) for counter in counters]
    for message in [*messages, *messages, *(again for one in messages for again in (one, one))]:
        peer.send(message)
    came = testbed.delivered(PATIENCE, len(counters)) + testbed.delivered(0.5, len(counters))
    found = [_number(packet) for packet in came]
    if sorted(found) != sorted(counters):
        raise Differs(f"counters {counters}, each sent four times, were delivered as {found}")


@check(51, seconds=3)
def the_steps_of_the_kernel(testbed: Testbed) -> None:
    """The kernel's test sequence of counters at the window's edges gives the same results."""
    window = Window(testbed, testbed.peer())
    span = WINDOW + 1
    for counter, accepted in (
        (0, True),
        (1, True),
        (1, False),
        (9, True),
        (8, True),
        (7, True),
        (7, False),
        (span, True),
        (span - 1, True),
        (span - 1, False),
        (span - 2, True),
        (2, True),
        (2, False),
        (span + 16, True),
        (3, False),
        (span + 16, False),
        (span * 4, True),
        (span * 4 - (span - 1), True),
        (10, False),
        (span * 4 - span, False),
        (span * 4 - (span + 1), False),
        (span * 4 - (span - 2), True),
        (span * 4 + 1 - span, False),
        (0, False),
    ):
        if accepted:
            window.accepts([counter])
        else:
            window.refuses(counter)
    window.settle()


@check(51, seconds=12)
def the_runs_of_the_kernel(testbed: Testbed) -> None:
    """Whole windows of counters, upwards and downwards, are accepted once each."""
    peer = testbed.peer()
    for run, then in (
        (range(1, WINDOW + 1), [(0, True), (0, False)]),
        (range(2, WINDOW + 2), [(1, True), (0, False)]),
        (range(WINDOW, -1, -1), [(0, False), (WINDOW, False)]),
        (range(WINDOW + 1, 0, -1), [(0, False), (1, False)]),
        (range(WINDOW, 0, -1), [(WINDOW + 1, True), (0, False)]),
        (range(WINDOW, 0, -1), [(0, True), (WINDOW + 1, True)]),
    ):
        window = Window(testbed, peer)
        window.accepts(run)
        for counter, accepted in then:
            if accepted:
                window.accepts([counter])
            else:
                window.refuses(counter)
        window.settle(0.1)


@check(51)
def old_counters_leave_no_trace(testbed: Testbed) -> None:
    """When the window moves on, by little or by much, old counters are cleared: new counters are
    accepted even if their place in the window was used before."""
    window = Window(testbed, testbed.peer())
    window.accepts(range(300))
    for ring in (1, 2, 7):
        window.accepts([ring * 8192 + 299])
        window.accepts(range(ring * 8192 + 298, ring * 8192, -1))
    window.refuses(7 * 8192 + 1)
    window.settle()


@check(52)
def forgeries_do_not_move_the_window(testbed: Testbed) -> None:
    """A high counter with a wrong tag does not move the window and can still be used."""
    peer = testbed.peer()
    window = Window(testbed, peer)
    window.accepts([10])
    for counter in (11, 10_000, 2**40, LOWEST_LIMIT - 1):
        message = bytearray(window.message(counter))
        message[-1] ^= 1
        peer.send(bytes(message))
        window.forbidden[window.last] = counter
        message[-1] ^= 1
        message[20] ^= 0x80
        peer.send(bytes(message))
    window.settle()
    window.accepts([0, 9, 11, 12, 10_000])


@check(55, seconds=4)
def no_loss_over_our_rekeys(testbed: Testbed) -> None:
    """While the peer starts one session after the other, no packet is lost either way, neither
    late ones of the previous session nor those that the device sends meanwhile."""
    peer = testbed.peer()
    session = peer.handshake()
    peer.works(session)
    flow = Flow(testbed, peer, session)
    for _ in range(4):
        testbed.pause(0.5)
        flow.there(session, 8)
        late = flow.sealed(session, 8)
        flow.back(8)
        initiating = peer.initiate()
        flow.there(session, 8)
        session = peer.complete(initiating, flow.response())
        flow.sessions[session.local] = session
        flow.back(8)
        flow.there(session, 8)  # the first of them confirms the new session
        flow.carry(late)
        flow.settle()
        flow.back(8)
        flow.settle()
    peer.works(session)


@check(55, seconds=20, margin=0.5)
def no_loss_over_a_rekey_of_the_device(testbed: Testbed) -> None:
    """When the device starts the next session, here because it got no answers, packets of the
    previous one are still delivered, before and after the new one is used."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    session = peer.answer()
    peer.received(session, "the device sends what was waiting")
    testbed.inject(peer.packet_here())
    testbed.pause(0.3)
    peer.socket.drain()
    late = Flow(testbed, peer, session).sealed(session, 24)
    try:
        fresh = peer.answer(18)
    except Differs:  # item 65 checks that
        raise NotApplicable("the device begins no session for lack of answers") from None
    flow = Flow(testbed, peer, session, fresh)
    flow.carry(late[:8])
    peer.received(fresh, "the device confirms the new session")
    flow.carry(late[8:16])
    flow.there(fresh, 8)
    flow.back(8)
    flow.settle()
    flow.carry(late[16:])
    flow.there(fresh, 8)
    flow.settle()
    peer.works(fresh)


@check(56)
def indices_of_nobody(testbed: Testbed) -> None:
    """Transport data for an index without a session, or of a handshake, gets silence."""
    peer = testbed.peer(endpoint=True)
    session = peer.handshake()
    tap = testbed.tap()
    for remote in (0, 2**32 - 1, session.remote ^ 1, session.local):
        stray = Session(session.local, remote, session.send_key, session.receive_key, 100)
        for _ in range(3):
            peer.send(stray.seal(peer.packet()))
            peer.send(stray.seal())
    other = testbed.peer(endpoint=True)
    testbed.inject(other.packet_here())
    initiated = other.awaited()
    tap.packets()
    stray = Session(0, initiated.index, os.urandom(32), os.urandom(32))
    other.send(stray.seal(other.packet()))
    testbed.expect_dropped("data for an index that has no session")
    _quiet(testbed, tap, "data for an index that has no session")
    peer.works(session)


@check(56)
def sessions_of_a_removed_peer(testbed: Testbed) -> None:
    """Data of a session whose peer was removed gets silence, even when the peer is back."""
    peer, removed = testbed.peer(), testbed.peer()
    session, ended = peer.handshake(), removed.handshake()
    removed.works(ended)
    tap = testbed.tap()
    testbed.wg("set", testbed.interface, "peer", removed.key.text, "remove")
    for _ in range(2):
        removed.send(ended.seal(removed.packet()))
        removed.send(ended.seal())
        testbed.expect_dropped("data of a session whose peer was removed", 0.3)
        removed.configure("allowed-ips", f"{removed.inner[4]}/32,{removed.inner[6]}/128")
    _quiet(testbed, tap, "data of a session whose peer was removed")
    removed.works(_anew(testbed, removed))
    peer.works(session)


@check(56)
def sessions_with_two_newer(testbed: Testbed) -> None:
    """The session before a peer's previous one has ended, so its data gets silence."""
    peer = testbed.peer()
    oldest = peer.handshake()
    peer.works(oldest)
    for _ in range(2):
        newest = _anew(testbed, peer)
        peer.works(newest)
    tap = testbed.tap()
    peer.send(oldest.seal(peer.packet()))
    peer.send(oldest.seal())
    testbed.expect_dropped("data of a session with two newer ones")
    _quiet(testbed, tap, "data of a session with two newer ones")
    peer.works(newest)


@check(57)
def keepalives_stay_outside(testbed: Testbed) -> None:
    """An empty message counts as 32 received bytes, once, and nothing comes out of the tunnel."""
    peer = testbed.peer()
    session = peer.handshake()
    peer.works(session)
    before, _ = peer.transfer()
    keepalives = [session.seal() for _ in range(5)]
    for keepalive in [*keepalives, *keepalives]:
        peer.send(keepalive)
    testbed.expect_dropped("a keepalive")
    received = peer.transfer()[0] - before
    if received != 5 * 32:
        raise Differs(f"5 keepalives, each sent twice, count as {received} bytes, not 160")
    peer.socket.silence(0.1, "a keepalive is not answered")
    peer.works(session)


@check(58)
def lengths_that_lie(testbed: Testbed) -> None:
    """A packet that is not IP, or shorter than its header or its length field, is dropped."""
    peer = testbed.peer()
    session = peer.handshake()
    own, other = peer.inner, testbed.inner(1)
    four = [(length, 40) for length in (0, 1, 19, 61, 64, 81, 1500, 32768, 65535)]
    six = [(length, 40) for length in (41, 57, 1280, 32768, *range(65496, 65536, 3), 65535)]
    lies = [_inner(own[4], other[4], size, length) for length, size in four]
    lies += [_inner(own[6], other[6], size, length) for length, size in six]
    whole = {4: peer.packet(bytes(40)), 6: peer.packet(bytes(40), version=6)}
    lies += [whole[4][:size] for size in (1, 2, 16, 19)] + [b"\x60", whole[6][:20], whole[6][:39]]
    for version in (0, 1, 5, 7, 15):
        lies += [bytes([version << 4 | one[0] & 15]) + one[1:] for one in whole.values()]
    lies += [bytes(1), bytes(16), bytes(100), b"\xff" * 100]
    for lie in lies:
        peer.send(session.seal(lie, pad=False))
        found = testbed.delivered(0.03)
        if found:
            raise Differs(f"inner packet {lie[:48].hex()} of {len(lie)} B: {_came(found)}")
    if found := testbed.delivered(0.3):
        raise Differs(f"an inner packet whose length lies: {_came(found)}")
    peer.works(session)


@check(58)
def packets_are_cut(testbed: Testbed) -> None:
    """A packet is cut to the length in its header if the message carries more."""
    peer = testbed.peer()
    session = peer.handshake()
    own, other = peer.inner, testbed.inner(1)
    bare = (20, _inner(own[4], other[4], 0, 20)), (40, _inner(own[6], other[6], 0, 0))
    for size, header in bare:
        for extra in (0, 1, 12, 700):
            peer.send(session.seal(header + bytes(extra), pad=False))
            testbed.expect_delivered(header, f"a header of {size} B and {extra} B of padding")
    for version in (4, 6):
        packet = peer.packet(os.urandom(55), version=version)
        for extra in (0, 1, 15, 16, 17, 800):
            peer.send(session.seal(packet + bytes(extra), pad=False))
            testbed.expect_delivered(packet, f"a packet with {extra} B of padding")


@check(59)
def padding_stays_outside(testbed: Testbed) -> None:
    """Padding may be anything, even the start of another packet, and is never delivered."""
    peer = testbed.peer()
    session = peer.handshake()
    for version in (4, 6):
        packet = peer.packet(os.urandom(21), version=version)
        for padding in (b"\xff" * 15, os.urandom(3), b"\x01" * 700, packet, packet[:9]):
            peer.send(session.seal(packet + padding, pad=False))
            testbed.expect_delivered(packet, f"a packet with {len(padding)} B that are not zero")
    testbed.expect_dropped("padding is not a packet", 0.2)


@check(60, alone=True, seconds=5)
def delivered_in_order(testbed: Testbed) -> None:
    """Thousands of packets, sent as fast as possible, are delivered in order. Some may be lost, but
    none may overtake an earlier one or come twice."""
    peer = testbed.peer()
    session = peer.handshake()
    _on_one_core()
    for size, burst in ((40, 1), (40, 60), (1000, 60), (1400, 40)):
        messages = [session.seal(_numbered(peer, number, size)) for number in range(4000)]
        testbed.log(f"{len(messages)} messages of {len(messages[0])} B, {burst} in a call")
        for start in range(0, len(messages), burst):
            _send_together(peer.socket, messages[start : start + burst])
        found = testbed.delivered(0.5, len(messages), quietly=True)
        numbers = [_number(packet) for packet in found]
        testbed.log(f"{len(numbers)} of them were delivered")
        if not numbers:
            raise Differs(f"none of {len(messages)} messages was delivered")
        if wrong := _first_disorder(numbers):
            raise Differs(f"packet {wrong[1]} was delivered right after packet {wrong[0]}")
    peer.works(session)


@check(60, alone=True, seconds=5)
def sent_in_order(testbed: Testbed) -> None:
    """Packets from the host leave in their order, with increasing counters."""
    peer = testbed.peer()
    session = peer.handshake()
    peer.works(session)
    wrong = None
    for size in (60, 1400, 60):  # a device's threads may change cores: one try proves nothing
        there = [_numbered(peer, number, size, back=True) for number in range(3000)]
        for packet in there:
            testbed.inject(packet, quietly=True)
        contents = []
        while datagram := peer.socket.receive(0.3, quietly=True):
            contents.append((datagram.data[8:16], peer.opened(session, datagram)))
        testbed.log(f"{len(contents)} of {len(there)} packets of {size} B were sent")
        if not contents:
            raise Differs(f"none of {len(there)} packets was sent")
        counters = [int.from_bytes(counter, "little") for counter, _ in contents]
        numbers = [_number(content) for _, content in contents]
        wrong = _first_disorder(numbers) or _first_disorder(counters)
        if not wrong:
            return
        testbed.log(f"{wrong[1]} came right after {wrong[0]}")
    raise Differs(f"in three of three runs packets overtook others, as {wrong}")


class Window:
    """A session of its own, and what the device's replay window does with its counters.

    Every message carries a number of its own. A message that was to be accepted and did not come
    out is sent again: where it was lost, that is nothing but the first time it arrives.
    """

    def __init__(self, testbed: Testbed, peer: Peer) -> None:
        self.testbed, self.peer = testbed, peer
        testbed.apart()
        self.session = peer.handshake(confirm=False)
        self.numbers = count(1)
        self.last = 0
        self.forbidden: dict[int, int] = {}
        """Counters that must not be accepted, by the number in their message."""

    def message(self, counter: int) -> bytes:
        self.last = next(self.numbers)
        return self.session.seal(_numbered(self.peer, self.last), counter=counter)

    def accepts(self, counters: Iterable[int]) -> None:
        """Checks that each of them is delivered exactly once."""
        counters = list(counters)
        for start in range(0, len(counters), IN_FLIGHT):
            waiting = {}
            for counter in counters[start : start + IN_FLIGHT]:
                message = self.message(counter)
                waiting[self.last] = counter, message
            self._deliver(waiting)

    def refuses(self, counter: int) -> None:
        """Sends a counter that must not be delivered; `settle` checks that at the end."""
        message = self.message(counter)
        self.testbed.log(f"counter {counter}, not to be accepted")
        self.forbidden[self.last] = counter
        for _ in range(2):
            self.peer.socket.send(message, quietly=True)

    def delivers(self, counter: int) -> bool:
        """Returns whether a message with that counter is delivered."""
        message = self.message(counter)
        for _ in range(3):
            self.peer.send(message)
        return self.last in self._numbers(0.3, 1)

    def settle(self, seconds: float = 0.3) -> None:
        """Waits long enough for anything that must not come."""
        self._numbers(seconds, 1)

    def _deliver(self, waiting: dict[int, tuple[int, bytes]]) -> None:
        for _ in range(4):
            for _, message in waiting.values():
                self.peer.socket.send(message, quietly=True)
            while waiting and (found := self._numbers(0.4, len(waiting))):
                for number in found:
                    if number not in waiting:
                        raise Differs(f"the packet with the number {number} is delivered twice")
                    del waiting[number]
            if not waiting:
                return
        counters = [counter for counter, _ in waiting.values()]
        raise Differs(f"new counters in the window are not accepted: {_few(counters)}")

    def _numbers(self, within: float, most: int) -> list[int]:
        found = [_number(one) for one in self.testbed.delivered(within, most, quietly=True)]
        if wrong := [self.forbidden[one] for one in found if one in self.forbidden]:
            raise Differs(f"seen, too old, too great or forged, and accepted: counter {wrong[0]}")
        return found


class Flow:
    """Numbered packets both ways, in any session, none of which may be lost."""

    def __init__(self, testbed: Testbed, peer: Peer, *sessions: Session) -> None:
        self.testbed, self.peer = testbed, peer
        self.sessions = {session.local: session for session in sessions}
        self.numbers = count(1000 * len(sessions))
        self.to_deliver: set[int] = set()
        self.to_receive: set[int] = set()

    def sealed(self, session: Session, how_many: int) -> list[tuple[int, bytes]]:
        """Makes messages to send later, with their numbers."""
        numbers = [next(self.numbers) for _ in range(how_many)]
        return [(number, session.seal(_numbered(self.peer, number))) for number in numbers]

    def carry(self, messages: list[tuple[int, bytes]]) -> None:
        for number, message in messages:
            self.to_deliver.add(number)
            self.peer.send(message)

    def there(self, session: Session, how_many: int) -> None:
        self.carry(self.sealed(session, how_many))

    def back(self, how_many: int) -> None:
        """Lets the device send packets."""
        for _ in range(how_many):
            number = next(self.numbers)
            self.to_receive.add(number)
            self.testbed.inject(_numbered(self.peer, number, back=True), quietly=True)

    def response(self) -> bytes:
        """Returns the response, and counts the data before it."""
        while datagram := self.peer.socket.receive():
            if datagram.kind == RESPONSE:
                return datagram.data
            self._take(datagram)
        raise Differs("no response to an initiation while data flows")

    def settle(self) -> None:
        """Waits until everything has come."""
        while self.to_deliver and (found := self.testbed.delivered(PATIENCE, quietly=True)):
            number = _number(found[0])
            if number not in self.to_deliver:
                raise Differs("a packet was delivered twice over a rekey")
            self.to_deliver.remove(number)
        if self.to_deliver:
            raise Differs(f"{len(self.to_deliver)} packets to the device are lost over a rekey")
        while self.to_receive and (datagram := self.peer.socket.receive()):
            self._take(datagram)
        if self.to_receive:
            raise Differs(f"{len(self.to_receive)} packets of the device are lost over a rekey")

    def _take(self, datagram: Datagram) -> None:
        session = self.sessions.get(int.from_bytes(datagram.data[4:8], "little"))
        if datagram.kind != TRANSPORT or session is None:
            raise Differs(f"over a rekey the device sends {describe(datagram.data)}")
        if content := self.peer.opened(session, datagram):
            self.to_receive.discard(_number(content))


def _numbered(peer: Peer, number: int, size: int = 40, *, back: bool = False) -> bytes:
    """Makes a packet of that many bytes with that number in it; `back` is from the device."""
    ends = peer.inner[4], peer.device.inner(1)[4]
    source, target = reversed(ends) if back else ends
    payload = struct.pack(">Q", number) + bytes(size - 28)
    return packets.ip(source, target, payload, protocol=EXPERIMENT)


def _number(packet: bytes) -> int:
    if len(packet) < 28 or packet[9] != EXPERIMENT:
        raise Differs(f"another packet came out of the tunnel, {packet.hex()}")
    return int(struct.unpack_from(">Q", packet, 20)[0])


def _inner(source: str, target: str, size: int, length: int) -> bytes:
    """Makes a packet with a payload of that size, and that length in its header."""
    return packets.ip(source, target, bytes(size), protocol=EXPERIMENT, length=length)


def _anew(testbed: Testbed, peer: Peer) -> Session:
    testbed.apart()
    return peer.handshake()


def _width(testbed: Testbed, peer: Peer) -> int:
    """Returns how far below the greatest counter one is still accepted."""
    window = Window(testbed, peer)
    greatest, least, most = 1 << 20, 0, 1 << 17
    window.accepts([greatest])
    while least + 1 < most:
        middle = (least + most) // 2
        if window.delivers(greatest - middle):
            least = middle
        else:
            most = middle
    return least


def _quiet(testbed: Testbed, tap: Tap, why: str) -> None:
    """Checks that the device sent nothing to anybody."""
    if found := seen_from_device(testbed, tap):
        raise Differs(f"{why}: expected silence, got {found[0]}")


def _send_together(peer_socket: PeerSocket, messages: list[bytes]) -> None:
    """Sends messages of one length in one call, as a fast sender does."""
    if len(messages) == 1:
        peer_socket.send(messages[0], quietly=True)
        return
    segment = struct.pack("H", len(messages[0]))
    ancillary = [(socket.SOL_UDP, UDP_SEGMENT, segment)]
    peer_socket.udp.sendmsg([b"".join(messages)], ancillary, 0, peer_socket.target)


def _on_one_core() -> None:
    """Stays on one core, since a sender that changes cores may reorder packets."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _first_disorder(numbers: Sequence[int]) -> tuple[int, int] | None:
    return next(((a, b) for a, b in pairwise(numbers) if a >= b), None)


def _few(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:5])
    return f"{shown} and {len(numbers) - 5} more" if len(numbers) > 5 else shown


def _came(found: list[bytes]) -> str:
    return f"delivered {packets.read(found[0]) or found[0].hex()}, {len(found[0])} B"
