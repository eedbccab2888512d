"""The four messages as they stand on the wire (§5.4.2 to §5.4.7), little-endian throughout.

The type is read as a 32-bit word, so that a reserved byte other than zero makes no message at
all. What is not of a message's shape parses to None. The two MACs that end an initiation and a
response belong to cookie.py: `pack` gives what comes before them, and `parse` leaves them out,
because a plane's gate has judged them by then.
"""

import struct
from typing import Final, NamedTuple, Self

INITIATION: Final = 1
RESPONSE: Final = 2
COOKIE_REPLY: Final = 3
DATA: Final = 4
"""The types: a byte and three reserved zero bytes."""

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
    """First message, from the initiator (§5.4.2)."""

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
    """Second message, from the responder (§5.4.3)."""

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
    """What a responder under load answers instead (§5.4.7)."""

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
    """A packet under a session's keys (§5.4.6). Only a plane, or a test, takes one apart."""

    receiver: int
    counter: int
    packet: bytes
    """Encrypted and padded packet with its tag; a tag alone is a keepalive."""

    @classmethod
    def parse(cls, message: bytes) -> Self | None:
        if len(message) < KEEPALIVE_SIZE:
            return None
        kind, receiver, counter = _DATA.unpack_from(message)
        return cls(receiver, counter, message[DATA_HEADER_SIZE:]) if kind == DATA else None

    def pack(self) -> bytes:
        return _DATA.pack(DATA, self.receiver, self.counter) + self.packet
