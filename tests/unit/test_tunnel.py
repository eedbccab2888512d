"""The loop's side of a tunnel, with a plane that only takes notes."""

import asyncio
import errno
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import pytest

from wiresnake._native import Endpoint, PanicException, PresharedKey, cipher
from wiresnake.errors import HostError
from wiresnake.linux import udp
from wiresnake.linux.offloads import ALL, Offload
from wiresnake.linux.tun import Tun
from wiresnake.model import DeviceChange, PeerChange
from wiresnake.protocol.peer import Peer
from wiresnake.protocol.plane import PlaneEvent
from wiresnake.tunnel import tunnel as module
from wiresnake.tunnel.tunnel import Tunnel


class NotingPlane:
    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.timer_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.events: list[tuple[int, int]] = []
        self.peers = 0

    def add_peer(self) -> int:
        self.peers += 1
        return self.peers

    def describe(self, peers: list[tuple[int, bytes, int, int, object]]) -> list[bytes]:
        """As long as the number says; the seventh has gone."""
        text = "public_key=%s\npreshared_key=%064d\nx=%s\n"
        texts = [text % (public.hex(), 0, "x" * number) for number, public, *_ in peers]
        return [
            b"" if peer[0] == 7 else text.encode() for peer, text in zip(peers, texts, strict=True)
        ]

    def describe_state(self, peers: list[int], now: int) -> list[bytes]:
        return [b"" if peer == 7 else b"session=none\n" for peer in peers]

    def describe_drops(self, now: int) -> str:
        return "invalid_mac1=1\n"

    def post(self, *events: tuple[int, int]) -> None:
        self.events += events
        os.eventfd_write(self.event_fd, 1)

    def take_events(self) -> list[tuple[int, int]]:
        if select.select([self.event_fd], [], [], 0)[0]:
            os.eventfd_read(self.event_fd)
        events, self.events = self.events, []
        return events

    def take_message(self) -> None:
        return None

    def set_timer(self, deadline: int | None) -> None:
        if deadline is not None and deadline <= time.clock_gettime_ns(time.CLOCK_BOOTTIME):
            os.eventfd_write(self.timer_fd, 1)

    def clear_timer(self) -> None:
        os.eventfd_read(self.timer_fd)

    threads = False

    def offloads(self) -> tuple[bool, bool, bool]:
        return False, True, False

    def attach_sockets(self, v4: int | None, v6: int | None, segment: bool = True) -> None:
        if v4 is not None and not self.threads:
            raise OSError(errno.EAGAIN, "no thread")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class NoWatch:
    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def play(
    monkeypatch: pytest.MonkeyPatch,
    scene: Callable[[Tunnel, NotingPlane, list[str]], Coroutine[Any, Any, None]],
) -> None:
    plane, said = NotingPlane(), list[str]()
    monkeypatch.setattr(module, "Plane", lambda: plane)
    monkeypatch.setattr(module, "LinkWatch", NoWatch)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(str(context["exception"])))
        tunnel = Tunnel(
            Tun(os.open(os.devnull, os.O_RDWR), "none", 1420, True, ALL - {Offload.USO})
        )
        try:
            await scene(tunnel, plane, said)
        finally:
            tunnel.close()

    asyncio.run(main())


def test_an_exception_loses_no_other_event_and_no_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        handled, ticks = [], []

        def handle(kind: int, peer: int, at: object) -> None:
            handled.append(peer)
            if peer == 1:
                raise KeyError("event")

        def tick(at: object) -> None:
            ticks.append(1)
            if len(ticks) == 1:
                raise KeyError("tick")

        monkeypatch.setattr(tunnel._device, "handle", handle)
        monkeypatch.setattr(tunnel._device, "tick", tick)
        monkeypatch.setattr(
            tunnel._device, "next_deadline", lambda: (5, "") if len(ticks) < 3 else None
        )
        plane.post((0, 1), (0, 2), (1, 3))
        await asyncio.sleep(0.1)
        assert handled == [1, 2, 3]
        assert len(ticks) == 3
        assert said == ["'event'", "'tick'"]

    play(monkeypatch, scene)


def test_many_events_let_others_have_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        handled: list[int] = []

        def handle(kind: int, peer: int, at: object) -> None:
            time.sleep(0.001)
            handled.append(peer)

        monkeypatch.setattr(tunnel._device, "handle", handle)
        plane.post(*((0, peer) for peer in range(100)))
        turns = 0
        while len(handled) < 100:
            await asyncio.sleep(0)
            turns += 1
            assert turns < 1000
        assert turns > 10
        assert handled == list(range(100))

    play(monkeypatch, scene)


@pytest.mark.parametrize("event", [PlaneEvent.TUN_LOST, PlaneEvent.THREAD_LOST])
@pytest.mark.item(85)
def test_only_a_lost_thread_is_an_error(monkeypatch: pytest.MonkeyPatch, event: PlaneEvent) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        plane.post((event, 0), (event, 0))
        await asyncio.wait([tunnel.closed], timeout=1)
        if event is PlaneEvent.TUN_LOST:
            tunnel.closed.result()
        else:
            with pytest.raises(HostError, match="thread"):
                tunnel.closed.result()
        assert not said

    play(monkeypatch, scene)


class Others:
    """Counts the turns that others get on the loop."""

    def __init__(self) -> None:
        self.turns = 0
        self._loop = asyncio.get_running_loop()
        self._turn()

    def _turn(self) -> None:
        self.turns += 1
        self._loop.call_soon(self._turn)


def many(count: int) -> list[PeerChange]:
    keys = [None if number % 3 else PresharedKey.generate() for number in range(count)]
    return [
        PeerChange(number.to_bytes(32), preshared_key=key) for number, key in enumerate(keys, 1)
    ]


def test_a_large_change_lets_others_have_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        others, changes = Others(), many(1000)
        for change in (DeviceChange(peers=tuple(changes)), DeviceChange(replace_peers=True)):
            before = others.turns
            await tunnel.apply(change)
            assert others.turns - before >= 10
            assert len(tunnel._device.peers) == len(change.peers)

    play(monkeypatch, scene)


def test_down_waits_until_up_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        done = []
        monkeypatch.setattr(Peer, "start", lambda peer, now: done.append(("up", peer.id)))
        monkeypatch.setattr(Peer, "stop", lambda peer: done.append(("down", peer.id)))
        await tunnel.apply(DeviceChange(peers=tuple(many(300))))
        tunnel._link_changed(True, 1420)
        tunnel._link_changed(False, 1420)
        await asyncio.gather(*tunnel._changes)
        assert done == [(way, peer) for way in ("up", "down") for peer in range(1, 301)]

    play(monkeypatch, scene)


def test_a_set_is_applied_whole_even_if_its_client_is_shown_the_door(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        client = asyncio.get_running_loop().create_task(
            tunnel.apply(DeviceChange(peers=tuple(many(300))))
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < len(tunnel._device.peers) < 300
        client.cancel()
        await asyncio.gather(*tunnel._changes)
        assert client.cancelled()
        assert len(tunnel._device.peers) == 300

    play(monkeypatch, scene)


def test_a_change_that_fails_is_an_error_and_is_reported_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        def refuse(*_: object) -> None:
            raise TypeError("a defect")

        monkeypatch.setattr(plane, "set_endpoint", refuse, raising=False)
        where = Endpoint("192.0.2.1", 1)
        changes = [PeerChange(number.to_bytes(32), endpoint=where) for number in (1, 2)]
        with pytest.raises(HostError, match="please report it") as caught:
            await tunnel.apply(DeviceChange(peers=(*changes, PeerChange((3).to_bytes(32)))))
        assert caught.value.errno == errno.EIO
        assert said == ["a defect"]
        assert len(tunnel._device.peers) == 3, "those behind it are changed"

    play(monkeypatch, scene)


def test_keys_go_at_down_whatever_else_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        stopped = []
        monkeypatch.setattr(Peer, "start", lambda peer, now: None)
        monkeypatch.setattr(Peer, "stop", lambda peer: stopped.append(peer.id))
        await tunnel.apply(DeviceChange(peers=tuple(many(3))))
        tunnel._link_changed(True, 1420)
        long = [tunnel.apply(DeviceChange(peers=tuple(many(10_000)))) for _ in range(3)]
        waiting = [asyncio.ensure_future(one) for one in long]
        await asyncio.sleep(0)
        tunnel._link_changed(False, 1420)
        for _ in range(20):
            await asyncio.sleep(0)
        assert stopped[:3] == [1, 2, 3]
        assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting, *tunnel._changes)

    play(monkeypatch, scene)


def test_a_copied_machine_ends_all_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        expired: list[int] = []
        monkeypatch.setattr(plane, "expire", expired.append, raising=False)
        await tunnel.apply(DeviceChange(peers=tuple(many(300))))
        tunnel._generation._on_change()
        await asyncio.gather(*tunnel._changes)
        assert expired == list(range(1, 301))

    play(monkeypatch, scene)


def test_a_defect_of_up_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        defect = ValueError("a defect")
        monkeypatch.setattr(Peer, "start", Mock(side_effect=defect))
        await tunnel.apply(DeviceChange(peers=tuple(many(3))))
        tunnel._link_changed(True, 1420)
        await asyncio.wait(tunnel._changes)
        assert reported == [defect], "once, not for each peer"

    play(monkeypatch, scene)


def test_each_preshared_key_is_written_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        changes = many(1001)
        await tunnel.apply(DeviceChange(peers=tuple(changes)))
        parts = list(tunnel.describe())
        assert len(parts) == 4  # The device, and peers by the 500.
        lines = b"".join(parts).decode().splitlines()
        del changes[6]
        assert len(lines) == 3 * len(changes)
        for at, change in enumerate(changes):
            digits = bytearray(b"0" * 64)
            if isinstance(change.preshared_key, PresharedKey):
                change.preshared_key.write_hex(digits, 0)
            assert lines[3 * at] == "public_key=" + change.public_key.hex()
            assert lines[3 * at + 1] == "preshared_key=" + digits.decode()

    play(monkeypatch, scene)


def test_a_state_comes_in_parts_without_those_who_went(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        changes = many(1001)
        await tunnel.apply(DeviceChange(peers=tuple(changes)))
        device, *parts = tunnel.describe_state(None)
        assert device == (
            b"up=false\nbound=false\ninvalid_mac1=1\n"
            b"cipher=%s\noffloads=tso,tcp-merge\n" % cipher()[0].encode()
        )
        assert [part.count(b"public_key=") for part in parts] == [499, 500, 1]
        seventh = changes.pop(6).public_key
        text = "".join(f"public_key={one.public_key.hex()}\nsession=none\n" for one in changes)
        assert b"".join(parts).decode() == text
        assert list(tunnel.describe_state(seventh)) == [device, b""]
        first = changes[0].public_key
        assert list(tunnel.describe_state(first))[1].startswith(
            b"public_key=%b" % first.hex().encode()
        )
        with pytest.raises(KeyError):
            tunnel.describe_state(bytes(32))

    play(monkeypatch, scene)


def test_an_interface_that_is_up_and_has_no_socket_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        tunnel._link_changed(True, 1420)
        says = b"up=true\nbound=false\nbind_error=%d\n"
        assert next(tunnel.describe_state(None)).startswith(says % errno.EAGAIN)
        tunnel._link_changed(False, 1420)
        assert next(tunnel.describe_state(None)).startswith(b"up=false\nbound=false\ninvalid")
        monkeypatch.setattr(udp, "open_sockets", Mock(side_effect=TypeError("a defect")))
        tunnel._link_changed(True, 1420)
        assert next(tunnel.describe_state(None)).startswith(says % errno.EIO)
        assert "TypeError: a defect" in caplog.text

    play(monkeypatch, scene)


class Binds:
    """Stands in for `udp.open_sockets`: refuses as often as it is told, and keeps when it was asked
    for which port."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
        self.refusals = refusals
        self.asked: list[tuple[float, int]] = []
        self._open = udp.open_sockets
        monkeypatch.setattr(udp, "open_sockets", self)

    def __call__(self, port: int, mark: int) -> udp.Sockets:
        self.asked.append((time.monotonic(), port))
        if len(self.asked) <= self.refusals:
            raise HostError(errno.EADDRINUSE, f"UDP port {port} is in use")
        return self._open(port, mark)


async def bound(tunnel: Tunnel) -> None:
    for _ in range(1000):
        if tunnel._sockets is not None:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not in 5 s")


def test_a_port_that_is_taken_is_tried_again_with_back_off_while_the_link_is_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        plane.threads = True
        binds = Binds(monkeypatch, 4)
        tunnel._link_changed(True, 1420)
        in_use = b"up=true\nbound=false\nbind_error=%d\n" % errno.EADDRINUSE
        assert next(tunnel.describe_state(None)).startswith(in_use)
        await bound(tunnel)
        assert next(tunnel.describe_state(None)).startswith(b"up=true\nbound=true\ninvalid")
        times = [at for at, _ in binds.asked]
        pauses = [later - at for at, later in itertools.pairwise(times)]
        assert len(pauses) == 4 and all(
            pause >= 0.02 * 2**number for number, pause in enumerate(pauses)
        )
        assert caplog.text.count("is up without a socket, trying again: UDP port 0 is in use") == 1
        assert caplog.text.count("has its socket now") == 1
        # Once there are sockets, and once the link is down, nothing is tried any more.
        binds.refusals = 100
        tunnel._link_changed(False, 1420)
        tunnel._link_changed(True, 1420)
        tunnel._link_changed(False, 1420)
        number = len(binds.asked)
        await asyncio.sleep(0.1)
        assert (len(binds.asked), number) == (number, 6)
        assert tunnel._sockets is None

    play(monkeypatch, scene)


def test_a_change_that_costs_the_sockets_gets_them_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread could be made for the new port: the old one is bound anew."""

    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        plane.threads = True
        tunnel._link_changed(True, 1420)
        port = tunnel.status.listen_port
        plane.threads = False
        other = udp.open_sockets(0, 0)
        other.close()
        with pytest.raises(OSError, match="no thread"):
            await tunnel.apply(DeviceChange(listen_port=other.port))
        assert tunnel._sockets is None
        plane.threads = True
        await bound(tunnel)
        assert tunnel.status.listen_port == port

    play(monkeypatch, scene)


def test_a_panic_of_rust_is_a_defect_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no Exception; the other events and the deadlines do not notice."""

    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        handled = []

        def handle(kind: int, peer: int, at: object) -> None:
            handled.append(peer)
            if peer == 1:
                raise PanicException("index out of range")

        monkeypatch.setattr(tunnel._device, "handle", handle)
        monkeypatch.setattr(tunnel._device, "tick", Mock(side_effect=PanicException("tick")))
        monkeypatch.setattr(Peer, "start", Mock(side_effect=PanicException("start")))
        plane.post((0, 1), (0, 2))
        await asyncio.sleep(0.05)
        assert handled == [1, 2]
        tunnel._survive(tunnel._device.tick, module.now())
        await tunnel.apply(DeviceChange(peers=tuple(many(3))))
        tunnel._link_changed(True, 1420)
        await asyncio.gather(*tunnel._changes)
        assert said == ["index out of range", "tick", "start"]

    play(monkeypatch, scene)


@pytest.mark.parametrize("call", ["take_events", "take_message", "set_timer", "clear_timer"])
def test_a_panic_in_a_call_of_the_loop_costs_that_call(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        handled = list[int]()
        monkeypatch.setattr(tunnel._device, "handle", lambda kind, peer, at: handled.append(peer))
        monkeypatch.setattr(plane, "clear_timer", lambda: None)
        whole = getattr(plane, call)
        monkeypatch.setattr(plane, call, Mock(side_effect=PanicException(call)))
        monkeypatch.setattr(tunnel._device, "next_deadline", lambda: (1 << 62, ""))
        tunnel._tick()
        assert set(said) == {call}
        monkeypatch.setattr(plane, call, whole)
        armed = list[int | None]()
        monkeypatch.setattr(plane, "set_timer", armed.append)
        plane.post((0, 5))
        tunnel._drain()
        assert handled == [5], "events come"
        assert armed == ([1 << 62] if call == "set_timer" else []), "and the timer runs"

    play(monkeypatch, scene)


def test_a_panic_that_was_survived_is_reported_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        untold = ["src/outbound.rs:204:36: out of range"]
        monkeypatch.setattr(module, "take_panics", lambda: [untold.pop()] if untold else [])
        plane.post((PlaneEvent.PANIC, 0), (PlaneEvent.PANIC, 0))
        await asyncio.sleep(0.05)
        place = "src/outbound.rs:204:36: out of range"
        assert reported == [f"a panic, which is a bug, please report it: {place}"]
        assert not tunnel.closed.done()

    play(monkeypatch, scene)


def test_many_who_go_down_at_once_let_others_have_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And all of it is told, to a reader who keeps up."""

    count = 10_000

    async def read(reader: asyncio.StreamReader) -> None:
        for number in range(1, count + 1):
            block = (await reader.readuntil(b"\n\n")).decode().splitlines()
            assert block[0] == "event=disconnected"
            assert block[3:] == [f"public_key={number:064x}", "reason=removed", ""]

    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        await tunnel.apply(DeviceChange(peers=tuple(many(count))))
        for peer in tunnel._device.peers.values():
            peer.connected = True
        ours, theirs = socket.socketpair()
        reader, _ = await asyncio.open_connection(sock=theirs)
        ours.setblocking(False)
        with tunnel.events.subscribe() as place:
            feed = asyncio.create_task(tunnel.events.feed(ours, None, place))
            others = Others()
            change = tunnel.apply(DeviceChange(replace_peers=True))
            await asyncio.gather(change, read(reader))
            assert others.turns > count // 100
            feed.cancel()
        ours.close()

    play(monkeypatch, scene)


def test_sockets_without_a_thread_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        sockets = udp.open_sockets(0, 0)
        with pytest.raises(OSError, match="no thread"):
            tunnel._attach(sockets)
        assert all(one.fileno() < 0 for one in sockets.all)
        assert tunnel.status.listen_port == 0

    play(monkeypatch, scene)
