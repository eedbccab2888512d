"""A proxy in a thread, for tests with clients that block. Its `tunnel` is the host's own loopback
where only the proxy's logic matters: real sockets, too."""

import asyncio
import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wiresnake.proxy.run import Wishes, run
from wiresnake.proxy.sides import Outside, Side

LONG = 20.0
"""Seconds for what takes no time on an idle machine."""


@contextlib.contextmanager
def serving(wishes: Wishes, tunnel: Side | None = None) -> Iterator[list[str]]:
    """Runs a proxy meanwhile. Yields the lines that it says, which begin with addresses."""
    lines = list[str]()
    count = bool(wishes.listen) + len(wishes.into) + len(wishes.out_of)
    ready: queue.Queue[BaseException | None] = queue.Queue()
    loop = asyncio.new_event_loop()

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) >= count:
            ready.put(None)

    task = loop.create_task(run(tunnel or Outside(), wishes, say))

    def work() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            others = asyncio.all_tasks(loop)
            loop.run_until_complete(asyncio.gather(*others, return_exceptions=True))
        except BaseException as error:
            ready.put(error)
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        if problem := ready.get(timeout=LONG):
            raise problem
        yield lines
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join(LONG)


@contextlib.contextmanager
def door(tunnel: Side | None = None, **wishes: object) -> Iterator[tuple[str, int]]:
    """Runs a proxy for SOCKS5 and HTTP; yields its address."""
    with serving(Wishes(("127.0.0.1", 0), **wishes), tunnel) as lines:  # type: ignore[arg-type]
        yield place(lines[0].rpartition(" ")[2])


def place(text: str) -> tuple[str, int]:
    """Reads `host:port`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, LONG)


@contextlib.contextmanager
def server(handle: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """Serves TCP with a thread for each connection, which is closed after it; yields the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family, backlog=1024)

    def attend(one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            handle(one)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                one.settimeout(LONG)
                threading.Thread(target=attend, args=(one,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(LONG)


def echo(one: socket.socket) -> None:
    """Sends back what comes, and its end."""
    while data := one.recv(1 << 16):
        one.sendall(data)


def whole(one: socket.socket) -> bytes:
    """Receives until the end, or until a reset."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := one.recv(1 << 16):
            data += more
    return data


def exactly(one: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = one.recv(count - len(data))
        assert more, f"ended after {data!r}"
        data += more
    return data


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(true: Callable[[], bool]) -> None:
    """Waits for it."""
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)
