"""Handles of secrets: what they do, and what they refuse."""

import base64
import copy
import hashlib
import os
import pickle
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import (
    Endpoint,
    Entropy,
    PresharedKey,
    PrivateKey,
    Session,
    SharedSecret,
    SymmetricState,
)

SECOND = 1_000_000_000
LIFETIMES = (120 * SECOND, 165 * SECOND, 180 * SECOND)
START = 1000 * SECOND

Key = type[PrivateKey] | type[PresharedKey]
KEYS: list[Key] = [PrivateKey, PresharedKey]


def clamped(key: bytes) -> bytes:
    return bytes([key[0] & 248]) + key[1:31] + bytes([key[31] & 127 | 64])


def hex_of(key: PrivateKey | PresharedKey) -> bytes:
    buffer = bytearray(64)
    assert key.write_hex(buffer, 0) == 64
    return bytes(buffer)


def sessions() -> tuple[Session, Session]:
    state = SymmetricState(b"test")
    state.mix_key(b"material")
    other = state.copy()
    return (
        state.split(True, 11, 22, START, LIFETIMES),
        other.split(False, 22, 11, START, LIFETIMES),
    )


def secrets() -> list[object]:
    key = PrivateKey.generate()
    shared = key.exchange(PrivateKey.generate().public)
    return [key, PresharedKey.generate(), shared, SymmetricState(b"test"), sessions()[0]]


@given(st.binary(min_size=32, max_size=32))
def test_text_round_trip(key: bytes) -> None:
    for cls in KEYS:
        expected = clamped(key) if cls is PrivateKey else key
        for text, parse in [
            (key.hex(), cls.from_hex),
            (key.hex().upper(), cls.from_hex),
            (base64.b64encode(key).decode(), cls.from_base64),
        ]:
            handle = parse(memoryview(bytearray(text, "ascii")))
            if key == bytes(32):
                assert handle is None
                continue
            assert handle is not None
            buffer = bytearray(120)
            assert handle.write_hex(buffer, 3) == 67
            assert handle.write_base64(buffer, 67) == 111
            assert buffer[:3] == bytes(3)
            assert buffer[3:67] == expected.hex().encode()
            assert buffer[67:111] == base64.b64encode(expected)
            assert buffer[111:] == bytes(9)


@given(st.binary(max_size=70))
@pytest.mark.item(105)
def test_what_is_no_key_is_refused_and_not_repeated(text: bytes) -> None:
    for cls in KEYS:
        for parse in (cls.from_hex, cls.from_base64):
            with pytest.raises(ValueError, match="not a key") as error:
                parse(text)
            assert str(text) not in str(error.value)


@pytest.mark.parametrize("last", [b"B=", b"P=", b"AA", b"==", b"A-", b"A\n"])
def test_base64_is_strict(last: bytes) -> None:
    with pytest.raises(ValueError, match="44 characters"):
        PrivateKey.from_base64(b"B" * 42 + last)


@pytest.mark.parametrize("cls", KEYS)
def test_write_checks_the_buffer(cls: Key) -> None:
    key = cls.generate()
    for buffer, offset in [(bytearray(63), 0), (bytearray(64), 1), (bytearray(64), 10**9)]:
        with pytest.raises(ValueError, match="64 bytes of buffer"):
            key.write_hex(buffer, offset)
        assert not any(buffer)
    with pytest.raises(BufferError):
        key.write_hex(bytes(64), 0)  # type: ignore[arg-type, unused-ignore]
    buffer = bytearray(64)
    key.write_hex(buffer, 0)
    buffer.clear()  # nothing holds on to it


def test_exchange() -> None:
    # RFC 7748, section 6.1
    alice = PrivateKey.from_hex(b"77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    assert alice is not None
    public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert alice.public.hex() == public
    bob = PrivateKey.generate()
    assert alice.exchange(bob.public) == bob.exchange(alice.public)
    assert alice.exchange(bytes(32)) is None
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        alice.exchange(bytes(31))


def test_handles_compare_by_value() -> None:
    for cls in KEYS:
        key = cls.generate()
        same = cls.from_hex(hex_of(key))
        assert key == same
        assert key != cls.generate()
    key, psk = PrivateKey.generate(), PresharedKey.generate()
    others: list[object] = [psk, hex_of(key), None, 1]
    assert key not in others


@pytest.mark.item(105)
def test_handles_are_redacted() -> None:
    for handle in secrets():
        assert repr(handle) == str(handle) == f"{type(handle).__name__}(hidden)"


@pytest.mark.parametrize("cls", [PrivateKey, PresharedKey, SharedSecret])
def test_keys_have_no_hash(cls: type) -> None:
    assert cls.__hash__ is None


@pytest.mark.item(105)
def test_handles_refuse_copies() -> None:
    attempts: list[Callable[[object], object]] = [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        bytes,  # type: ignore[list-item]
    ]
    for handle in secrets():
        for attempt in attempts:
            with pytest.raises(TypeError):
                attempt(handle)


@pytest.mark.item(105)
def test_handles_are_dead_after_a_fork() -> None:
    key, psk, shared = PrivateKey.generate(), PresharedKey.generate(), PrivateKey.generate()
    secret = key.exchange(shared.public)
    assert secret is not None
    state, (session, other) = SymmetricState(b"test"), sessions()
    message = other.seal(b"packet", START)
    assert message is not None
    uses: list[Callable[[], object]] = [
        lambda: key.public,
        lambda: key.exchange(bytes(32)),
        lambda: key.write_hex(bytearray(64), 0),
        lambda: key == shared,
        lambda: psk.write_base64(bytearray(64), 0),
        lambda: state.hash,
        lambda: state.mix_hash(b""),
        lambda: state.copy(),
        lambda: state.encrypt_and_hash(b""),
        lambda: state.split(True, 1, 2, START, LIFETIMES),
        lambda: SymmetricState(b"test").mix_key(secret),
        lambda: SymmetricState(b"test").mix_key_and_hash(psk),
        lambda: session.seal(b"", START),
        lambda: session.open(message, START),
        lambda: session.rekey_due(START, True),
        lambda: session.local_index,
    ]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        dead = 0
        for use in uses:
            try:
                use()
            except RuntimeError as error:
                dead += "crossed a fork" in str(error)
        alive = PrivateKey.generate().public
        os.write(writing, bytes([dead, len(alive)]))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == bytes([len(uses), 32])
    os.waitpid(child, 0)
    assert session.open(message, START) == b"packet"


@pytest.mark.item(27)
def test_symmetric_state_ends_with_its_split() -> None:
    state = SymmetricState(b"test")
    state.split(True, 1, 2, START, LIFETIMES)
    for use in (lambda: state.hash, lambda: state.mix_hash(b""), lambda: state.copy()):
        with pytest.raises(RuntimeError, match="was split"):
            use()
    with pytest.raises(RuntimeError, match="was split"):
        state.split(True, 1, 2, START, LIFETIMES)


def test_symmetric_state_hashes_the_name() -> None:
    assert SymmetricState(b"short").hash == b"short".ljust(32, b"\0")
    name = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
    assert SymmetricState(name).hash == hashlib.blake2s(name).digest()


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_symmetric_states_agree(material: bytes, plaintext: bytes) -> None:
    sender = SymmetricState(b"test")
    sender.mix_key(material)
    receiver = sender.copy()
    ciphertext = sender.encrypt_and_hash(plaintext)
    before = receiver.hash
    forged = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert receiver.decrypt_and_hash(forged) is None
    assert receiver.hash == before
    assert receiver.decrypt_and_hash(ciphertext) == plaintext
    assert receiver.hash == sender.hash


def test_mix_key_takes_secrets_and_bytes_only() -> None:
    with pytest.raises(TypeError):
        SymmetricState(b"test").mix_key("text")  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=2000), max_size=20), st.randoms())
@pytest.mark.item(51)
def test_sessions_open_each_message_once(packets: list[bytes], random: Random) -> None:
    initiator, responder = sessions()
    messages = [initiator.seal(packet, START) for packet in packets]
    order = list(range(len(packets))) * 2
    random.shuffle(order)
    seen = set()
    for i in order:
        message = messages[i]
        assert message is not None
        assert message[:8] == bytes([4, 0, 0, 0, 22, 0, 0, 0])
        assert len(message) == len(packets[i]) + 32
        assert responder.open(message, START) == (None if i in seen else packets[i])
        seen.add(i)


@pytest.mark.item(54, 67)
def test_sessions_have_limits() -> None:
    initiator, responder = sessions()
    message, late = initiator.seal(b"packet", START), initiator.seal(b"packet", START)
    assert message is not None and late is not None
    assert responder.open(message[:31], START) is None
    assert responder.open(message, START + 180 * SECOND - 1) == b"packet"
    assert responder.open(late, START + 180 * SECOND) is None
    assert initiator.seal(b"packet", START + 180 * SECOND) is None
    assert not initiator.rekey_due(START + 120 * SECOND, True)
    assert initiator.rekey_due(START + 120 * SECOND + 1, True)
    assert not responder.rekey_due(START + 179 * SECOND, True)
    assert initiator.rekey_due(START + 166 * SECOND, False)
    assert not initiator.rekey_due(START + 166 * SECOND, False)
    assert (initiator.local_index, initiator.remote_index) == (11, 22)
    assert (initiator.initiator, responder.initiator) == (True, False)
    assert initiator.created == START


@pytest.mark.item(80)
def test_endpoints_are_equal_by_address_port_and_scope() -> None:
    endpoint = Endpoint("192.0.2.1", 51820)
    assert (endpoint.host, endpoint.port, endpoint.scope) == ("192.0.2.1", 51820, 0)
    assert endpoint == Endpoint("::ffff:192.0.2.1", 51820)
    assert hash(endpoint) == hash(Endpoint("::ffff:192.0.2.1", 51820))
    assert endpoint != Endpoint("192.0.2.1", 51821)
    assert Endpoint("fe80::1", 1, 2) != Endpoint("fe80::1", 1, 3)
    assert Endpoint("fe80::1", 1, 2).scope == 2
    assert Endpoint("2001:db8::1", 1, 2) == Endpoint("2001:db8::1", 1)
    assert repr(endpoint) == "Endpoint(192.0.2.1:51820)"
    assert repr(Endpoint("2001:db8::1", 1)) == "Endpoint([2001:db8::1]:1)"
    others: list[object] = ["192.0.2.1:51820", None]
    assert endpoint not in others


@pytest.mark.parametrize(
    ("host", "port", "scope"),
    [
        ("example.org", 1, 0),
        ("192.0.2.256", 1, 0),
        ("fe80::1%eth0", 1, 0),
        ("", 1, 0),
        ("::1", 65536, 0),
        ("::1", -1, 0),
        ("::1", 1 << 70, 0),
        ("::1", 1, -1),
        ("::1", 1, 1 << 32),
    ],
)
def test_endpoints_are_numeric(host: str, port: int, scope: int) -> None:
    with pytest.raises(ValueError, match="not"):
        Endpoint(host, port, scope)


@given(st.integers(min_value=1, max_value=2**64 - 1))
def test_uniform(limit: int) -> None:
    assert 0 <= Entropy().uniform(limit) < limit


def test_uniform_covers_its_range() -> None:
    entropy = Entropy()
    assert {entropy.uniform(5) for _ in range(1000)} == set(range(5))
    assert entropy.private_key() != entropy.private_key()
    with pytest.raises(ValueError):
        entropy.uniform(0)
