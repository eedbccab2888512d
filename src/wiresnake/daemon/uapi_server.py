"""Serves /var/run/wireguard/IFACE.sock, through which `wg` reads and configures a tunnel.

Secrets pass through here as text. So every buffer is a bytearray that is wiped once it has been
read or sent, and asyncio's streams are not used, because they keep copies.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from pathlib import Path

from wiresnake import uapi
from wiresnake.daemon import describe, memory
from wiresnake.errors import DEFECTS, Defect, HostError
from wiresnake.events import EventsLost
from wiresnake.linux import inotify
from wiresnake.text import base64_text, wipe
from wiresnake.tunnel.events import Subscription
from wiresnake.tunnel.interface import Interface
from wiresnake.uapi.events import write_event
from wiresnake.uapi.set import SetParser, UapiError
from wiresnake.uapi.state import Question

DIRECTORY = Path(uapi.DIRECTORY)

_LINE_BYTES = 1 << 14
"""The longest line allowed."""
_READ_BYTES = 1 << 12
"""Bytes that are parsed before the loop may run something else, in about 1 ms."""
_OPERATION_BYTES = 1 << 27
_CLIENTS = 256
_PAUSE = 0.1

_log = logging.getLogger(__name__)


def socket_path(name: str) -> Path:
    """Returns the path where all tools look for the interface's socket."""
    return DIRECTORY / f"{name}.sock"


def listen(name: str) -> socket.socket:
    """Makes the interface's socket, with mode 0700. HostError if another daemon listens there.

    It has another name until it listens, because `wg` deletes a socket file that nobody answers.
    """
    path = socket_path(name)
    unready = path.with_name(f"{name}.{os.getpid()}")
    umask = os.umask(0o022)
    try:
        DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.umask(0o077)
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unready.unlink(missing_ok=True)
            one.bind(str(unready))
            try:
                one.listen(socket.SOMAXCONN)
                _link(unready, path)
            finally:
                unready.unlink()
        except OSError:
            one.close()
            raise
    except HostError:
        raise
    except OSError as error:
        what = f"cannot make {path}: {error.strerror}; run as root, with /var/run writable"
        raise HostError(error.errno, what) from None
    finally:
        os.umask(umask)
    return one


def adopt(fd: int) -> socket.socket:
    """Takes over a listening socket that another process has bound (WG_UAPI_FD).

    HostError if `fd` is not such a socket.
    """
    try:
        os.set_inheritable(fd, False)
        one = socket.socket(fileno=fd)
        kind = one.family, one.type, one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        name = one.getsockname()
        if kind != (socket.AF_UNIX, socket.SOCK_STREAM, 1) or not isinstance(name, str):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    except (OSError, OverflowError):
        what = f"WG_UAPI_FD={fd} is not a listening unix stream socket in a file: pass an open one"
        raise HostError(errno.EBADF, what) from None
    return one


class UapiServer:
    """Serves a tunnel until `close`. `deleted` is done once the socket file was removed."""

    def __init__(self, tunnel: Interface, listener: socket.socket, path: Path) -> None:
        self._tunnel = tunnel
        self._listener = listener
        self._path = str(path)
        self._inode = _inode(self._path)
        self._loop = asyncio.get_running_loop()
        self._clients: dict[asyncio.Task[None], None] = {}
        self.deleted: asyncio.Future[None] = self._loop.create_future()
        listener.setblocking(False)
        try:
            self._watch = inotify.watch(self._path)
        except OSError:
            self._remove_file()
            raise
        self._loop.add_reader(self._watch, self._file_changed)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Disconnects all clients and removes the socket file if it is still this server's."""
        self._loop.remove_reader(self._watch)
        self._loop.remove_reader(self._listener)
        os.close(self._watch)
        for client in self._clients:
            client.cancel()
        self._remove_file()
        self._listener.close()

    def _remove_file(self) -> None:
        if self._inode is not None and _inode(self._path) == self._inode:
            os.unlink(self._path)

    def _file_changed(self) -> None:
        os.read(self._watch, 4096)
        if _inode(self._path) != self._inode and not self.deleted.done():
            self.deleted.set_result(None)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # EMFILE and the like: the listener stays readable; only time may help.
            connection = None
            if not self._clients:
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_PAUSE, self._resume)
        if self._clients and (connection is None or len(self._clients) >= _CLIENTS):
            longest = next(iter(self._clients))
            del self._clients[longest]  # Now, so that it is not chosen again before it has ended.
            longest.cancel()
        if connection is not None:
            client = self._loop.create_task(self._converse(connection))
            self._clients[client] = None
            client.add_done_callback(lambda client: self._clients.pop(client, None))

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    async def _converse(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        lines = _Lines(connection)
        try:
            while True:
                start, end = await lines.take(new_operation=True)
                operation = bytes(lines.buffer[start:end]) if end - start <= 8 else b""
                if operation == b"get=1":
                    failure = await self._get(lines, connection)
                elif operation == b"set=1":
                    failure = await self._set(lines)
                elif operation == b"state=1":
                    failure = await self._state(lines, connection)
                elif operation == b"events=1":
                    failure = await self._events(lines, connection)
                else:
                    return
                await self._loop.sock_sendall(connection, b"errno=%d\n\n" % failure)
        except (EOFError, OSError):
            pass
        except UapiError as error:
            _log.debug("UAPI: %s", error)
            with contextlib.suppress(OSError):
                await self._loop.sock_sendall(connection, b"errno=%d\n\n" % -error.errno)
        except DEFECTS as defect:
            with contextlib.suppress(OSError):
                failure = -self._report(defect)
                await self._loop.sock_sendall(connection, b"errno=%d\n\n" % failure)
        finally:
            wipe(lines.buffer)
            connection.close()

    async def _get(self, lines: "_Lines", connection: socket.socket) -> int:
        start, end = await lines.take()
        if start != end:
            return errno.EINVAL
        for part in describe.configuration(self._tunnel):
            try:
                await self._loop.sock_sendall(connection, part)
            finally:
                wipe(part)
            await asyncio.sleep(0)
        return 0

    async def _state(self, lines: "_Lines", connection: socket.socket) -> int:
        question = await _ask(lines)
        if question.errno:
            return question.errno
        try:
            parts = describe.state(self._tunnel, question.public_key)
        except KeyError:
            return errno.ENOENT
        for part in parts:
            await self._loop.sock_sendall(connection, part)
            await asyncio.sleep(0)
        return 0

    async def _events(self, lines: "_Lines", connection: socket.socket) -> int:
        """Writes events until the connection ends. Returns only if the question is wrong."""
        question = await _ask(lines)
        if question.errno:
            return question.errno
        with contextlib.closing(self._tunnel.events()) as events:
            await self._loop.sock_sendall(connection, b"errno=0\n\n")
            feed = self._loop.create_task(self._feed(connection, events, question.public_key))
            more = self._loop.create_task(lines.take(new_operation=True))
            try:
                await asyncio.wait((feed, more), return_when=asyncio.FIRST_COMPLETED)
            finally:
                feed.cancel()
                more.cancel()
                await asyncio.wait((feed, more))  # Both stop using the connection.
            if not feed.cancelled():
                feed.result()  # Raises the error that ended it.
        raise EOFError

    async def _feed(
        self, connection: socket.socket, events: Subscription, public_key: bytes | None
    ) -> None:
        """Writes the events of one peer or of all, until an OSError."""
        only = None if public_key is None else base64_text(public_key)
        while batch := await events.read():
            text = b"".join(
                write_event(event, wall)
                for wall, event in batch
                if isinstance(event, EventsLost) or only in (None, event.public_key)
            )
            await self._loop.sock_sendall(connection, text)

    async def _set(self, lines: "_Lines") -> int:
        """Applies a `set`. Reads to the empty line even after an error, to answer the client."""
        parser = SetParser(socket.if_nametoindex)
        failure = 0
        while True:
            start, end = await lines.take()
            if start == end:
                break
            if failure == 0:
                try:
                    parser.feed(lines.buffer, start, end)
                except UapiError as error:
                    _log.debug("UAPI set: %s", error)
                    failure = error.errno
                except DEFECTS as defect:
                    failure = self._report(defect)
        if failure == 0:
            try:
                await self._tunnel.apply(parser.finish())
            except OSError as error:
                _log.error("%s", error.strerror)
                failure = error.errno or errno.EIO
            except DEFECTS as defect:
                failure = self._report(defect)
        return -failure

    def _report(self, defect: Defect) -> int:
        """Logs a defect in a client's request. Returns the errno for the client."""
        context = {"message": "a request over the UAPI socket failed", "exception": defect}
        self._loop.call_exception_handler(context)
        return errno.EIO


async def _ask(lines: "_Lines") -> Question:
    """Reads a question to its empty line, even after an error."""
    question = Question()
    while True:
        start, end = await lines.take()
        if start == end:
            return question
        question.feed(lines.buffer, start, end)


class _Lines:
    """Reads lines from a connection, in one buffer that never moves."""

    def __init__(self, connection: socket.socket) -> None:
        self.buffer = bytearray(_LINE_BYTES)
        self._connection = connection
        self._start = self._end = 0
        self._total = 0

    async def take(self, new_operation: bool = False) -> tuple[int, int]:
        """Returns the place of the next line in `buffer`, valid until the next call.

        EOFError at the end, even within a line. UapiError (EIO) if the line or the operation is
        too long; nothing can be read after that.
        """
        if new_operation:
            self._total = 0
        while (newline := self.buffer.find(b"\n", self._start, self._end)) < 0:
            await self._fill()
        line = self._start, newline
        self._start = newline + 1
        return line

    async def _fill(self) -> None:
        rest = self._end - self._start
        with memoryview(self.buffer) as view:
            view[:rest] = view[self._start : self._end]
            view[rest : self._end] = bytes(self._end - rest)
            self._start, self._end = 0, rest
            if rest == len(view) or self._total > _OPERATION_BYTES:
                raise UapiError(errno.EIO, "a line or an operation is too long")
            with view[rest : rest + _READ_BYTES] as free:
                received = await asyncio.get_running_loop().sock_recv_into(self._connection, free)
        if received == 0:
            raise EOFError
        self._end += received
        self._total += received
        if self._total > _LINE_BYTES:
            memory.freeze()
        await asyncio.sleep(0)


def _link(new: Path, path: Path) -> None:
    """Links the socket file to its final name, and replaces one that a dead daemon left there."""
    try:
        path.hardlink_to(new)
        return
    except FileExistsError:
        pass
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            what = f"{path} is in use by a running daemon: stop that one, or choose another name"
            raise HostError(errno.EADDRINUSE, what)
    path.unlink()
    path.hardlink_to(new)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
