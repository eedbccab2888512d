"""The handshake, Noise_IKpsk2, token by token (§5.4.2, §5.4.3; kernel noise.c).

    <- s
    ******
    -> e, es, s, ss, {t}
    <- e, ee, se, psk, {}

Rule 1: nothing here keeps state. A message is consumed into a new state or a copy, which is
returned only if the last tag was right.
Rule 2: an all-zero result of X25519 aborts at any token (`exchange` returns None).

The comments give the whitepaper's formulas. `C`, `H` and `k` are kept in `SymmetricState`:
mix_hash(d) is H := HASH(H || d), mix_key(d) is (C, k) := KDF2(C, d), and encrypt_and_hash(p) is
AEAD(k, 0, p, H) followed by mix_hash of the result.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from wiresnake._native import PresharedKey, PrivateKey, SharedSecret, SymmetricState
from wiresnake.protocol.constants import (
    CONSTRUCTION,
    IDENTIFIER,
    SECOND,
    TIMESTAMP_GRANULARITY,
)
from wiresnake.protocol.messages import Initiation, Response


class Identity(NamedTuple):
    """A device's own static key pair."""

    private: PrivateKey
    public: bytes


@dataclass(frozen=True, slots=True)
class Handshake:
    """An initiation that was sent and has no response yet."""

    index: int
    ephemeral: PrivateKey = field(repr=False)
    state: SymmetricState = field(repr=False)


@dataclass(frozen=True, slots=True)
class Initiated:
    """An authenticated initiation. The peer decides whether it is fresh."""

    static: bytes
    """The initiator's public key."""
    timestamp: bytes
    ephemeral: bytes
    index: int
    """The initiator's sender index."""
    state: SymmetricState = field(repr=False)


def tai64n(wall: int) -> bytes:
    """Converts ns since 1970 to 12 bytes that sort by time (kernel: tai64n_now).

    The nanoseconds are rounded down, so as not to reveal when exactly the clock was read.
    """
    seconds, nanoseconds = divmod(wall, SECOND)
    nanoseconds -= nanoseconds % TIMESTAMP_GRANULARITY
    return struct.pack(">QI", (0x400000000000000A + seconds) % (1 << 64), nanoseconds)


def create_initiation(
    own: Identity,
    remote: bytes,
    static_static: SharedSecret,
    ephemeral: PrivateKey,
    timestamp: bytes,
    index: int,
) -> tuple[Handshake, Initiation] | None:
    """Creates -> e, es, s, ss, {t}. Returns None if the peer's key is of low order."""
    state = _begin(remote)
    # e: C := KDF1(C, E_pub); H := HASH(H || E_pub)
    public = ephemeral.public
    state.mix_hash(public)
    state.mix_key(public)
    # es: (C, k) := KDF2(C, DH(E_priv, S_pub_r))
    shared = ephemeral.exchange(remote)
    if shared is None:
        return None
    state.mix_key(shared)
    # s: static := AEAD(k, 0, S_pub_i, H); H := HASH(H || static)
    static = state.encrypt_and_hash(own.public)
    # ss: (C, k) := KDF2(C, DH(S_priv_i, S_pub_r))
    state.mix_key(static_static)
    # {t}: timestamp := AEAD(k, 0, TIMESTAMP(), H); H := HASH(H || timestamp)
    sealed = state.encrypt_and_hash(timestamp)
    return Handshake(index, ephemeral, state), Initiation(index, public, static, sealed)


def consume_initiation(
    own: Identity, message: Initiation, find: Callable[[bytes], SharedSecret | None]
) -> Initiated | None:
    """Consumes -> e, es, s, ss, {t}, as the responder. Returns None if it does not authenticate.

    `find` returns DH(S_priv_r, S_pub_i) of a known peer. A stranger costs one DH and one AEAD.
    """
    state = _begin(own.public)
    state.mix_hash(message.ephemeral)
    state.mix_key(message.ephemeral)
    shared = own.private.exchange(message.ephemeral)
    if shared is None:
        return None
    state.mix_key(shared)
    static = state.decrypt_and_hash(message.static)
    if static is None:
        return None
    shared = find(static)
    if shared is None:
        return None
    state.mix_key(shared)
    timestamp = state.decrypt_and_hash(message.timestamp)
    if timestamp is None:
        return None
    return Initiated(static, timestamp, message.ephemeral, message.sender, state)


def create_response(
    initiated: Initiated, psk: PresharedKey | None, ephemeral: PrivateKey, index: int
) -> Response | None:
    """Creates <- e, ee, se, psk, {}. After that `initiated.state` is ready to be split."""
    state = initiated.state
    # e: C := KDF1(C, E_pub); H := HASH(H || E_pub)
    public = ephemeral.public
    state.mix_hash(public)
    state.mix_key(public)
    # ee, se: C := KDF1(C, DH(E_priv_r, E_pub_i)); C := KDF1(C, DH(E_priv_r, S_pub_i))
    for remote in initiated.ephemeral, initiated.static:
        shared = ephemeral.exchange(remote)
        if shared is None:
            return None
        state.mix_key(shared)
    # psk: (C, t, k) := KDF3(C, Q); H := HASH(H || t)
    state.mix_key_and_hash(psk)
    # {}: nothing := AEAD(k, 0, "", H); H := HASH(H || nothing)
    return Response(index, initiated.index, public, state.encrypt_and_hash(b""))


def consume_response(
    own: Identity, handshake: Handshake, psk: PresharedKey | None, message: Response
) -> SymmetricState | None:
    """Consumes <- e, ee, se, psk, {}, as the initiator, and returns a state to split.

    Returns None if it does not authenticate. `handshake` stays unchanged.
    """
    state = handshake.state.copy()
    state.mix_hash(message.ephemeral)
    state.mix_key(message.ephemeral)
    for private in handshake.ephemeral, own.private:
        shared = private.exchange(message.ephemeral)
        if shared is None:
            return None
        state.mix_key(shared)
    state.mix_key_and_hash(psk)
    return None if state.decrypt_and_hash(message.nothing) is None else state


def _begin(responder: bytes) -> SymmetricState:
    """<- s: C := HASH(CONSTRUCTION); H := HASH(HASH(C || IDENTIFIER) || S_pub_r)"""
    state = SymmetricState(CONSTRUCTION)
    state.mix_hash(IDENTIFIER)
    state.mix_hash(responder)
    return state
