"""The HTTP proxy: CONNECT, and requests for http://, one after the other on a connection."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable

from wiresnake.errors import reason
from wiresnake.proxy import heads
from wiresnake.proxy.access import Login
from wiresnake.proxy.heads import Refused, Request
from wiresnake.proxy.stream import Stream, TooLong

NEXT = 60.0
"""Seconds that a connection waits for the client's next request."""
Dial = Callable[[str, int], Awaitable[Stream]]

_END = b"\r\n\r\n"
_SMALL = 1 << 16
"""A chunk up to this size is sent with its frame in one piece."""
_REASONS = {
    400: "Bad Request",
    407: "Proxy Authentication Required",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}
_SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
"""Methods of requests that may be sent twice."""


class _NoAnswer(Refused):
    """The server ended the connection instead of answering."""

    def __init__(self) -> None:
        super().__init__(502, "the server closed the connection without an answer")


class Web:
    """One client of the HTTP proxy."""

    def __init__(
        self, client: Stream, dial: Dial, tunnelled: Callable[[Stream], Awaitable[None]]
    ) -> None:
        self._client, self._dial, self._tunnelled = client, dial, tunnelled
        self._server: Stream | None = None
        self._place: tuple[str, int] | None = None
        """Where the server is."""
        self._sent = False
        """The request was sent with its whole body."""

    async def serve(self, login: Login | None, deadline: float) -> None:
        """Serves requests until one of both ends. Refused requests get their answer here."""
        wait = deadline
        try:
            while True:
                async with asyncio.timeout(wait):
                    await self._client.first()
                async with asyncio.timeout(deadline):
                    head = await self._client.until(_END, heads.LIMIT)
                request = heads.read_request(head)
                if not heads.admits(login, request.fields):
                    raise Refused(407, "a user and password are needed")
                if request.method == "CONNECT":
                    await self._connect(request)
                    return
                if not await self._answered(request):
                    await self._client.farewell()
                    return
                wait = NEXT
        except TooLong:
            await self._refuse(431, "the head of the request is too long")
        except Refused as error:
            await self._refuse(error.status, error.reason)
        finally:
            self._leave()

    async def _connect(self, request: Request) -> None:
        self._leave()
        server = await self._reach(request)
        await self._client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await self._tunnelled(server)

    async def _answered(self, request: Request) -> bool:
        """Answers one request. Whether there can be another."""
        if kept := self._kept_for(request):
            try:
                return await self._exchange(request, kept)
            except _NoAnswer:
                # The server closed a connection that it had kept, just when we used it again.
                if request.method not in _SAFE or request.length:
                    raise
                self._leave()
        return await self._exchange(request, await self._reach(request))

    def _kept_for(self, request: Request) -> Stream | None:
        """Returns the connection of the last request, if it leads to the same place and is idle."""
        server = self._server
        if server and not server.kept and self._place == (request.host, request.port):
            with contextlib.suppress(OSError):
                try:
                    server.sock.recv(1)
                except BlockingIOError:
                    return server
        self._leave()
        return None

    async def _exchange(self, request: Request, server: Stream) -> bool:
        sending = asyncio.create_task(self._send(request, server))
        started = False
        try:
            while True:
                answer = heads.read_answer(await server.until(_END, heads.LIMIT), request.method)
                started = True
                lasts = request.lasts and answer.lasts and self._sent
                await self._client.send(answer.head(lasts))
                if answer.status >= 200:
                    await _copy_body(server, self._client, answer.length)
                    return lasts
        except (EOFError, OSError, TooLong, Refused) as error:
            if started:  # Another answer would be taken for a part of this one.
                raise EOFError from error
            if sending.done() and isinstance(bad := sending.exception(), Refused | TooLong):
                raise bad from None
            raise error if isinstance(error, Refused) else _NoAnswer from error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, request: Request, server: Stream) -> None:
        """Sends a request, and then watches the client, which ends the request by leaving."""
        self._sent = False
        try:
            await server.send(request.head())
            await _copy_body(self._client, server, request.length)
            self._sent = True
            while len(self._client.kept) < heads.LIMIT:
                await self._client.fill()
        except (EOFError, OSError, TooLong, Refused):
            with contextlib.suppress(OSError):
                server.sock.shutdown(socket.SHUT_RDWR)
            raise

    async def _reach(self, request: Request) -> Stream:
        try:
            self._server = await self._dial(request.host, request.port)
        except OSError as error:
            status = 504 if error.errno == errno.ETIMEDOUT else 502
            raise Refused(status, reason(error)) from None
        self._place = request.host, request.port
        return self._server

    def _leave(self) -> None:
        if self._server:
            self._server.sock.close()
        self._server = None

    async def _refuse(self, status: int, why: str) -> None:
        body = f"wiresnake: {why}\n".encode(errors="replace")
        fields = ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
        if status == 407:
            fields.append('Proxy-Authenticate: Basic realm="wiresnake", charset="UTF-8"')
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", *fields, "Connection: close", "", ""]
        with contextlib.suppress(OSError):
            await self._client.send("\r\n".join(lines).encode() + body)
        await self._client.farewell()


async def _copy_body(source: Stream, target: Stream, length: int) -> None:
    if length == heads.CHUNKED:
        await _copy_chunks(source, target)
    else:
        await source.pass_on(target, None if length == heads.UNTIL_CLOSED else length)


async def _copy_chunks(source: Stream, target: Stream) -> None:
    """Copies chunks, without what their lines say besides sizes, and without trailers."""
    while size := heads.chunk_size(await source.until(b"\r\n", heads.LIMIT)):
        line = b"%x\r\n" % size
        if size <= _SMALL:
            line += await source.exactly(size)
        await target.send(line)
        if size > _SMALL:
            await source.pass_on(target, size)
        if await source.exactly(2) != b"\r\n":
            raise Refused(400, "a chunk is longer than its size")
        await target.send(b"\r\n")
    left = heads.LIMIT
    while trailer := await source.until(b"\r\n", left):
        left -= len(trailer)
    await target.send(b"0\r\n\r\n")
