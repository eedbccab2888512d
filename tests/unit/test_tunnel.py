"""The loop's side of a tunnel, with a plane that only takes notes."""

import asyncio
import errno
import os
import select
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from wiresnake.errors import HostError
from wiresnake.protocol.plane import Event
from wiresnake.runtime import tunnel as module
from wiresnake.runtime import udp
from wiresnake.runtime.tun import Tun
from wiresnake.runtime.tunnel import Tunnel


class NotingPlane:
    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.timer_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.events: list[tuple[int, int]] = []

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

    def attach_sockets(self, v4: int | None, v6: int | None) -> None:
        if v4 is not None:
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
        tunnel = Tunnel(Tun(os.open(os.devnull, os.O_RDWR), "none", 1420, True, True))
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


@pytest.mark.parametrize("event", [Event.TUN_LOST, Event.THREAD_LOST])
def test_c085_only_a_lost_thread_is_an_error(monkeypatch: pytest.MonkeyPatch, event: Event) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        plane.post((event, 0), (event, 0))
        await asyncio.wait([tunnel.closed], timeout=1)
        if event is Event.TUN_LOST:
            tunnel.closed.result()
        else:
            with pytest.raises(HostError, match="thread"):
                tunnel.closed.result()
        assert not said

    play(monkeypatch, scene)


def test_sockets_without_a_thread_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(tunnel: Tunnel, plane: NotingPlane, said: list[str]) -> None:
        sockets = udp.open_sockets(0, 0)
        with pytest.raises(OSError, match="no thread"):
            tunnel._attach(sockets)
        assert all(one.fileno() < 0 for one in sockets.all)
        assert tunnel.status.listen_port == 0

    play(monkeypatch, scene)
