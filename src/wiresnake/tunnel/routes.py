"""Keeps the sticky source of each peer in line with the host's routes.

Datagrams to a peer leave from the address that the peer wrote to. They also leave by the interface
on which it wrote, if the host would choose another one and this one has a route: a host with two
uplinks answers on the uplink that was used. So the kernel is asked (RTM_GETROUTE) once when the
source of a peer changes, and once per peer after routes, rules, addresses or links have changed. A
change elsewhere discards nothing. The kernel's WireGuard (socket.c) looks up the route of each
packet instead; wireguard-go (sticky_linux.go) asks as this module does.

All netlink sockets stay in the network namespace where they were opened, as the UDP sockets do.
"""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Collection, Iterable
from enum import IntEnum
from itertools import islice
from typing import NamedTuple, Protocol

from wiresnake._native import Endpoint
from wiresnake.linux.link_watch import subscribe
from wiresnake.linux.netlink import Netlink, Refused, Request, unsigned
from wiresnake.linux.rtnetlink import FIB_MATCH, NEW_ADDRESS, Group, read_route, way_request

_NO_ROUTE = (errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.ENODEV)

_HEARD_BYTES = 1 << 13
"""Room for few messages. A flood overflows it, which also says that something has changed."""
_GATHER = 0.02
"""Seconds from the first message to the questions, as changes come in groups."""
_REST, _LONGEST_REST = 0.2, 2.0
_SHARE = 10
"""After a round of questions no messages are read for ten times the CPU time that it took, for
0.2 s at least and 2 s at most. If routes change all the time, this takes a tenth of a CPU with up
to 5,000 peers, and more with more. A new way out is found in the round that follows the pause. The
questions for `moved` take a tenth of a CPU, too."""
_TOGETHER = 100
"""Peers per batch of questions, which takes 3 ms."""


Answer = memoryview | Refused | None


class Hold(IntEnum):
    """Which parts of a source stick. Bit 0, the address, and bit 1, the interface, are the plane's.

    The other bits are for `judge`.
    """

    UNASKED = 0b00001
    ROUTED = 0b00101
    """The host's own route from that address leaves by the interface."""
    PINNED = 0b00111
    """The host's own route leaves by another interface, but there is a route by this one."""
    FACING = 0b00110
    """As PINNED, but only the interface is given, and the kernel then chooses the right address.
    For IPv6, which considers only the best route if the source is given."""
    ALONE = 0b01001
    """Only other interfaces have a route."""
    LEFT = 0b00100
    """It was ROUTED, but the host has chosen another route since, which is used."""
    LOST = 0b01000
    """There is no route from that address, or it was PINNED and its route is gone."""
    STALE = 0b10000000
    """Set by the plane: the other bits were right before the mark or the sockets changed."""


class Flow(NamedTuple):
    """The properties of all datagrams of a device that routing rules may depend on."""

    mark: int
    port: int
    interface: int
    """The interface that the sockets are bound to, or 0."""


class Plane(Protocol):
    """The part of the data plane that `Routes` uses."""

    def take_source(self, peer: int) -> Endpoint | None: ...
    def hold_source(self, peer: int, endpoint: Endpoint, hold: int) -> None: ...


Way = tuple[bytes, bytes, int, int, int]
"""`Endpoint.route` and the remote port."""


class Routes:
    """Asks the kernel for the routes to peers and gives the plane the sources that stick.

    It asks for all peers (`peers`) when routes change, and for one peer when `moved` (soon) or
    `settle` (at once) is called. `flow` returns None while there are no sockets. It needs a
    running loop.
    """

    def __init__(
        self, plane: Plane, peers: Callable[[], Iterable[int]], flow: Callable[[], Flow | None]
    ) -> None:
        self._plane, self._peers, self._flow = plane, peers, flow
        self._loop = asyncio.get_running_loop()
        self._kernel = Netlink()
        self._heard = subscribe(*Group)
        self._heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HEARD_BYTES)
        self._loop.add_reader(self._heard, self._changed)
        self._looking: asyncio.Task[None] | None = None
        self._moved: dict[int, None] = {}
        self._resting: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._heard)
        self._heard.close()
        self._kernel.close()

    def settle(self, peer: int) -> None:
        """Asks at once for a peer whose source has changed."""
        self._ask([peer], {}, unasked=True)

    def moved(self, peer: int) -> None:
        """Asks soon for a peer whose data came from elsewhere, at most five times a second."""
        self._moved[peer] = None
        if self._resting is None:
            self._look_at_moved()

    def _look_at_moved(self) -> None:
        self._resting = None
        if part := list(islice(self._moved, _TOGETHER)):
            for peer in part:
                del self._moved[peer]
            begin = time.thread_time()
            try:
                self._ask(part, {})
            finally:
                rest = _SHARE * (time.thread_time() - begin) if self._moved else _REST
                self._resting = self._loop.call_later(rest, self._look_at_moved)

    def _changed(self) -> None:
        if self._drain():
            self._loop.remove_reader(self._heard)
            self._looking = self._loop.create_task(self._look())

    def _drain(self) -> bool:
        """Reads all messages. Returns whether any route may have changed."""
        changed = False
        try:
            for _ in range(_TOGETHER):
                # A new address takes no route away; SLAAC repeats each with every advertisement.
                changed |= unsigned(self._heard.recv(8)[4:6]) != NEW_ADDRESS
        except OSError as error:  # EAGAIN: all read. ENOBUFS: some lost.
            changed |= error.errno != errno.EAGAIN
        return changed

    async def _look(self) -> None:
        try:
            await asyncio.sleep(_GATHER)
            self._drain()
            took, known = 0.0, dict[Way, int]()
            peers = iter(list(self._peers()))
            while part := list(islice(peers, _TOGETHER)):
                begin = time.thread_time()
                self._ask(part, known)
                took += time.thread_time() - begin
                await asyncio.sleep(0)
            await asyncio.sleep(min(max(_REST, _SHARE * took), _LONGEST_REST))
        finally:
            if self._heard.fileno() >= 0:
                self._loop.add_reader(self._heard, self._changed)

    def _ask(self, peers: list[int], known: dict[Way, int], unasked: bool = False) -> None:
        """Updates the sources of these peers; with `unasked` only those that were never checked.

        `known` holds the answers of this round.
        """
        found: list[tuple[int, Endpoint, Way]] = []
        for peer in peers:
            with contextlib.suppress(KeyError):  # It has been removed.
                endpoint = self._plane.take_source(peer)
                if endpoint is None or endpoint.scope or (route := endpoint.route) is None:
                    continue  # A zone fixes the interface.
                if not unasked or route[3] == Hold.UNASKED or route[3] & Hold.STALE:
                    found.append((peer, endpoint, (*route, endpoint.port)))
        if (flow := self._flow()) is None:
            return  # The bits of SOURCE_MOVED are clear: the next datagram posts it again.
        if asked := {way for _, _, way in found} - known.keys():
            self._find_out(asked, flow, known)
        for peer, endpoint, way in found:
            if known[way] != way[3]:
                self._plane.hold_source(peer, endpoint, known[way])

    def _find_out(self, asked: Collection[Way], flow: Flow, known: dict[Way, int]) -> None:
        questions = [question(way, flow) for way in asked]
        outs = dict(zip(asked, map(way_out, self._kernel.ask_each(questions)), strict=True))
        pins = [pin for way, out in outs.items() if may_pin(way, out) for pin in pins_of(way, flow)]
        pinned: dict[Way, Hold] = {}
        if pins:
            answers = self._kernel.ask_each([request for _, _, request in pins])
            for (way, hold, _), answer in zip(pins, answers, strict=True):
                if proves(way, hold, answer):
                    pinned.setdefault(way, hold)
        for way, out in outs.items():
            known[way] = judge(way, out, pinned.get(way))


def judge(way: Way, out: int | None, pin: Hold | None) -> int:
    """Returns the new `Hold`, from the old one, the host's own way out and the possible pin.

    `out` is an interface, 0 for none, or None if the kernel did not say.
    """
    interface, before = way[2], way[3] & ~Hold.STALE
    if out is None:
        return before
    if out == interface:
        return Hold.ROUTED
    if before in (Hold.ROUTED, Hold.LEFT):
        return Hold.LEFT
    if pin is not None:
        return pin
    return Hold.ALONE if out and before in (Hold.UNASKED, Hold.ALONE) else Hold.LOST


def question(way: Way, flow: Flow, pin: Hold | None = None) -> Request:
    """Returns the question which way a datagram takes, by the host's choice or pinned."""
    remote, local, interface, _, port = way
    return way_request(
        remote,
        source=local if pin is not Hold.FACING else b"",
        device=flow.interface if pin is None else interface,
        mark=flow.mark,
        udp_ports=(flow.port, port),
        flags=FIB_MATCH if len(remote) == 4 and pin is not None else 0,
    )


def way_out(answer: Answer) -> int | None:
    """Reads the interface by which a datagram leaves: 0 is none, None is an unclear answer."""
    if answer is None or isinstance(answer, Refused):
        return 0 if answer is not None and answer.errno in _NO_ROUTE else None
    return read_route(answer).device


def may_pin(way: Way, out: int | None) -> bool:
    return out is not None and judge(way, out, None) in (Hold.ALONE, Hold.LOST)


def pins_of(way: Way, flow: Flow) -> list[tuple[Way, Hold, Request]]:
    """Returns the possible pins, the better one first, each with its question to the kernel."""
    holds = [Hold.PINNED] if len(way[0]) == 4 else [Hold.PINNED, Hold.FACING]
    return [(way, hold, question(way, flow, hold)) for hold in holds]


def proves(way: Way, hold: Hold, answer: Answer) -> bool:
    """Returns whether a pinned datagram has a real route by the interface, from the right address.

    Without a route, IPv4 treats every host as a neighbour, so only a match in its tables counts.
    IPv6 treats the interface as a hint only.
    """
    if answer is None or isinstance(answer, Refused):
        return False
    remote, local, interface, _, _ = way
    by_itself = hold is not Hold.FACING or read_route(answer).source == local
    return len(remote) == 4 or (way_out(answer) == interface and by_itself)
