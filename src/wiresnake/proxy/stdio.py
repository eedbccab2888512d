"""Carries standard input and output over one connection, for ssh's ProxyCommand."""

import asyncio
import contextlib
import os
import select
import socket
from threading import Thread

_READ = 1 << 18


async def join(sock: socket.socket, source: int = 0, target: int = 1) -> None:
    """Returns when the other end has said everything. The end of input is passed on before.

    Each direction is a thread that blocks, because input may be a file, which no event loop can
    wait for, and because the descriptors are shared with other programs, which would be surprised
    by ones that do not block. OSError if the connection or the output breaks.
    """
    sock.setblocking(True)
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def end(error: OSError | None) -> None:
        if not done.done():
            if error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def send() -> None:
        # If it breaks, the other end may have said something before, so `receive` reports it.
        with contextlib.suppress(OSError):
            while data := _read(source):
                sock.sendall(data)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)

    def receive() -> None:
        problem = None
        try:
            while data := sock.recv(_READ):
                _write(target, data)
        except OSError as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(end, problem)

    for work in (send, receive):
        Thread(target=work, daemon=True).start()
    await done


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, _READ)
        except BlockingIOError:
            select.select([fd], [], [])


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])
