"""Opens and configures the UDP sockets, on which the plane sends and receives."""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from wiresnake._native import Endpoint
from wiresnake.errors import HostError

_RECEIVE_BYTES = 7 << 20
_SEND_BYTES = 64 << 20
"""Room for a thousand super-datagrams: an interface's queue fills up before the socket, and one
slow path does not use up the room of all others. The kernel's WireGuard does the same; without root
it is less."""
_SEND_TIMEOUT = struct.pack("ll", 0, 5000)
"""A struct timeval: how long sending waits for room before the datagram is lost, as in a qdisc."""
_RANDOM_PORT_TRIES = 100
_ABSENT = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL)

# <asm/socket.h>, <linux/in.h>, <linux/in6.h>, <linux/udp.h>
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_BINDTOIFINDEX = 32, 33, 62
_IP_PKTINFO, _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_AUTOFLOWLABEL = 8, 10, 23, 70
_PMTUDISC_DONT = 0
_UDP_GRO = 104


@dataclass(frozen=True, slots=True)
class Sockets:
    """The sockets of one port. One family may be missing on this host, but not both."""

    v4: socket.socket | None
    v6: socket.socket | None
    port: int

    @property
    def all(self) -> list[socket.socket]:
        return [one for one in (self.v4, self.v6) if one is not None]

    @property
    def interface(self) -> int:
        """The index of the interface that they are bound to (`ip vrf exec`), or 0."""
        try:
            return self.all[0].getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX)
        except OSError:  # Before Linux 5.1
            return 0

    def set_mark(self, mark: int) -> None:
        """Changes the mark of the open sockets. HostError, and nothing has changed, if refused."""
        for one in self.all:
            _set_mark(one, mark)

    def receive_merged(self) -> None:
        """Receives several datagrams of one sender at a time from now on, if the kernel can."""
        for one in self.all:
            with contextlib.suppress(OSError):  # gVisor, for example, does not have it.
                one.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)

    @property
    def merged(self) -> bool:
        """Whether `receive_merged` was called and succeeded."""
        with contextlib.suppress(OSError):
            return all(one.getsockopt(socket.IPPROTO_UDP, _UDP_GRO) for one in self.all)
        return False

    def close(self) -> None:
        for one in self.all:
            one.close()


def open_sockets(
    port: int, mark: int, configure: Callable[[socket.socket], None] | None = None
) -> Sockets:
    """Binds `port`, or any free port if 0, for both IP versions. HostError says why not.

    `configure` sets the options of a socket, instead of all that the plane can use on Linux.
    """
    for attempt in range(_RANDOM_PORT_TRIES):
        v4 = v6 = None
        try:
            v4 = _open(socket.AF_INET, port, mark, configure)
            bound = v4.getsockname()[1] if v4 else port
            v6 = _open(socket.AF_INET6, bound, mark, configure)
        except OSError as error:
            if v4 is not None:
                v4.close()
            taken = v4 is not None and error.errno == errno.EADDRINUSE
            if taken and port == 0 and attempt + 1 < _RANDOM_PORT_TRIES:
                continue  # The port that IPv4 got is taken for IPv6: try another.
            raise _refusal(error, port) from None
        one = v4 or v6
        if one is None:
            raise HostError(errno.EAFNOSUPPORT, "this host has neither IPv4 nor IPv6")
        return Sockets(v4, v6, one.getsockname()[1])
    raise AssertionError("unreachable")


def resolve(host: str, port: str, has_way: Callable[[str], bool] = lambda _: True) -> Endpoint:
    """Returns the first address of a host name or number for which `has_way` holds, or else the
    first. It may block for as long as DNS does."""
    all_of_them = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)
    ways = (one[4] for one in all_of_them if has_way(str(one[4][0]).partition("%")[0]))
    found = next(ways, all_of_them[0][4])
    scope = int(found[3]) if len(found) == 4 else 0
    return Endpoint(str(found[0]).partition("%")[0], int(found[1]), scope)


def _open(
    family: int, port: int, mark: int, configure: Callable[[socket.socket], None] | None
) -> socket.socket | None:
    """Returns a bound socket; None if the host lacks the family."""
    try:
        one = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        (configure or _configure)(one)
        if mark:
            _set_mark(one, mark)
        one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as error:
        one.close()
        if family == socket.AF_INET6 and error.errno in _ABSENT:
            return None
        raise
    return one


def _configure(one: socket.socket) -> None:
    for force, plain, size in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF, _RECEIVE_BYTES),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF, _SEND_BYTES),
    ):
        try:
            one.setsockopt(socket.SOL_SOCKET, force, size)
        except OSError:
            one.setsockopt(socket.SOL_SOCKET, plain, size)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
    # The outer packet may be fragmented, as with the kernel: never DF.
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        one.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        with contextlib.suppress(OSError):  # No flow label, as with the kernel.
            one.setsockopt(socket.IPPROTO_IPV6, _IPV6_AUTOFLOWLABEL, 0)
    else:
        one.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        one.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)


def _set_mark(one: socket.socket, mark: int) -> None:
    try:
        # Packed, because Python treats numeric options as signed.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
    except PermissionError as error:
        what = f"not permitted to set fwmark {mark:#x}: run as root or with CAP_NET_ADMIN"
        raise HostError(error.errno, what) from None


def _refusal(error: OSError, port: int) -> HostError:
    if isinstance(error, HostError):
        return error
    if error.errno == errno.EADDRINUSE:
        what = f"UDP port {port} is in use: choose another listen port, or 0 for any"
    elif error.errno == errno.EACCES:
        what = f"not permitted to use UDP port {port}: choose one above 1023, or run as root"
    else:
        what = f"cannot open UDP port {port}: {error.strerror}"
    return HostError(error.errno, what)
