"""The keeper of a command's tunnel: see `command`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from wiresnake.errors import ConfigError, HostError, WiresnakeError
from wiresnake.linux import processes
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.model import Dns
from wiresnake.sockets.helper import failure, naming_the_alternative
from wiresnake.sockets.kernel import Helper, KernelStack
from wiresnake.sockets.meeting import meeting_point
from wiresnake.sockets.tunnel import Tunnel

Services = Callable[[Tunnel], AbstractAsyncContextManager[object]]
"""Opens what the keeper does beside the tunnel, such as forwards."""


def run(
    file: Path, services: Services | None, to_helper: socket.socket, first: socket.socket
) -> None:
    """Opens the tunnel of a file and carries it while any process is in it.

    The first command waits at the other end of `first`, and gets the reason if it fails.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.run(Keeper(file, services or contextlib.nullcontext).run(to_helper, first))


class _Stack(KernelStack):
    """The kernel stack of a helper that runs already, on a host that may refuse it."""

    def __init__(self, to_helper: socket.socket) -> None:
        super().__init__()
        self._to_helper = to_helper

    def open(self, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]) -> Tun:
        with naming_the_alternative():
            self._given = Helper(self._to_helper)
            return super().open(addresses, mtu, offloads)


class Keeper:
    """Carries a tunnel while any process is in it."""

    def __init__(self, file: Path, services: Services) -> None:
        self._file, self._services = file, services
        self._admissions: set[asyncio.Task[None]] = set()
        """Commands that have not entered yet."""
        self._namespaces: list[int] = []
        """The user namespace and the network namespace."""
        self._dns = Dns()

    async def run(self, to_helper: socket.socket, first: socket.socket) -> None:
        """Opens the tunnel and carries it. What fails is passed on to the command that waits."""
        try:
            with self._listen() as listener, contextlib.ExitStack() as opened:
                stack = _Stack(to_helper)
                async with Tunnel.from_file(self._file, stack=stack) as tunnel:
                    self._namespaces, self._dns = stack.namespaces(), tunnel.dns
                    for each in self._namespaces:
                        opened.callback(os.close, each)
                    async with self._services(tunnel):
                        self._admit(first)
                        processes.let_go(2)  # Or who reads the command's would wait for us.
                        await self._carry(tunnel, stack, listener)
        except (OSError, WiresnakeError) as error:
            with contextlib.suppress(OSError):
                first.send(json.dumps(failure(error)).encode())

    async def _carry(self, tunnel: Tunnel, stack: KernelStack, listener: socket.socket) -> None:
        """Admits others until the tunnel is empty or has failed."""
        accepting = asyncio.create_task(self._accept(listener))
        emptied = asyncio.create_task(self._emptied(stack))
        await asyncio.wait((emptied, tunnel.closed), return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        emptied.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            command, _ = await asyncio.get_running_loop().sock_accept(listener)
            self._admit(command)

    def _admit(self, command: socket.socket) -> None:
        """Passes the namespaces to a command that waits for them."""
        command.setblocking(False)
        said = {"servers": self._dns.servers, "search": self._dns.search}
        with contextlib.suppress(OSError):
            socket.send_fds(command, [json.dumps(said).encode()], self._namespaces)
        task = asyncio.create_task(_entered(command))
        self._admissions.add(task)
        task.add_done_callback(self._admissions.discard)

    async def _emptied(self, stack: KernelStack) -> None:
        """Waits until no process except the helper is in the namespace, or about to enter it."""
        while True:
            if self._admissions:
                await asyncio.wait(self._admissions)
            # One look misses a process that was made meanwhile by one that has ended meanwhile.
            elif inhabitants := self._inhabitants(stack) or self._inhabitants(stack):
                await processes.ended(inhabitants.pop())
            else:
                return

    def _inhabitants(self, stack: KernelStack) -> list[int]:
        try:
            return stack.inhabitants()
        except HostError:  # The helper was killed. It sees more processes than this one can.
            return [*processes.in_network(os.fstat(self._namespaces[1]).st_ino)]

    @contextlib.contextmanager
    def _listen(self) -> Iterator[socket.socket]:
        """Listens for those who join. HostError if another keeper does for the same file."""
        place = meeting_point(self._file)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
            with contextlib.suppress(OSError), socket.socket(made.family, made.type) as other:
                other.connect(str(place))
                what = f"the tunnel of {self._file} is open already: use --join"
                raise ConfigError(what)
            place.unlink(missing_ok=True)
            made.bind(str(place))
            made.listen()
            made.setblocking(False)
            try:
                yield made
            finally:
                place.unlink(missing_ok=True)


async def _entered(command: socket.socket) -> None:
    """Waits until the command was executed, which closes its end, or failed."""
    with command, contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_recv(command, 1)
