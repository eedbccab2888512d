"""What a tunnel needs from outside, and is passed in: the machine, and a plane for its packets.

Tests pass in others than the real ones, as does a process without privileges.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wiresnake._native import Endpoint, Stack, take_panics
from wiresnake.linux import link, tun, udp
from wiresnake.linux.generation import GenerationWatch
from wiresnake.linux.link_watch import LinkWatch
from wiresnake.linux.offloads import Offload
from wiresnake.linux.sleep import SleepWatch
from wiresnake.model import Prefix
from wiresnake.protocol import plane
from wiresnake.protocol.timers import Now
from wiresnake.tunnel.routes import Flow, Routes


class Watch(Protocol):
    """Calls its callbacks until it is closed."""

    def close(self) -> None: ...


class Unwatched:
    """Watches what cannot change, or what cannot be watched."""

    def close(self) -> None:
        pass

    def settle(self, peer: int) -> None:
        pass

    def moved(self, peer: int) -> None:
        pass


class RouteWatch(Watch, Protocol):
    """Keeps the sticky sources of peers up to date: see `Routes`."""

    def settle(self, peer: int) -> None: ...
    def moved(self, peer: int) -> None: ...


class Plane(plane.Plane, Protocol):
    """A data plane that is connected to a machine: see `_native.Plane`."""

    @property
    def event_fd(self) -> int: ...
    @property
    def timer_fd(self) -> int: ...
    def set_timer(self, deadline: int | None) -> None: ...
    def clear_timer(self) -> None: ...
    def attach_tun(
        self, fd: int, mtu: int, vnet_header: bool, merge_udp: bool, merge_tcp: bool = True
    ) -> None: ...
    def attach_stack(self, stack: Stack) -> None: ...
    def set_mtu(self, mtu: int) -> None: ...
    def attach_sockets(self, v4: int | None, v6: int | None, segment: bool = True) -> None: ...
    def take_source(self, peer: int) -> Endpoint | None: ...
    def hold_source(self, peer: int, endpoint: Endpoint, hold: int) -> None: ...
    def take_events(self) -> list[tuple[int, int]]: ...
    def take_message(self) -> tuple[bytes, Endpoint] | None: ...
    def offloads(self) -> tuple[bool, bool, bool]: ...
    def describe(
        self, peers: list[tuple[int, bytes, int, int, dict[Prefix, None]]]
    ) -> list[bytes]: ...
    def describe_state(self, peers: list[int], now: int) -> list[bytes]: ...
    def describe_drops(self, now: int) -> str: ...
    def close(self) -> None: ...


def attach_tun(plane: Plane, device: tun.Tun) -> None:
    """Gives the device to the plane, which merges what the device allows."""
    merges = (Offload.UDP_MERGE in device.offloads, Offload.TCP_MERGE in device.offloads)
    plane.attach_tun(device.fd, device.mtu, device.vnet_header, *merges)


def now() -> Now:
    """Reads both clocks: CLOCK_BOOTTIME for the protocol, the wall clock for timestamps."""
    return Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())


@dataclass(frozen=True, slots=True)
class Host:
    """The machine that a tunnel runs on."""

    open_tun: Callable[[str], tun.Tun] = tun.create
    attach_tun: Callable[[Plane, tun.Tun], None] = attach_tun
    configure_link: Callable[[str, Sequence[str], int | None], int] = link.configure
    """Gives the interface its addresses and MTU (None keeps it), brings it up, returns its MTU."""
    open_sockets: Callable[[int, int], udp.Sockets] = udp.open_sockets
    """Opens the UDP sockets with a port and a mark."""
    watch_link: Callable[[int, Callable[[bool, int], None], Callable[[], None]], Watch] = LinkWatch
    watch_sleep: Callable[[Callable[[], None]], Watch] = SleepWatch
    watch_generation: Callable[[Callable[[], None]], Watch] = GenerationWatch
    watch_routes: Callable[
        [Plane, Callable[[], Iterable[int]], Callable[[], Flow | None]], RouteWatch
    ] = Routes
    clock: Callable[[], Now] = now
    take_panics: Callable[[], list[str]] = take_panics
