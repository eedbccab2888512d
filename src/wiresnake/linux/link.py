"""What the kernel says of an interface by its name alone, in the caller's own network namespace."""

import errno
import fcntl
import socket
import struct

_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_REQUEST = struct.Struct("16sH22x")


def is_up(interface: str) -> bool:
    """Whether it is administratively up; False if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        request = _REQUEST.pack(interface.encode()[:15], 0)
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
    return bool(_REQUEST.unpack(answer)[1] & _IFF_UP)
