"""What sticks to a peer's datagrams: the questions to the kernel, and what its answers lead to."""

import asyncio
import errno
import itertools
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake.linux.netlink import Refused, Request, attribute, fields, number, unsigned
from wiresnake.tunnel import routes as module
from wiresnake.tunnel.routes import (
    Answer,
    Flow,
    Hold,
    Routes,
    Way,
    judge,
    proves,
    question,
    way_out,
)

FLOW = Flow(0x80000007, 51820, 0)
THERE, HERE = bytes([192, 0, 2, 9]), bytes([192, 0, 2, 1])
WAY: Way = (THERE, HERE, 3, Hold.UNASKED, 7001)
WAY6: Way = (bytes(15) + b"\x09", bytes(15) + b"\x01", 3, Hold.UNASKED, 7001)


def answer(interface: int, *more: bytes) -> memoryview:
    return memoryview(bytes(12) + number(4, interface) + b"".join(more))


def refused(code: int) -> Refused:
    return Refused(code, "no")


@pytest.mark.parametrize("way", [WAY, WAY6], ids=["v4", "v6"])
@pytest.mark.parametrize("pin", [None, Hold.PINNED, Hold.FACING])
def test_a_question_has_what_routes_and_rules_look_at(way: Way, pin: Hold | None) -> None:
    kind, body, _ = question(way, FLOW._replace(interface=8), pin)
    family, to, source, *_, flags = struct.unpack_from("=8BI", body)
    said = {kind: bytes(value) for kind, value in fields(memoryview(bytes(body))[12:]).items()}
    assert kind == 26
    assert family == (socket.AF_INET if way is WAY else socket.AF_INET6)
    assert to == 8 * len(said[1]) and said[1] == way[0]
    assert said.get(2, b"") == (b"" if pin is Hold.FACING else way[1]) and source == 8 * len(
        said.get(2, b"")
    )
    assert unsigned(said[4]) == (8 if pin is None else 3)
    assert unsigned(said[16]) == 0x80000007
    assert (said[27], said[28], said[29]) == (b"\x11", b"\xca\x6c", b"\x1b\x59")
    assert flags == (0x2000 if way is WAY and pin else 0)


@given(st.binary(max_size=100))
def test_random_bytes_are_some_answer(data: bytes) -> None:
    assert isinstance(way_out(memoryview(data)), int)
    for hold in Hold.PINNED, Hold.FACING:
        proves(WAY6, hold, memoryview(data))


@pytest.mark.parametrize(
    ("said", "out"),
    [
        (answer(3), 3),
        (memoryview(bytes(12)), 0),
        *((refused(code), 0) for code in (errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH)),
        (refused(errno.EOPNOTSUPP), None),
        (None, None),
    ],
)
def test_the_way_out(said: Answer, out: int | None) -> None:
    assert way_out(said) == out


@pytest.mark.parametrize(
    ("before", "out", "pin", "after"),
    [
        # A peer that was never asked for: the interface is pinned only where it must and can be.
        (Hold.UNASKED, 3, None, Hold.ROUTED),
        (Hold.UNASKED, 4, Hold.PINNED, Hold.PINNED),
        (Hold.UNASKED, 4, Hold.FACING, Hold.FACING),
        (Hold.UNASKED, 4, None, Hold.ALONE),
        (Hold.UNASKED, 0, None, Hold.LOST),
        # The host's own way is another now: it is followed, until it comes back.
        (Hold.ROUTED, 3, None, Hold.ROUTED),
        (Hold.ROUTED, 4, Hold.PINNED, Hold.LEFT),
        (Hold.ROUTED, 0, None, Hold.LEFT),
        (Hold.LEFT, 4, Hold.PINNED, Hold.LEFT),
        (Hold.LEFT, 3, None, Hold.ROUTED),
        # What was pinned against it stays, as long as there is a route.
        (Hold.PINNED, 5, Hold.PINNED, Hold.PINNED),
        (Hold.PINNED, 4, None, Hold.LOST),
        (Hold.LOST, 4, None, Hold.LOST),
        (Hold.LOST, 4, Hold.PINNED, Hold.PINNED),
        (Hold.LOST, 3, None, Hold.ROUTED),
        (Hold.ALONE, 5, None, Hold.ALONE),
        # After a change of the mark, as before it.
        (Hold.ROUTED | Hold.STALE, 3, None, Hold.ROUTED),
        (Hold.ROUTED | Hold.STALE, 4, Hold.PINNED, Hold.LEFT),
        # A kernel that does not say leaves all as it is.
        (Hold.UNASKED, None, None, Hold.UNASKED),
        (Hold.PINNED, None, None, Hold.PINNED),
    ],
)
@pytest.mark.item(78)
def test_a_source_sticks_as_the_routes_allow(
    before: int, out: int | None, pin: Hold | None, after: Hold
) -> None:
    assert judge((THERE, HERE, 3, before, 7001), out, pin) == after


@pytest.mark.item(78)
def test_only_a_real_route_pins() -> None:
    assert proves(WAY, Hold.PINNED, answer(3))
    assert proves(WAY, Hold.PINNED, memoryview(bytes(12))), "one of several next hops"
    assert not proves(WAY, Hold.PINNED, refused(errno.EHOSTUNREACH))
    assert not proves(WAY, Hold.PINNED, None)
    assert proves(WAY6, Hold.PINNED, answer(3))
    assert not proves(WAY6, Hold.PINNED, answer(4)), "to IPv6 an interface is a hint"
    assert proves(WAY6, Hold.FACING, answer(3, attribute(7, WAY6[1])))
    assert not proves(WAY6, Hold.FACING, answer(4, attribute(7, WAY6[1])))
    assert not proves(WAY6, Hold.FACING, answer(3, attribute(7, WAY6[0]))), "another address"


class PretendedEndpoint:
    def __init__(self, way: Way, scope: int = 0) -> None:
        self.route: tuple[bytes, bytes, int, int] | None = way[:4]
        self.port, self.scope = way[4], scope


class PretendedPlane:
    """Peers by number; an even one has a source of its own."""

    def __init__(self) -> None:
        self.endpoints: dict[int, PretendedEndpoint | None] = {}
        self.held: dict[int, int] = {}

    def take_source(self, peer: int) -> Any:
        return self.endpoints[peer]

    def hold_source(self, peer: int, endpoint: Any, hold: int) -> None:
        self.held[peer] = hold
        endpoint.route = (*endpoint.route[:3], hold)


class PretendedKernel:
    """Leads out by interface 3, or by `out`."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.out = 3

    def ask_each(self, requests: list[Request]) -> list[Answer]:
        self.asked.append(len(requests))
        return [answer(self.out) if not one.body[11] & 0x20 else None for one in requests]

    def close(self) -> None:
        pass


Scene = Callable[[Routes, PretendedPlane, PretendedKernel], Coroutine[Any, Any, None]]


def play(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    plane, kernel = PretendedPlane(), PretendedKernel()
    monkeypatch.setattr(module, "Netlink", lambda: kernel)
    monkeypatch.setattr(module, "_REST", 0.1)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    far.setblocking(False)
    monkeypatch.setattr(module, "subscribe", lambda *_: near)

    async def main() -> None:
        routes = Routes(plane, lambda: list(plane.endpoints), lambda: FLOW)
        monkeypatch.setattr(routes, "hear", far.send, raising=False)
        try:
            await scene(routes, plane, kernel)
        finally:
            routes.close()
            far.close()

    asyncio.run(main())


def message(kind: int) -> bytes:
    return struct.pack("=IHHII", 16, kind, 0, 0, 0)


NEW_ADDRESS, NEW_ROUTE, NEW_RULE = message(20), message(24), message(32)


def test_who_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all peers of one way, and for none whose endpoint has a zone or no source."""

    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {
            1: PretendedEndpoint(WAY),
            2: PretendedEndpoint(WAY),
            3: None,
            4: PretendedEndpoint(WAY6, scope=3),
            5: PretendedEndpoint(WAY6),
        }
        for peer in (*plane.endpoints, 6):
            routes.moved(peer)
        await asyncio.sleep(0.2)
        assert sum(kernel.asked) == 3, "1 at once, then 2 and 5"
        assert plane.held == {1: Hold.ROUTED, 2: Hold.ROUTED, 5: Hold.ROUTED}
        plane.held.clear()
        kernel.asked.clear()
        for peer in plane.endpoints:
            routes.settle(peer)
        assert sum(kernel.asked) == 0, "each was asked for"
        kernel.out = 4
        routes.hear(NEW_ROUTE)  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        assert kernel.asked[0] == 2, "1 and 2 go one way"
        assert plane.held == {1: Hold.LEFT, 2: Hold.LEFT, 5: Hold.LEFT}

    play(monkeypatch, scene)


def test_a_peer_that_moves_all_the_time_is_asked_for_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {1: PretendedEndpoint(WAY)}
        begin = time.monotonic()
        for _ in range(30):
            routes.moved(1)
            await asyncio.sleep(0.01)
        assert 2 <= len(kernel.asked) <= 2 + (time.monotonic() - begin) / 0.1

    play(monkeypatch, scene)


def test_what_moves_while_there_are_no_sockets_may_move_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plane posts a move again once its bit is clear, which `take_source` does."""

    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {1: PretendedEndpoint(WAY)}
        taken = list[int]()
        monkeypatch.setattr(routes, "_flow", lambda: None)
        monkeypatch.setattr(plane, "take_source", taken.append)
        routes.moved(1)
        assert (taken, kernel.asked) == ([1], [])

    play(monkeypatch, scene)


def test_many_that_move_leave_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {
            peer: PretendedEndpoint((THERE, HERE, 3, Hold.UNASKED, peer)) for peer in range(300)
        }
        clock = itertools.count(0, 0.01)  # Each hundred takes 10 ms.
        monkeypatch.setattr(module, "time", Mock(thread_time=lambda: next(clock)))
        for peer in plane.endpoints:
            routes.moved(peer)
        begin = time.monotonic()
        while len(plane.held) < 300:
            assert time.monotonic() - begin < 5
            await asyncio.sleep(0.005)
        assert time.monotonic() - begin >= 0.1 + 0.1, "a rest before the rest, then of ten times"

    play(monkeypatch, scene)


def test_many_peers_make_no_long_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {1: PretendedEndpoint(WAY)}
        clock = iter(range(0, 1000, 100))
        monkeypatch.setattr(module, "time", Mock(thread_time=lambda: next(clock)))
        monkeypatch.setattr(module, "_LONGEST_REST", 0.2)
        routes.hear(NEW_RULE)  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        routes.hear(NEW_RULE)  # type: ignore[attr-defined]
        await asyncio.sleep(0.4)
        assert len(kernel.asked) == 2, "the second change is heard after the longest rest"

    play(monkeypatch, scene)


def test_a_flood_of_routes_is_one_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """And thousands of peers let others have the loop."""

    async def scene(routes: Routes, plane: PretendedPlane, kernel: PretendedKernel) -> None:
        plane.endpoints = {
            peer: PretendedEndpoint((THERE, HERE, 3, Hold.UNASKED, peer)) for peer in range(2000)
        }
        hear: Callable[[bytes], int] = routes.hear  # type: ignore[attr-defined]
        hear(NEW_ADDRESS)
        await asyncio.sleep(0.1)
        assert not kernel.asked, "an address that comes takes no route away"
        for _ in range(40):
            for _ in range(8):
                try:
                    hear(NEW_RULE)
                except BlockingIOError:
                    break
            await asyncio.sleep(0.005)
        assert kernel.asked == [100] * 20 * (len(kernel.asked) // 20)
        assert len(kernel.asked) // 20 <= 3
        assert len(plane.held) == 2000

    play(monkeypatch, scene)
