"""The handshake against fixed vectors and against an independent implementation."""

import hmac
import warnings
from hashlib import blake2s, sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection
from sim.forge import LOW_ORDER_POINTS
from sim.world import preshared_key, private_key

from wiresnake._native import PresharedKey, PrivateKey, SharedSecret, SymmetricState
from wiresnake.protocol.constants import CONSTRUCTION, IDENTIFIER, SECOND, Timing
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import Initiation, Response
from wiresnake.protocol.noise import (
    Handshake,
    Identity,
    Initiated,
    consume_initiation,
    consume_response,
    create_initiation,
    create_response,
    tai64n,
)

WALL = 1_700_000_000 * SECOND + SECOND // 2
TIMESTAMP = bytes.fromhex("400000006553f10a1d000000")
M1 = bytes.fromhex(
    "01000000443322112f63a2cf597dc51b7cd650eef555939f0c32db6ed0f104679d02006fbad6b37720fd5778d5b77828"
    "7996f98d1b99bb7a4c6eda33fbf6d4cd5c2c71f2f31e0e16d84e86c66ad418699eec4bd95bc9b3644937afe9f0bd933a"
    "a06e6ace40e6d4ca59866f67e2822f0d91713e6530c542a490c3a4c32365747fd93c5194"
) + bytes(16)
M2 = bytes.fromhex(
    "02000000887766554433221162185c01c5a018c18258fe188bc2781e6d813e4cb97b62b7ace200a47b4bd74652e9df6f"
    "66145fb695e919559ec65890a1a215a3e6d5118a7a19dc16f48f31d8"
) + bytes(16)
KEEPALIVE = bytes.fromhex("04000000887766550000000000000000208a4e601ca7d0daf33a60bf0d5cd8e3")
INITIATOR_SENDS = bytes.fromhex("422e2be95e4133ecb734b65809e7883bab507a2646affac1ca5498f74f4e5498")
RESPONDER_SENDS = bytes.fromhex("29bd9d14237b276f8170014d6a492a4a4fd34087561f96ff9883f8a19120d30b")

INITIATOR = Identity(private_key("si"), private_key("si").public)
RESPONDER = Identity(private_key("sr"), private_key("sr").public)
PSK = preshared_key("psk")
LOCAL, REMOTE = 0x11223344, 0x55667788
LIFETIMES = Timing().lifetimes


def exchange(private: PrivateKey, public: bytes) -> SharedSecret:
    shared = private.exchange(public)
    assert shared is not None
    return shared


def initiate() -> tuple[Handshake, Initiation]:
    shared = exchange(INITIATOR.private, RESPONDER.public)
    created = create_initiation(
        INITIATOR, RESPONDER.public, shared, private_key("ei"), tai64n(WALL), LOCAL
    )
    assert created is not None
    return created


def consume(initiation: Initiation, known: bytes = INITIATOR.public) -> Initiated | None:
    return consume_initiation(
        RESPONDER,
        initiation,
        lambda key: RESPONDER.private.exchange(key) if key == known else None,
    )


def respond(
    initiation: Initiation, psk: PresharedKey | None = PSK
) -> tuple[SymmetricState, Response]:
    initiated = consume(initiation)
    assert initiated is not None
    response = create_response(initiated, psk, private_key("er"), REMOTE)
    assert response is not None
    return initiated.state, response


@pytest.mark.item(1)
def test_initial_chaining_key_and_hash_are_known() -> None:
    state = SymmetricState(CONSTRUCTION)
    assert state.hash.hex().startswith("60e26daef327efc0") and state.hash.hex().endswith("8b78cd36")
    state.mix_hash(IDENTIFIER)
    assert state.hash.hex().startswith("2211b361081ac566") and state.hash.hex().endswith("ba079ef3")


@pytest.mark.item(7)
def test_tai64n_is_as_in_the_vector() -> None:
    assert tai64n(WALL) == TIMESTAMP


@pytest.mark.item(8)
def test_timestamps_within_one_tick_are_equal() -> None:
    tick = WALL - WALL % SECOND
    assert tai64n(tick) == tai64n(tick + (1 << 24) - 1) < tai64n(tick + (1 << 24))


@pytest.mark.parametrize("wall", [0, -1, -(1 << 90), 1 << 90, 1 << 62])
@pytest.mark.item(74)
def test_no_wall_clock_is_too_strange_for_a_timestamp(wall: int) -> None:
    assert len(tai64n(wall)) == 12


@pytest.mark.item(1, 4, 7, 29)
def test_the_vectors_initiation_is_made() -> None:
    _, initiation = initiate()
    assert Cookies(RESPONDER.public).add_macs(initiation.pack(), 0) == M1


@pytest.mark.item(4, 7)
def test_the_vectors_initiation_is_consumed() -> None:
    initiation = Initiation.parse(M1)
    assert initiation is not None
    initiated = consume(initiation)
    assert initiated is not None
    assert initiated.static == INITIATOR.public
    assert initiated.timestamp == TIMESTAMP
    assert initiated.index == LOCAL


@pytest.mark.item(4, 6)
def test_the_vectors_response_is_made() -> None:
    _, initiation = initiate()
    _, response = respond(initiation)
    assert Cookies(INITIATOR.public).add_macs(response.pack(), 0) == M2


@pytest.mark.item(46)
def test_the_vectors_transport_keys_seal_its_keepalive() -> None:
    handshake, initiation = initiate()
    theirs, response = respond(initiation)
    assert Response.parse(M2) == response
    ours = consume_response(INITIATOR, handshake, PSK, response)
    assert ours is not None
    initiator = ours.split(True, LOCAL, REMOTE, 1, LIFETIMES)
    responder = theirs.split(False, REMOTE, LOCAL, 1, LIFETIMES)
    assert initiator.seal(b"", 1) == KEEPALIVE
    assert responder.open(KEEPALIVE, 1) == b""
    for sealed, key in [
        (initiator.seal(bytes(16), 1), INITIATOR_SENDS),
        (responder.seal(bytes(16), 1), RESPONDER_SENDS),
    ]:
        assert sealed is not None
        nonce = bytes(4) + sealed[8:16]
        assert ChaCha20Poly1305(key).decrypt(nonce, sealed[16:], b"") == bytes(16)


@pytest.mark.parametrize("at", range(4, 116))
@pytest.mark.item(92)
def test_any_flipped_byte_of_an_initiation_is_nothing(at: int) -> None:
    bad = Initiation.parse(M1[:at] + bytes([M1[at] ^ 1]) + M1[at + 1 :])
    assert bad is not None
    # The sender index is the one field that only the MACs protect.
    assert (consume(bad) is None) == (at >= 8)


@pytest.mark.parametrize("at", range(12, 60))
@pytest.mark.item(16)
def test_any_flipped_byte_of_a_response_is_nothing_and_changes_nothing(at: int) -> None:
    handshake, _ = initiate()
    bad = Response.parse(M2[:at] + bytes([M2[at] ^ 1]) + M2[at + 1 :])
    good = Response.parse(M2)
    assert bad is not None and good is not None
    assert consume_response(INITIATOR, handshake, PSK, bad) is None
    assert consume_response(INITIATOR, handshake, PSK, good) is not None


@pytest.mark.item(6)
def test_a_wrong_psk_is_found_in_the_second_message() -> None:
    handshake, initiation = initiate()
    _, response = respond(initiation, None)
    assert consume_response(INITIATOR, handshake, PSK, response) is None
    assert consume_response(INITIATOR, handshake, None, response) is not None


@pytest.mark.item(6)
def test_no_psk_is_32_zero_bytes() -> None:
    """`from_hex` reads all zeros as no key, so the key of zeros is looked at through the hash."""
    state = SymmetricState(CONSTRUCTION)
    state.mix_key_and_hash(None)
    _, temporary, _ = kdf(blake2s(CONSTRUCTION).digest(), bytes(32), 3)
    assert state.hash == blake2s(blake2s(CONSTRUCTION).digest() + temporary).digest()


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.item(18)
def test_a_low_order_point_aborts_every_exchange(point: bytes) -> None:
    assert INITIATOR.private.exchange(point) is None
    shared = exchange(INITIATOR.private, RESPONDER.public)
    ephemeral = private_key("ei")
    assert create_initiation(INITIATOR, point, shared, ephemeral, TIMESTAMP, LOCAL) is None
    handshake, initiation = initiate()
    assert consume(initiation._replace(ephemeral=point)) is None
    response = Response(REMOTE, LOCAL, point, bytes(16))
    assert consume_response(INITIATOR, handshake, PSK, response) is None
    for static, remote in [(point, INITIATOR.public), (INITIATOR.public, point)]:
        initiated = Initiated(static, TIMESTAMP, remote, LOCAL, SymmetricState(CONSTRUCTION))
        assert create_response(initiated, PSK, private_key("er"), REMOTE) is None


@pytest.mark.item(28)
def test_a_stranger_costs_one_exchange_and_one_decryption() -> None:
    _, initiation = initiate()
    asked: list[bytes] = []

    def find(key: bytes) -> None:
        asked.append(key)

    # A timestamp that would fail is never reached.
    stranger = initiation._replace(timestamp=bytes(28))
    assert consume_initiation(RESPONDER, stranger, find) is None
    assert asked == [INITIATOR.public]


# An independent implementation, in both roles.


def oracle(initiator: bool, psk: bytes) -> NoiseConnection:
    connection = NoiseConnection.from_name(CONSTRUCTION)
    connection.set_prologue(IDENTIFIER)
    connection.set_psks(psk=psk)
    name, ephemeral = ("si", "ei") if initiator else ("sr", "er")
    connection.set_as_initiator() if initiator else connection.set_as_responder()
    connection.set_keypair_from_private_bytes(Keypair.STATIC, sha256(name.encode()).digest())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of fixed ephemerals, which are wanted here.
        secret = sha256(ephemeral.encode()).digest()
        connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, secret)
        if initiator:
            connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, RESPONDER.public)
        connection.start_handshake()
    return connection


PSKS = [(None, bytes(32)), (PSK, sha256(b"psk").digest())]


@pytest.mark.parametrize(("psk", "raw"), PSKS)
@pytest.mark.item(1, 6)
def test_noiseprotocol_responds(psk: PresharedKey | None, raw: bytes) -> None:
    responder = oracle(False, raw)
    handshake, initiation = initiate()
    assert responder.read_message(b"".join(initiation[1:])) == TIMESTAMP
    answer = bytes(responder.write_message())
    response = Response(REMOTE, LOCAL, answer[:32], answer[32:])
    state = consume_response(INITIATOR, handshake, psk, response)
    assert state is not None
    assert state.hash == responder.get_handshake_hash()
    session = state.split(True, LOCAL, REMOTE, 1, LIFETIMES)
    sealed = session.seal(b"0123456789abcdef", 1)
    assert sealed is not None
    assert responder.decrypt(sealed[16:]) == b"0123456789abcdef"
    back = bytes(responder.encrypt(b"fedcba9876543210"))
    header = b"\4\0\0\0" + LOCAL.to_bytes(4, "little") + bytes(8)
    assert session.open(header + back, 1) == b"fedcba9876543210"


@pytest.mark.parametrize(("psk", "raw"), PSKS)
@pytest.mark.item(1, 6)
def test_noiseprotocol_initiates(psk: PresharedKey | None, raw: bytes) -> None:
    initiator = oracle(True, raw)
    first = bytes(initiator.write_message(TIMESTAMP))
    state, response = respond(Initiation(LOCAL, first[:32], first[32:80], first[80:]), psk)
    assert initiator.read_message(response.ephemeral + response.nothing) == b""
    assert state.hash == initiator.get_handshake_hash()
    session = state.split(False, REMOTE, LOCAL, 1, LIFETIMES)
    header = b"\4\0\0\0" + REMOTE.to_bytes(4, "little") + bytes(8)
    sent = header + bytes(initiator.encrypt(b"0123456789abcdef"))
    assert session.open(sent, 1) == b"0123456789abcdef"


# The key derivation, seen through SymmetricState.


def kdf(key: bytes, material: bytes, count: int) -> list[bytes]:
    """KDFn of §5.4: HKDF with HMAC-BLAKE2s."""
    secret = hmac.digest(key, material, "blake2s")
    outputs, last = [], b""
    for number in range(1, count + 1):
        last = hmac.digest(secret, last + bytes([number]), "blake2s")
        outputs.append(last)
    return outputs


@pytest.mark.item(5)
def test_kdf_gives_the_vectors() -> None:
    one, two, three = (output.hex() for output in kdf(b"test-key", b"test-input", 3))
    assert (one[:8], one[-4:]) == ("6f0e5ad3", "c633")
    assert (two[:8], two[-4:]) == ("df1194df", "1e8a")
    assert (three[:8], three[-4:]) == ("fac6e274", "6c24")


@pytest.mark.item(4, 5)
def test_mix_key_and_seal_with_nonce_zero_and_the_hash() -> None:
    chaining_key = blake2s(CONSTRUCTION).digest()
    state = SymmetricState(CONSTRUCTION)
    for material in (b"material" * 4, bytes(32)):
        state.mix_key(material)
        chaining_key, key = kdf(chaining_key, material, 2)
        before = state.hash
        sealed = state.encrypt_and_hash(b"text")
        assert sealed == ChaCha20Poly1305(key).encrypt(bytes(12), b"text", before)
        assert state.hash == blake2s(before + sealed).digest()
    state.mix_key_and_hash(PSK)
    chaining_key, temporary, key = kdf(chaining_key, sha256(b"psk").digest(), 3)
    assert state.hash == blake2s(blake2s(before + sealed).digest() + temporary).digest()
    assert state.copy().encrypt_and_hash(b"") == ChaCha20Poly1305(key).encrypt(
        bytes(12), b"", state.hash
    )
