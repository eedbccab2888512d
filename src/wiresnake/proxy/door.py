"""The proxy's port: SOCKS5 and HTTP, which the first byte tells apart."""

import asyncio
import errno
import socket

from wiresnake.errors import HostError
from wiresnake.proxy import socks
from wiresnake.proxy.access import Login
from wiresnake.proxy.relay import Relay
from wiresnake.proxy.service import Place
from wiresnake.proxy.sides import Side, connect
from wiresnake.proxy.stream import Stream
from wiresnake.proxy.udp import Association
from wiresnake.proxy.web import Web

DEADLINE = 10.0
"""Seconds for a client to say what it wants."""


class Door:
    """Leads clients of the proxy's port into a tunnel."""

    def __init__(self, side: Side, login: Login | None = None, deadline: float = DEADLINE) -> None:
        self._side, self._login, self._deadline = side, login, deadline
        self._relay = Relay()

    async def attend(self, sock: socket.socket, place: Place) -> None:
        """Serves one client. It is closed without an answer if it speaks neither protocol, or not
        in time."""
        client = Stream(sock)
        try:
            async with asyncio.timeout(self._deadline):
                first = await client.first()
                request = None
                if first == socks.VERSION and await socks.negotiate(client, self._login):
                    request = await socks.read_request(client)
            if request:
                await self._serve(client, request, place)
            elif bytes((first,)).isalpha():
                await self._web(client, place)
            else:
                await client.farewell()
        except socks.Refused as refused:
            await client.send(socks.reply(refused.code))
            await client.farewell()

    async def _serve(self, client: Stream, request: socks.Request, place: Place) -> None:
        if request.command == socks.CONNECT:
            await self._connect(client, request, place)
        elif request.command == socks.ASSOCIATE:
            await self._associate(client, request, place)
        else:
            raise socks.Refused(socks.BAD_COMMAND)

    async def _connect(self, client: Stream, request: socks.Request, place: Place) -> None:
        try:
            server = await dial(self._side, request.host, request.port, place)
        except OSError as error:
            raise socks.Refused(socks.code_of(error)) from None
        with server.sock:
            await client.send(socks.reply(socks.DONE, *_name(server.sock)))
            await self._join(client, server)

    async def _associate(self, client: Stream, request: socks.Request, place: Place) -> None:
        own, (host, *_) = client.sock.getsockname(), client.sock.getpeername()
        with socket.socket(client.sock.family, socket.SOCK_DGRAM) as front:
            front.bind((own[0], 0, *own[2:]))
            place.keep()
            await client.send(socks.reply(socks.DONE, *front.getsockname()[:2]))
            await Association(front, self._side, (host, request.port)).run(client)

    async def _web(self, client: Stream, place: Place) -> None:
        async def reach(host: str, port: int) -> Stream:
            return await dial(self._side, host, port, place)

        async def join(server: Stream) -> None:
            await self._join(client, server)

        await Web(client, reach, join).serve(self._login, self._deadline)

    async def _join(self, client: Stream, server: Stream) -> None:
        await server.send(client.take(len(client.kept)))
        await self._relay.join(client.sock, server.sock)


async def dial(side: Side, host: str, port: int, place: Place) -> Stream:
    """Connects, after which the client keeps its place. HostError."""
    if not port:
        raise HostError(errno.EADDRNOTAVAIL, "port 0 cannot be reached")
    sock = await connect(side, host, port)
    place.keep()
    return Stream(sock)


def _name(sock: socket.socket) -> tuple[str, int]:
    """Returns the address of our end, if the socket has one in numbers."""
    name = sock.getsockname()
    return name[:2] if isinstance(name, tuple) else ("0.0.0.0", 0)
