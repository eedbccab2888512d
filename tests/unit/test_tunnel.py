"""The loop's side of a tunnel, with a plane that only takes notes."""

import asyncio
import errno
import itertools
import os
import time
from unittest.mock import Mock

import pytest
from unit.pretended import NotingPlane, PretendedHost, Stage, play

from wiresnake._native import Endpoint, PanicException, PresharedKey, cipher
from wiresnake.daemon import describe
from wiresnake.errors import HostError
from wiresnake.events import Connected, Disconnected
from wiresnake.linux import udp
from wiresnake.linux.offloads import ALL
from wiresnake.linux.tun import Tun
from wiresnake.model import DeviceChange, DeviceStatus, PeerChange, PeerStatus, Prefix
from wiresnake.protocol.plane import PlaneEvent
from wiresnake.text import base64_text
from wiresnake.tunnel.events import Subscription
from wiresnake.tunnel.host import now
from wiresnake.tunnel.interface import Interface


def test_an_exception_loses_no_other_event_and_no_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(on: Stage) -> None:
        handled, ticks = [], []

        def handle(kind: int, peer: int, at: object) -> None:
            handled.append(peer)
            if peer == 1:
                raise KeyError("event")

        def tick(at: object) -> None:
            ticks.append(1)
            if len(ticks) == 1:
                raise KeyError("tick")

        monkeypatch.setattr(on.tunnel.device, "handle", handle)
        monkeypatch.setattr(on.tunnel.device, "tick", tick)
        monkeypatch.setattr(
            on.tunnel.device, "next_deadline", lambda: (5, "") if len(ticks) < 3 else None
        )
        on.plane.post((0, 1), (0, 2), (1, 3))
        await asyncio.sleep(0.1)
        assert handled == [1, 2, 3]
        assert len(ticks) == 3
        assert on.said == ["'event'", "'tick'"]

    play(scene)


def test_many_events_let_others_have_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(on: Stage) -> None:
        handled: list[int] = []

        def handle(kind: int, peer: int, at: object) -> None:
            time.sleep(0.001)
            handled.append(peer)

        monkeypatch.setattr(on.tunnel.device, "handle", handle)
        on.plane.post(*((0, peer) for peer in range(100)))
        turns = 0
        while len(handled) < 100:
            await asyncio.sleep(0)
            turns += 1
            assert turns < 1000
        assert turns > 10
        assert handled == list(range(100))

    play(scene)


@pytest.mark.parametrize("event", [PlaneEvent.TUN_LOST, PlaneEvent.THREAD_LOST])
@pytest.mark.item(85)
def test_only_a_lost_thread_is_an_error(event: PlaneEvent) -> None:
    async def scene(on: Stage) -> None:
        on.plane.post((event, 0), (event, 0))
        await asyncio.wait([on.tunnel.closed], timeout=1)
        assert on.tunnel.closed.done() and not on.said

    if event is PlaneEvent.TUN_LOST:
        play(scene)
    else:
        with pytest.raises(HostError, match="thread"):
            play(scene)


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


def test_a_large_change_lets_others_have_the_loop() -> None:
    async def scene(on: Stage) -> None:
        others, changes = Others(), many(1000)
        for change in (DeviceChange(peers=tuple(changes)), DeviceChange(replace_peers=True)):
            before = others.turns
            await on.tunnel.apply(change)
            assert others.turns - before >= 10
            assert len(on.tunnel.device.peers) == len(change.peers)

    play(scene)


def test_down_waits_until_up_is_done() -> None:
    async def scene(on: Stage) -> None:
        await on.tunnel.apply(DeviceChange(peers=tuple(many(300))))
        on.host.link(True, 1420)
        on.host.link(False, 1420)
        await asyncio.gather(*on.tunnel._changes)
        done = on.plane.noted("send_staged", "wipe")
        assert done == [(way, peer) for way in ("send_staged", "wipe") for peer in range(1, 301)]

    play(scene)


def test_a_set_is_applied_whole_even_if_its_client_is_shown_the_door() -> None:
    async def scene(on: Stage) -> None:
        client = asyncio.get_running_loop().create_task(
            on.tunnel.apply(DeviceChange(peers=tuple(many(300))))
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 0 < len(on.tunnel.device.peers) < 300
        client.cancel()
        await asyncio.gather(*on.tunnel._changes)
        assert client.cancelled()
        assert len(on.tunnel.device.peers) == 300

    play(scene)


def test_a_change_that_fails_is_an_error_and_is_reported_once() -> None:
    async def scene(on: Stage) -> None:
        on.plane.defects["set_endpoint"] = TypeError("a defect")
        where = Endpoint("192.0.2.1", 1)
        changes = [PeerChange(number.to_bytes(32), endpoint=where) for number in (1, 2)]
        with pytest.raises(HostError, match="please report it") as caught:
            await on.tunnel.apply(DeviceChange(peers=(*changes, PeerChange((3).to_bytes(32)))))
        assert caught.value.errno == errno.EIO
        assert on.said == ["a defect"]
        assert len(on.tunnel.device.peers) == 3, "those after it are changed"

    play(scene)


def test_keys_go_at_down_whatever_else_is_queued() -> None:
    async def scene(on: Stage) -> None:
        await on.tunnel.apply(DeviceChange(peers=tuple(many(3))))
        on.host.link(True, 1420)
        long = [on.tunnel.apply(DeviceChange(peers=tuple(many(10_000)))) for _ in range(3)]
        waiting = [asyncio.ensure_future(one) for one in long]
        await asyncio.sleep(0)
        on.host.link(False, 1420)
        for _ in range(20):
            await asyncio.sleep(0)
        assert on.plane.noted("wipe")[:3] == [("wipe", peer) for peer in (1, 2, 3)]
        assert not any(one.done() for one in waiting)
        await asyncio.gather(*waiting, *on.tunnel._changes)

    play(scene)


def test_a_copied_machine_ends_all_sessions() -> None:
    async def scene(on: Stage) -> None:
        await on.tunnel.apply(DeviceChange(peers=tuple(many(300))))
        on.host.copied()
        await asyncio.gather(*on.tunnel._changes)
        assert on.plane.noted("expire") == [("expire", peer) for peer in range(1, 301)]

    play(scene)


def test_a_defect_of_up_is_reported_once() -> None:
    async def scene(on: Stage) -> None:
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        defect = ValueError("a defect")
        on.plane.defects["send_staged"] = defect
        await on.tunnel.apply(DeviceChange(peers=tuple(many(3))))
        on.host.link(True, 1420)
        await asyncio.wait(on.tunnel._changes)
        assert reported == [defect], "once, not for each peer"

    play(scene)


def test_each_preshared_key_is_written_in_its_place() -> None:
    async def scene(on: Stage) -> None:
        changes = many(1001)
        await on.tunnel.apply(DeviceChange(peers=tuple(changes)))
        parts = list(describe.configuration(on.tunnel))
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

    play(scene)


def test_a_state_comes_in_parts_without_those_who_went() -> None:
    async def scene(on: Stage) -> None:
        changes = many(1001)
        await on.tunnel.apply(DeviceChange(peers=tuple(changes)))
        device, *parts = describe.state(on.tunnel, None)
        assert device == (
            b"up=false\nbound=false\ninvalid_mac1=1\n"
            b"cipher=%s\noffloads=tso,tcp-merge\n" % cipher()[0].encode()
        )
        assert [part.count(b"public_key=") for part in parts] == [499, 500, 1]
        seventh = changes.pop(6).public_key
        text = "".join(f"public_key={one.public_key.hex()}\nsession=none\n" for one in changes)
        assert b"".join(parts).decode() == text
        assert list(describe.state(on.tunnel, seventh)) == [device, b""]
        first = changes[0].public_key
        assert list(describe.state(on.tunnel, first))[1].startswith(
            b"public_key=%b" % first.hex().encode()
        )
        with pytest.raises(KeyError):
            describe.state(on.tunnel, bytes(32))

    play(scene)


def test_an_interface_that_is_up_and_has_no_socket_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(on: Stage) -> None:
        on.host.link(True, 1420)
        says = b"up=true\nbound=false\nbind_error=%d\n"
        assert next(describe.state(on.tunnel, None)).startswith(says % errno.EAGAIN)
        on.host.link(False, 1420)
        assert next(describe.state(on.tunnel, None)).startswith(b"up=false\nbound=false\ninvalid")
        on.host.refusals, on.host.defect = 100, TypeError("a defect")
        on.host.link(True, 1420)
        assert next(describe.state(on.tunnel, None)).startswith(says % errno.EIO)
        assert "TypeError: a defect" in caplog.text

    play(scene)


async def bound(tunnel: Interface) -> None:
    for _ in range(1000):
        if tunnel._sockets is not None:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("not in 5 s")


def test_a_port_that_is_taken_is_tried_again_with_back_off_while_the_link_is_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(on: Stage) -> None:
        on.plane.threads = True
        on.host.refusals = 4
        on.host.link(True, 1420)
        in_use = b"up=true\nbound=false\nbind_error=%d\n" % errno.EADDRINUSE
        assert next(describe.state(on.tunnel, None)).startswith(in_use)
        await bound(on.tunnel)
        assert next(describe.state(on.tunnel, None)).startswith(b"up=true\nbound=true\ninvalid")
        times = [at for at, _ in on.host.asked]
        pauses = [later - at for at, later in itertools.pairwise(times)]
        assert len(pauses) == 4 and all(
            pause >= 0.02 * 2**number for number, pause in enumerate(pauses)
        )
        assert (
            caplog.text.count("is up without a socket, trying again: the UDP port is in use") == 1
        )
        assert caplog.text.count("has its socket now") == 1
        # Once there are sockets, and once the link is down, nothing is tried any more.
        on.host.refusals = 100
        on.host.link(False, 1420)
        on.host.link(True, 1420)
        on.host.link(False, 1420)
        number = len(on.host.asked)
        await asyncio.sleep(0.1)
        assert (len(on.host.asked), number) == (number, 6)
        assert on.tunnel._sockets is None

    play(scene)


def test_a_change_that_costs_the_sockets_gets_them_back() -> None:
    """No thread could be made for the new port: the old one is bound again."""

    async def scene(on: Stage) -> None:
        on.plane.threads = True
        on.host.link(True, 1420)
        port = on.tunnel.status.listen_port
        on.plane.threads = False
        other = udp.open_sockets(0, 0)
        other.close()
        with pytest.raises(OSError, match="no thread"):
            await on.tunnel.apply(DeviceChange(listen_port=other.port))
        assert on.tunnel._sockets is None
        on.plane.threads = True
        await bound(on.tunnel)
        assert on.tunnel.status.listen_port == port

    play(scene)


def test_a_panic_of_rust_is_a_defect_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not an Exception; the other events and the deadlines do not notice."""

    async def scene(on: Stage) -> None:
        handled = []

        def handle(kind: int, peer: int, at: object) -> None:
            handled.append(peer)
            if peer == 1:
                raise PanicException("index out of range")

        monkeypatch.setattr(on.tunnel.device, "handle", handle)
        monkeypatch.setattr(on.tunnel.device, "tick", Mock(side_effect=PanicException("tick")))
        on.plane.defects["send_staged"] = PanicException("start")
        on.plane.post((0, 1), (0, 2))
        await asyncio.sleep(0.05)
        assert handled == [1, 2]
        on.tunnel._survive(on.tunnel.device.tick, now())
        await on.tunnel.apply(DeviceChange(peers=tuple(many(3))))
        on.host.link(True, 1420)
        await asyncio.gather(*on.tunnel._changes)
        assert on.said == ["index out of range", "tick", "start"]

    play(scene)


@pytest.mark.parametrize("call", ["take_events", "take_message", "set_timer", "clear_timer"])
def test_a_panic_in_a_call_of_the_loop_costs_that_call(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async def scene(on: Stage) -> None:
        handled = list[int]()
        monkeypatch.setattr(on.tunnel.device, "handle", lambda kind, peer, at: handled.append(peer))
        on.plane.defects[call] = PanicException(call)
        monkeypatch.setattr(on.tunnel.device, "next_deadline", lambda: (1 << 62, ""))
        on.tunnel._tick()
        assert set(on.said) == {call}
        on.plane.defects.clear()
        on.plane.armed.clear()
        on.plane.post((0, 5))
        on.tunnel._drain()
        assert handled == [5], "events come"
        assert on.plane.armed == ([1 << 62] if call == "set_timer" else []), "and the timer runs"

    play(scene)


def test_a_panic_that_was_survived_is_reported_with_its_place() -> None:
    async def scene(on: Stage) -> None:
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        on.host.panics.append("src/outbound.rs:204:36: out of range")
        on.plane.post((PlaneEvent.PANIC, 0), (PlaneEvent.PANIC, 0))
        await asyncio.sleep(0.05)
        place = "src/outbound.rs:204:36: out of range"
        assert reported == [f"a panic, which is a bug, please report it: {place}"]
        assert not on.tunnel.closed.done()

    play(scene)


def test_many_who_go_down_at_once_let_others_have_the_loop() -> None:
    """And all of it is reported to a reader who keeps up."""

    count = 10_000

    async def read(events: Subscription) -> None:
        for number in range(1, count + 1):
            key = base64_text(number.to_bytes(32))
            assert await anext(events) == Disconnected(key, None, "removed")

    async def scene(on: Stage) -> None:
        await on.tunnel.apply(DeviceChange(peers=tuple(many(count))))
        for peer in on.tunnel.device.peers.values():
            peer.connected = True
        others, events = Others(), on.tunnel.events()
        change = on.tunnel.apply(DeviceChange(replace_peers=True))
        await asyncio.gather(change, read(events))
        assert others.turns > count // 100

    play(scene)


def test_sockets_without_a_thread_are_none() -> None:
    async def scene(on: Stage) -> None:
        sockets = udp.open_sockets(0, 0)
        with pytest.raises(OSError, match="no thread"):
            on.tunnel._attach(sockets)
        assert all(one.fileno() < 0 for one in sockets.all)
        assert on.tunnel.status.listen_port == 0

    play(scene)


def test_between_parts_of_long_work_a_process_may_keep_house() -> None:
    kept = list[int]()

    async def main() -> None:
        tun = Tun(os.open(os.devnull, os.O_RDWR), "none", 1420, True, ALL)
        plane, host = NotingPlane(), PretendedHost().real()
        tunnel = Interface(interface=tun, plane=plane, host=host, housekeep=lambda: kept.append(1))
        async with tunnel:
            await tunnel.apply(DeviceChange(peers=tuple(many(1000))))

    asyncio.run(main())
    assert len(kept) == 10


def test_what_a_tunnel_is_comes_as_objects() -> None:
    prefix = Prefix.parse("10.0.0.2/32")

    async def scene(on: Stage) -> None:
        on.plane.threads = True
        peer = PeerChange(bytes(32), persistent_keepalive=7, allowed_ips=((True, prefix),))
        await on.tunnel.apply(DeviceChange(fwmark=5, peers=(peer,)))
        assert on.tunnel.status == DeviceStatus(None, 0, 5, up=False, bound=False, bind_error=0)
        on.host.refusals = 1
        on.host.link(True, 1420)
        status = on.tunnel.status
        assert (status.up, status.bound, status.bind_error) == (True, False, errno.EADDRINUSE)
        await bound(on.tunnel)
        status = on.tunnel.status
        assert status.bound and not status.bind_error and status.listen_port
        assert on.tunnel.peers == (
            PeerStatus(base64_text(bytes(32)), None, (prefix,), 0, 1001, 2001, 7),
        )

    play(scene)


def test_events_end_with_the_tunnel_and_are_made_for_nobody_else() -> None:
    async def scene(on: Stage) -> None:
        first, second = Connected("key", None), Disconnected("key", None, "down")

        async def leave_early() -> object:
            return await anext(on.tunnel.events())

        async def listen() -> list[object]:
            return [event async for event in on.tunnel.events()]

        early, late = asyncio.create_task(leave_early()), asyncio.create_task(listen())
        await asyncio.sleep(0)
        assert on.plane.watched
        on.tunnel._events._publish(first)
        assert await early == first
        assert on.plane.watched
        on.tunnel._events._publish(second)
        await asyncio.sleep(0.01)
        on.tunnel.close()
        assert await asyncio.wait_for(late, 10) == [first, second]
        del early, late
        assert not on.plane.watched

    play(scene)
