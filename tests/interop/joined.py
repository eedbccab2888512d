"""Two tunnels that are joined, as files and as objects, for tests of sockets through them."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import wiresnake
from lab import hosts

NEAR = {4: "10.0.0.2", 6: "fd00::2"}
FAR = {4: "10.0.0.1", 6: "fd00::1"}
"""The tunnel's addresses: of the end that calls, and of the one that answers."""


class Files(NamedTuple):
    near: Path
    far: Path


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def write_files(folder: Path, *, near: str = "", far: str = "", allowed: str = "") -> Files:
    """Writes the files of two ends on 127.0.0.1; the texts are added to [Interface]."""
    (near_key, near_public), (far_key, far_public) = hosts.keypair(), hosts.keypair()
    port = free_port()
    files = Files(folder / "near.conf", folder / "far.conf")
    files.near.write_text(
        f"[Interface]\nPrivateKey = {near_key}\nAddress = {NEAR[4]}/24, {NEAR[6]}/64\n{near}"
        f"[Peer]\nPublicKey = {far_public}\nEndpoint = 127.0.0.1:{port}\n"
        f"AllowedIPs = {allowed or f'{FAR[4]}/32, {FAR[6]}/128'}\n"
    )
    files.far.write_text(
        f"[Interface]\nPrivateKey = {far_key}\nListenPort = {port}\n"
        f"Address = {FAR[4]}/24, {FAR[6]}/64\n{far}"
        f"[Peer]\nPublicKey = {near_public}\nAllowedIPs = {NEAR[4]}/32, {NEAR[6]}/128\n"
    )
    return files


@contextlib.asynccontextmanager
async def joined(
    folder: Path, **options: Any
) -> AsyncIterator[tuple[wiresnake.Tunnel, wiresnake.Tunnel]]:
    """Opens both ends, the near one with these options, and yields it first."""
    files = write_files(folder)
    async with (
        wiresnake.Tunnel.from_file(files.far, **options) as far,
        wiresnake.Tunnel.from_file(files.near, **options) as near,
    ):
        yield near, far


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends everything back, and ends when the other side does."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Left(NamedTuple):
    """What a tunnel may leave behind in this process."""

    descriptors: list[str]
    threads: list[str]
    children: list[int]


def left() -> Left:
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            where = os.readlink(f"/proc/self/fd/{name}")
            if where != "/dev/null":  # Loops keep one.
                descriptors.append(where.partition("[")[0])
    pools = ("asyncio_", "uvloop_")  # Threads that loops keep.
    threads = [one.name for one in threading.enumerate() if not one.name.startswith(pools)]
    children = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # It has just ended.
            if (name := (task / "comm").read_text().strip()).startswith("wiresnake"):
                threads.append(name)
            children += [int(one) for one in (task / "children").read_text().split()]
    return Left(sorted(descriptors), sorted(threads), sorted(children))
