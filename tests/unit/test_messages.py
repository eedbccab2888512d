"""The four messages: shapes, sizes, and what is not a message at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake.protocol.messages import (
    COOKIE_REPLY_SIZE,
    INITIATION_SIZE,
    KEEPALIVE_SIZE,
    MAC_SIZE,
    RESPONSE_SIZE,
    CookieReply,
    Data,
    Initiation,
    Response,
)

MACS = bytes(2 * MAC_SIZE)
INITIATION = Initiation(7, b"e" * 32, b"s" * 48, b"t" * 28).pack() + MACS
RESPONSE = Response(7, 8, b"e" * 32, b"n" * 16).pack() + MACS
COOKIE_REPLY = CookieReply(7, b"n" * 24, b"c" * 32).pack()
DATA = Data(7, 1 << 63, b"p" * 16).pack()
PARSERS = [Initiation.parse, Response.parse, CookieReply.parse, Data.parse]
MESSAGES = [INITIATION, RESPONSE, COOKIE_REPLY, DATA]


@pytest.mark.item(2)
def test_messages_have_the_sizes_of_the_whitepaper() -> None:
    assert (INITIATION_SIZE, RESPONSE_SIZE, COOKIE_REPLY_SIZE, KEEPALIVE_SIZE) == (148, 92, 64, 32)
    assert [len(message) for message in MESSAGES] == [148, 92, 64, 32]


def test_what_was_packed_parses_to_the_same() -> None:
    assert Initiation.parse(INITIATION) == (7, b"e" * 32, b"s" * 48, b"t" * 28)
    assert Response.parse(RESPONSE) == (7, 8, b"e" * 32, b"n" * 16)
    assert CookieReply.parse(COOKIE_REPLY) == (7, b"n" * 24, b"c" * 32)
    assert Data.parse(DATA) == (7, 1 << 63, b"p" * 16)


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_is_one_kind_only(message: bytes) -> None:
    assert [parse(message) is not None for parse in PARSERS].count(True) == 1


@pytest.mark.parametrize("message", [INITIATION, RESPONSE, COOKIE_REPLY])
@pytest.mark.item(2)
def test_another_length_is_no_message(message: bytes) -> None:
    for length in range(200):
        if length != len(message):
            cut = message[:length].ljust(length, b"\0")
            assert [parse(cut) for parse in PARSERS] == [None] * 4


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.item(3)
def test_a_reserved_byte_is_zero(message: bytes, at: int) -> None:
    bad = message[:at] + b"\1" + message[at + 1 :]
    assert [parse(bad) for parse in PARSERS] == [None] * 4


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_do_not(message: bytes) -> None:
    for parse in PARSERS:
        parse(message)
