"""The portable plane's side of the loop: its deadlines are the loop's, its sockets ordinary."""

import asyncio
import select
import socket
import time

import pytest
from unit.pretended import PretendedHost

from wiresnake._native import Plane
from wiresnake.errors import HostError
from wiresnake.linux.tun import Tun
from wiresnake.protocol.timers import Now
from wiresnake.tunnel import portable
from wiresnake.tunnel.host import Host
from wiresnake.tunnel.interface import Interface

_IP_PKTINFO, _UDP_GRO = 8, 104


def test_the_loop_keeps_the_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each deadline replaces the previous one, a past one fires at once, and none remains set."""

    async def scene() -> None:
        app, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        tun = Tun(link.detach(), "none", 1420, False, frozenset())
        ticks: asyncio.Queue[int] = asyncio.Queue()
        due: list[int] = []
        plane, host = Plane(portable=True), PretendedHost().real()
        async with Interface(interface=tun, plane=plane, host=host) as tunnel:

            def arm(after: float) -> None:
                due[:] = [time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(after * 1e9)]
                tunnel._arm()

            def tick(at: Now) -> None:
                ticks.put_nowait(at.boot - due.pop())

            monkeypatch.setattr(
                tunnel.device, "next_deadline", lambda: (due[0], "test") if due else None
            )
            monkeypatch.setattr(tunnel.device, "tick", tick)
            arm(60)
            for after in (0.2, -1):
                arm(after)
                late = await asyncio.wait_for(ticks.get(), 10)
                assert late > -2e6
            arm(0.05)
            due.clear()
            tunnel._arm()
            await asyncio.sleep(0.15)
            assert ticks.empty(), "it was unset"
            arm(0.05)
        await asyncio.sleep(0.15)
        assert ticks.empty(), "it was closed"
        app.close()

    asyncio.run(scene())


def test_there_is_no_timer_and_no_offload() -> None:
    plane = Plane(portable=True)
    assert (plane.timer_fd, plane.offloads()) == (-1, (False, False, False))
    plane.set_timer(1)
    plane.clear_timer()
    plane.close()
    assert (plane.event_fd, plane.timer_fd) == (-1, -1)


def test_both_sides_of_it_read_one_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    at = portable.machine(Host()).clock()
    assert before <= at.boot <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(at.wall - time.time_ns()) < 60e9


def test_an_event_wakes_the_loop_until_it_is_taken() -> None:
    plane = Plane(portable=True)
    assert not select.select([plane.event_fd], [], [], 0)[0]
    peer = plane.add_peer()
    plane.send_staged(peer)
    plane.send_keepalive(peer)  # There is no session, so it wants a handshake.
    assert select.select([plane.event_fd], [], [], 5)[0]
    assert plane.take_events()
    assert not select.select([plane.event_fd], [], [], 0)[0]
    plane.close()


def test_its_sockets_have_no_option_that_only_linux_has() -> None:
    opened = portable.machine(Host()).open_sockets(0, 0)
    assert opened.all
    for one in opened.all:
        if one.family == socket.AF_INET:
            assert not one.getsockopt(socket.IPPROTO_IP, _IP_PKTINFO)
        else:
            assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            assert not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
        assert not one.getsockopt(socket.IPPROTO_UDP, _UDP_GRO)
    with pytest.raises(HostError, match="in use"):
        portable.machine(Host()).open_sockets(opened.port, 0)
    opened.close()
