"""What runs in a host for the figures of tunnels without root: the ends of the traffic, and
programs that open tunnels. Each prints a JSON object.

    python -P within.py COMMAND [ARGUMENT ...]
"""

import asyncio
import contextlib
import json
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import wiresnake

SINK, SOURCE, ECHO, DISCARD = 5001, 5002, 5003, 9
BLOCK = 256 << 10
AT_ONCE = 100
"""Connections that are being opened at a time."""
_GREETING = b"\x05\x01\0"
_GRANTED = b"\x05\0\0\x01"


def serve(address: str) -> None:
    """Answers at that address until it is ended: takes in and counts, sends, or echoes."""
    for port, answer in ((SINK, _count), (SOURCE, _send)):
        listener = socket.create_server((address, port))
        threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
    asyncio.run(_echo(address))


def _accept(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def _count(connection: socket.socket) -> None:
    """Says how much came, when the other side has ended."""
    buffer, total = bytearray(4 * BLOCK), 0
    with connection, contextlib.suppress(OSError):
        while came := connection.recv_into(buffer):
            total += came
        connection.sendall(struct.pack("!Q", total))


def _send(connection: socket.socket) -> None:
    block = bytes(BLOCK)
    with connection, contextlib.suppress(OSError):
        while True:
            connection.sendall(block)


async def _echo(address: str) -> None:
    server = await asyncio.start_server(_echo_one, address, ECHO, backlog=4096)
    print("{}", flush=True)
    await server.serve_forever()


async def _echo_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


def send(proxy: str, address: str, seconds: str) -> dict[str, float]:
    """Sends for that time through SOCKS5."""
    block, began = bytes(BLOCK), time.monotonic()
    with _socks(int(proxy), address, SINK) as connection:
        while time.monotonic() < began + float(seconds):
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        (arrived,) = struct.unpack("!Q", connection.recv(8, socket.MSG_WAITALL))
    return {"gbit": arrived * 8e-9 / (time.monotonic() - began)}


def receive(proxy: str, address: str, seconds: str) -> dict[str, float]:
    """Receives for that time through SOCKS5."""
    buffer, began, total = bytearray(4 * BLOCK), time.monotonic(), 0
    with _socks(int(proxy), address, SOURCE) as connection:
        while time.monotonic() < began + float(seconds):
            total += connection.recv_into(buffer)
    return {"gbit": total * 8e-9 / (time.monotonic() - began)}


def connect(proxy: str, address: str, times: str) -> dict[str, float]:
    """Connects that often through SOCKS5, one at a time."""
    taken = []
    for _ in range(int(times)):
        began = time.perf_counter()
        connection = _socks(int(proxy), address, ECHO)
        taken.append(1000 * (time.perf_counter() - began))
        connection.close()
    return {"connect": statistics.median(taken)}


def _socks(proxy: int, address: str, port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", proxy), 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(_GREETING)
    made.recv(2, socket.MSG_WAITALL)
    made.sendall(b"\x05\x01\0\x01" + socket.inet_aton(address) + struct.pack("!H", port))
    if not made.recv(10, socket.MSG_WAITALL).startswith(_GRANTED):
        raise OSError(f"the proxy refused a connection to {address}, port {port}")
    return made


def starts(times: str, file: str, *command: str) -> dict[str, float]:
    """Starts the command in turns with its last word alone. `file` is the tunnel's."""
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(int(times)):
        for each, found in zip((command[-1:], command), taken, strict=True):
            began = time.perf_counter()
            subprocess.run(each, check=True)
            found.append(1000 * (time.perf_counter() - began))
        while _uses(file):  # The tunnel ends a moment after the command.
            time.sleep(0.01)
    bare, start = map(statistics.median, taken)
    return {"start": start, "start_above": start - bare}


def _uses(file: str) -> bool:
    """Whether a process other than this one has the file in its command line."""
    wanted, own = file.encode(), Path(f"/proc/{Path('/proc/self').readlink()}")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if wanted in words and process != own and b"starts" not in words:
                return True
    return False


async def tunnels(stack: str, address: str, *files: str) -> None:
    """Opens these tunnels, makes a session in each, and is idle from then on."""
    async with contextlib.AsyncExitStack() as opened:
        for file in files:
            made = wiresnake.Tunnel.from_file(file, stack=stack)
            tunnel = await opened.enter_async_context(made)
            with tunnel.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.sendto(b"", (address, DISCARD))
            while not tunnel.peers[0].latest_handshake:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        print("{}", flush=True)
        await asyncio.Event().wait()


async def connections(file: str, stack: str, address: str, count: str) -> dict[str, float]:
    """Opens that many connections, and uses each again when all are open."""
    turn, opened = asyncio.Semaphore(AT_ONCE), list[socket.socket]()
    loop, began = asyncio.get_running_loop(), time.monotonic()

    async def use(one: socket.socket) -> None:
        await loop.sock_sendall(one, b"x")
        if await loop.sock_recv(one, 1) != b"x":
            raise OSError("the far end has closed a connection")

    async def open_one() -> None:
        async with turn, asyncio.timeout(60):
            one = await tunnel.connect(address, ECHO)
            opened.append(one)
            await use(one)

    async def use_again(one: socket.socket) -> None:
        async with turn, asyncio.timeout(60):
            await use(one)

    async with wiresnake.Tunnel.from_file(file, stack=stack) as tunnel:
        tried = [open_one() for _ in range(int(count))]
        done = await asyncio.gather(*tried, return_exceptions=True)
        taken = time.monotonic() - began
        again = await asyncio.gather(*map(use_again, opened), return_exceptions=True)
        failures = [one for one in (*done, *again) if one is not None]
        for one in opened:
            one.close()
    if failures:
        print(f"first error: {failures[0]!r}", file=sys.stderr)
    alive = sum(one is None for one in again)
    return {"connections": alive, "errors": len(failures), "connecting": taken}


COMMANDS: dict[str, Callable[..., object]] = {
    "serve": serve,
    "send": send,
    "receive": receive,
    "connect": connect,
    "starts": starts,
    "tunnels": lambda *arguments: asyncio.run(tunnels(*arguments)),
    "connections": lambda *arguments: asyncio.run(connections(*arguments)),
}

if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])), flush=True)
