"""Carries bytes between two connected sockets, both ways."""

import asyncio
import contextlib
import socket

from wiresnake.proxy.sides import prepare

BUFFER = 1 << 20
"""Bytes read at once. Larger ones are faster until they no longer fit into the CPU's cache."""


class Relay:
    """Carries bytes between pairs of sockets with one buffer for all of them.

    A pair that is idle has no buffer, and a slow reader holds at most one read's worth: the other
    end is not read meanwhile, so that it slows down. An asyncio stream is 5 times slower, and a
    coroutine per direction would hold a buffer each.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(BUFFER))

    async def join(self, one: socket.socket, two: socket.socket) -> None:
        """Returns when both directions have ended, each after the other. OSError if one breaks.

        The end of one is passed on, as the shutdown of the other. The caller closes both sockets.
        """
        for end in (one, two):
            prepare(end, socket.IPPROTO_TCP, socket.TCP_NODELAY)
            prepare(end, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        ways = _Way(one, two, self.buffer), _Way(two, one, self.buffer)
        ways[0].back, ways[1].back = ways[1], ways[0]
        try:
            await asyncio.gather(*(way.done for way in ways))
        finally:
            for way in ways:
                way.stop()


class _Way:
    """One direction of a pair."""

    back: "_Way"
    """The other direction."""

    def __init__(self, source: socket.socket, target: socket.socket, buffer: memoryview) -> None:
        self._source, self._target, self._buffer = source, target, buffer
        self._from, self._to = source.fileno(), target.fileno()
        """For a socket, asyncio makes a text of it each time."""
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        """What the target did not take yet."""
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._watched = True
        """The loop waits for one of the sockets."""
        self._loop.add_reader(self._from, self._read)

    def stop(self) -> None:
        """Ends it, if it has not ended."""
        self._forget()
        self.done.cancel()

    def _read(self) -> None:
        try:
            count = self._source.recv_into(self._buffer)
            if not count:
                self._end(None)
                if not self.back.done.done():
                    with contextlib.suppress(OSError):  # It is gone, as the way back will see.
                        self._target.shutdown(socket.SHUT_WR)
                return
            sent = self._send(self._buffer[:count])
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if sent < count:
            self._rest = bytes(self._buffer[sent:count])
            self._loop.remove_reader(self._from)
            self._loop.add_writer(self._to, self._write)

    def _write(self) -> None:
        try:
            self._rest = self._rest[self._send(self._rest) :]
        except OSError as error:
            self._end(error)
            return
        if not self._rest:
            self._loop.remove_writer(self._to)
            self._loop.add_reader(self._from, self._read)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._target.send(data)
        except BlockingIOError:
            return 0

    def _end(self, error: OSError | None) -> None:
        self._forget()
        if self.done.done():  # `join` was cancelled at this moment.
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)

    def _forget(self) -> None:
        if not self._watched:
            return
        self._watched = False
        if self._rest:
            self._loop.remove_writer(self._to)
        else:
            self._loop.remove_reader(self._from)
