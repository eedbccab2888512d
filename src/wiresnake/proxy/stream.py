"""Reads messages from a socket that may be followed by anything."""

import asyncio
import contextlib
import socket

_READ = 1 << 16
_FAREWELL, _FAREWELL_BYTES = 1.0, 1 << 20
"""Seconds and bytes for which a closed client is still read, so that it gets our last words."""


class TooLong(Exception):
    """A message does not end within its limit."""


class Stream:
    """The bytes that a socket receives, which does not block. EOFError if they end within a
    message; OSError.

    A cancelled call loses nothing.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.kept = bytearray()
        """What was received and not asked for yet."""

    async def fill(self) -> None:
        """Receives some bytes, for which it may wait."""
        while True:
            try:
                data = self.sock.recv(_READ)
                break
            except BlockingIOError:
                await readable(self.sock)
        if not data:
            raise EOFError
        self.kept += data

    async def first(self) -> int:
        """Returns the first byte, which stays."""
        while not self.kept:
            await self.fill()
        return self.kept[0]

    async def exactly(self, count: int) -> bytes:
        """Takes so many bytes."""
        while len(self.kept) < count:
            await self.fill()
        return self.take(count)

    async def until(self, end: bytes, most: int) -> bytes:
        """Takes the bytes up to an end, which is taken too and not returned. TooLong."""
        seen = 0
        while (at := self.kept.find(end, seen, most)) < 0:
            if len(self.kept) >= most:
                raise TooLong
            seen = max(0, len(self.kept) - len(end) + 1)
            await self.fill()
        found = self.take(at)
        del self.kept[: len(end)]
        return found

    def take(self, most: int) -> bytes:
        """Takes what was received, at most so many bytes."""
        found = bytes(self.kept[:most])
        del self.kept[:most]
        return found

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def pass_on(self, to: "Stream", count: int | None = None) -> None:
        """Sends so many bytes to another stream, or all until the end."""
        while count is None or count > 0:
            if not self.kept:
                try:
                    await self.fill()
                except EOFError:
                    if count is None:
                        return
                    raise
            data = self.take(_READ if count is None else count)
            count = None if count is None else count - len(data)
            await to.send(data)

    async def farewell(self) -> None:
        """Ends what we send. A socket that is closed with unread data resets the connection, and
        the other end might not read our answer; so it is read, for a while."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            self.sock.shutdown(socket.SHUT_WR)
            left = _FAREWELL_BYTES
            async with asyncio.timeout(_FAREWELL):
                while left > 0:
                    await self.fill()
                    left -= len(self.take(len(self.kept)))


async def readable(sock: socket.socket) -> None:
    """Waits until a socket has something to read, or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ready.done():
            ready.set_result(None)

    number = sock.fileno()  # For a socket, asyncio first makes a text of it each time.
    loop.add_reader(number, end)
    try:
        await ready
    finally:
        loop.remove_reader(number)
