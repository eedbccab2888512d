"""Everything that `wiresnake proxy` does, between any two networks."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from wiresnake.errors import TimedOut
from wiresnake.proxy.access import Login
from wiresnake.proxy.door import Door
from wiresnake.proxy.forwards import Forward, open_forward, serve_forward
from wiresnake.proxy.service import LIMIT, Service
from wiresnake.proxy.sides import Outside, Side, listen
from wiresnake.text import write_address

LOOPBACK = "127.0.0.1"
_QUIET = 60.0
"""Seconds after saying why nobody answers, until it is said again."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be served."""

    listen: tuple[str, int] | None = None
    """Where the proxy for SOCKS5 and HTTP listens."""
    login: Login | None = field(default=None, repr=False)
    into: tuple[Forward, ...] = ()
    """Forwards into the tunnel, -L."""
    out_of: tuple[Forward, ...] = ()
    """Forwards out of the tunnel, -R."""
    limit: int = LIMIT
    """Clients at once."""


class _Outspoken:
    """A tunnel that says why nobody answers, as SOCKS only has a number for that."""

    def __init__(self, side: Side, say: Callable[[str], None]) -> None:
        self._side, self._say = side, say
        self.socket, self.resolve = side.socket, side.resolve
        self._next = 0.0

    async def connect(self, host: str, port: int) -> socket.socket:
        try:
            return await self._side.connect(host, port)
        except TimedOut as error:
            now = asyncio.get_running_loop().time()
            if now >= self._next:
                self._next = now + _QUIET
                self._say(f"{write_address(host, port)}: {error.message}")
            raise


async def run(
    tunnel: Side, wishes: Wishes, say: Callable[[str], None], host: Side | None = None
) -> None:
    """Serves until it is cancelled. It says where it listens; HostError if it cannot."""
    async with serving(tunnel, wishes, say, host) as tasks:
        await asyncio.gather(*tasks)


@asynccontextmanager
async def serving(
    tunnel: Side, wishes: Wishes, say: Callable[[str], None], host: Side | None = None
) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Serves until the block ends. It says where it listens; HostError if it cannot."""
    host, tunnel = host or Outside(), _Outspoken(tunnel, say)
    service = Service(wishes.limit)
    work: list[Coroutine[Any, Any, None]] = []
    with ExitStack() as opened:

        def named(one: socket.socket) -> str:
            opened.callback(one.close)
            return write_address(*one.getsockname()[:2])

        opened.callback(lambda: [each.close() for each in work])
        if wishes.listen:
            listener = listen(host, *wishes.listen, socket.SOCK_STREAM)
            say(f"SOCKS5 and HTTP proxy at {named(listener)}")
            work.append(service.serve(listener, Door(tunnel, wishes.login).attend))
        for forward in wishes.into:
            for one in open_forward(forward, host, LOOPBACK):
                say(f"{named(one)} leads to {forward} in the tunnel")
                work.append(serve_forward(forward, one, tunnel, service))
        for forward in wishes.out_of:
            for one in open_forward(forward, tunnel, "*"):
                say(f"{named(one)} in the tunnel leads to {forward}")
                work.append(serve_forward(forward, one, host, service))
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
