"""The tunnel for programs without an event loop: its own runs in a thread."""

import asyncio
import atexit
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

from wiresnake.conffile.config import Config
from wiresnake.errors import TimedOut
from wiresnake.model import DeviceChange, DeviceStatus, PeerStatus
from wiresnake.sockets.tunnel import Tunnel

Socket = socket.socket
T = TypeVar("T")


def open_tunnel(config: Config | str | os.PathLike[str], **options: Any) -> "BlockingTunnel":
    """Opens a tunnel for a program without an event loop, until it is closed.

        with wiresnake.open_tunnel("wg0.conf") as tunnel:
            connection = tunnel.create_connection(("10.0.0.1", 80))

    `config` is a `Config` or the path of a file. Options and errors are those of `Tunnel`.
    """
    if isinstance(config, Config):
        return BlockingTunnel(Tunnel(config, **options))
    return BlockingTunnel(Tunnel.from_file(config, **options))


class BlockingTunnel:
    """A tunnel whose methods block, from any thread. `open_tunnel` makes it."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="wiresnake-loop", daemon=True
        )
        self._closing = threading.Lock()
        self._thread.start()
        atexit.register(self.close)  # While the thread still runs.
        try:
            self._run(tunnel.__aenter__())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the tunnel. It is safe to call twice."""
        with self._closing:
            if self._loop.is_closed():
                return
            atexit.unregister(self.close)
            self._run(_close(self._tunnel))
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create_connection(self, address: tuple[str, int], timeout: float | None = None) -> Socket:
        """Connects to a TCP port in the tunnel, as `socket.create_connection` does on the host.

        The socket blocks, for `timeout` seconds per call if given. Errors are those of
        `Tunnel.connect`, and TimedOut after `timeout` seconds.
        """
        made = self._run(self._connect(address, timeout))
        made.settimeout(timeout)
        return made

    @contextlib.contextmanager
    def forward(
        self, host: str, port: int, *, bind: tuple[str, int] = ("127.0.0.1", 0)
    ) -> Iterator[tuple[str, int]]:
        """Leads what connects to a port of this host to a TCP port in the tunnel.

        It ends with the `with` block: see `Tunnel.forward`.
        """
        forwarding = self._tunnel.forward(host, port, bind=bind)
        address = self._run(forwarding.__aenter__())
        try:
            yield address
        finally:
            self._run(_leave(forwarding))

    def listen(
        self, host: str | None = None, port: int = 0, backlog: int = 100
    ) -> tuple[Socket, ...]:
        """Listens on a TCP port in the tunnel: see `Tunnel.listen`. The sockets block here."""
        listeners = self._run(_now(lambda: self._tunnel.listen(host, port, backlog)))
        for one in listeners:
            one.setblocking(True)
        return listeners

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Socket:
        """Opens a socket in the tunnel: see `Tunnel.socket`."""
        return self._tunnel.socket(family, type, proto)

    def resolve(self, host: str, family: int = 0) -> list[str]:
        """Returns the addresses of a host: see `Tunnel.resolve`."""
        return self._run(self._tunnel.resolve(host, family))

    def apply(self, change: DeviceChange) -> None:
        """Applies a change: see `Tunnel.apply`."""
        self._run(self._tunnel.apply(change))

    @property
    def stack(self) -> str:
        """The TCP/IP stack in use: see `Tunnel.stack`."""
        return self._tunnel.stack

    @property
    def status(self) -> DeviceStatus:
        """The present state of the device, without its peers."""
        return self._run(_now(lambda: self._tunnel.status))

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The present state of all peers, in the order in which they were added."""
        return self._run(_now(lambda: self._tunnel.peers))

    async def _connect(self, address: tuple[str, int], seconds: float | None) -> Socket:
        try:
            async with asyncio.timeout(seconds):
                return await self._tunnel.connect(*address)
        except TimedOut:
            raise
        except TimeoutError:
            what = f"no connection to {address[0]}, port {address[1]}, within {seconds} s"
            raise TimedOut(errno.ETIMEDOUT, what) from None

    def _run(self, task: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result()


async def _leave(block: contextlib.AbstractAsyncContextManager[object]) -> None:
    await block.__aexit__(None, None, None)


async def _close(tunnel: Tunnel) -> None:
    tunnel.close()
    await asyncio.sleep(0)  # Lets the cancelled tasks end.


async def _now(read: Callable[[], T]) -> T:
    return read()
