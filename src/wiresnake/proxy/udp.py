"""Datagrams between a host and a tunnel: SOCKS5's associations, and fixed forwards."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from wiresnake.errors import HostError
from wiresnake.proxy import socks
from wiresnake.proxy.sides import Side, family_of
from wiresnake.proxy.stream import Stream
from wiresnake.text import is_address

ASSOCIATION_IDLE = 300.0
"""Seconds after which an association without a datagram ends (RFC 4787 asks for 120 at least)."""
FLOW_IDLE = 120.0
FLOWS = 1000
"""Clients of a fixed forward at once; a new one takes the place of the one idle for longest."""
_NAMES, _WAITING = 64, 16
"""Names that an association remembers, and datagrams that wait for the addresses of new ones."""
_LARGEST = 1 << 16
_BATCH = 64
"""Datagrams that are handled before other sockets have their turn."""

Address = tuple[str, int]


def receive(sock: socket.socket, take: Callable[[bytes, Address], None]) -> Callable[[], None]:
    """Hands a socket's datagrams to a function, from now on. Returns what stops it and closes the
    socket."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)

    def handle() -> None:
        for _ in range(_BATCH):
            try:
                data, address = sock.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # An earlier datagram was refused.
                continue
            take(data, address)

    def stop() -> None:
        loop.remove_reader(sock)
        sock.close()

    loop.add_reader(sock, handle)
    return stop


def send(sock: socket.socket, data: bytes, address: Address) -> None:
    """Sends a datagram, or loses it if the socket is full or the network refuses."""
    with contextlib.suppress(OSError):
        sock.sendto(data, address)


class Association:
    """One client's UDP ASSOCIATE: a socket for the client, and one for each IP version."""

    def __init__(self, front: socket.socket, side: Side, client: Address) -> None:
        """A port of 0 stands for the port of the client's first datagram."""
        self._front, self._side = front, side
        self._host, self._port = client
        self._backs: dict[int, socket.socket] = {}
        self._stops = [receive(front, self._from_client)]
        self._names: dict[str, str | None] = {}
        """The address of each name; None while it is asked for."""
        self._waiting: list[tuple[str, int, bytes]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._used = self._loop.time()

    async def run(self, control: Stream, idle: float = ASSOCIATION_IDLE) -> None:
        """Returns when the client's TCP connection ends, or after so many idle seconds."""
        try:
            with contextlib.suppress(EOFError):
                while (left := self._used + idle - self._loop.time()) > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            while True:
                                await control.fill()
                                control.kept.clear()
        finally:
            for stop in self._stops:
                stop()
            for task in self._asking:
                task.cancel()

    def _from_client(self, data: bytes, address: Address) -> None:
        host, port = address[:2]
        if host != self._host or self._port not in (0, port):
            return
        read = socks.read_datagram(data)
        if read is None:
            return
        self._port = port
        self._used = self._loop.time()
        host, port, payload = read
        if is_address(host):
            self._send(host, port, payload)
        elif known := self._names.get(host):
            self._send(known, port, payload)
        elif len(self._waiting) < _WAITING:
            self._waiting.append(read)
            if host not in self._names:
                self._names[host] = None
                task = self._loop.create_task(self._ask(host))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, name: str) -> None:
        found = None
        with contextlib.suppress(OSError):
            found = (await self._side.resolve(name))[0]
        self._names.pop(name, None)
        if found:
            self._names[name] = found
            while len(self._names) > _NAMES:
                del self._names[next(iter(self._names))]
        ready = [one for one in self._waiting if one[0] == name]
        self._waiting = [one for one in self._waiting if one[0] != name]
        if found:
            for _, port, payload in ready:
                self._send(found, port, payload)

    def _send(self, host: str, port: int, payload: bytes) -> None:
        family = family_of(host)
        if family not in self._backs:
            with contextlib.suppress(OSError):
                made = self._side.socket(family, socket.SOCK_DGRAM)
                self._backs[family] = made
                self._stops.append(receive(made, self._from_network))
        if family in self._backs:
            send(self._backs[family], payload, (host, port))

    def _from_network(self, data: bytes, address: Address) -> None:
        self._used = self._loop.time()
        host, port = address[:2]
        send(self._front, socks.write_datagram(host, port, data), (self._host, self._port))


@dataclass(slots=True)
class _Flow:
    """What one client of a fixed forward has."""

    back: socket.socket
    stop: Callable[[], None]
    used: float


class UdpForward:
    """Carries each client's datagrams to one place, from a socket of the client's own."""

    def __init__(
        self,
        front: socket.socket,
        side: Side,
        to: Address,
        flows: int = FLOWS,
        idle: float = FLOW_IDLE,
    ) -> None:
        self._front, self._side, self._to = front, side, to
        self._most, self._idle = flows, idle
        self._flows: dict[Address, _Flow] = {}
        """The one used last is at the end."""
        self._loop = asyncio.get_running_loop()
        self._address: str | None = None

    async def serve(self) -> None:
        """Serves until it is cancelled. While there are clients, a name is looked up again from
        time to time, for new ones."""
        stop = receive(self._front, self._from_client)
        try:
            while True:
                if self._flows or not self._address:
                    with contextlib.suppress(OSError):
                        self._address = (await self._side.resolve(self._to[0]))[0]
                await asyncio.sleep(self._idle / 8)
                limit = self._loop.time() - self._idle
                while self._flows and next(iter(self._flows.values())).used <= limit:
                    self._end_oldest()
        finally:
            stop()
            while self._flows:
                self._end_oldest()

    def _from_client(self, data: bytes, client: Address) -> None:
        with contextlib.suppress(OSError):
            flow = self._flows.pop(client, None) or self._begin(client)
            self._flows[client] = flow
            flow.used = self._loop.time()
            flow.back.send(data)

    def _begin(self, client: Address) -> _Flow:
        if not self._address:
            raise HostError(errno.EHOSTUNREACH, f"{self._to[0]} has no address yet")
        if len(self._flows) >= self._most:
            self._end_oldest()
        back = self._side.socket(family_of(self._address), socket.SOCK_DGRAM)
        try:
            back.setblocking(False)
            back.connect((self._address, self._to[1]))
        except BaseException:
            back.close()
            raise
        flow = _Flow(back, lambda: None, 0.0)

        def to_client(data: bytes, _: Address) -> None:
            flow.used = self._loop.time()
            send(self._front, data, client)

        flow.stop = receive(back, to_client)
        return flow

    def _end_oldest(self) -> None:
        self._flows.pop(next(iter(self._flows))).stop()
