"""A tunnel whose plane takes notes, on a machine that does what a test says."""

import asyncio
import errno
import os
import select
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from wiresnake._native import Endpoint, Session, Stack
from wiresnake.errors import HostError
from wiresnake.linux import udp
from wiresnake.linux.offloads import ALL, Offload
from wiresnake.linux.tun import Tun
from wiresnake.model import Prefix
from wiresnake.tunnel.host import Host
from wiresnake.tunnel.interface import Interface


class NotingPlane:
    """Takes notes of what is asked of peers; `defects` says which call fails, and how."""

    def __init__(self) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.timer_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.events: list[tuple[int, int]] = []
        self.peers = 0
        self.notes: list[tuple[str, int]] = []
        self.armed: list[int | None] = []
        self.defects: dict[str, BaseException] = {}
        self.threads = self.watched = self.closed = False

    def _note(self, what: str, peer: int = 0) -> None:
        if what in self.defects:
            raise self.defects[what]
        self.notes.append((what, peer))

    def noted(self, *what: str) -> list[tuple[str, int]]:
        return [note for note in self.notes if note[0] in what]

    # What the loop asks.

    def post(self, *events: tuple[int, int]) -> None:
        self.events += events
        os.eventfd_write(self.event_fd, 1)

    def take_events(self) -> list[tuple[int, int]]:
        self._note("take_events")
        if select.select([self.event_fd], [], [], 0)[0]:
            os.eventfd_read(self.event_fd)
        events, self.events = self.events, []
        return events

    def take_message(self) -> None:
        self._note("take_message")

    def set_timer(self, deadline: int | None) -> None:
        self._note("set_timer")
        self.armed.append(deadline)
        if deadline is not None and deadline <= time.clock_gettime_ns(time.CLOCK_BOOTTIME):
            os.eventfd_write(self.timer_fd, 1)

    def clear_timer(self) -> None:
        self._note("clear_timer")
        if select.select([self.timer_fd], [], [], 0)[0]:
            os.eventfd_read(self.timer_fd)

    def attach_tun(
        self, fd: int, mtu: int, vnet_header: bool, merge_udp: bool, merge_tcp: bool = True
    ) -> None:
        self._note("attach_tun")

    def attach_stack(self, stack: Stack) -> None:
        self._note("attach_stack")

    def set_mtu(self, mtu: int) -> None:
        self._note("set_mtu")

    def attach_sockets(self, v4: int | None, v6: int | None, segment: bool = True) -> None:
        if v4 is not None and not self.threads:
            raise OSError(errno.EAGAIN, "no thread")

    def offloads(self) -> tuple[bool, bool, bool]:
        return False, True, False

    def close(self) -> None:
        if not self.closed:
            os.close(self.event_fd)
            os.close(self.timer_fd)
        self.closed = True

    # What is asked of peers.

    def describe(self, peers: list[tuple[int, bytes, int, int, dict[Prefix, None]]]) -> list[bytes]:
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

    def add_peer(self) -> int:
        self.peers += 1
        return self.peers

    def remove_peer(self, peer: int) -> None:
        self._note("remove_peer", peer)

    def set_identity(self, public: bytes | None) -> None:
        self._note("set_identity")

    def set_endpoint(self, peer: int, endpoint: Endpoint | None) -> None:
        self._note("set_endpoint", peer)

    def endpoint(self, peer: int) -> Endpoint | None:
        return None

    def take_source(self, peer: int) -> Endpoint | None:
        return None

    def hold_source(self, peer: int, endpoint: Endpoint, hold: int) -> None:
        self._note("hold_source", peer)

    def forget_sources(self, peer: int | None) -> None:
        self._note("forget_sources", peer or 0)

    def watch(self, watched: bool) -> None:
        self.watched = watched

    def take_unreported(self, peer: int) -> tuple[None, None, None]:
        return None, None, None

    def allow(self, peer: int, prefix: bytes, length: int) -> None:
        self._note("allow", peer)

    def disallow(self, prefix: bytes, length: int) -> None:
        self._note("disallow")

    def reserve(self, peer: int) -> int:
        return peer

    def release(self, index: int) -> None:
        self._note("release")

    def install(self, peer: int, session: Session) -> None:
        self._note("install", peer)

    def expire(self, peer: int) -> None:
        self._note("expire", peer)

    def wipe(self, peer: int) -> None:
        self._note("wipe", peer)

    def purge(self, peer: int) -> None:
        self._note("purge", peer)

    def send(self, peer: int, message: bytes) -> None:
        self._note("send", peer)

    def send_staged(self, peer: int) -> None:
        self._note("send_staged", peer)

    def send_keepalive(self, peer: int) -> None:
        self._note("send_keepalive", peer)

    def count_received(self, peer: int, length: int) -> None:
        self._note("count_received", peer)

    def stamps(self, peer: int) -> tuple[int, int, int, int, int, int]:
        return 0, 0, 0, 0, 0, 0

    def disarm(self, peer: int, kind: int, stamp: int) -> bool:
        return True

    def transfer(self, peer: int) -> tuple[int, int]:
        return 1000 + peer, 2000 + peer


class PretendedHost:
    """A machine whose link is up or down, and which was copied, when a test says so."""

    def __init__(self) -> None:
        self.link: Callable[[bool, int], None]
        self.copied: Callable[[], None]
        self.refusals = 0
        self.defect: Exception = HostError(errno.EADDRINUSE, "the UDP port is in use")
        self.asked: list[tuple[float, int]] = []
        """When sockets were asked for, and for which port."""
        self.panics: list[str] = []

    def close(self) -> None:
        """As a watch."""

    def settle(self, peer: int) -> None:
        """As a watch of routes."""

    moved = settle

    def real(self) -> Host:
        return Host(
            open_sockets=self._open_sockets,
            watch_link=self._watch_link,
            watch_sleep=lambda woke: self,
            watch_generation=self._watch_generation,
            watch_routes=lambda plane, peers, flow: self,
            take_panics=lambda: [self.panics.pop()] if self.panics else [],
        )

    def _open_sockets(self, port: int, mark: int) -> udp.Sockets:
        self.asked.append((time.monotonic(), port))
        if len(self.asked) <= self.refusals:
            raise self.defect
        return udp.open_sockets(port, mark)

    def _watch_link(
        self, fd: int, link: Callable[[bool, int], None], gone: Callable[[], None]
    ) -> "PretendedHost":
        self.link = link
        return self

    def _watch_generation(self, copied: Callable[[], None]) -> "PretendedHost":
        self.copied = copied
        return self


@dataclass
class Stage:
    """What a scene plays on."""

    tunnel: Interface
    plane: NotingPlane
    host: PretendedHost
    said: list[str]
    """What the loop's exception handler heard."""


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    plane, host, said = NotingPlane(), PretendedHost(), list[str]()

    def hear(_: object, context: dict[str, Any]) -> None:
        said.append(str(context.get("exception", context["message"])))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(hear)
        tun = Tun(os.open(os.devnull, os.O_RDWR), "none", 1420, True, ALL - {Offload.USO})
        async with Interface(interface=tun, plane=plane, host=host.real()) as tunnel:
            await scene(Stage(tunnel, plane, host, said))

    asyncio.run(main())
