"""Fixed forwards in the syntax of ssh: -L into the tunnel, -R out of it."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from wiresnake.errors import ConfigError
from wiresnake.proxy.access import is_host
from wiresnake.proxy.door import dial
from wiresnake.proxy.relay import Relay
from wiresnake.proxy.service import Place, Service
from wiresnake.proxy.sides import Outside, Side, listen, listen_all
from wiresnake.proxy.udp import UdpForward
from wiresnake.text import is_address, write_address

_PART = r"(\[[^\[\]]*\]|[^:\[\]/]*)"
_SPEC = re.compile(rf"(?:{_PART}:)?([0-9]+):{_PART}:([0-9]+)(/udp|/tcp)?")
_PLACE = re.compile(rf"{_PART}:([0-9]+)")


@dataclass(frozen=True, slots=True)
class Forward:
    """A port whose clients are led to one place on the other side."""

    bind: str
    """The address to listen at, or empty: loopback for -L, all addresses of the tunnel for -R."""
    port: int
    host: str
    host_port: int
    udp: bool = False

    @classmethod
    def parse(cls, text: str) -> "Forward":
        """Reads `[BIND:]PORT:HOST:HOSTPORT[/udp]`, with brackets around IPv6 addresses.
        ConfigError."""
        found = _SPEC.fullmatch(text)
        if not found:
            raise ConfigError(f"not [BIND:]PORT:HOST:HOSTPORT: {text!r}")
        bind, port, host, host_port, kind = found.groups()
        bind = _bare(bind or "")
        if bind and bind != "*" and not is_address(bind):
            raise ConfigError(f"not an address to listen at: {bind!r}")
        return cls(bind, _port(port, 0), *_target(host, host_port), kind == "/udp")

    def __str__(self) -> str:
        return f"{write_address(self.host, self.host_port)}{'/udp' if self.udp else ''}"


def parse_place(text: str) -> tuple[str, int]:
    """Reads `HOST:PORT`, with brackets around an IPv6 address. ConfigError."""
    found = _PLACE.fullmatch(text)
    if not found:
        raise ConfigError(f"not HOST:PORT: {text!r}")
    return _target(*found.groups())


def open_forward(forward: Forward, side: Side, default: str) -> list[socket.socket]:
    """Returns the sockets that a forward listens with. HostError if it cannot."""
    kind = socket.SOCK_DGRAM if forward.udp else socket.SOCK_STREAM
    bind = forward.bind or default
    if bind == "*":
        return listen_all(side, forward.port, kind)
    return [listen(side, bind, forward.port, kind)]


async def serve_forward(
    forward: Forward, listener: socket.socket, to: Side, service: Service
) -> None:
    """Serves the clients of one socket until it is cancelled."""
    if forward.udp:
        await UdpForward(listener, to, (forward.host, forward.host_port)).serve()
        return
    relay = Relay()

    async def attend(sock: socket.socket, place: Place) -> None:
        server = await dial(to, forward.host, forward.host_port, place)
        with server.sock:
            await relay.join(sock, server.sock)

    await service.serve(listener, attend)


@contextlib.asynccontextmanager
async def forwarding(
    side: Side, host: str, port: int, bind: tuple[str, int]
) -> AsyncIterator[tuple[str, int]]:
    """Leads what connects to an address of this host to one place, until the block ends. Yields the
    address and port. HostError if the port is in use."""
    listener = listen(Outside(), *bind, socket.SOCK_STREAM)
    forward = Forward(*bind, host, port)
    task = asyncio.create_task(serve_forward(forward, listener, side, Service()))
    try:
        yield listener.getsockname()[:2]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _bare(host: str) -> str:
    return host.removeprefix("[").removesuffix("]")


def _target(host: str, port: str) -> tuple[str, int]:
    if not is_host(_bare(host)):
        raise ConfigError(f"not a host: {host!r}")
    return _bare(host), _port(port, 1)


def _port(text: str, least: int) -> int:
    port = int(text[:6])
    if not least <= port < 1 << 16:
        raise ConfigError(f"not a port from {least} to 65535: {text!r}")
    return port
