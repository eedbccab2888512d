"""The oracle against vectors on which three implementations agree, and against itself."""

from hashlib import sha256

import pytest
from wiresnake_conformance import oracle
from wiresnake_conformance.oracle import Key, Unopened

TIME = bytes.fromhex("400000006553f10a1d000000")
INITIATION = bytes.fromhex(
    "01000000443322112f63a2cf597dc51b7cd650eef555939f0c32db6ed0f104679d02006fbad6b37720fd5778d5b77828"
    "7996f98d1b99bb7a4c6eda33fbf6d4cd5c2c71f2f31e0e16d84e86c66ad418699eec4bd95bc9b3644937afe9f0bd933a"
    "a06e6ace40e6d4ca59866f67e2822f0d91713e6530c542a490c3a4c32365747fd93c5194" + "00" * 16
)
RESPONSE = bytes.fromhex(
    "02000000887766554433221162185c01c5a018c18258fe188bc2781e6d813e4cb97b62b7ace200a47b4bd74652e9df6f"
    "66145fb695e919559ec65890a1a215a3e6d5118a7a19dc16f48f31d8" + "00" * 16
)


def named(name: str) -> bytes:
    return sha256(name.encode()).digest()


ONE, OTHER = Key.of(named("si")), Key.of(named("sr"))
EPHEMERAL, OTHER_EPHEMERAL = Key.of(named("ei")), Key.of(named("er"))


def test_handshake_vectors() -> None:
    initiating = oracle.initiate(
        ONE, OTHER.public, timestamp=TIME, index=0x11223344, ephemeral=EPHEMERAL
    )
    assert initiating.message == INITIATION
    initiated = oracle.consume(OTHER, INITIATION)
    assert (initiated.static, initiated.timestamp) == (ONE.public, TIME)
    response, theirs = oracle.respond(
        OTHER, initiated, psk=named("psk"), index=0x55667788, ephemeral=OTHER_EPHEMERAL
    )
    assert response == RESPONSE
    ours = oracle.complete(initiating, ONE, RESPONSE, named("psk"))
    assert ours.send_key.hex().startswith("422e2be95e4133ec")
    assert ours.receive_key.hex().startswith("29bd9d14237b276f")
    assert ours.seal().hex() == "04000000887766550000000000000000208a4e601ca7d0daf33a60bf0d5cd8e3"
    assert theirs.open(ours.seal(b"a packet")) == b"a packet" + bytes(8)


def test_wrong_messages_do_not_open() -> None:
    initiating = oracle.initiate(ONE, OTHER.public)
    broken = bytearray(initiating.message)
    broken[20] ^= 1
    for message in (bytes(broken), initiating.message[:-1], b"", RESPONSE):
        with pytest.raises(Unopened):
            oracle.consume(OTHER, message)
    response, session = oracle.respond(OTHER, oracle.consume(OTHER, initiating.message))
    with pytest.raises(Unopened):
        oracle.complete(initiating, ONE, response, named("another psk"))
    with pytest.raises(Unopened):
        session.open(session.seal())


def test_xchacha20_poly1305_vector() -> None:
    """draft-irtf-cfrg-xchacha-03, A.3.1."""
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    cipher = oracle._xchacha(key, nonce)
    sealed = cipher.encrypt(bytes(4) + nonce[16:], text, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert sealed.hex().startswith("bd6d179d3e83d43b9576579493c0e939")
    assert sealed.hex().endswith("c0875924c1c7987947deafd8780acf49")


def test_cookies_go_round() -> None:
    mac1, cookie = bytes(range(16)), bytes(range(16, 32))
    reply = oracle.cookie_reply(OTHER.public, 7, mac1, cookie)
    assert oracle.open_cookie(reply, OTHER.public, mac1, 7) == cookie
    for mac, index in ((bytes(16), 7), (mac1, 8)):
        with pytest.raises(Unopened):
            oracle.open_cookie(reply, OTHER.public, mac, index)


def test_low_order_points_give_nothing() -> None:
    assert {ONE.exchange(point) for point in oracle.LOW_ORDER_POINTS} == {oracle.NOTHING}
    assert ONE.exchange(OTHER.public) == OTHER.exchange(ONE.public) != oracle.NOTHING


def test_descriptions_are_for_people() -> None:
    session = oracle.Session(1, 0xABCD, bytes(32), bytes(32))
    assert oracle.describe(session.seal()) == "keepalive to 0000abcd, counter 0, 32 B"
    assert "initiation (11223344), 148 B" in oracle.describe(INITIATION)
    assert oracle.describe(b"\x09" * 20) == "datagram of 20 B 0909090909090909..."
    assert oracle.describe(b"") == "datagram of 0 B"
