"""Datagrams that must not be answered go to Linux and to wiresnaked, and both must agree."""

import os
import random
import socket
import struct
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from interop.harness import End, Implementation, MakeHost, assert_pings
from kernel.harness import RESPONSE, connect
from kernel.uml import Uml
from sim import forge
from wiresnake_conformance.machine import PIECES, Watch

from wiresnake._native import PrivateKey
from wiresnake.protocol.noise import tai64n

PAUSE = 0.025
"""Seconds between initiations. One within 20 ms of the last is not answered, which may happen on a
late machine."""


@dataclass
class Prober:
    """A peer that both ends know, connected to one of them."""

    end: End
    target: bytes
    private: PrivateKey
    out: socket.socket
    watch: Watch
    seconds: int = 1_800_000_000
    names: dict[bytes, str] = field(default_factory=dict)
    """The datagrams with their own sender index, by that index."""
    answers: list[tuple[str, int, int]] = field(default_factory=list)
    """The type and length of each answer."""

    def initiation(self, private: PrivateKey | None = None, stamp: bytes | None = None) -> bytes:
        """Makes an initiation. Unless given, its timestamp is later than all before."""
        self.seconds += 1
        stamp = stamp or tai64n(self.seconds * 10**9)
        own = private or self.private
        ephemeral = PrivateKey.generate()
        return forge.initiation(own, self.target, ephemeral, stamp, 1000 + len(self.names))[1]

    def send(self, name: str, datagram: bytes) -> None:
        self.names.setdefault(datagram[4:8], name)
        self.out.sendto(datagram, (self.end.outer[4], self.end.port))
        self.listen(PAUSE + PIECES * self.watch.since(time.monotonic() - 2).worst)

    def listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.out.settimeout(left)
            with suppress(TimeoutError):
                answer = self.out.recv(2048)
                index = answer[8:12] if answer[0] == RESPONSE else answer[4:8]
                self.answers.append((self.names[index], answer[0], len(answer)))

    def with_macs(self, body: bytes) -> bytes:
        return forge.with_macs(body, self.target)


def probes(prober: Prober, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    good = prober.initiation()
    yield "initiation", good
    yield "the same again", good
    for at in range(0, 148, 3):
        yield f"byte {at} flipped", flipped(prober.initiation(), at, chance)
        if at < 116:
            message = flipped(prober.initiation()[:116], at, chance)
            yield f"byte {at} flipped, mac1 right", prober.with_macs(message)
    for length in (0, 1, 4, 31, 32, 63, 64, 65, 91, 92, 93, 116, 147, 149, 164, 1400):
        message = (prober.initiation() + bytes(1400))[:length]
        yield f"initiation of {length} bytes", message
    for kind in (0, 5, 255):
        yield f"type {kind}", prober.with_macs(bytes([kind]) + prober.initiation()[1:116])
    yield "mac2 that nobody asked for", prober.initiation()[:132] + os.urandom(16)
    yield "an unknown key", prober.initiation(PrivateKey.generate())
    stamp = tai64n((prober.seconds + 1) * 10**9)
    yield "a timestamp", prober.initiation(stamp=stamp)
    yield "the same timestamp", prober.initiation(stamp=stamp)
    yield "an earlier timestamp", prober.initiation(stamp=tai64n((prober.seconds - 9) * 10**9))
    later = tai64n((prober.seconds + 2) * 10**9)
    yield "nanoseconds out of range", prober.initiation(stamp=later[:8] + b"\xff" * 4)
    prober.seconds += 2
    for number, point in enumerate(forge.LOW_ORDER_POINTS):
        prober.seconds += 1
        message = forge.low_order_initiation(
            prober.private, prober.target, point, tai64n(prober.seconds * 10**9)
        )
        yield f"low-order ephemeral {number}", message
    for index in (0, 1, chance.getrandbits(32)):
        response = struct.pack("<III", RESPONSE, 7, index) + os.urandom(48)
        yield f"response to {index}", prober.with_macs(response)
        yield f"cookie reply to {index}", struct.pack("<II", 3, index) + os.urandom(56)
        for length in (16, 32, 1024):
            data = struct.pack("<IIQ", 4, index, 0) + os.urandom(length)
            yield f"data of {length} to {index}", data
    yield "initiation at the end", prober.initiation()


def flipped(message: bytes, at: int, chance: random.Random) -> bytes:
    return message[:at] + bytes([message[at] ^ 1 << chance.randrange(8)]) + message[at + 1 :]


def test_linux_and_we_answer_the_same(
    kernel: Uml, make_host: MakeHost, ours: Implementation, watch: Watch
) -> None:
    """Only completely valid messages are answered; others have no effect at all."""
    our, their = connect(make_host("ours"), kernel, ours)
    assert_pings(our, their)
    private = PrivateKey.generate()
    public = b64encode(private.public).decode()
    answered = []
    for end in (our, their):
        end.wg("set", end.interface, "peer", public, "allowed-ips", "10.9.0.99/32")
        with our.host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
            prober = Prober(end, b64decode(end.public), private, out, watch)
            for name, datagram in probes(prober, random.Random(1)):
                prober.send(name, datagram)
            prober.listen(0.5 + PIECES * watch.since(time.monotonic() - 2).worst)
        answered.append(prober.answers)
    assert answered[0] == answered[1]
    assert answered[0] == [
        (name, RESPONSE, 92)
        for name in (
            "initiation",
            "byte 6 flipped, mac1 right",  # of the sender's index: nothing else proves that
            *(f"byte {at} flipped" for at in range(132, 148, 3)),  # mac2 does not count yet
            "mac2 that nobody asked for",
            "a timestamp",
            "nanoseconds out of range",
            "initiation at the end",
        )
    ]
    assert_pings(our, their)
