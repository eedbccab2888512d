"""rtnetlink: what is asked and changed of links, addresses, routes and rules."""

import errno
import ipaddress
import socket

from wiresnake.linux.netlink import CAP_ACK, EXT_ACK, SOL_NETLINK, STRICT, Netlink, Request

NEW_LINK, DELETE_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_ATTEMPTS = 5
_NOTHING = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""No such table; no such address family."""


class RouteNetlink(Netlink):
    """It says why it refuses, and in a dump leaves out what was not asked for."""

    def __init__(self) -> None:
        super().__init__()
        for option in (CAP_ACK, EXT_ACK, STRICT):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def all(self, kind: int, body: bytes) -> list[memoryview]:
        """All answers of the request's address family; the kernel filters by the rest of it.

        Without IPv6 the kernel refuses, or answers for all families that it has. What changed
        meanwhile is asked for again, unless it never rests.
        """
        found: list[memoryview] = []
        for _ in range(_ATTEMPTS):
            found, whole = self.dump(Request(kind, body), _NOTHING)
            if whole:
                break
        return [one for one in found if one[0] == body[0]]


def pack_prefix(prefix: str) -> tuple[int, bytes, int]:
    """Version, address and length."""
    text, _, length = prefix.partition("/")
    version = 6 if ":" in text else 4
    packed = socket.inet_pton(FAMILIES[version], text)
    return version, packed, int(length) if length else 8 * len(packed)


def address_text(packed: bytes | memoryview) -> str:
    if len(packed) == 4:  # Of thousands of routes, `ipaddress` is half the time.
        return socket.inet_ntoa(packed)
    return str(ipaddress.ip_address(bytes(packed)))
