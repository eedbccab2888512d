"""mac1, mac2 and received cookies (§5.4.4, §5.4.7; kernel cookie.c).

This is the sender's side. The receiver's side, which sends cookies under load, is the plane's gate.
"""

from hashlib import blake2s
from typing import Final

from wiresnake._native import open_cookie
from wiresnake.protocol.constants import COOKIE_LIFETIME, LABEL_COOKIE, LABEL_MAC1
from wiresnake.protocol.messages import MAC_SIZE, CookieReply

_NO_MAC2: Final = bytes(MAC_SIZE)


class Cookies:
    """Adds to handshake messages the MACs that one peer requires before it answers."""

    __slots__ = ("_cookie", "_mac1", "_public_key", "_received")

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key
        self._mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._received = 0

    def add_macs(self, message: bytes, now: int) -> bytes:
        """Returns the message with mac1 and mac2. Without a cookie younger than 115 s mac2 is zero.

        mac1 := MAC(HASH(LABEL_MAC1 || S_pub), msga); mac2 := MAC(cookie, msgb)
        """
        self._mac1 = _mac(_hash(LABEL_MAC1 + self._public_key), message)
        message += self._mac1
        if self._cookie is not None and now - self._received >= COOKIE_LIFETIME:
            self._cookie = None
        return message + (_NO_MAC2 if self._cookie is None else _mac(self._cookie, message))

    def consume(self, reply: CookieReply, now: int) -> bool:
        """Keeps the cookie if it answers the last mac1 sent. Each mac1 gets at most one cookie."""
        if self._mac1 is None:
            return False
        key = _hash(LABEL_COOKIE + self._public_key)
        cookie = open_cookie(key, reply.nonce, reply.cookie, self._mac1)
        if cookie is None:
            return False
        self._mac1, self._cookie, self._received = None, cookie, now
        return True


def _hash(data: bytes) -> bytes:
    return blake2s(data).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=MAC_SIZE).digest()
