"""Who may use the proxy, and where it may lead."""

import hmac
import re
from dataclasses import dataclass, field

from wiresnake.text import is_address

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Login:
    """The user and password that clients must know."""

    user: bytes
    password: bytes = field(repr=False)

    def admits(self, given: bytes) -> bool:
        """Compares `user:password`, in a time that does not depend on where it differs."""
        return hmac.compare_digest(given, self.user + b":" + self.password)


def is_host(text: str) -> bool:
    """Whether it is an address or can be the name of a host."""
    return bool(_NAME.fullmatch(text)) or ("%" not in text and is_address(text))
