"""The four messages as they are on the wire (§5.4.2 to §5.4.7), little-endian throughout.

The type is read as a 32-bit word, so a message with a reserved byte other than zero is rejected.
`parse` returns None for anything that is not a message of its class. The two MACs at the end of an
initiation and a response belong to cookie.py: `pack` returns the bytes before them, and `parse`
ignores them, because the plane's gate has checked them already.
"""

import struct
from typing import Final, NamedTuple, Self

INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE_REPLY: Final = 3
DATA: Final = 4
"""The message types: one byte, followed by three reserved zero bytes."""

_INITIATION: Final = struct.Struct("<II32s48s28s")
_RESPONSE: Final = struct.Struct("<III32s16s")
_COOKIE_REPLY: Final = struct.Struct("<II24s32s")
_DATA: Final = struct.Struct("<IIQ")

MAC_SIZE: Final = 16
TAG_SIZE: Final = 16
INITIATION_SIZE: Final = _INITIATION.size + 2 * MAC_SIZE
RESPONSE_SIZE: Final = _RESPONSE.size + 2 * MAC_SIZE
COOKIE_REPLY_SIZE: Final = _COOKIE_REPLY.size
DATA_HEADER_SIZE: Final = _DATA.size
KEEPALIVE_SIZE: Final = DATA_HEADER_SIZE + TAG_SIZE


class Initiation(NamedTuple):
    """The first message of a handshake, from the initiator (§5.4.2)."""

    sender: int
    ephemeral: bytes
    static: bytes
    """Encrypted public key, 48 bytes."""
    timestamp: bytes
    """Encrypted TAI64N, 28 bytes."""

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        if len(message) != INITIATION_SIZE:
            return None
        kind, *fields = _INITIATION.unpack_from(message)
        return cls(*fields) if kind == INITIATION else None

    def pack(self) -> bytes:
        return _INITIATION.pack(INITIATION, *self)


class Response(NamedTuple):
    """The second message of a handshake, from the responder (§5.4.3)."""

    sender: int
    receiver: int
    ephemeral: bytes
    nothing: bytes
    """Encrypted empty string: a tag, 16 bytes."""

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        if len(message) != RESPONSE_SIZE:
            return None
        kind, *fields = _RESPONSE.unpack_from(message)
        return cls(*fields) if kind == RESPONSE else None

    def pack(self) -> bytes:
        return _RESPONSE.pack(RESPONSE, *self)


class CookieReply(NamedTuple):
    """The answer of a peer under load to a handshake message without mac2 (§5.4.7)."""

    receiver: int
    nonce: bytes
    cookie: bytes
    """Encrypted cookie, 32 bytes."""

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        if len(message) != COOKIE_REPLY_SIZE:
            return None
        kind, *fields = _COOKIE_REPLY.unpack_from(message)
        return cls(*fields) if kind == COOKIE_REPLY else None

    def pack(self) -> bytes:
        return _COOKIE_REPLY.pack(COOKIE_REPLY, *self)


class Data(NamedTuple):
    """A packet that a session has encrypted (§5.4.6). Only planes and tests parse it."""

    receiver: int
    counter: int
    packet: bytes
    """The encrypted, padded packet with its tag; only a tag is a keepalive."""

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        if len(message) < KEEPALIVE_SIZE:
            return None
        kind, receiver, counter = _DATA.unpack_from(message)
        return cls(receiver, counter, message[DATA_HEADER_SIZE:]) if kind == DATA else None

    def pack(self) -> bytes:
        return _DATA.pack(DATA, self.receiver, self.counter) + self.packet
