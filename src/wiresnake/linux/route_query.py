"""Asks the kernel which way a datagram takes (RTM_GETROUTE), and hears when it may be another."""

import errno
import socket
import struct

from wiresnake.linux.netlink import Refused, Request, attribute, fields, number, unsigned

# <linux/rtnetlink.h>
NEW_ADDRESS, _GET_ROUTE = 20, 26
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_PREFSRC, _RTA_MARK = 1, 2, 4, 7, 16
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_FIB_MATCH = 0x2000
_MESSAGE = struct.Struct("=8BI")
GROUPS = (1, 5, 7, 8, 9, 11, 19, 32)
"""Links; addresses, routes and rules of IPv4, then of IPv6 (19: its rules); next hops."""
_NO_ROUTE = (errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.ENODEV)

Answer = memoryview | Refused | None


def question(
    remote: bytes,
    source: bytes,
    ports: tuple[int, int],
    mark: int,
    interface: int = 0,
    pinned: bool = False,
) -> Request:
    """Which way a UDP datagram takes that is sent from one of these ports to the other, and by the
    interface if there is one. `pinned`: IPv4 says so by a match in its tables alone."""
    v4 = len(remote) == 4
    flags = _FIB_MATCH if v4 and pinned else 0
    family = socket.AF_INET if v4 else socket.AF_INET6
    body = _MESSAGE.pack(family, 8 * len(remote), 8 * len(source), *bytes(5), flags)
    body += attribute(_RTA_DST, remote)
    body += attribute(_RTA_SRC, source) if source else b""
    body += number(_RTA_OIF, interface) + number(_RTA_MARK, mark)
    body += attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
    for kind, port in zip((_RTA_SPORT, _RTA_DPORT), ports, strict=True):
        body += attribute(kind, port.to_bytes(2))
    return Request(_GET_ROUTE, body)


def way_out(answer: Answer) -> int | None:
    """The interface by which a datagram leaves; 0: by none; None: the kernel does not say."""
    if answer is None or isinstance(answer, Refused):
        return 0 if answer is not None and answer.errno in _NO_ROUTE else None
    return unsigned(fields(answer[_MESSAGE.size :]).get(_RTA_OIF, b""))


def source_of(answer: memoryview) -> bytes:
    """The address that it leaves from; empty if the kernel does not say."""
    return bytes(fields(answer[_MESSAGE.size :]).get(_RTA_PREFSRC, b""))
