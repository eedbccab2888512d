"""Serves a limited number of clients at once, whatever they do."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from wiresnake.errors import WiresnakeError
from wiresnake.proxy.stream import TooLong, readable

LIMIT = 1000
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE = 0.1
"""Seconds without a new client when the system has no descriptor or memory for it."""

Handler = Callable[[socket.socket, "Place"], Awaitable[None]]


class Place:
    """The place of one client among all."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def keep(self) -> None:
        """Makes the place safe from newcomers: the client has made a connection."""
        task = asyncio.current_task()
        if task is not None:
            self._service.half_open.pop(task, None)


class Service:
    """All clients of a proxy. Cancelling `serve` ends those that it has accepted.

    When all places are taken, a newcomer gets that of the oldest client that has no connection
    yet: so a flood of those costs only each other. Without any, newcomers wait in the backlog.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.clients: set[asyncio.Task[None]] = set()
        self.half_open: dict[asyncio.Task[None], None] = {}
        """In the order in which they came."""
        self._left = asyncio.Event()

    async def serve(self, listener: socket.socket, handle: Handler) -> None:
        """Accepts clients until it is cancelled, and closes each one's socket after `handle`."""
        loop = asyncio.get_running_loop()
        accepted: set[asyncio.Task[None]] = set()
        try:
            while True:
                await readable(listener)
                await self._room()
                try:
                    sock, _ = listener.accept()
                except OSError as error:
                    if error.errno in _SCARCE:
                        self._evict()
                        await asyncio.sleep(_PAUSE)
                    elif error.errno in (errno.EBADF, errno.EINVAL):
                        return  # It was closed, as by the end of its tunnel.
                    continue
                task = loop.create_task(self._attend(sock, handle))
                self.half_open[task] = None
                for tasks in (self.clients, accepted):
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                # Not within the task, as one that is cancelled at once does not even begin.
                task.add_done_callback(partial(_close, sock))
                task.add_done_callback(self._gone)
        finally:
            listener.close()
            for task in accepted:
                task.cancel()

    async def _room(self) -> None:
        while len(self.clients) >= self._limit:
            self._evict()
            self._left.clear()
            await self._left.wait()

    def _evict(self) -> None:
        if self.half_open:
            oldest = next(iter(self.half_open))
            del self.half_open[oldest]
            oldest.cancel()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self.half_open.pop(task, None)
        self._left.set()

    async def _attend(self, sock: socket.socket, handle: Handler) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError, TooLong, WiresnakeError):
            sock.setblocking(False)
            await handle(sock, Place(self))


def _close(sock: socket.socket, _: object) -> None:
    sock.close()
