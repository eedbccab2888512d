"""The server behind the socket file, where the daemon's own tests cannot reach."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from unit.pretended import NotingPlane, Stage, play

from wiresnake.daemon import uapi_server
from wiresnake.daemon.uapi_server import UapiServer, adopt
from wiresnake.errors import HostError
from wiresnake.events import Connected, Disconnected, PeerEvent, Roamed
from wiresnake.linux import inotify
from wiresnake.model import DeviceChange, DeviceStatus, PeerChange
from wiresnake.text import base64_text
from wiresnake.tunnel.events import Subscription, Timed
from wiresnake.tunnel.interface import Interface


class RefusingTunnel(Interface):
    async def apply(self, change: DeviceChange) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def listener(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen()
    return one


def test_what_the_system_refuses_is_answered(tmp_path: Path) -> None:
    async def main() -> bytes:
        server = UapiServer(RefusingTunnel(), listener(tmp_path / "s"), tmp_path / "s")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"set=1\nlisten_port=1\n\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\n\n"), 2)
        writer.close()
        server.close()
        return answer

    assert asyncio.run(main()) == b"errno=-%d\n\n" % errno.EAGAIN
    assert not (tmp_path / "s").exists()


class FailingTunnel(Interface):
    """With a defect behind everything that a client may ask."""

    @property
    def status(self) -> DeviceStatus:
        raise TypeError("a defect")

    async def apply(self, change: DeviceChange) -> None:
        raise TypeError("a defect")

    def events(self) -> Subscription:
        class Failing(Subscription):
            async def read(self) -> list[Timed]:
                raise TypeError("a defect")

        return Failing(self._events)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"get=1\n\n", b"errno=-5\n\n"),
        (b"state=1\n\n", b"errno=-5\n\n"),
        (b"set=1\nfwmark=1\n\n", b"errno=-5\n\n"),
        (b"events=1\n\n", b"errno=0\n\nerrno=-5\n\n"),
    ],
)
def test_a_defect_is_answered_and_reported(tmp_path: Path, question: bytes, answer: bytes) -> None:
    """A connection that ends without an errno would leave the client to guess."""
    reported: list[object] = []

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        server = UapiServer(FailingTunnel(), listener(tmp_path / "s"), tmp_path / "s")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(question)
        said = b""
        while said != answer and (part := await asyncio.wait_for(reader.read(100), 5)):
            said += part
        writer.close()
        server.close()
        return said

    assert asyncio.run(main()) == answer
    assert list(map(repr, reported)) == ["TypeError('a defect')"]


def test_no_socket_file_is_left_that_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> int:
        raise HostError(errno.EMFILE, "no more inotify instances")

    async def main() -> None:
        with listener(tmp_path / "s") as one, pytest.raises(HostError):
            UapiServer(RefusingTunnel(), one, tmp_path / "s")

    monkeypatch.setattr(inotify, "watch", refuse)
    asyncio.run(main())
    assert not (tmp_path / "s").exists()


def test_a_socket_has_its_name_only_once_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[bool]()

    class Watched(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            seen.append((tmp_path / "wg0.sock").exists())
            super().listen(backlog)

    monkeypatch.setattr(uapi_server, "DIRECTORY", tmp_path)
    monkeypatch.setattr(socket, "socket", Watched)
    for _ in range(2):  # The second finds a file that nobody listens at.
        with uapi_server.listen("wg0"), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "wg0.sock"))
            with pytest.raises(HostError, match="in use"):
                uapi_server.listen("wg0")
        assert [path.name for path in tmp_path.iterdir()] == ["wg0.sock"]
    assert not seen[0]


@pytest.mark.parametrize(
    ("kind", "name", "listens", "good"),
    [
        (socket.SOCK_STREAM, "s", True, True),
        (socket.SOCK_STREAM, "s", False, False),
        (socket.SOCK_SEQPACKET, "s", True, False),
        (socket.SOCK_DGRAM, "s", False, False),
        (socket.SOCK_STREAM, "\0wiresnake test", True, False),
    ],
)
def test_only_a_listening_stream_socket_is_adopted(
    tmp_path: Path, kind: socket.SocketKind, name: str, listens: bool, good: bool
) -> None:
    one = socket.socket(socket.AF_UNIX, kind)
    one.bind(name if "\0" in name else str(tmp_path / name))
    if listens:
        one.listen()
    fd = one.detach()
    if good:
        adopt(fd).close()
        return
    with pytest.raises(HostError, match=f"WG_UAPI_FD={fd} is not a listening unix stream"):
        adopt(fd)


class World(NamedTuple):
    """A tunnel with one peer, and what happens to it."""

    tunnel: Interface
    plane: NotingPlane

    @property
    def observed(self) -> bool:
        return self.plane.watched

    def tell(self, kind: str, peer: int = 1) -> None:
        key = base64_text(peer.to_bytes(32))
        made: dict[str, PeerEvent] = {
            "connected": Connected(key, None),
            "disconnected": Disconnected(key, None, "down"),
            "roamed": Roamed(key, None, "192.0.2.1:5"),
        }
        self.tunnel._events._publish(made[kind])


class Client:
    """One that reads blocks from the server when it is asked to."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.setblocking(False)
        self._rest = b""

    async def write(self, text: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, text)

    async def block(self) -> list[str]:
        """The lines up to the next empty one; nothing at the end."""
        while b"\n\n" not in self._rest:
            receiving = asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
            more = await asyncio.wait_for(receiving, 5)
            if not more:
                return []
            self._rest += more
        block, _, self._rest = self._rest.partition(b"\n\n")
        return block.decode().splitlines()

    async def subscribe(self, *lines: bytes) -> None:
        await self.write(b"\n".join([b"events=1", *lines, b"", b""]))
        assert await self.block() == ["errno=0"]

    def close(self) -> None:
        self._socket.close()


def serve(path: Path, scene: Callable[[World, Callable[[], Client]], Awaitable[None]]) -> None:
    """Plays a scene with a server of such a tunnel, and with clients of it."""

    async def scene_of(on: Stage) -> None:
        clients = list[Client]()

        def client() -> Client:
            clients.append(Client(path / "s"))
            return clients[-1]

        await on.tunnel.apply(DeviceChange(peers=(PeerChange(bytes(32)),)))
        server = UapiServer(on.tunnel, listener(path / "s"), path / "s")
        try:
            await scene(World(on.tunnel, on.plane), client)
        finally:
            server.close()
            for one in clients:
                one.close()

    play(scene_of)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to pass in 5 s")


def test_state_is_of_all_or_of_one_and_the_connection_goes_on(tmp_path: Path) -> None:
    whole = ["public_key=" + "0" * 64, "session=none", "errno=0"]

    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        one = client()
        for lines, answer in (
            (b"", whole),
            (b"public_key=" + b"0" * 64 + b"\n", whole),
            (b"public_key=" + b"1" * 64 + b"\n", [f"errno={errno.ENOENT}"]),
            (b"public_key=" + b"1" * 63 + b"\n" + b"more\n" * 9, [f"errno={errno.EINVAL}"]),
        ):
            await one.write(b"state=1\n" + lines + b"\n")
            assert (await one.block())[-len(answer) :] == answer
        await one.write(b"events=1\npublic_key=\n\n")
        assert await one.block() == [f"errno={errno.EINVAL}"]
        assert not tunnel.observed

    serve(tmp_path, scene)


@pytest.mark.parametrize("operation", [b"state=2", b"events=0", b"states=1", b"eventss=1"])
def test_an_unknown_operation_still_ends_the_connection(tmp_path: Path, operation: bytes) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        one = client()
        await one.write(operation + b"\n\n")
        assert await one.block() == []

    serve(tmp_path, scene)


def test_events_go_to_who_asked_for_them(tmp_path: Path) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        everything, second = client(), client()
        await everything.subscribe()
        await second.subscribe(b"public_key=" + (2).to_bytes(32).hex().encode())
        for peer in (1, 2, 3):
            tunnel.tell("connected", peer)
        await second.write(b"half a line")
        tunnel.tell("disconnected", 2)
        for one, peers in ((everything, [1, 2, 3, 2]), (second, [2, 2])):
            for peer in peers:
                event, seconds, rest, key, *_ = await one.block()
                assert event in ("event=connected", "event=disconnected")
                assert abs(int(seconds.removeprefix("time_sec=")) - time.time()) < 60
                assert int(rest.removeprefix("time_nsec=")) < 1_000_000_000
                assert key == "public_key=" + peer.to_bytes(32).hex()

    serve(tmp_path, scene)


@pytest.mark.parametrize("end", ["close", "shutdown", "write"])
def test_nothing_is_made_for_nobody(tmp_path: Path, end: str) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        first, last = client(), client()
        failures = list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        assert not tunnel.observed
        await first.subscribe()
        await last.subscribe()
        first.close()
        tunnel.tell("connected")
        await until(lambda: tunnel.tunnel._events._subscribers == 1)
        assert tunnel.observed
        if end == "close":
            last.close()
        elif end == "shutdown":
            last._socket.shutdown(socket.SHUT_WR)
        else:
            await last.write(b"get=1\n\n")
        await until(lambda: not tunnel.observed)
        await asyncio.sleep(0)
        gc.collect()
        assert not failures

    serve(tmp_path, scene)


def test_who_never_reads_delays_nobody_and_hears_what_was_lost(tmp_path: Path) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        slow, quick = client(), client()
        await slow.subscribe()
        await quick.subscribe()
        count = 20_000
        for number in range(count):
            tunnel.tell("roamed", number)
            if number % 100 == 0:
                await asyncio.sleep(0)
            assert (await quick.block())[0] == "event=roamed"
        assert len(tunnel.tunnel._events._recent) == 4096
        read = 0
        while (block := await slow.block())[0] == "event=roamed":
            assert block[3] == "public_key=" + read.to_bytes(32).hex()
            read += 1
        assert block[0] == "event=lost"
        assert block[3] == f"count={count - 4096 - read}"
        for number in range(count - 4096, count):
            assert (await slow.block())[3] == "public_key=" + number.to_bytes(32).hex()
        tunnel.tell("connected")
        assert (await slow.block())[0] == "event=connected"

    serve(tmp_path, scene)


def test_what_was_lost_is_told_where_it_was(tmp_path: Path) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        slow = client()
        await slow.subscribe()
        for number in range(10_000):
            tunnel.tell("roamed", number)  # Nobody else gets a turn.
        lost = await slow.block()
        assert lost[0] == "event=lost" and lost[3] == "count=5904"
        for number in range(5904, 10_000):
            assert (await slow.block())[3] == "public_key=" + number.to_bytes(32).hex()

    serve(tmp_path, scene)


def test_256_subscribers_are_served_and_the_next_client_too(tmp_path: Path) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        subscribers = list[Client]()
        for _ in range(256):
            subscribers.append(client())
            await subscribers[-1].subscribe()
        for number in range(100):
            tunnel.tell("connected", number)
        for one in subscribers:
            for _ in range(100):
                assert (await one.block())[0] == "event=connected"
        reader = client()
        await reader.write(b"state=1\n\n")
        assert (await reader.block())[-1] == "errno=0"
        assert await subscribers[0].block() == [], "the oldest makes room"
        tunnel.tell("connected")
        assert (await subscribers[1].block())[0] == "event=connected"

    serve(tmp_path, scene)


def test_subscriptions_end_with_the_server(tmp_path: Path) -> None:
    clients = list[Client]()

    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        one = Client(tmp_path / "s")
        clients.append(one)
        await one.subscribe()
        for number in range(10_000):
            tunnel.tell("roamed", number)
        await asyncio.sleep(0)

    serve(tmp_path, scene)
    [one] = clients
    one._socket.settimeout(2)
    while one._socket.recv(1 << 16):
        pass
    one.close()


def test_who_all_come_at_once_are_no_more_than_256(tmp_path: Path) -> None:
    async def scene(tunnel: World, client: Callable[[], Client]) -> None:
        crowd = list[Client]()
        for _ in range(6):
            crowd += [client() for _ in range(100)]
            for _ in range(200):  # Otherwise one more would wait for room in the queue forever.
                await asyncio.sleep(0)
        served = 0
        for one in crowd:
            with contextlib.suppress(OSError):
                await one.write(b"state=1\n\n")
                served += await one.block() != []
        assert served == 256

    serve(tmp_path, scene)
