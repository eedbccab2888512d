"""Builds and opens every message of the protocol, valid or not, by hand (whitepaper, 5.4).

It makes no decisions. Keyword arguments replace any part of a message, so that a check can send
what an implementation never would. MACs are computed over the real content.
"""

import hmac
import os
import struct
import time
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import blake2s

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = 1, 2, 3, 4
KINDS = {1: "initiation", 2: "response", 3: "cookie reply", 4: "transport data"}
LENGTHS = {INITIATION: 148, RESPONSE: 92, COOKIE_REPLY: 64}
CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
NO_PSK = NO_MAC = NOTHING = bytes(32)
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1

P = 2**255 - 19
LOW_ORDER_POINTS = tuple(
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
        P,
        P + 1,
    )
)
"""The u-coordinates with which every private key gives zero (RFC 7748, 6.1)."""


class Unopened(Exception):
    """A message does not authenticate, or is not a message at all."""


@dataclass(frozen=True)
class Key:
    """A Curve25519 key pair."""

    private: bytes
    public: bytes

    @classmethod
    def new(cls) -> "Key":
        return cls.of(os.urandom(32))

    @classmethod
    def of(cls, private: bytes) -> "Key":
        return cls(
            private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        )

    def exchange(self, public: bytes) -> bytes:
        """Computes the shared secret; all zero for a point of low order."""
        try:
            theirs = X25519PublicKey.from_public_bytes(public)
            return X25519PrivateKey.from_private_bytes(self.private).exchange(theirs)
        except ValueError:
            return NOTHING

    @property
    def text(self) -> str:
        """The public key as `wg` writes it."""
        return b64encode(self.public).decode()

    @property
    def private_text(self) -> str:
        return b64encode(self.private).decode()


def digest(*parts: bytes) -> bytes:
    return blake2s(b"".join(parts)).digest()


def mac(key: bytes, *parts: bytes) -> bytes:
    return blake2s(b"".join(parts), key=key, digest_size=16).digest()


def kdf(key: bytes, data: bytes, count: int) -> list[bytes]:
    secret, output, outputs = hmac.digest(key, data, "blake2s"), b"", []
    for number in range(1, count + 1):
        output = hmac.digest(secret, output + bytes([number]), "blake2s")
        outputs.append(output)
    return outputs


def tai64n(seconds: float | None = None) -> bytes:
    """Converts seconds since 1970, or the present time, to 12 bytes that sort by time."""
    whole, rest = divmod(time.time_ns() if seconds is None else int(seconds * 10**9), 10**9)
    return struct.pack(">QI", 0x400000000000000A + whole, rest)


class State:
    """The handshake state of both ends: C, H and k of the whitepaper."""

    def __init__(self, responder: bytes) -> None:
        self.chain = digest(CONSTRUCTION)
        self.hash = digest(digest(self.chain, IDENTIFIER), responder)
        self.key = NOTHING

    def copy(self) -> "State":
        other = object.__new__(State)
        other.__dict__.update(self.__dict__)
        return other

    def mix_hash(self, data: bytes) -> None:
        self.hash = digest(self.hash, data)

    def mix_ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        self.chain = kdf(self.chain, public, 1)[0]

    def mix_key(self, secret: bytes) -> None:
        self.chain, self.key = kdf(self.chain, secret, 2)

    def mix_psk(self, psk: bytes) -> None:
        self.chain, mixed, self.key = kdf(self.chain, psk, 3)
        self.mix_hash(mixed)

    def seal(self, plaintext: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.key).encrypt(bytes(12), plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        try:
            plaintext = ChaCha20Poly1305(self.key).decrypt(bytes(12), sealed, self.hash)
        except InvalidTag:
            raise Unopened("the tag is wrong") from None
        self.mix_hash(sealed)
        return plaintext


def with_macs(message: bytes, receiver: bytes, cookie: bytes | None = None) -> bytes:
    """Adds mac1 for the owner of that public key, and mac2 if there is a cookie, else zeros."""
    mac1 = mac(digest(b"mac1----", receiver), message)
    return message + mac1 + (bytes(16) if cookie is None else mac(cookie, message, mac1))


def again_with_macs(message: bytes, receiver: bytes, cookie: bytes | None = None) -> bytes:
    """Replaces the MACs of a message that was changed."""
    return with_macs(message[:-32], receiver, cookie)


@dataclass
class Session:
    """A pair of transport keys. `send_key` is for messages to the device."""

    local: int
    """This side's index: the receiver index of the device's messages."""
    remote: int
    """The device's index."""
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)
    counter: int = 0
    """The counter of the next message to send."""

    def seal(self, packet: bytes = b"", *, counter: int | None = None, pad: bool = True) -> bytes:
        """Makes a transport data message; an empty one is a keepalive."""
        if counter is None:
            counter, self.counter = self.counter, self.counter + 1
        if pad:
            packet += bytes(-len(packet) % 16)
        nonce = bytes(4) + struct.pack("<Q", counter)
        sealed = ChaCha20Poly1305(self.send_key).encrypt(nonce, packet, b"")
        return struct.pack("<IIQ", TRANSPORT, self.remote, counter) + sealed

    def open(self, message: bytes) -> bytes:
        """Returns the content, including padding."""
        if len(message) < 32:
            raise Unopened(f"{describe(message)} is too short for transport data")
        kind, receiver, counter = struct.unpack_from("<IIQ", message)
        if kind != TRANSPORT or receiver != self.local:
            raise Unopened(f"type {kind} for index {receiver:08x}, not for {self.local:08x}")
        try:
            nonce = bytes(4) + struct.pack("<Q", counter)
            return ChaCha20Poly1305(self.receive_key).decrypt(nonce, message[16:], b"")
        except InvalidTag:
            raise Unopened("the tag is wrong") from None


@dataclass
class Initiating:
    """An initiation to the device, and what is needed to consume its response."""

    message: bytes
    index: int
    ephemeral: Key
    state: State

    @property
    def mac1(self) -> bytes:
        return self.message[116:132]


def initiate(
    own: Key,
    device: bytes,
    *,
    timestamp: bytes | None = None,
    index: int | None = None,
    ephemeral: Key | None = None,
    point: bytes | None = None,
    static: bytes | None = None,
    cookie: bytes | None = None,
) -> Initiating:
    """Makes -> e, es, s, ss, {t}.

    `point` replaces the ephemeral public key (its DH results are taken as zero), and `static` the
    own public key.
    """
    index = int.from_bytes(os.urandom(4)) if index is None else index
    ephemeral = ephemeral or Key.new()
    public = ephemeral.public if point is None else point
    state = State(device)
    state.mix_ephemeral(public)
    state.mix_key(ephemeral.exchange(device) if point is None else NOTHING)
    sealed_static = state.seal(own.public if static is None else static)
    state.mix_key(own.exchange(device))
    sealed_time = state.seal(tai64n() if timestamp is None else timestamp)
    message = struct.pack("<II", INITIATION, index) + public + sealed_static + sealed_time
    return Initiating(with_macs(message, device, cookie), index, ephemeral, state)


def complete(initiating: Initiating, own: Key, response: bytes, psk: bytes = NO_PSK) -> Session:
    """Consumes <- e, ee, se, psk, {}, as the initiator."""
    if len(response) != 92 or struct.unpack_from("<I", response) != (RESPONSE,):
        raise Unopened(f"{describe(response)} is not a response")
    remote, receiver = struct.unpack_from("<II", response, 4)
    if receiver != initiating.index:
        raise Unopened(f"the response is for index {receiver:08x}")
    public = response[12:44]
    state = initiating.state.copy()
    state.mix_ephemeral(public)
    state.mix_key(initiating.ephemeral.exchange(public))
    state.mix_key(own.exchange(public))
    state.mix_psk(psk)
    state.open(response[44:60])
    if response[60:76] != mac(digest(b"mac1----", own.public), response[:60]):
        raise Unopened("mac1 of the response is wrong")
    send, receive = kdf(state.chain, b"", 2)
    return Session(receiver, remote, send, receive)


@dataclass
class Initiated:
    """An opened initiation of the device."""

    message: bytes
    index: int
    """The device's index."""
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    state: State

    @property
    def mac1(self) -> bytes:
        return self.message[116:132]


def consume(own: Key, message: bytes) -> Initiated:
    """Opens an initiation of the device."""
    if len(message) != 148 or struct.unpack_from("<I", message) != (INITIATION,):
        raise Unopened(f"{describe(message)} is not an initiation")
    if message[116:132] != mac(digest(b"mac1----", own.public), message[:116]):
        raise Unopened("mac1 of the initiation is wrong")
    (index,) = struct.unpack_from("<I", message, 4)
    ephemeral = message[8:40]
    state = State(own.public)
    state.mix_ephemeral(ephemeral)
    state.mix_key(own.exchange(ephemeral))
    static = state.open(message[40:88])
    state.mix_key(own.exchange(static))
    return Initiated(message, index, ephemeral, static, state.open(message[88:116]), state)


def respond(
    own: Key,
    initiated: Initiated,
    *,
    psk: bytes = NO_PSK,
    index: int | None = None,
    receiver: int | None = None,
    ephemeral: Key | None = None,
    point: bytes | None = None,
    cookie: bytes | None = None,
) -> tuple[bytes, Session]:
    """Makes <- e, ee, se, psk, {}.

    `point` replaces the ephemeral public key (its DH results are taken as zero).
    """
    index = int.from_bytes(os.urandom(4)) if index is None else index
    receiver = initiated.index if receiver is None else receiver
    ephemeral = ephemeral or Key.new()
    public = ephemeral.public if point is None else point
    state = initiated.state.copy()
    state.mix_ephemeral(public)
    state.mix_key(ephemeral.exchange(initiated.ephemeral) if point is None else NOTHING)
    state.mix_key(ephemeral.exchange(initiated.static) if point is None else NOTHING)
    state.mix_psk(psk)
    nothing = state.seal(b"")
    message = struct.pack("<III", RESPONSE, index, receiver) + public + nothing
    receive, send = kdf(state.chain, b"", 2)
    session = Session(index, initiated.index, send, receive)
    return with_macs(message, initiated.static, cookie), session


def cookie_reply(own: bytes, receiver: int, mac1: bytes, cookie: bytes) -> bytes:
    """Makes a cookie reply by the owner of that public key, for a message with that mac1."""
    nonce = os.urandom(24)
    sealed = _xchacha(digest(b"cookie--", own), nonce).encrypt(bytes(4) + nonce[16:], cookie, mac1)
    return struct.pack("<II", COOKIE_REPLY, receiver) + nonce + sealed


def open_cookie(message: bytes, device: bytes, mac1: bytes, index: int) -> bytes:
    """Opens the cookie in a reply to a message with that mac1 and that sender index."""
    if len(message) != 64 or struct.unpack_from("<I", message) != (COOKIE_REPLY,):
        raise Unopened(f"{describe(message)} is not a cookie reply")
    (receiver,) = struct.unpack_from("<I", message, 4)
    if receiver != index:
        raise Unopened(f"the cookie reply is for index {receiver:08x}, not for {index:08x}")
    nonce = message[8:32]
    cipher = _xchacha(digest(b"cookie--", device), nonce)
    try:
        return cipher.decrypt(bytes(4) + nonce[16:], message[32:], mac1)
    except InvalidTag:
        raise Unopened("the cookie reply does not open") from None


def _xchacha(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    """Makes ChaCha20Poly1305 with the subkey of HChaCha20 (draft-irtf-cfrg-xchacha-03, 2.2)."""
    x = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce[:16]))
    columns = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
    diagonals = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
    for _ in range(10):
        for a, b, c, d in columns + diagonals:
            for to, by, turned, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[to] = (x[to] + x[by]) & 0xFFFFFFFF
                mixed = x[turned] ^ x[to]
                x[turned] = (mixed << left | mixed >> (32 - left)) & 0xFFFFFFFF
    return ChaCha20Poly1305(struct.pack("<8I", *x[:4], *x[12:]))


def kind_of(datagram: bytes) -> int:
    """Returns the first 32-bit word; -1 if the datagram is too short."""
    return int(struct.unpack_from("<I", datagram)[0]) if len(datagram) >= 4 else -1


def describe(datagram: bytes) -> str:
    """Describes a datagram for people: kind, indices, counter and length."""
    kind, length = kind_of(datagram), f"{len(datagram)} B"
    if kind == TRANSPORT and len(datagram) >= 32:
        receiver, counter = struct.unpack_from("<IQ", datagram, 4)
        name = "keepalive" if len(datagram) == 32 else KINDS[kind]
        return f"{name} to {receiver:08x}, counter {counter}, {length}"
    if LENGTHS.get(kind) == len(datagram):
        indices = struct.unpack_from("<II" if kind == RESPONSE else "<I", datagram, 4)
        return f"{KINDS[kind]} ({', '.join(f'{index:08x}' for index in indices)}), {length}"
    start = f" {datagram[:8].hex()}..." if datagram else ""
    return f"datagram of {length}{start}"
