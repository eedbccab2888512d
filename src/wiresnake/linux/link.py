"""Reads and configures an interface by name, in the caller's network namespace."""

import errno
import fcntl
import socket
import struct
from collections.abc import Sequence

from wiresnake.errors import HostError
from wiresnake.linux import rtnetlink
from wiresnake.linux.netlink import Request, attribute, fields, name, number, unsigned

_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_LINK = struct.Struct("BxHiII")
_REQUEST = struct.Struct("16sH22x")


def is_up(interface: str) -> bool:
    """Returns whether the interface is administratively up; False if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = _REQUEST.pack(interface.encode()[:15], 0)
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
    return bool(_REQUEST.unpack(answer)[1] & _IFF_UP)


def configure(interface: str, addresses: Sequence[str] = (), mtu: int | None = None) -> int:
    """Gives the interface addresses (`10.0.0.1/24`) and an MTU, if given, brings it up, and returns
    its MTU. HostError says what the kernel refuses."""
    index = socket.if_nametoindex(interface)
    link = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP)
    link += number(_IFLA_MTU, mtu) if mtu else b""
    what = [*addresses, f"MTU {mtu}" if mtu else "a way up"]
    requests = [_address(each, index) for each in addresses]
    requests.append(Request(rtnetlink.NEW_LINK, link))
    with rtnetlink.RouteNetlink() as kernel:
        for place, error in kernel.carry_out(requests).items():
            raise HostError(error.errno, f"cannot give {interface} {what[place]}: {error.message}")
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + name(_IFLA_IFNAME, interface)
        answer = kernel.ask(Request(rtnetlink.GET_LINK, body))
    return unsigned(fields(answer[_LINK.size :])[_IFLA_MTU])


def _address(text: str, index: int) -> Request:
    version, packed, length = rtnetlink.pack_prefix(text)
    header = struct.pack("BBBBI", rtnetlink.FAMILIES[version], length, 0, 0, index)
    body = header + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Request(rtnetlink.NEW_ADDRESS, body, rtnetlink.CREATE | rtnetlink.EXCLUSIVE)
