"""A server inside a tunnel, shaped like asyncio's."""

import asyncio
import errno
import logging
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Self

from wiresnake.sockets.user import for_loop

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

_REST = 1.0
"""Seconds without accepting after the process has run out of descriptors or memory."""
_OF_ONE = (errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO)
"""The connection had ended before it was accepted."""
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
        self._tasks = [self._loop.create_task(self._accept(each)) for each in listeners]
        for task, each in zip(self._tasks, listeners, strict=True):
            # Only after the loop has let go of it, also if the task never began.
            task.add_done_callback(partial(_close, each))
        self._beginning: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Stops accepting. It is safe to call twice."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Waits until the server was closed and its port is free."""
        await asyncio.wait(self._tasks)

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
        await self.wait_closed()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _OUT_OF:
                    _log.error("cannot accept connections: %s", error.strerror)
                    await asyncio.sleep(_REST)
                elif error.errno not in _OF_ONE:
                    return  # The tunnel has ended.
                await asyncio.sleep(0)
            else:
                self._accepted(accepted)
                task = self._loop.create_task(self._begin(accepted))
                self._beginning.add(task)
                task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        """Hands a connection to the handler, after TLS if there is any."""
        reader = asyncio.StreamReader(self._limit, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, self._handler, self._loop)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol, for_loop(accepted), ssl=self._ssl
            )
        except OSError:  # TLS failed, which is the client's fault.
            accepted.close()
        except BaseException:
            accepted.close()
            raise


def _close(listener: socket.socket, _: object) -> None:
    listener.close()
