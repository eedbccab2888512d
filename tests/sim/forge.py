"""Makes messages that violate the protocol."""

from wiresnake._native import PresharedKey, PrivateKey, SymmetricState
from wiresnake.protocol.constants import CONSTRUCTION, IDENTIFIER
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import Initiation, Response
from wiresnake.protocol.noise import Handshake, Identity, create_initiation

LOW_ORDER_POINTS = [
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
]
"""All points of small order, in every encoding of 255 bits."""
NOTHING = bytes(32)
"""The result of X25519 with a low-order point, from which an attacker can compute the rest."""


def initiation(
    private: PrivateKey, target: bytes, ephemeral: PrivateKey, timestamp: bytes, index: int = 1
) -> tuple[Handshake, bytes]:
    """Makes an initiation with both MACs, of any key and with any timestamp."""
    shared = private.exchange(target)
    assert shared is not None
    own = Identity(private, private.public)
    created = create_initiation(own, target, shared, ephemeral, timestamp, index)
    assert created is not None
    return created[0], with_macs(created[1].pack(), target)


def low_order_initiation(
    private: PrivateKey, target: bytes, point: bytes, timestamp: bytes, index: int = 1
) -> bytes:
    """Makes an initiation that is valid except for its ephemeral key. Only the check rejects it."""
    state = _begun(target, point)
    state.mix_key(NOTHING)
    static = state.encrypt_and_hash(private.public)
    shared = private.exchange(target)
    assert shared is not None
    state.mix_key(shared)
    message = Initiation(index, point, static, state.encrypt_and_hash(timestamp))
    return with_macs(message.pack(), target)


def low_order_static_initiation(
    target: bytes, ephemeral: PrivateKey, point: bytes, timestamp: bytes, index: int = 1
) -> bytes:
    """Makes the same for the static key, for which an attacker needs no private key."""
    state = _begun(target, ephemeral.public)
    shared = ephemeral.exchange(target)
    assert shared is not None
    state.mix_key(shared)
    static = state.encrypt_and_hash(point)
    state.mix_key(NOTHING)
    message = Initiation(index, ephemeral.public, static, state.encrypt_and_hash(timestamp))
    return with_macs(message.pack(), target)


def low_order_response(
    state: SymmetricState,
    psk: PresharedKey | None,
    receiver: int,
    target: bytes,
    point: bytes,
    index: int = 1,
) -> bytes:
    """Makes a response with such an ephemeral key. `state` is the one after the initiation."""
    state.mix_hash(point)
    state.mix_key(point)
    state.mix_key(NOTHING)
    state.mix_key(NOTHING)
    state.mix_key_and_hash(psk)
    message = Response(index, receiver, point, state.encrypt_and_hash(b""))
    return with_macs(message.pack(), target)


def with_macs(message: bytes, target: bytes) -> bytes:
    return Cookies(target).add_macs(message, 0)


def _begun(target: bytes, ephemeral: bytes) -> SymmetricState:
    """Begins an initiation to that key, up to its ephemeral key."""
    state = SymmetricState(CONSTRUCTION)
    state.mix_hash(IDENTIFIER)
    state.mix_hash(target)
    state.mix_hash(ephemeral)
    state.mix_key(ephemeral)
    return state
