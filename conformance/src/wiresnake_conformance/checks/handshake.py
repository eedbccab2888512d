"""A. The handshake, Noise_IKpsk2.

To make the device initiate, the checks give it a packet to send, so that its keepalives do not
matter.
"""

import math
import os
import struct
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from itertools import pairwise

from .. import oracle, packets
from ..oracle import (
    INITIATION,
    NOTHING,
    RESPONSE,
    TRANSPORT,
    Initiated,
    Key,
    Session,
    again_with_macs,
)
from ..peer import Peer
from ..peer_socket import Datagram
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check
from ._common import what_waited

RESERVED = tuple(bit << 8 * at for at in (1, 2, 3) for bit in (0x01, 0x80))
"""Values to add to a type: each reserved byte, with its lowest and its highest bit set."""


class LowOrder(Key):
    """A static key of low order: every DH with it is zero for both ends."""

    def exchange(self, public: bytes) -> bytes:
        return NOTHING


# 2 and 3: length and type of messages.


@check(2, seconds=4)
def initiations_of_the_right_length(testbed: Testbed) -> None:
    """An initiation that is cut or has extra bytes, even with valid MACs, is dropped."""
    peer = testbed.peer()
    for length in (0, 1, 3, 4, 31, 32, 92, 115, 116, 147, 149, 164, 180, 1000):
        message = initiation_of(peer)
        cut = (message + bytes(1000))[:length]
        peer.send(cut)
        if length > 32:
            peer.send(again_with_macs(cut, testbed.public))
        testbed.apart()
    peer.socket.silence(0.5, "initiations of a wrong length")
    peer.works(peer.handshake())


@check(2)
def responses_of_the_right_length(testbed: Testbed) -> None:
    """A response that is cut or has extra bytes, even with valid MACs, is dropped."""
    peer = testbed.peer(endpoint=True)
    initiated = initiated_by_device(peer)
    message, session = respond(peer, initiated)
    for length in (1, 31, 32, 64, 91, 93, 108, 124, 148):
        cut = (message + bytes(100))[:length]
        peer.send(cut)
        if length > 32:
            peer.send(again_with_macs(cut, testbed.public))
    peer.socket.silence(0.5, "responses of a wrong length")
    peer.send(message)
    confirmed(peer, session, "the response of the right length counts")
    peer.works(session)


@check(2, seconds=13, margin=0.5)
def cookie_replies_of_the_right_length(testbed: Testbed) -> None:
    """A cookie in a reply that is cut or has extra bytes is never used."""
    cookies_not_taken(testbed, lambda reply: [reply[:-1], reply + bytes(1), reply + bytes(28)])


@check(2)
def data_of_any_length(testbed: Testbed) -> None:
    """Transport data below 32 B is dropped; above, the content may have any length."""
    peer = testbed.peer()
    session = peer.handshake()
    for length in (4, 15, 16, 17, 31):
        peer.send(session.seal()[:length])
    testbed.expect_dropped("transport data of less than 32 B")
    for length in range(1, 17):
        packet = peer.packet(os.urandom(length))
        peer.send(session.seal(packet, pad=False))
        testbed.expect_delivered(packet, f"transport data of 16+{len(packet)}+16 B is delivered")
    peer.works(session)


@check(3)
def reserved_bytes_of_initiations(testbed: Testbed) -> None:
    """A valid initiation with a nonzero reserved byte is dropped without an answer."""
    peer = testbed.peer()
    for bits in RESERVED:
        message = retyped(initiation_of(peer), bits)
        peer.send(again_with_macs(message, testbed.public))
        peer.socket.silence(0.1, f"an initiation whose first word is {bits | INITIATION:#010x}")
    peer.works(peer.handshake())


@check(3)
def reserved_bytes_of_responses(testbed: Testbed) -> None:
    """A valid response with a nonzero reserved byte is dropped without an answer."""
    peer = testbed.peer(endpoint=True)
    initiated = initiated_by_device(peer)
    message, session = respond(peer, initiated)
    for bits in RESERVED:
        peer.send(again_with_macs(retyped(message, bits), testbed.public))
        peer.socket.silence(0.1, f"a response whose first word is {bits | RESPONSE:#010x}")
    peer.send(message)
    confirmed(peer, session, "the same response with reserved bytes of zero counts")
    peer.works(session)


@check(3, seconds=13, margin=0.5)
def reserved_bytes_of_cookie_replies(testbed: Testbed) -> None:
    """A cookie in a valid reply with a nonzero reserved byte is never used."""
    cookies_not_taken(testbed, lambda reply: [retyped(reply, bits) for bits in RESERVED])


@check(3)
def reserved_bytes_of_data(testbed: Testbed) -> None:
    """Valid transport data with a nonzero reserved byte is dropped."""
    peer = testbed.peer()
    session = peer.handshake()
    for bits in RESERVED:
        peer.send(retyped(session.seal(peer.packet()), bits))
    testbed.expect_dropped("transport data with a reserved byte that is not zero")
    peer.works(session)


# 6: the preshared key.


@check(6)
def preshared_key_of_both(testbed: Testbed) -> None:
    """With the same preshared key at both ends either may initiate. None means 32 zeros."""
    for psk in (os.urandom(32), oracle.NO_PSK):
        peer = testbed.peer(endpoint=True, psk=psk)
        testbed.inject(peer.packet_here())
        session = peer.answer()
        confirmed(peer, session, "the initiator sends what waited")
        peer.works(session)
        testbed.apart()
        peer.works(peer.handshake())


@check(6, seconds=3)
def preshared_key_of_one_side(testbed: Testbed) -> None:
    """With a preshared key at only one end, or different ones, neither end can open a response."""
    own, other = os.urandom(32), os.urandom(32)
    for device, wrong in ((own, oracle.NO_PSK), (oracle.NO_PSK, own), (own, other)):
        peer = testbed.peer(endpoint=True, psk=device)
        initiated = initiated_by_device(peer)
        message, _ = oracle.respond(peer.key, initiated, psk=wrong)
        peer.send(message)
        peer.socket.silence(0.4, "a response with a wrong preshared key")
        message, session = respond(peer, initiated)
        peer.send(message)
        confirmed(peer, session, "the response with the right preshared key counts")
        initiating = peer.initiate()
        response = peer.socket.expect(RESPONSE, "a preshared key has no part in an initiation").data
        try:
            oracle.complete(initiating, peer.key, response, wrong)
        except oracle.Unopened:
            peer.works(peer.complete(initiating, response))
        else:
            raise Differs("the response opens with a wrong preshared key")


@check(6, seconds=18, margin=0.5)
def preshared_key_and_live_session(testbed: Testbed) -> None:
    """Handshakes that fail because of a wrong preshared key, in either role, do not change a live
    session."""
    peer = testbed.peer(psk=os.urandom(32))
    session = peer.handshake()
    peer.works(session)
    testbed.apart()
    peer.initiate()  # its response cannot be opened, so nobody uses that session
    peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    peer.works(session)
    initiated = unanswered(peer, session)
    message, _ = oracle.respond(peer.key, initiated, psk=os.urandom(32))
    peer.send(message)
    peer.socket.silence(0.3, "a response with a wrong preshared key")
    peer.works(session)
    message, renewed = respond(peer, initiated)
    peer.send(message)
    confirmed(peer, renewed, "the response with the right preshared key counts")
    peer.works(renewed)


@check(6)
def preshared_key_of_the_next_session(testbed: Testbed) -> None:
    """A new preshared key is used by the next handshake; a live session does not change."""
    peer = testbed.peer(psk=os.urandom(32))
    session = peer.handshake()
    for psk in (os.urandom(32), oracle.NO_PSK, os.urandom(32)):
        peer.psk = psk
        peer.configure("preshared-key", "/dev/stdin", text=b64encode(psk).decode())
        peer.works(session)
        testbed.apart()
        session = peer.handshake()
        peer.works(session)


# 9, 10 and 11: which initiations are fresh.


@check(9, seconds=3)
def timestamps_must_grow(testbed: Testbed) -> None:
    """An initiation is answered only if its timestamp is greater than any before, even by one."""
    peer = testbed.peer()
    middle = 0x400000006553F10A << 32 | 500_000_000
    peer.handshake(timestamp=stamp(middle))
    for less in (0, 1, 1 << 24, 1 << 32, middle):
        testbed.apart()
        peer.initiate(timestamp=stamp(middle - less))
        peer.socket.silence(0.2, f"a timestamp that is less by {less}/2^32 s")
    session = peer.handshake(timestamp=stamp(middle + 1))
    testbed.apart()
    peer.initiate(timestamp=stamp(middle))
    peer.socket.silence(0.2, "a timestamp that was the greatest once")
    peer.works(session)
    for bit in (8, 16, 24, 32, 40, 72):
        testbed.apart()
        session = peer.handshake(timestamp=stamp(middle + (1 << bit)))
    peer.works(session)


@check(9)
def timestamps_are_kept_for_each_peer(testbed: Testbed) -> None:
    """Another peer's timestamps do not count, and the first must be greater than zero."""
    ahead, behind = testbed.peer(), testbed.peer()
    ahead.handshake(timestamp=stamp(1 << 95))
    behind.initiate(timestamp=stamp(0))
    behind.socket.silence(0.3, "a timestamp of zero")
    behind.works(behind.handshake(timestamp=stamp(1)))


@check(9, seconds=3)
def replayed_initiations(testbed: Testbed) -> None:
    """A repeated initiation, from anywhere, changes nothing."""
    peer = testbed.peer()
    initiating = peer.initiate()
    answer = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    session = peer.complete(initiating, answer.data)
    peer.works(session)
    other = testbed.socket()
    for peer_socket in (peer.socket, other, peer.socket):
        testbed.apart()
        peer_socket.send(initiating.message)
        peer_socket.silence(0.3, "an initiation once more")
    peer.works(session)
    peer.works(peer.handshake())


@check(9, seconds=3, shared=False)
def timestamps_outlive_the_link(testbed: Testbed) -> None:
    """Old initiations are not answered after the interface was down either."""
    peer, timestamp = testbed.peer(), oracle.tai64n()
    initiating = peer.initiate(timestamp=timestamp)
    peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    testbed.link(up=False)
    testbed.link(up=True)
    testbed.apart()
    peer.send(initiating.message)
    peer.socket.silence(0.3, "an initiation from before the interface was down")
    peer.initiate(timestamp=timestamp)
    peer.socket.silence(0.3, "a timestamp from before the interface was down")
    peer.works(peer.handshake())


@check(10)
def timestamps_are_opaque(testbed: Testbed) -> None:
    """Any 96-bit number greater than the last counts, whether it is a time or not."""
    peer = testbed.peer()
    for number in (
        1,
        0xFFFFFFFF,  # nanoseconds of more than a second
        1_000_000_000 << 32 | 1_000_000_000,
        0x400000006553F10A << 32 | 0xFFFFFFFF,
        0x400000006553F10B << 32,
        0x7FFFFFFFFFFFFFFF << 32,
        1 << 95,  # reserved in TAI64
        0xFFFFFFFF << 64 | 0xFFFFFFFF,
        (1 << 96) - 1,
    ):
        testbed.apart()
        session = peer.handshake(timestamp=stamp(number))
    peer.works(session)


@check(11, seconds=3, margin=0.5)
def bursts_of_initiations(testbed: Testbed) -> None:
    """Of a burst of initiations, only one per 1/50 s is answered."""
    peer = testbed.peer()
    for _ in range(6):
        messages = [initiation_of(peer) for _ in range(8)]
        testbed.pause(0.1)
        start = testbed.now()
        for message in messages:
            peer.send(message)
        answers = responses(peer)
        if not answers:
            raise Differs("no initiation of a burst was answered")
        expect_spaced(testbed, answers, start)
    peer.works(peer.handshake())


@check(11, seconds=3, margin=0.5)
def streams_of_initiations(testbed: Testbed) -> None:
    """One initiation per 1/50 s is answered, even if many more come."""
    peer = testbed.peer()
    messages = [initiation_of(peer) for _ in range(40)]
    start = testbed.now()
    for message in messages:
        peer.send(message)
        testbed.pause(0.008)
    answers = responses(peer)
    if len(answers) < 5:
        raise Differs(f"{len(answers)} of {len(messages)} initiations in 0.3 s were answered")
    expect_spaced(testbed, answers, start)
    for _ in range(5):
        testbed.apart()
        peer.handshake()


# 13: when the device initiates.


@check(13, seconds=7, margin=0.5)
def initiations_after_an_initiation(testbed: Testbed) -> None:
    """The next initiation comes at least 5 s after the last one, even with much to send."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    first = peer.socket.expect(INITIATION, "the device initiates")
    testbed.expect_between(next_initiation(peer)[1] - first.time, 4.9, 6.5, "another comes after")


@check(13, seconds=7, margin=0.5)
def initiations_after_a_response(testbed: Testbed) -> None:
    """An initiation comes at least 5 s after a response, even with much to send."""
    peer = testbed.peer()
    peer.initiate()
    response = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    testbed.expect_between(
        next_initiation(peer)[1] - response.time, 4.9, 6.5, "its own comes after"
    )


# 14: what sender indices reveal.


@check(14, seconds=8)
def indices_are_random(testbed: Testbed) -> None:
    """Sender indices of many handshakes are independent: no index or difference occurs twice, no
    bit is constant, no bit depends on another one or on a bit of the previous index."""
    peers = [testbed.peer(endpoint=True) for _ in range(24)]
    turns = list[list[int]]()
    for turn in range(12):
        turns.append([])
        for peer in peers:
            if turn:
                peer.initiate()
            else:
                testbed.inject(peer.packet_here(), quietly=True)
            turns[-1].append(sender_index(peer, RESPONSE if turn else INITIATION))
            testbed.pause(0.01)  # a hundred a second is load to some
    indices = [index for turn in turns for index in turn]
    expect_random(indices, list(pairwise(indices)), "one after another")
    of_a_peer = [pair for own in zip(*turns, strict=True) for pair in pairwise(own)]
    expect_random(indices, of_a_peer, "one after another of the same peer")


# 16: unexpected responses.


@check(16)
def responses_to_nothing(testbed: Testbed) -> None:
    """A response for an index without a pending handshake, or to another initiation, is dropped
    without an answer and changes nothing."""
    peer, other = testbed.peer(endpoint=True), testbed.peer(endpoint=True)
    initiated, elsewhere = initiated_by_device(peer), initiated_by_device(other)
    for source, receiver in (
        (initiated, 0),
        (initiated, initiated.index ^ 1),
        (initiated, elsewhere.index),
        (elsewhere, initiated.index),
    ):
        message, _ = oracle.respond(peer.key, source, receiver=receiver)
        peer.send(message)
        peer.socket.silence(0.2, "a response for another index than that of its initiation")
    for one, own in ((peer, initiated), (other, elsewhere)):
        message, session = respond(one, own)
        one.send(message)
        confirmed(one, session, "the right response still counts")
        one.works(session)


@check(16)
def responses_of_the_past(testbed: Testbed) -> None:
    """A response for the index of a session, in either role, is dropped without an answer and
    changes nothing."""
    peer = testbed.peer(endpoint=True)
    initiated = initiated_by_device(peer)
    message, session = respond(peer, initiated)
    peer.send(message)
    confirmed(peer, session, "the right response counts")
    again, _ = respond(peer, initiated)
    for late in (message, again):
        peer.send(late)
        peer.socket.silence(0.2, "another response to the same initiation")
    peer.works(session)
    renewed = peer.handshake()
    peer.works(renewed)
    for index in (session.remote, renewed.remote):
        message, _ = oracle.respond(peer.key, initiated, receiver=index)
        peer.send(message)
        peer.socket.silence(0.2, "a response for the index of a session")
    peer.works(renewed)


@check(16, seconds=7)
def responses_to_a_replaced_initiation(testbed: Testbed) -> None:
    """Once the device has initiated again only the newer initiation can be answered."""
    peer = testbed.peer(endpoint=True)
    older = initiated_by_device(peer)
    newer = peer.awaited(6.5)
    message, _ = respond(peer, older)
    peer.send(message)
    peer.socket.silence(0.3, "a response to the older of two initiations")
    message, session = respond(peer, newer)
    peer.send(message)
    confirmed(peer, session, "the response to the newer initiation counts")
    peer.works(session)


# 18 and 19: points of low order.


@check(18, seconds=4)
def low_order_ephemerals_of_initiations(testbed: Testbed) -> None:
    """es: otherwise valid initiations whose ephemeral key makes every DH zero get no answer."""
    peer = testbed.peer()
    for point in oracle.LOW_ORDER_POINTS:
        testbed.apart()
        peer.initiate(point=point)
        peer.socket.silence(0.2, f"an initiation with the ephemeral key {point.hex()}")
    testbed.apart()
    peer.works(peer.handshake())


@check(18, seconds=4)
def low_order_statics_of_initiations(testbed: Testbed) -> None:
    """ss and se: otherwise valid initiations of peers whose static key makes every DH zero get no
    answer."""
    for point in oracle.LOW_ORDER_POINTS:
        peer = testbed.peer(key=LowOrder(bytes(32), point))
        peer.initiate()
        peer.socket.silence(0.2, f"an initiation with the static key {point.hex()}")
    peer = testbed.peer()
    peer.works(peer.handshake())


@check(18, seconds=4)
def low_order_ephemerals_of_responses(testbed: Testbed) -> None:
    """ee and se: otherwise valid responses whose ephemeral key makes every DH zero make no session;
    the right response still does."""
    peer = testbed.peer(endpoint=True)
    initiated = initiated_by_device(peer)
    for point in oracle.LOW_ORDER_POINTS:
        message, _ = oracle.respond(peer.key, initiated, point=point)
        peer.send(message)
        peer.socket.silence(0.2, f"a response with the ephemeral key {point.hex()}")
    message, session = respond(peer, initiated)
    peer.send(message)
    confirmed(peer, session, "the right response still counts")
    peer.works(session)


@check(19, seconds=4)
def low_order_peers(testbed: Testbed) -> None:
    """Any 32 bytes can be configured as a public key, but nothing is ever sent to a peer whose key
    is of low order."""
    garbage = testbed.peer(key=LowOrder(bytes(32), b"\xff" * 32))
    peers = list[Peer]()
    for point in oracle.LOW_ORDER_POINTS:
        peers.append(testbed.peer(key=LowOrder(bytes(32), point), endpoint=True, keepalive=1))
        testbed.inject(peers[-1].packet_here())
    configured = {key for key, *_ in testbed.show("endpoints")}
    if missing := [peer.key.text for peer in (garbage, *peers) if peer.key.text not in configured]:
        raise Differs(f"the peer {missing[0]} was configured and is not there")
    testbed.pause(2)
    for peer in peers:
        peer.socket.silence(0.05, f"the public key {peer.key.public.hex()}")
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    session = peer.answer()
    confirmed(peer, session, "the device initiates to a peer with a proper key")
    peer.works(session)


# 21 and 22: the device's own key.


@check(21, shared=False)
def private_keys_are_clamped(testbed: Testbed) -> None:
    """A private key is clamped when it is set, for display and for use."""
    for private in (b"\xff" * 32, b"\x07" + bytes(31), os.urandom(31) + b"\xbf"):
        clamped = bytes([private[0] & 248]) + private[1:31] + bytes([private[31] & 63 | 64])
        set_private_key(testbed, private)
        testbed.key = Key.of(clamped)
        for name, expected in (
            ("private-key", testbed.key.private_text),
            ("public-key", testbed.key.text),
        ):
            shown = testbed.wg("show", testbed.interface, name).strip()
            testbed.log(f"the {name} shown is {shown}")
            if shown != expected:
                raise Differs(f"private key {private.hex()}: {name} is {shown}, not {expected}")
        peer = testbed.peer()
        peer.works(peer.handshake())


@check(22, seconds=4, shared=False)
def without_a_private_key(testbed: Testbed) -> None:
    """Without a private key nothing is answered or sent. When it is set, waiting packets are sent
    at once."""
    known, fresh = testbed.peer(), testbed.peer(endpoint=True)
    known.works(known.handshake())
    testbed.wg("set", testbed.interface, "private-key", "/dev/null")
    testbed.log("the device has no private key any more")
    testbed.apart()
    known.initiate()
    known.socket.silence(0.3, "an initiation while the device has no private key")
    waiting = [(peer, peer.packet_here(os.urandom(8))) for peer in (known, fresh)]
    for _, packet in waiting:
        testbed.inject(packet)
    testbed.pause(0.7)
    for peer, _ in waiting:
        peer.socket.silence(0, "a packet to send while the device has no private key")
    set_private_key(testbed, testbed.key.private)
    for peer, packet in waiting:
        session = peer.answer()
        if not what_waited(peer, session).startswith(packet):
            raise Differs("what was sent at last is not the packet that waited")
        peer.works(session)


# 23 and 24: when a session may be used.


@check(23, seconds=3)
def responder_waits_to_be_asked(testbed: Testbed) -> None:
    """The responder sends nothing in a new session before it has received a packet in it. Then
    waiting packets follow."""
    for first in (b"", packets.udp("198.18.0.1", "198.18.0.2")):
        peer = testbed.peer()
        session = peer.handshake(confirm=False)
        packet = peer.packet_here(os.urandom(8))
        testbed.inject(packet)
        unused(peer, 0.6, "a session that its initiator has not used yet")
        forged = bytearray(session.seal())
        forged[-1] ^= 1
        peer.send(bytes(forged))
        unused(peer, 0.3, "a forged packet confirms no session")
        peer.send(session.seal(first))
        if not what_waited(peer, session).startswith(packet):
            raise Differs("what was sent at last is not the packet that waited")
        peer.works(session)


@check(23)
def responder_keeps_its_session_meanwhile(testbed: Testbed) -> None:
    """Until the new session is confirmed the responder sends in the old one, and accepts the old
    one's packets afterwards."""
    peer = testbed.peer()
    old = peer.handshake()
    peer.works(old)
    testbed.apart()
    new = peer.handshake(confirm=False)
    peer.works(old)
    peer.send(new.seal())
    peer.works(new)
    packet = peer.packet(os.urandom(8))
    peer.send(old.seal(packet))
    testbed.expect_delivered(packet, "a packet of the session before is delivered")
    peer.works(new)


@check(24, seconds=3)
def initiator_sends_what_waited(testbed: Testbed) -> None:
    """On a response the initiator sends waiting packets in order, and no keepalive after them."""
    peer = testbed.peer(endpoint=True)
    waiting = [peer.packet_here(os.urandom(8)) for _ in range(3)]
    for packet in waiting:
        testbed.inject(packet)
    session = peer.answer()
    for packet in waiting:
        content = peer.received(session, "what waited is sent")
        if not content:
            raise Differs("a keepalive came, though there are packets that waited")
        if content[: len(packet)] != packet:
            raise Differs("what came is not the next of the packets that waited")
    peer.socket.silence(1, "what waited has confirmed the session")
    peer.works(session)


@check(24, seconds=18, margin=0.5)
def initiator_confirms_by_a_keepalive(testbed: Testbed) -> None:
    """On a response, an initiator with nothing to send confirms it by one keepalive. The session is
    used at once, and the previous one still receives."""
    peer = testbed.peer()
    old = peer.handshake()
    message, new = respond(peer, unanswered(peer, old))
    peer.send(message)
    if peer.received(new, "the initiator confirms the session"):
        raise Differs("the first message of the session is not a keepalive")
    peer.socket.silence(1, "one keepalive is enough")
    peer.works(new)
    packet = peer.packet(os.urandom(8))
    peer.send(old.seal(packet))
    testbed.expect_delivered(packet, "a packet of the session before is delivered")
    peer.works(new)


@check(24, seconds=7, margin=0.5)
def initiator_keeps_an_unconfirmed_session(testbed: Testbed) -> None:
    """An unconfirmed session in which the device is the responder still receives after the device
    has initiated another one."""
    peer = testbed.peer()
    pending = peer.handshake(confirm=False)
    message, new = respond(peer, next_initiation(peer)[0])
    peer.send(message)
    confirmed(peer, new, "the initiator sends what waited")
    packet = peer.packet(os.urandom(8))
    peer.send(pending.seal(packet))
    testbed.expect_delivered(packet, "a packet of the session that waited is delivered")
    peer.works(new)


# 28: strangers.


@check(28, seconds=3)
def strangers(testbed: Testbed) -> None:
    """Initiations with a static key that is not, or no longer, configured, or that belongs to
    somebody else, get no answer."""
    peer, stranger = testbed.peer(), testbed.peer(configured=False)
    session = peer.handshake()
    stranger.initiate()
    stranger.socket.silence(0.5, "an initiation of an unknown key")
    for peer_socket in (stranger.socket, peer.socket):
        testbed.apart()
        peer_socket.send(
            oracle.initiate(stranger.key, testbed.public, static=peer.key.public).message
        )
        peer_socket.silence(0.3, "an initiation of somebody without the private key")
    peer.works(session)
    stranger.configure("allowed-ips", f"{stranger.inner[4]}/32")
    session = stranger.handshake()
    stranger.works(session)
    stranger.configure("remove")
    testbed.apart()
    stranger.initiate()
    stranger.socket.silence(0.5, "an initiation of a key that was removed")
    stranger.send(session.seal(stranger.packet()))
    testbed.expect_dropped("a packet of a peer that was removed", 0.3)
    testbed.apart()
    peer.works(peer.handshake())


# Helpers.


def initiation_of(peer: Peer) -> bytes:
    return oracle.initiate(peer.key, peer.device.public).message


def initiated_by_device(peer: Peer) -> Initiated:
    """Gives the device a packet, which waits, and returns its initiation."""
    peer.device.inject(peer.packet_here())
    return peer.awaited()


def respond(peer: Peer, initiated: Initiated) -> tuple[bytes, Session]:
    return oracle.respond(peer.key, initiated, psk=peer.psk)


def next_initiation(peer: Peer) -> tuple[Initiated, float]:
    """Returns the next initiation and its time, while there is always more to send to the peer."""
    for _ in range(14):
        peer.device.inject(peer.packet_here())
        datagram = peer.socket.receive(0.5)
        if datagram and datagram.kind == INITIATION:
            return oracle.consume(peer.key, datagram.data), datagram.time
        if datagram and datagram.kind == TRANSPORT:
            raise NotApplicable("uses a session before it is confirmed, so needs no other")
    raise Differs("the device does not initiate within 7 s, though there is much to send")


def unanswered(peer: Peer, session: Session) -> Initiated:
    """Returns the device's initiation after data without an answer, when no packet waits."""
    peer.device.pause(0.5)  # some devices compare times only by coarse ticks
    peer.socket.drain()
    peer.device.inject(peer.packet_here())
    peer.received(session, "the device sends through a session")
    return peer.awaited(17)


def confirmed(peer: Peer, session: Session, why: str) -> None:
    """Checks that the device sends in a session, one message or several."""
    peer.received(session, why)
    while datagram := peer.socket.receive(0.1):
        peer.opened(session, datagram)


def unused(peer: Peer, seconds: float, why: str) -> None:
    """Checks that no transport data comes; other messages do not matter."""
    deadline = time.monotonic() + seconds
    while datagram := peer.socket.receive(max(deadline - time.monotonic(), 0)):
        if datagram.kind == TRANSPORT:
            raise Differs(f"{why}: the device sent {oracle.describe(datagram.data)}")


def sender_index(peer: Peer, kind: int) -> int:
    """Returns the sender index of the next message of that kind."""
    while datagram := peer.socket.receive():
        if datagram.kind == kind:
            return int(struct.unpack_from("<I", datagram.data, 4)[0])
    raise Differs(f"no {oracle.KINDS[kind]} came")


def retyped(message: bytes, bits: int) -> bytes:
    """Sets more bits in the first word of the message."""
    (word,) = struct.unpack_from("<I", message)
    return struct.pack("<I", word | bits) + message[4:]


def cookies_not_taken(testbed: Testbed, spoil: Callable[[bytes], list[bytes]]) -> None:
    """Checks that the next initiation has no mac2 after these changed cookie replies."""
    peer = testbed.peer(endpoint=True)
    initiated, cookie = initiated_by_device(peer), os.urandom(16)
    for reply in spoil(
        oracle.cookie_reply(peer.key.public, initiated.index, initiated.mac1, cookie)
    ):
        peer.send(reply)
    initiated = peer.awaited(6.5)
    if initiated.message[132:] != bytes(16):
        raise Differs("the next initiation has a mac2")
    peer.send(oracle.cookie_reply(peer.key.public, initiated.index, initiated.mac1, cookie))
    message = peer.awaited(6.5).message
    if message[132:] != oracle.mac(cookie, message[:132]):
        raise Differs("the cookie of a proper reply is not used")


def stamp(number: int) -> bytes:
    return number.to_bytes(12)


def responses(peer: Peer) -> list[Datagram]:
    """Returns all responses until none has come for some time."""
    found: list[Datagram] = []
    while datagram := peer.socket.receive(0.15 if found else 2):
        if datagram.kind == RESPONSE:
            found.append(datagram)
    return found


def expect_spaced(testbed: Testbed, answers: Sequence[Datagram], start: float) -> None:
    """Checks that there are not too many answers for the time since the first initiation, by a
    clock with ticks of 10 ms."""
    took = answers[-1].time - start
    testbed.log(f"{len(answers)} responses in {took:.3f} s")
    if len(answers) > 1 + (took + 0.01) * 50:
        raise Differs(f"{len(answers)} initiations were answered in {took:.3f} s, above 50/s")


def expect_random(indices: Sequence[int], pairs: Sequence[tuple[int, int]], which: str) -> None:
    """Checks each property with a chance of failure below one in a million."""
    if len(set(indices)) < len(indices) - 1:
        raise Differs(f"only {len(set(indices))} of {len(indices)} indices are different")
    steps = {(after - before) & 0xFFFFFFFF for before, after in pairs}
    if len(steps) < len(pairs) - 1:
        raise Differs(f"only {len(steps)} steps between {len(pairs)} pairs of indices, {which}")
    for bit in range(32):
        ones = sum(index >> bit & 1 for index in indices)
        if unlikely(ones, len(indices)):
            raise Differs(f"bit {bit} is set in {ones} of {len(indices)} indices")
    for first in range(32):
        for second in range(32):
            same = sum(not (before >> first ^ after >> second) & 1 for before, after in pairs)
            if unlikely(same, len(pairs)):
                raise Differs(
                    f"bit {second} of an index is bit {first} of the one before in {same} of"
                    f" {len(pairs)} cases, {which}"
                )
        for second in range(first):
            same = sum(not (index >> first ^ index >> second) & 1 for index in indices)
            if unlikely(same, len(indices)):
                raise Differs(f"bits {first} and {second} are alike in {same} of {len(indices)}")


def unlikely(successes: int, tosses: int) -> bool:
    """Returns whether this is more than 6.5 standard deviations from a fair coin."""
    return abs(2 * successes - tosses) > 6.5 * math.sqrt(tosses)


def set_private_key(testbed: Testbed, private: bytes) -> None:
    text = b64encode(private).decode()
    testbed.wg("set", testbed.interface, "private-key", "/dev/stdin", text=text)
    testbed.log("the device has a private key")
