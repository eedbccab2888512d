"""A server inside a tunnel, shaped like asyncio's."""

import asyncio
import errno
import logging
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

_REST = 1.0
"""Seconds without accepting after the process has run out of descriptors or memory."""
_ENDED = (errno.EBADF, errno.EINVAL)
"""The listening socket was closed or shut down, as with its tunnel."""
_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)


class Server:
    """Accepts connections on listening sockets, for any event loop and stack.

    It accepts from the start, until it is closed. Connections live on after that.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        handler: Handler,
        ssl: tls.SSLContext | None,
        limit: int,
        accepted: Callable[[socket.socket], None],
    ) -> None:
        """Calls `accepted` with the socket of each connection."""
        self._handler, self._ssl, self._limit, self._accepted = handler, ssl, limit, accepted
        self._loop = asyncio.get_running_loop()
        self.sockets = tuple(listeners)
        """The listening sockets."""
        self._tasks = {self._loop.create_task(self._accept(each)) for each in listeners}
        self._ended = self._loop.create_future()

    def close(self) -> None:
        """Stops accepting. It is safe to call twice."""
        for task in self._tasks:
            task.cancel()
        for each in self.sockets:
            each.close()
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait_closed(self) -> None:
        """Waits until the server was closed."""
        await asyncio.shield(self._ended)

    async def serve_forever(self) -> None:
        """Waits, and closes the server when it is cancelled."""
        try:
            await self.wait_closed()
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _ENDED:
                    return self.close()
                if error.errno in _OUT_OF:
                    _log.error("cannot accept connections: %s", error.strerror)
                # Others are about one connection, which was reset before it was accepted.
                await asyncio.sleep(_REST if error.errno in _OUT_OF else 0)
            else:
                self._accepted(accepted)
                task = self._loop.create_task(self._begin(accepted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        """Hands a connection to the handler, after TLS if there is any."""
        reader = asyncio.StreamReader(self._limit, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, self._handler, self._loop)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._ssl)
        except OSError:  # TLS failed, which is the client's fault.
            accepted.close()
        except BaseException:
            accepted.close()
            raise
