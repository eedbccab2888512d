"""SOCKS5 (RFC 1928), with user and password (RFC 1929)."""

import errno
import socket
import struct
from typing import NamedTuple

from wiresnake.proxy.access import Login, is_host
from wiresnake.proxy.stream import Stream
from wiresnake.text import ip_text

VERSION = 5
CONNECT, BIND, ASSOCIATE = 1, 2, 3
_NO_LOGIN, _PASSWORD, _NONE = 0, 2, 0xFF
_V4, _NAME, _V6 = 1, 3, 4
_SIZES = {_V4: 4, _V6: 16}

DONE, FAILED, BAD_COMMAND, BAD_KIND = 0, 1, 7, 8
_REPLIES = {
    errno.EACCES: 2,
    errno.EPERM: 2,
    errno.ENETUNREACH: 3,
    errno.ENETDOWN: 3,
    errno.EADDRNOTAVAIL: 3,
    errno.EHOSTUNREACH: 4,
    errno.EHOSTDOWN: 4,
    errno.ENOENT: 4,
    errno.EDESTADDRREQ: 4,
    errno.ETIMEDOUT: 4,
    errno.ECONNREFUSED: 5,
    errno.ECONNRESET: 5,
    errno.EAFNOSUPPORT: 8,
}
"""RFC 1928 has no code for a name that does not exist, nor for silence: both are an unreachable
host."""


class Refused(Exception):
    """The client's request is not served; the reply has this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Request(NamedTuple):
    """What a client asks for."""

    command: int
    host: str
    port: int


def code_of(error: OSError) -> int:
    """Returns the reply for an error of the network."""
    return _REPLIES.get(error.errno or 0, FAILED)


def reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """Writes a reply with the address at the proxy's end."""
    return bytes((VERSION, code, 0)) + write_address(host, port)


def write_address(host: str, port: int) -> bytes:
    """Writes an address in numbers, as replies and datagrams have it."""
    host = host.partition("%")[0]
    if ":" in host:
        return bytes((_V6,)) + socket.inet_pton(socket.AF_INET6, host) + struct.pack(">H", port)
    return bytes((_V4,)) + socket.inet_aton(host) + struct.pack(">H", port)


def read_host(kind: int, raw: bytes) -> str:
    """Reads a host from its bytes. Refused if it cannot be one."""
    if kind != _NAME:
        return ip_text(raw)
    name = raw.decode("latin-1")
    if not is_host(name):
        raise Refused(FAILED)
    return name


def read_datagram(data: bytes) -> tuple[str, int, bytes] | None:
    """Reads a datagram of a client: host, port and what to send there. None for a fragment, and
    for anything else that is not valid."""
    if len(data) < 5 or data[:3] != b"\0\0\0":
        return None
    kind = data[3]
    at = 5 if kind == _NAME else 4
    size = data[4] if kind == _NAME else _SIZES.get(kind)
    if size is None or len(data) < at + size + 2:
        return None
    try:
        host = read_host(kind, data[at : at + size])
    except Refused:
        return None
    end = at + size
    return host, int.from_bytes(data[end : end + 2]), data[end + 2 :]


def write_datagram(host: str, port: int, data: bytes) -> bytes:
    """Writes a datagram for a client, with the address that it came from."""
    return b"\0\0\0" + write_address(host, port) + data


async def negotiate(stream: Stream, login: Login | None) -> bool:
    """Agrees on a method and checks the password. False if the client is not admitted; it has its
    answer then."""
    version, count = await stream.exactly(2)
    methods = await stream.exactly(count)
    method = _PASSWORD if login else _NO_LOGIN
    if version != VERSION or method not in methods:
        await stream.send(bytes((VERSION, _NONE)))
        return False
    await stream.send(bytes((VERSION, method)))
    if login is None:
        return True
    version, size = await stream.exactly(2)
    user = await stream.exactly(size)
    (size,) = await stream.exactly(1)
    password = await stream.exactly(size)
    admitted = login.admits(user + b":" + password) and version == 1
    await stream.send(bytes((1, not admitted)))
    return admitted


async def read_request(stream: Stream) -> Request:
    """Reads what the client asks for. Refused if it is none that can be read."""
    version, command, _, kind = await stream.exactly(4)
    if version != VERSION:
        raise Refused(FAILED)
    size = (await stream.exactly(1))[0] if kind == _NAME else _SIZES.get(kind)
    if size is None:
        raise Refused(BAD_KIND)
    raw = await stream.exactly(size)
    port = int.from_bytes(await stream.exactly(2))
    return Request(command, read_host(kind, raw), port)
