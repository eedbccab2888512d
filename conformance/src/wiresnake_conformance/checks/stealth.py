"""G. Silence, and no sign by which the device can be recognised."""

import os
import struct
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

from .. import oracle
from ..oracle import (
    COOKIE_REPLY,
    INITIATION,
    RESPONSE,
    TRANSPORT,
    Key,
    again_with_macs,
    initiate,
    tai64n,
    with_macs,
)
from ..packets import Packet
from ..peer import Peer
from ..peer_socket import Datagram, Tap
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check


@check(92, seconds=6, shared=False)
def probes_get_silence(testbed: Testbed) -> None:
    """Datagrams that are not authentic get no answer, not even an ICMP error, over IPv4 and IPv6:
    noise, wrong MACs, strangers, replays, unknown indices, forged data."""
    peer = testbed.peer()
    initiating = initiate(peer.key, testbed.public)
    peer.send(initiating.message)
    response = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    session = peer.complete(initiating, response.data)
    first = session.seal(peer.packet())
    peer.send(first)
    recorded = [initiating.message, first]
    data = session.seal(peer.packet())
    forged = [
        data[:-1] + bytes([data[-1] ^ 1]),
        data[:4] + os.urandom(4) + data[8:],
        oracle.cookie_reply(peer.key.public, session.remote, os.urandom(16), os.urandom(16)),
        with_macs(
            struct.pack("<III", RESPONSE, 5, session.remote) + os.urandom(48), testbed.public
        ),
    ]
    tap = testbed.tap()
    for peer_socket in (testbed.socket(), testbed.socket(version=6)):
        for number, probe in enumerate([*recorded, *forged, *_probes(testbed, peer)]):
            peer_socket.send(probe, quietly=True)
            if number % 8 == 7:  # few at a time: this is not about load
                time.sleep(0.02)
        testbed.log(f"{number + 1} probes from {peer_socket.name}")
    time.sleep(0.5)
    _silent(testbed, tap, "bad datagrams")
    testbed.delivered(0.1, 9)
    peer.works(session)


@check(92, seconds=3, shared=False)
def probes_without_a_key_get_silence(testbed: Testbed) -> None:
    """A device without a private key answers nothing either: its port is silent, or closed for
    everybody, over IPv4 and IPv6."""
    peer = testbed.peer()
    if testbed.run(["wg", "set", testbed.interface, "private-key", "/dev/null"]).returncode:
        testbed.pause(0.3)  # whether it lives is asked next
        raise NotApplicable("its private key can be changed but not taken away")
    is_open = f":{testbed.port} " in testbed.command("ss -Hnlu")
    testbed.log(f"without a private key its port is {'open' if is_open else 'closed'}")
    tap = testbed.tap()
    probes = [initiate(peer.key, testbed.public).message, *_probes(testbed, peer)]
    for peer_socket in (testbed.socket(), testbed.socket(version=6)):
        for probe in probes[:: 1 if is_open else len(probes) // 3]:
            peer_socket.send(probe, quietly=True)
            time.sleep(0.001)
    time.sleep(0.3)
    if is_open:
        _silent(testbed, tap, "datagrams to a device without a private key")
    else:
        errors = {packet.version for packet in _from_device(testbed, tap.packets())}
        if errors == {4} or errors == {6}:
            raise Differs(f"its port is closed for IPv{errors.pop()} only")
    testbed.wg("set", testbed.interface, "private-key", "/dev/stdin", text=testbed.key.private_text)
    _, answer = peer.insist([RESPONSE], times=10)
    if not answer:
        raise Differs("no handshake after the private key is back")


def _probes(testbed: Testbed, peer: Peer) -> Iterator[bytes]:
    """Yields datagrams to which only a scanner would expect an answer."""
    for length in (*range(180), 256, 576, 1200, 1472):
        yield os.urandom(length)
    for word in (0, 1, 2, 3, 4, 5, 255, 0x100, 0x01000001, 0x80000002, 0x04000000):
        for length in (32, 48, 64, 92, 147, 148, 149, 1000):
            yield struct.pack("<I", word) + os.urandom(length - 4)
    for kind, length in oracle.LENGTHS.items():
        for size in (length, length + 1, length + 16):
            yield with_macs(struct.pack("<I", kind) + os.urandom(size - 36), testbed.public)
    yield initiate(Key.new(), testbed.public).message
    yield initiate(peer.key, testbed.public, static=Key.new().public).message
    yield initiate(peer.key, Key.new().public).message
    known = initiate(peer.key, testbed.public, timestamp=tai64n(0)).message
    yield known[:-32] + os.urandom(32)
    yield again_with_macs(known[:3] + b"\1" + known[4:], testbed.public)
    for at in (8, 39, 40, 87, 88, 115):
        changed = known[:at] + bytes([known[at] ^ 0x40]) + known[at + 1 :]
        yield again_with_macs(changed, testbed.public)
    for point in oracle.LOW_ORDER_POINTS:
        yield initiate(peer.key, testbed.public, point=point, timestamp=tai64n(0)).message
    # Other protocols over UDP: DNS, NTP, STUN, QUIC, SIP.
    yield bytes.fromhex("1234010000010000000000000377777707") + b"example\3com\0\0\1\0\1"
    yield b"\x23" + bytes(47)
    yield bytes.fromhex("000100002112a442") + os.urandom(12)
    yield b"\xc0\1\1\1\1\x08" + os.urandom(1194)
    yield b"OPTIONS sip:nm SIP/2.0\r\n\r\n"


def _from_device(testbed: Testbed, seen: list[Packet]) -> list[Packet]:
    return [packet for packet in seen if packet.source in testbed.outer.values()]


def _silent(testbed: Testbed, tap: Tap, why: str) -> None:
    for packet in _from_device(testbed, tap.packets()):
        raise Differs(f"{why}: expected silence, got {packet}: {packet.payload[:48].hex()}")


@check(93, seconds=4, shared=False)
def bad_datagrams_are_not_logged(testbed: Testbed) -> None:
    """At its default level a daemon logs nothing about bad datagrams, so they cost no disk
    space."""
    if not testbed.output:
        raise NotApplicable("the kernel's log is not the device's own and cannot be separated")
    peer = testbed.peer()
    session = peer.handshake()
    peer.works(session)
    before = Path(testbed.output).stat().st_size
    data = session.seal(peer.packet())
    forged = data[:-1] + bytes([data[-1] ^ 1])
    alien = session.seal(testbed.peer(configured=False).packet())
    count = 0
    for _ in range(3):
        for probe in (*_probes(testbed, peer), forged, data, data, alien):
            peer.socket.send(probe, quietly=True)
            count += 1
            if count % 8 == 7:
                time.sleep(0.01)
    testbed.pause(0.5)
    testbed.delivered(0.1, 9)
    written = Path(testbed.output).read_bytes()[before:]
    if written:
        line = written.decode(errors="replace").splitlines()[0]
        raise Differs(f"{len(written)} bytes of log for {count} bad datagrams, first: {line}")
    peer.works(session)


@check(94, alone=True, seconds=3, shared=False, margin=2)
def replays_get_no_cookie(testbed: Testbed) -> None:
    """A thousand copies of a recorded initiation, in one burst to an idle device, get no answer,
    and load does not begin: the next handshake needs no cookie. This is more than the kernel and
    wireguard-go do, whose queues are filled by such a burst, so that they may send cookies."""
    peer = testbed.peer()
    recorded = peer.initiate().message
    peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    testbed.pause(0.5)
    attacker = testbed.socket()
    for _ in range(3):
        began = testbed.now()
        for _ in range(1000):
            attacker.send(recorded, quietly=True)
        testbed.log(f"1000 copies in {testbed.now() - began:.3f} s")
        testbed.pause(0.2)
        if answers := attacker.drain():
            described = oracle.describe(answers[0].data)
            raise Differs(f"{len(answers)} answers to 1000 copies, first: {described}")
        newcomer = testbed.peer()
        newcomer.handshake()
    peer.works(peer.handshake())


@check(95)
def outer_tos(testbed: Testbed) -> None:
    """Initiations and responses are sent with TOS 0x88 (AF41), data and keepalives without a DSCP,
    whatever the inner packet has."""
    _outer_tos(testbed, 4)


@check(95)
def outer_traffic_class(testbed: Testbed) -> None:
    """The same over IPv6: traffic class 0x88 for initiations and responses, no DSCP for data."""
    _outer_tos(testbed, 6)


def _outer_tos(testbed: Testbed, version: int) -> None:
    peer = testbed.peer(endpoint=True, version=version)
    testbed.inject(peer.packet_here())
    datagram = peer.socket.expect(INITIATION, "the device initiates")
    message, session = oracle.respond(peer.key, oracle.consume(peer.key, datagram.data))
    wrong = _unlike(0x88, datagram, version)
    peer.send(message)
    peer.received(session, "the device sends through a session")
    for tos in (0, 0x10, 0x88, 0xB8, 0xFC):
        for inner in (4, 6):
            testbed.inject(peer.packet_here(version=inner, tos=tos))
            datagram = peer.socket.expect(TRANSPORT, "the device sends through a session")
            wrong += _unlike(0, datagram, version, f" with TOS {tos:#x} inside, IPv{inner}")
    other = testbed.peer(version=version, keepalive=1)
    initiating = other.initiate()
    datagram = other.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    wrong += _unlike(0x88, datagram, version)
    session = other.complete(initiating, datagram.data)
    other.send(session.seal())
    datagram = other.socket.expect(TRANSPORT, "a keepalive", 2.5)
    wrong += _unlike(0, datagram, version)
    if wrong:
        raise Differs("; ".join(wrong))


@check(95, alone=True, seconds=4, shared=False)
def cookie_replies_have_no_tos(testbed: Testbed) -> None:
    """Cookie replies are sent with TOS 0."""
    peer = testbed.peer()
    with testbed.load():
        _, reply = peer.insist([COOKIE_REPLY])
    if reply is None:
        raise Differs("no cookie reply to an initiation without mac2 under load")
    if wrong := _unlike(0, reply, 4):
        raise Differs(wrong[0])


def _unlike(tos: int, datagram: Datagram, version: int, what: str = "") -> list[str]:
    """Describes what is wrong if the datagram has another DSCP. ECN is checked by item 99."""
    if datagram.tos & 0xFC == tos:
        return []
    name = oracle.KINDS[datagram.kind]
    return [f"{name} over IPv{version}{what}: TOS {datagram.tos:#x}, not {tos:#x}"]


@check(96)
def everything_comes_from_one_port(testbed: Testbed) -> None:
    """Every kind of message, to every peer, comes from the listen port and from the address that
    the peer knows."""
    _one_port(testbed, 4)


@check(96)
def everything_comes_from_one_port_of_ipv6(testbed: Testbed) -> None:
    """The same over IPv6."""
    _one_port(testbed, 6)


def _one_port(testbed: Testbed, version: int) -> None:
    for _ in range(4):
        peer = testbed.peer(endpoint=True, version=version)
        testbed.inject(peer.packet_here())
        datagrams = [peer.socket.expect(INITIATION, "the device initiates")]
        initiated = oracle.consume(peer.key, datagrams[0].data)
        message, session = oracle.respond(peer.key, initiated)
        peer.send(message)
        datagrams.append(peer.socket.expect(TRANSPORT, "the device sends through a session"))
        time.sleep(0.05)
        datagrams += peer.socket.drain()
        peer.initiate()
        datagrams.append(peer.socket.expect(RESPONSE, "an initiation is answered"))
        for datagram in datagrams:
            source = datagram.source, datagram.port
            if source != (testbed.outer[version], testbed.port):
                name = oracle.KINDS[datagram.kind]
                raise Differs(f"{name} from {source[0]} port {source[1]}, not {testbed.port}")
        peer.works(session)


@check(96, seconds=3)
def indices_have_no_pattern(testbed: Testbed) -> None:
    """The device's indices look random: no bit is constant or periodic, and no difference repeats,
    in handshakes of one peer and of several."""
    peers = [testbed.peer() for _ in range(4)]
    rounds = [[_index(peer) for peer in peers] for _ in range(16)]
    orders = {
        "as they were made": [index for indices in rounds for index in indices],
        "peer by peer": [indices[at] for at in range(4) for indices in rounds],
    }
    for name, indices in orders.items():
        distances = [(b - a) % 2**32 for a, b in pairwise(indices)]
        changes = [a ^ b for a, b in pairwise(indices)]
        testbed.log(f"indices {name}: {' '.join(f'{index:08x}' for index in indices)}")
        for what, values in {
            "value": indices,
            "distance": distances,
            "change": changes,
            "upper half": [index >> 16 for index in indices],
            "lower half": [index & 0xFFFF for index in indices],
        }.items():
            # Of 64 random halves, 4 are repetitions less than once in 10^7 runs.
            if len(values) - len(set(values)) > 3:
                raise Differs(f"the {what} of the indices {name} comes again and again")
        for bit in range(32):
            # On average it is 32 of 64, with a deviation of 4. It is never off by 6 deviations.
            ones = sum(value >> bit & 1 for value in changes)
            if not 8 <= sum(index >> bit & 1 for index in indices) <= 56 or not 8 <= ones <= 56:
                raise Differs(f"bit {bit} of the indices {name} is not random")


def _index(peer: Peer) -> int:
    peer.device.apart()
    return peer.handshake(confirm=False).remote


@check(96, seconds=3, alone=True)
def responses_keep_no_beat(testbed: Testbed) -> None:
    """A response comes at once, not at the next tick of a timer."""
    peers = [testbed.peer() for _ in range(8)]
    delays = []
    for number in range(24):
        time.sleep(0.021 + number % 7 * 0.011)
        peer = peers[number % len(peers)]
        message = initiate(peer.key, testbed.public).message
        sent = testbed.now()
        peer.send(message)
        delays.append(peer.socket.expect(RESPONSE, "an initiation is answered").time - sent)
    testbed.expect_between(median(delays), 0, 0.05, "the median time to a response is")


@check(96, seconds=5, shared=False)
def an_idle_device_says_nothing(testbed: Testbed) -> None:
    """With peers and sessions, but no packets to carry, nothing is sent."""
    peers = [testbed.peer(endpoint=True) for _ in range(2)]
    sessions = [peer.handshake() for peer in peers]
    testbed.peer(endpoint=True)
    time.sleep(0.1)
    tap = testbed.tap()
    testbed.pause(4)
    _silent(testbed, tap, "an idle device")
    for peer, session in zip(peers, sessions, strict=True):
        peer.works(session)
