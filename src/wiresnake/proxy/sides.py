"""The two sides of a proxy: the tunnel, and the host that it runs on."""

import asyncio
import contextlib
import errno
import os
import socket
from socket import socket as Socket
from typing import Protocol

from wiresnake.errors import HostError, WiresnakeError
from wiresnake.text import is_address, write_address

_PATIENCE = 30.0
"""Seconds for a connection to be made."""
BACKLOG = 1024


class Side(Protocol):
    """A network in which sockets can be opened; `Tunnel` is one."""

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Socket:
        """Opens a socket of this network."""

    async def connect(self, host: str, port: int) -> Socket:
        """Returns a connected TCP socket that does not block. OSError."""

    async def resolve(self, host: str, family: int = 0) -> list[str]:
        """Returns the addresses of a name, or the address that it is. HostError if it has none."""


class Outside:
    """The host's own network, with the methods of a tunnel."""

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Socket:
        return socket.socket(family, type, proto)

    async def connect(self, host: str, port: int) -> Socket:
        loop = asyncio.get_running_loop()
        problem = OSError(errno.EHOSTUNREACH, "no address")
        for address in await self.resolve(host):
            made = self.socket(family_of(address))
            try:
                made.setblocking(False)
                await loop.sock_connect(made, (address, port))
                return made
            except OSError as error:
                made.close()
                problem = error
            except BaseException:
                made.close()
                raise
        raise problem

    async def resolve(self, host: str, family: int = 0) -> list[str]:
        if is_address(host):
            return [host]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise HostError(errno.ENOENT, f"no such name: {host}") from None
        return [str(address[0]) for *_, address in found]


async def connect(side: Side, host: str, port: int) -> Socket:
    """Connects to a TCP port. HostError says to which and why not."""
    place = write_address(host, port)
    try:
        async with asyncio.timeout(_PATIENCE):
            return await side.connect(host, port)
    except WiresnakeError as error:
        number = getattr(error, "errno", None) or errno.EIO
        raise HostError(number, f"{place}: {error.message}") from None
    except TimeoutError:
        raise HostError(errno.ETIMEDOUT, f"{place}: no answer in {_PATIENCE:.0f} s") from None
    except OSError as error:  # asyncio says it in words of its own.
        number = error.errno or errno.EIO
        raise HostError(number, f"{place}: {os.strerror(number)}") from None


def family_of(address: str) -> socket.AddressFamily:
    """Returns the family of an address in text."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(side: Side, host: str, port: int, kind: int) -> Socket:
    """Returns a bound socket that does not block and, for TCP, listens. HostError if it cannot."""
    family = family_of(host)
    try:
        made = side.socket(family, kind)
        try:
            made.setblocking(False)
            if kind == socket.SOCK_STREAM:
                prepare(made, socket.SOL_SOCKET, socket.SO_REUSEADDR)
            if family == socket.AF_INET6:
                prepare(made, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.bind((host, port))
            if kind == socket.SOCK_STREAM:
                made.listen(BACKLOG)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        what = f"cannot listen at {write_address(host, port)}: {error.strerror}"
        raise HostError(error.errno or errno.EIO, what) from None
    return made


def listen_all(side: Side, port: int, kind: int) -> list[socket.socket]:
    """Listens at all addresses of both versions; with one version if there is no other."""
    first = listen(side, "0.0.0.0", port, kind)
    with contextlib.suppress(HostError):
        return [first, listen(side, "::", first.getsockname()[1], kind)]
    return [first]


def prepare(one: Socket, level: int, option: int) -> None:
    """Switches an option on where the socket has it; sockets of a user stack may not."""
    with contextlib.suppress(OSError):
        one.setsockopt(level, option, 1)
