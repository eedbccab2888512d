"""B. MACs, cookies, and what happens under load.

Load comes and goes with the device's queue: a flood that it nearly keeps up with leaves it gaps of
some ms without load. So where a check needs load it counts, or tries again.
"""

import os
import struct
import time
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2s
from typing import Any

from .. import oracle
from ..oracle import (
    COOKIE_REPLY,
    INITIATION,
    RESPONSE,
    TRANSPORT,
    Session,
    Unopened,
    again_with_macs,
    describe,
    digest,
    initiate,
    mac,
    with_macs,
)
from ..peer import Peer
from ..peer_socket import Datagram, PeerSocket
from ..testbed import Testbed
from ..verdict import Differs, check


@check(29)
def mac1_is_keyed_by_the_responder(testbed: Testbed) -> None:
    """An initiation is ignored unless its mac1 is BLAKE2s-128 of everything before it, keyed with
    the hash of the label and the device's public key."""
    peer = testbed.peer()
    right = digest(b"mac1----", testbed.public)
    keys = {
        "no label": digest(testbed.public),
        "the label of cookies": digest(b"cookie--", testbed.public),
        "the initiator's key": digest(b"mac1----", peer.key.public),
        "the key itself": testbed.public,
        "a zero key": bytes(32),
    }
    message = initiate(peer.key, testbed.public).message
    body, mac1 = message[:116], message[116:132]
    wrong = {f"mac1 with {name}": mac(key, body) for name, key in keys.items()}
    wrong |= {
        "mac1 without the first word": mac(right, body[4:]),
        "mac1 of more than is before it": mac(right, body, bytes(16)),
        "mac1 cut from 32 bytes": blake2s(body, key=right).digest()[:16],
        "mac1 zero": bytes(16),
    }
    for bit in (0, 7, 63, 64, 127):
        flipped = int.from_bytes(mac1) ^ 1 << bit
        wrong[f"mac1 with bit {bit} flipped"] = flipped.to_bytes(16)
    for name, other in wrong.items():
        testbed.log(name)
        peer.send(body + other + bytes(16))
    peer.socket.silence(0.4, "initiations with a wrong mac1")
    # The earlier ones had the same timestamp. If one had been opened, this would be a replay.
    peer.send(message)
    peer.socket.expect(RESPONSE, "the same initiation with the right mac1 is answered")


@check(30)
def wrong_mac1_is_silent(testbed: Testbed) -> None:
    """Handshake messages with a wrong mac1 get no answer without load, whatever their mac2."""
    peer = testbed.peer()
    for message in _with_wrong_mac1(peer, [None, os.urandom(16)]):
        peer.send(message)
    peer.socket.silence(0.5, "messages with a wrong mac1")
    peer.works(peer.handshake())


@check(30, alone=True, seconds=5, shared=False)
def wrong_mac1_is_silent_under_load(testbed: Testbed) -> None:
    """Under load, too, messages with a wrong mac1 get neither a cookie nor a response, not even
    with the right cookie."""
    peer = testbed.peer()
    with testbed.load():
        cookie = peer.cookie()
        messages = [m for _ in range(5) for m in _with_wrong_mac1(peer, [None, cookie])]
        for message in messages:
            peer.socket.send(message, quietly=True)
        testbed.pause(0.5)
        senders = {int.from_bytes(message[4:8], "little") for message in messages}
        for datagram in peer.socket.drain():
            if datagram.receiver in senders:
                raise Differs(f"a wrong mac1 under load gets {describe(datagram.data)}")
        _taken(peer, "an initiation with the right mac1 and cookie", cookie=cookie)


def _with_wrong_mac1(peer: Peer, cookies: Sequence[bytes | None]) -> list[bytes]:
    """Makes valid initiations and responses, except mac1; with a cookie their mac2 is right."""
    messages = []
    for cookie in cookies:
        initiation = initiate(peer.key, peer.device.public).message[:-32]
        response = struct.pack("<I", RESPONSE) + os.urandom(56)
        for body in (initiation, response):
            rest = body + os.urandom(16)
            messages.append(rest + (bytes(16) if cookie is None else mac(cookie, rest)))
    return messages


@check(31)
def any_mac2_without_load(testbed: Testbed) -> None:
    """Without load mac2 may have any value, in an initiation and in a response."""
    peer = testbed.peer()
    for mac2 in (bytes(16), b"\xff" * 16, bytes(15) + b"\1", os.urandom(16)):
        testbed.apart()
        initiating = initiate(peer.key, testbed.public)
        peer.send(initiating.message[:-16] + mac2)
        peer.socket.expect(RESPONSE, f"an initiation with the mac2 {mac2.hex()} is answered")
    other = testbed.peer(endpoint=True)
    testbed.inject(other.packet_here())
    session = other.answer(cookie=os.urandom(16))
    other.received(session, "a response with any mac2 is taken")
    other.works(session)


@check(32, alone=True, seconds=6, shared=False)
def one_cookie_reply_and_no_more(testbed: Testbed) -> None:
    """Under load an initiation without the right mac2 gets only a cookie reply of 64 bytes. The
    device does not open it, so the same initiation is answered with the cookie."""
    peer = testbed.peer()
    with testbed.load():
        for mac2 in ({}, {"cookie": os.urandom(16)}):
            answers = _answers(peer, 12, **mac2)
            if not answers[COOKIE_REPLY,]:
                raise Differs(f"wanted one cookie reply to an initiation, got {_summary(answers)}")
            if any(len(kinds) > 1 for kinds in answers):
                raise Differs(f"several answers to one initiation: {_summary(answers)}")
            if answers[RESPONSE,] > 4:  # that many may fall into a gap of the load
                raise Differs(f"responses without a cookie: {_summary(answers)}")
        refused, reply = peer.insist([COOKIE_REPLY])
        if reply is None:
            raise Differs("no cookie reply any more")
        cookie = _opened(reply.data, testbed.public, refused.mac1, refused.index)
        again = again_with_macs(refused.message, testbed.public, cookie)
        if _until(peer.socket, again, refused.index, (RESPONSE,)) is None:
            raise Differs("the initiation that was refused gets no response with the right mac2")


@check(33, alone=True, seconds=8, shared=False)
def cookies_are_rate_limited(testbed: Testbed) -> None:
    """Under load, initiations with the right mac2 from one IPv4 address are answered 5 at once and
    20 per second, for all ports and peers. Others get nothing, not even a cookie."""
    peers = [testbed.peer() for _ in range(24)]
    address = "198.51.100.101"
    peer_sockets = [testbed.socket(address), testbed.socket(address)]
    other = testbed.socket("198.51.100.102")
    rounds = []
    with testbed.load():
        cookies = {}
        for peer_socket in (*peer_sockets, other):
            peers[0].socket = peer_socket
            cookies[peer_socket.name] = peers[0].cookie()
        for _ in range(3):
            testbed.pause(0.6)
            for peer_socket in peer_sockets:
                peer_socket.drain()
            began, answers = testbed.now(), Counter[int]()
            messages = [
                initiate(peer.key, testbed.public, cookie=cookies[peer_sockets[i % 2].name]).message
                for i, peer in enumerate(peers)
            ]
            for i, message in enumerate(messages):
                peer_sockets[i % 2].send(message, quietly=True)
            last = began
            while datagram := peer_sockets[0].receive(0.15) or peer_sockets[1].receive(0.15):
                answers[datagram.kind] += 1
                last = datagram.time
            # The tokens of the time in between, and one for rounding.
            allowed = 5 + int(20 * (last - began)) + 1
            for peer in peers[-2:]:
                peer.socket = other
            elsewhere = _kinds(peers[-2:], cookies[other.name]).count(RESPONSE)
            rounds.append(
                f"{answers[RESPONSE]} responses and {answers[COOKIE_REPLY]} cookie replies,"
                f" {elsewhere} responses at another address"
            )
            testbed.log(f"{rounds[-1]}; {allowed} allowed")
            enough = 0 < answers[RESPONSE] <= allowed and elsewhere
            if enough and not answers[COOKIE_REPLY]:
                return
    raise Differs(
        f"{len(peers)} initiations with the right mac2 from one address, and 2 from another:"
        f" {'; then '.join(rounds)}; wanted 5, 0 and 2"
    )


def _kinds(peers: Sequence[Peer], cookie: bytes) -> list[int]:
    """Returns the answers to initiations of these peers, from one socket, with that cookie."""
    found = []
    for peer in peers:
        for _ in range(10):
            peer.initiate(cookie=cookie)
            if datagram := peer.socket.receive(0.2):
                found.append(datagram.kind)
                break
    return found


@check(34, alone=True, seconds=6, shared=False)
def cookies_are_bound_to_the_address_and_port(testbed: Testbed) -> None:
    """Under load a cookie is valid only for the address and port that it was sent to."""
    peer = testbed.peer()
    own = peer.socket
    port = own.udp.getsockname()[1]
    with testbed.load():
        cookie = peer.cookie()
        if peer.cookie() != cookie:
            raise Differs("two cookies for one address and port, a moment apart")
        for name, peer_socket in {
            "port": testbed.socket(),
            "address": testbed.socket("198.51.100.101", port=port),
        }.items():
            peer.socket = peer_socket
            answers = _answers(peer, 8, cookie=cookie)
            if answers[RESPONSE,] > 3:
                raise Differs(f"the cookie of another {name} was taken: {_summary(answers)}")
            if not answers[COOKIE_REPLY,]:
                raise Differs(f"the cookie of another {name} gets no new one: {_summary(answers)}")
        peer.socket = own
        _taken(peer, "an initiation with the right cookie", cookie=cookie)


@check(36, alone=True, seconds=5, shared=False)
def cookie_replies_are_sealed(testbed: Testbed) -> None:
    """A cookie reply is encrypted with the hash of the device's public key and the mac1 of the
    message, has its sender index, and a fresh random nonce of 24 bytes."""
    peer = testbed.peer()
    nonces, cookies = list[bytes](), set[bytes]()
    with testbed.load():
        for _ in range(24):
            refused, reply = peer.insist([COOKIE_REPLY])
            if reply is None:
                raise Differs("no cookie reply to an initiation without mac2 under load")
            cookies.add(_opened(reply.data, testbed.public, refused.mac1, refused.index))
            nonces.append(reply.data[8:32])
    if bytes(16) in cookies:
        raise Differs("a cookie of zeros")
    # 24 random bytes have 23 different values on average; fewer than 8 is practically impossible.
    if few := [at for at in range(24) if len({nonce[at] for nonce in nonces}) < 8]:
        raise Differs(f"the nonces are not random: bytes {few} hardly change")


@check(37, seconds=13, margin=3)
def a_cookie_must_answer_the_last_mac1(testbed: Testbed) -> None:
    """The device accepts a cookie for the last mac1 that it sent, but not one for an older mac1 or
    an unknown index, or that cannot be decrypted. The next initiation has its mac2."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    first = peer.awaited()
    _has_mac2(first.message, None, "the first initiation")
    own, wrong, right = peer.key.public, os.urandom(16), os.urandom(16)
    reply = oracle.cookie_reply(own, first.index, first.mac1, wrong)
    for name, bad in {
        "for another index": oracle.cookie_reply(own, first.index ^ 1, first.mac1, wrong),
        "to another mac1": oracle.cookie_reply(own, first.index, os.urandom(16), wrong),
        "under another key": oracle.cookie_reply(testbed.public, first.index, first.mac1, wrong),
        "with a bit flipped": reply[:-1] + bytes([reply[-1] ^ 1]),
    }.items():
        testbed.log(f"a cookie reply {name}")
        peer.send(bad)
    second = peer.awaited(8)
    _has_mac2(second.message, None, "after cookie replies that are wrong")
    peer.send(oracle.cookie_reply(own, second.index, second.mac1, right))
    peer.send(oracle.cookie_reply(own, second.index, first.mac1, wrong))
    third = peer.awaited(8)
    _has_mac2(third.message, right, "after a right cookie reply and one to an older mac1")
    message, session = oracle.respond(peer.key, third)
    peer.send(message)
    peer.received(session, "the handshake goes on")


@check(37, seconds=8, margin=3)
def one_cookie_per_mac1(testbed: Testbed) -> None:
    """The device accepts the first of two right cookie replies to one message."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    initiated = peer.awaited()
    cookies = [os.urandom(16), os.urandom(16)]
    for cookie in cookies:
        peer.send(oracle.cookie_reply(peer.key.public, initiated.index, initiated.mac1, cookie))
    _has_mac2(peer.awaited(8).message, cookies[0], "after two cookie replies to one mac1")


@check(37, seconds=1)
def a_cookie_may_come_for_a_session(testbed: Testbed) -> None:
    """A cookie reply to an initiation is accepted even if its session already has the index. The
    next message with MACs, here a response, has its mac2."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    initiated = peer.awaited()
    message, session = oracle.respond(peer.key, initiated)
    peer.send(message)
    peer.received(session, "the device sends through a session")
    cookie = os.urandom(16)
    own, mac1 = peer.key.public, initiated.mac1
    peer.send(oracle.cookie_reply(own, initiated.index, mac1, cookie))
    testbed.pause(0.1)
    peer.socket.drain()
    peer.initiate()
    response = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    _has_mac2(response.data, cookie, "the response after a cookie for a session")


@check(38, seconds=18, margin=0.5)
def cookies_tick_no_timers(testbed: Testbed) -> None:
    """A cookie does not count as an answer: 15 s after data without an answer the device initiates
    to the old endpoint, although a cookie came meanwhile from elsewhere."""
    peer = testbed.peer(endpoint=True)
    elsewhere = testbed.socket()
    testbed.inject(peer.packet_here())
    initiated = peer.awaited()
    message, session = oracle.respond(peer.key, initiated)
    peer.send(message)
    data = peer.socket.expect(TRANSPORT, "the device sends through a session")
    testbed.pause(2)
    data = [data, *peer.socket.drain()][-1]  # perhaps a keepalive came before it
    peer.opened(session, data)
    own, mac1 = peer.key.public, initiated.mac1
    elsewhere.send(oracle.cookie_reply(own, initiated.index, mac1, os.urandom(16)))
    again = peer.socket.expect(INITIATION, "the device gives up waiting for an answer", 19)
    testbed.expect_between(again.time - data.time, 14.9, 17.3, "the device initiates after")
    elsewhere.silence(0.1, "where the cookie came from")


@check(38, seconds=7, margin=0.5)
def cookies_wait_for_the_next_initiation(testbed: Testbed) -> None:
    """After accepting a cookie the device sends nothing at once. It initiates again after 5 s as
    usual, to the old endpoint, although the cookie came from elsewhere."""
    peer = testbed.peer(endpoint=True)
    known, elsewhere = peer.socket.name, testbed.socket()
    testbed.inject(peer.packet_here())
    datagram = peer.socket.expect(INITIATION, "the device initiates")
    first = oracle.consume(peer.key, datagram.data)
    elsewhere.send(oracle.cookie_reply(peer.key.public, first.index, first.mac1, os.urandom(16)))
    elsewhere.silence(0.3, "a cookie reply")
    if peer.endpoint() != known:
        raise Differs(f"the cookie reply moved the endpoint to {peer.endpoint()}")
    again = peer.socket.expect(INITIATION, "the device initiates again", 8)
    testbed.expect_between(again.time - datagram.time, 4.95, 7.3, "the next initiation comes after")
    elsewhere.silence(0.1, "where the cookie came from")


@check(40, seconds=1)
def a_response_can_be_answered_by_a_cookie(testbed: Testbed) -> None:
    """A cookie reply to the device's response is accepted: its next response has mac2."""
    peer = testbed.peer()
    cookie = os.urandom(16)
    for expected in (None, cookie):
        initiating = peer.initiate()
        response = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered").data
        session = peer.complete(initiating, response)
        _has_mac2(response, expected, "the response")
        own, mac1 = peer.key.public, response[60:76]
        peer.send(oracle.cookie_reply(own, session.remote, mac1, cookie))
        testbed.pause(0.1)
    peer.works(session)


@check(40, alone=True, seconds=8, shared=False)
def responses_need_a_cookie_too(testbed: Testbed) -> None:
    """Under load the device answers a response by a cookie reply for its sender index, and accepts
    the same response with the mac2 of this cookie."""
    with testbed.load():
        for _ in range(4):
            peer = testbed.peer(endpoint=True)
            if _response_under_load(testbed, peer):
                return
    raise Differs("no response without a cookie gets a cookie reply under load")


def _response_under_load(testbed: Testbed, peer: Peer) -> bool:
    """Returns False if the device accepted the response without a cookie, in a gap of the load."""
    testbed.inject(peer.packet_here())
    initiated = peer.awaited(4)
    message, session = oracle.respond(peer.key, initiated)
    reply = _until(peer.socket, message, session.local, (COOKIE_REPLY, TRANSPORT))
    if reply is None:
        raise Differs("no cookie reply to a response without mac2 under load")
    if reply.kind == TRANSPORT:
        return False
    cookie = _opened(reply.data, testbed.public, message[60:76], session.local)
    again = again_with_macs(message, initiated.static, cookie)
    if _until(peer.socket, again, session.local, (TRANSPORT,)) is None:
        raise Differs("a response with the right cookie is not taken under load")
    return True


def _until(
    peer_socket: PeerSocket, message: bytes, index: int, kinds: Sequence[int]
) -> Datagram | None:
    """Sends the message, which may be lost, until such an answer for the index comes."""
    for _ in range(30):
        peer_socket.send(message)
        deadline = time.monotonic() + 0.1
        while datagram := peer_socket.receive(deadline - time.monotonic()):
            if datagram.kind in kinds and datagram.receiver == index:
                return datagram
    return None


@check(41, alone=True, seconds=5, shared=False)
def load_lasts_a_second(testbed: Testbed) -> None:
    """A burst puts the device under load for only 1 s after its queue was last an eighth full. Then
    initiations are answered without a cookie again."""
    peers = [testbed.peer() for _ in range(4)]
    for size in (2_000, 8_000, 32_000, 128_000):
        noise = _noise(testbed, 2_000)
        began = testbed.now()
        for number in range(size):
            peers[0].socket.send(noise[number % len(noise)], quietly=True)
        testbed.log(f"a burst of {size} in {testbed.now() - began:.3f} s")
        answers = _probe(testbed, peers, until=testbed.now() + 4)
        if COOKIE_REPLY in [kind for _, kind in answers]:
            break
        testbed.pause(0.2)
    else:
        raise Differs("no burst of initiations puts the device under load")
    loaded = [moment for moment, kind in answers if kind == COOKIE_REPLY]
    calm = [moment for moment, kind in answers if kind == RESPONSE]
    if not calm:
        raise Differs("still under load 4 s after a burst")
    testbed.expect_between(min(calm) - began, 0.95, 4, "the load ends after")
    if max(loaded) > min(calm):
        raise Differs("under load again without a burst")


def _probe(testbed: Testbed, peers: Sequence[Peer], until: float) -> list[tuple[float, int]]:
    """Sends initiations of these peers in turn, until there are three responses. Returns the time
    and the kind of each answer."""
    answers: list[tuple[float, int]] = []
    while testbed.now() < until and [kind for _, kind in answers].count(RESPONSE) < 3:
        for peer in peers[1:]:
            initiating = peer.initiate()
            datagram = peer.socket.receive(0.1)
            if datagram and datagram.receiver == initiating.index:
                answers.append((datagram.time, datagram.kind))
            peers[0].device.apart()
    return answers


@check(41, alone=True, seconds=4, shared=False)
def many_handshakes_are_no_load(testbed: Testbed) -> None:
    """Hundreds of initiations in two seconds, of peers or of strangers, do not cause load if the
    device keeps up with them, as only the queue counts."""
    peers = [testbed.peer() for _ in range(25)]
    stranger = testbed.socket()
    strangers = [initiate(oracle.Key.new(), testbed.public).message for _ in range(400)]
    began = testbed.now()
    for number in range(100):
        for message in strangers[number * 4 : number * 4 + 4]:
            stranger.send(message, quietly=True)
        peer = peers[number % len(peers)]
        peer.initiate()
        peer.socket.expect(RESPONSE, f"initiation {number * 5 + 5} is answered without a cookie")
        ahead = began + number / 60 - testbed.now()
        time.sleep(max(ahead, 0))
    testbed.log(f"500 initiations in {testbed.now() - began:.2f} s")
    stranger.silence(0.1, "initiations of strangers")
    newcomer = testbed.peer()
    newcomer.works(newcomer.handshake())


@check(43, alone=True, seconds=9, shared=False)
def data_passes_during_a_flood(testbed: Testbed) -> None:
    """While more handshake messages of all three kinds come than the device can handle, a session
    carries packets both ways with almost no loss. Right after that handshakes are answered, as the
    queue is bounded."""
    peer, late = testbed.peer(), testbed.peer()
    session = peer.handshake()
    replies = [struct.pack("<II", COOKIE_REPLY, n) + os.urandom(56) for n in range(1000)]
    count = 200
    with testbed.load(), testbed.flood(replies, addresses=2, rate=20_000):
        sent = set[bytes]()
        peer.socket.drain()
        for number in range(count):
            there = peer.packet(struct.pack(">I", number))
            peer.socket.send(session.seal(there), quietly=True)
            testbed.inject(peer.packet_here(struct.pack(">I", number)), quietly=True)
            sent.add(there)
            time.sleep(0.01)
        delivered = len(sent & set(testbed.delivered(1, count)))
        received = _data(peer.socket, session)
    testbed.log(f"{delivered} of {count} were delivered, {received} received")
    if min(delivered, received) < count * 0.9:
        raise Differs(
            f"of {count} packets during a flood {delivered} were delivered and {received} received"
        )
    testbed.pause(2)
    _, answer = late.insist([RESPONSE], times=10)
    if answer is None:
        raise Differs("no response to an initiation 2 s after a flood: the queue is not bounded")


def _data(peer_socket: PeerSocket, session: Session) -> int:
    """Counts the messages with a packet that have come for the session."""
    found = 0
    for datagram in peer_socket.drain():
        if datagram.receiver == session.local and datagram.kind == TRANSPORT:
            found += bool(session.open(datagram.data))
    return found


def _noise(testbed: Testbed, count: int) -> list[bytes]:
    """Makes initiations in which only mac1 is right."""
    return [
        with_macs(struct.pack("<II", INITIATION, number) + os.urandom(108), testbed.public)
        for number in range(count)
    ]


def _answers(peer: Peer, count: int, **parts: Any) -> Counter[tuple[int, ...]]:
    """Counts how often an initiation was answered by which kinds of messages."""
    sent: dict[int, list[int]] = {}
    for number in range(count):
        sent[peer.initiate(**parts).index] = []
        deadline = time.monotonic() + (0.06 if number < count - 1 else 0.3)
        while datagram := peer.socket.receive(deadline - time.monotonic()):
            if datagram.receiver in sent:
                _right_length(datagram)
                sent[datagram.receiver].append(datagram.kind)
    return Counter(tuple(kinds) for kinds in sent.values())


def _right_length(datagram: Datagram) -> None:
    if len(datagram.data) != oracle.LENGTHS.get(datagram.kind):
        raise Differs(f"an answer of a wrong length: {describe(datagram.data)}")


def _summary(answers: Counter[tuple[int, ...]]) -> str:
    names = {kinds: " and ".join(oracle.KINDS[kind] for kind in kinds) for kinds in answers}
    return ", ".join(f"{names[kinds] or 'nothing'} {n} times" for kinds, n in answers.items())


def _taken(peer: Peer, why: str, **parts: Any) -> None:
    _, answer = peer.insist([RESPONSE], times=50, **parts)
    if answer is None:
        raise Differs(f"{why}: no response to any of 50")


def _opened(reply: bytes, device: bytes, mac1: bytes, index: int) -> bytes:
    try:
        return oracle.open_cookie(reply, device, mac1, index)
    except Unopened as error:
        raise Differs(str(error)) from None


def _has_mac2(message: bytes, cookie: bytes | None, why: str) -> None:
    expected = bytes(16) if cookie is None else mac(cookie, message[:-16])
    if message[-16:] != expected:
        raise Differs(f"{why}: the mac2 is {message[-16:].hex()}, wanted {expected.hex()}")
