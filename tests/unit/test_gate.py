"""The gate from Python. What it decides has its table in gate.rs; here is what Python relies on."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import Endpoint, Gate, PrivateKey, open_cookie

SECOND = 1_000_000_000
START = 1000 * SECOND
LOAD = 16
FULL = 128
PUBLIC = PrivateKey.generate().public
SOURCE = Endpoint("192.0.2.1", 51820)


def mac(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def initiation(body: int, cookie: bytes | None = None) -> bytes:
    message = struct.pack("<II108x", 1, 0x12345678)[:108] + struct.pack("<Q", body)
    message += mac(hashlib.blake2s(b"mac1----" + PUBLIC).digest(), message)
    return message + (bytes(16) if cookie is None else mac(cookie, message))


def cookie_of(reply: bytes, message: bytes) -> bytes | None:
    assert len(reply) == 64
    assert reply[:4] == bytes([3, 0, 0, 0])
    assert reply[4:8] == message[4:8]
    key = hashlib.blake2s(b"cookie--" + PUBLIC).digest()
    return open_cookie(key, reply[8:32], reply[32:], message[116:132])


def gate() -> Gate:
    gate = Gate()
    gate.set_identity(PUBLIC)
    return gate


@pytest.mark.item(2, 30, 43)
def test_each_datagram_is_data_queued_or_dropped() -> None:
    assert gate().check(bytes([4, 0, 0, 0]) * 8, SOURCE, START, FULL) == "data"
    assert gate().check(initiation(0), SOURCE, START, 0) == "queue"
    assert gate().check(initiation(0), SOURCE, START, FULL) == "drop"
    assert gate().check(initiation(0)[:-1], SOURCE, START, 0) == "drop"
    assert gate().check(b"", SOURCE, START, 0) == "drop"
    assert Gate().check(initiation(0), SOURCE, START, 0) == "drop"


@pytest.mark.item(32, 34, 36)
def test_a_cookie_serves_the_address_and_port_it_was_sent_to() -> None:
    gate_ = gate()
    message = initiation(0)
    reply = gate_.check(message, SOURCE, START, LOAD)
    assert isinstance(reply, bytes)
    cookie = cookie_of(reply, message)
    assert cookie is not None
    assert len(cookie) == 16
    assert gate_.check(initiation(1, cookie), SOURCE, START, LOAD) == "queue"
    other = gate_.check(initiation(2, cookie), Endpoint("192.0.2.1", 51821), START, LOAD)
    assert isinstance(other, bytes)
    key = hashlib.blake2s(b"cookie--" + PUBLIC).digest()
    assert open_cookie(key, reply[8:32], reply[32:], bytes(16)) is None
    assert open_cookie(key, reply[8:32], reply[32:40], bytes(16)) is None


@pytest.mark.item(32, 94)
def test_without_a_cookie_there_is_an_answer_for_every_message_but_copies() -> None:
    gate_ = gate()
    assert gate_.check(initiation(0), SOURCE, START, 0) == "queue"
    assert gate_.check(initiation(0), SOURCE, START, LOAD) == "drop"
    for body in range(1, 200):
        assert isinstance(gate_.check(initiation(body), SOURCE, START, LOAD), bytes)


@pytest.mark.item(32)
def test_cookie_replies_are_20_000_a_second_and_200_at_once() -> None:
    gate_ = gate()
    verdicts = [gate_.check(initiation(body), SOURCE, START, LOAD) for body in range(300)]
    assert [isinstance(verdict, bytes) for verdict in verdicts] == [True] * 200 + [False] * 100
    later = START + 1_000_000
    verdicts = [gate_.check(initiation(body), SOURCE, later, LOAD) for body in range(300, 400)]
    assert sum(isinstance(verdict, bytes) for verdict in verdicts) == 20


@pytest.mark.item(22, 29)
def test_identity_can_change() -> None:
    gate_ = gate()
    gate_.set_identity(PrivateKey.generate().public)
    assert gate_.check(initiation(0), SOURCE, START, 0) == "drop"
    gate_.set_identity(None)
    assert gate_.check(initiation(0), SOURCE, START, 0) == "drop"
    with pytest.raises(ValueError, match="32 bytes, not 5"):
        gate_.set_identity(b"short")


@given(st.binary(max_size=300), st.integers(0, FULL), st.integers(0, 2**63))
@pytest.mark.item(92)
def test_strangers_get_nothing(datagram: bytes, queue_length: int, now: int) -> None:
    verdict = gate().check(datagram, SOURCE, now, queue_length)
    if len(datagram) >= 32 and datagram[:4] == bytes([4, 0, 0, 0]):
        assert verdict == "data"
    elif len(datagram) == 64 and datagram[:4] == bytes([3, 0, 0, 0]):
        assert verdict in ("queue", "drop")
    else:
        assert verdict == "drop"


@given(st.integers(0, 131), st.integers(1, 255), st.integers(0, FULL))
@pytest.mark.item(30, 92)
def test_a_changed_message_gets_nothing(at: int, change: int, queue_length: int) -> None:
    message = bytearray(initiation(0))
    message[at] ^= change
    expected = "data" if message[:4] == bytes([4, 0, 0, 0]) else "drop"  # No session opens it.
    assert gate().check(bytes(message), SOURCE, START, queue_length) == expected
