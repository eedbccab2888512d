"""Reads and configures an interface by name, in the caller's network namespace."""

import errno
import fcntl
import socket
import struct
from collections.abc import Sequence

from wiresnake.errors import HostError
from wiresnake.linux import rtnetlink

_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
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
    what = [*addresses, f"MTU {mtu}" if mtu else "a way up"]
    made = rtnetlink.CREATE | rtnetlink.EXCLUSIVE
    requests = [rtnetlink.address_request(made, index, each) for each in addresses]
    requests.append(rtnetlink.link_request(index, mtu, True))
    with rtnetlink.RouteNetlink() as kernel:
        for place, error in kernel.carry_out(requests).items():
            raise HostError(error.errno, f"cannot give {interface} {what[place]}: {error.message}")
        link = kernel.link(index)
    if link is None:
        raise HostError(errno.ENODEV, f"{interface} is gone")
    return link.mtu
