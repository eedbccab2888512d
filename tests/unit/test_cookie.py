"""The asking side of cookies: mac1, mac2, and when a cookie counts."""

from hashlib import blake2s

import pytest
from sim.world import private_key

from wiresnake._native import Endpoint, Gate
from wiresnake.protocol.constants import COOKIE_LIFETIME, SECOND
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import CookieReply, Initiation

PUBLIC = private_key("responder").public
SOURCE = Endpoint("192.0.2.1", 1000)
BODY = Initiation(5, b"e" * 32, b"s" * 48, b"t" * 28).pack()
NOW = 1000 * SECOND
LOADED = 100


def gate() -> Gate:
    gate = Gate()
    gate.set_identity(PUBLIC)
    return gate


def ask(loaded: Gate, message: bytes, now: int = NOW) -> CookieReply:
    answer = loaded.check(message, SOURCE, now, LOADED)
    assert isinstance(answer, bytes)
    reply = CookieReply.parse(answer)
    assert reply is not None
    return reply


@pytest.mark.item(29)
def test_mac1_is_keyed_by_the_receivers_public_key() -> None:
    message = Cookies(PUBLIC).add_macs(BODY, NOW)
    key = blake2s(b"mac1----" + PUBLIC).digest()
    assert message[:116] == BODY
    assert message[116:132] == blake2s(BODY, key=key, digest_size=16).digest()
    assert message[132:] == bytes(16)
    assert gate().check(message, SOURCE, NOW, 0) == "queue"


@pytest.mark.item(36)
def test_a_cookie_reply_is_opened_and_its_cookie_makes_mac2() -> None:
    loaded, cookies = gate(), Cookies(PUBLIC)
    reply = ask(loaded, cookies.add_macs(BODY, NOW))
    assert reply.receiver == 5
    assert cookies.consume(reply, NOW)
    message = cookies.add_macs(BODY + b"", NOW + SECOND)
    assert message[132:] != bytes(16)
    assert loaded.check(message, SOURCE, NOW + SECOND, LOADED) == "queue"


@pytest.mark.item(37)
def test_only_for_the_last_mac1_and_once() -> None:
    loaded, cookies = gate(), Cookies(PUBLIC)
    first = ask(loaded, cookies.add_macs(BODY, NOW))
    second = ask(loaded, cookies.add_macs(BODY[:-1] + b"u", NOW))
    assert not cookies.consume(first, NOW), "not the last mac1"
    assert cookies.consume(second, NOW)
    assert not cookies.consume(second, NOW), "once"


@pytest.mark.item(37)
def test_not_before_anything_was_sent_and_not_if_it_is_damaged() -> None:
    cookies = Cookies(PUBLIC)
    assert not cookies.consume(CookieReply(5, bytes(24), bytes(32)), NOW)
    reply = ask(gate(), cookies.add_macs(BODY, NOW))
    assert not cookies.consume(reply._replace(nonce=bytes(24)), NOW)
    assert cookies.consume(reply, NOW)


@pytest.mark.item(39)
def test_a_cookie_is_used_for_115_seconds() -> None:
    cookies = Cookies(PUBLIC)
    assert cookies.consume(ask(gate(), cookies.add_macs(BODY, NOW)), NOW)
    assert cookies.add_macs(BODY, NOW + COOKIE_LIFETIME - 1)[132:] != bytes(16)
    assert cookies.add_macs(BODY, NOW + COOKIE_LIFETIME)[132:] == bytes(16)
