"""Joins the pure device to the world: plane, sockets, interface and clock, on an asyncio loop.

It decides nothing of the protocol. Its own decisions are those of the kernel module's device.c
and socket.c: the interface's state is the device's state, and a port once chosen stays.
"""

import asyncio
import errno
import gc
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter

from wiresnake._native import Endpoint, Entropy, Plane, cipher, take_panics
from wiresnake.errors import DEFECTS, Defect, HostError, reason
from wiresnake.linux import udp
from wiresnake.linux.generation import GenerationWatch
from wiresnake.linux.link_watch import LinkWatch
from wiresnake.linux.offloads import Offload
from wiresnake.linux.sleep import SleepWatch
from wiresnake.linux.tun import Tun
from wiresnake.model import DeviceChange, DeviceStatus
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.device import Device, Steps
from wiresnake.protocol.peer import Peer
from wiresnake.protocol.plane import PlaneEvent
from wiresnake.protocol.timers import Now
from wiresnake.tunnel.events import Events
from wiresnake.tunnel.routes import Flow, Routes
from wiresnake.uapi.get import write_device
from wiresnake.uapi.state import write_device_state, write_machine_state, write_peer_state

_SLICE = 5_000_000
"""Events and handshake messages hold the loop for this many ns at most."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 5.0
"""Seconds until sockets that could not be opened are tried again, doubled each time."""

_PEERS_PER_PART = 500
"""Of a `get`, in 0.5 ms; of a `state`, in 2 ms."""
_DESCRIBED = attrgetter("id", "public_key", "last_handshake", "persistent_keepalive", "allowed_ips")
_PRESHARED_KEY_AT = len("public_key=\npreshared_key=") + 64

_log = logging.getLogger(__name__)


class Tunnel:
    """One WireGuard interface, alive until `close` or until `closed` is done.

    Takes over `tun`. Needs a running loop. Its methods are the loop's thread's only.
    """

    def __init__(self, tun: Tun, timing: Timing = Timing()) -> None:  # noqa: B008
        self._loop = asyncio.get_running_loop()
        self._tun = tun
        self._plane = Plane()
        self._routes = Routes(self._plane, self._ids, self._flow)
        self._device = Device(self._plane, Entropy(), timing, self._routes.settle)
        self._sockets: udp.Sockets | None = None
        self._bind_error = 0
        """The errno for which there is no socket though the interface is up."""
        self._retry: asyncio.TimerHandle | None = None
        self._up = False
        self._port = 0
        self._any_port = True
        self._fwmark = 0
        self._deadline: int | None = None
        self.events = Events(self._device.observe)
        self._changing, self._flapping = asyncio.Lock(), asyncio.Lock()
        """Held by a change, and by what an up or a down leads to: keys do not wait for changes."""
        self._changes: set[asyncio.Task[bool]] = set()
        self._events: deque[tuple[int, int]] = deque()
        self._backlog = False
        """`_SLICE` was over before the events and messages were."""
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done once the interface is gone: deleted by someone, or by `close`; or HostError."""
        merges = (Offload.UDP_MERGE in tun.offloads, Offload.TCP_MERGE in tun.offloads)
        self._plane.attach_tun(tun.fd, tun.mtu, tun.vnet_header, *merges)
        self._loop.add_reader(self._plane.event_fd, self._drain)
        self._loop.add_reader(self._plane.timer_fd, self._tick)
        self._sleep = SleepWatch(self._woke)
        self._generation = GenerationWatch(self._copied)
        self._watch = LinkWatch(tun.fd, self._link_changed, self._lost)

    def close(self) -> None:
        """Stops everything; the interface ends with its last descriptor. Safe to call twice."""
        if self._tun.fd < 0:
            return
        self._watch.close()
        self._sleep.close()
        self._generation.close()
        self._routes.close()
        self._loop.remove_reader(self._plane.event_fd)
        self._loop.remove_reader(self._plane.timer_fd)
        self._detach()
        self._plane.close()
        os.close(self._tun.fd)
        self._tun = self._tun._replace(fd=-1)
        self._lost()

    async def apply(self, change: DeviceChange) -> None:
        """Applies the change whole, or raises HostError (the port, the mark) and applies nothing.

        The port that is bound already is not bound anew. A whole configuration (one that names
        a private key) which asks for any port keeps the one it was given: else `wg syncconf` of
        an unchanged file would move the port each time.
        """
        port = self._port if change.listen_port is None else change.listen_port
        if port == 0 and self._any_port and change.private_key is not None:
            port = self._port
        mark = self._fwmark if change.fwmark is None else change.fwmark
        moves = port != self._port or (port == 0 and change.listen_port is not None)
        missing = self._sockets is None and change.listen_port is not None
        if self._up and (moves or missing):
            sockets = udp.open_sockets(port, mark)
            try:
                self._attach(sockets)
            except DEFECTS as error:
                self._bind_later(error)
                raise
        elif mark != self._fwmark and self._sockets is not None:
            self._sockets.set_mark(mark)
            self._plane.forget_sources(None)
        if not self._up:
            self._port = port
        if change.listen_port is not None:
            self._any_port = change.listen_port == 0
        self._fwmark = mark
        # Whole, even if the client that asked for it is shown the door meanwhile.
        steps = self._begin(self._device.configure(change, now), self._changing)
        if not await asyncio.shield(steps):
            what = "a peer could not be changed; this is a bug, please report it"
            raise HostError(errno.EIO, what)

    @property
    def status(self) -> DeviceStatus:
        return DeviceStatus(self._device.private_key, self._port, self._fwmark)

    @property
    def offloads(self) -> list[Offload]:
        """Those in use; without a socket only those of the TUN device."""
        segment, tcp, udp = self._plane.offloads()
        used = {
            Offload.SEGMENT: segment,
            Offload.GRO: self._sockets is not None and self._sockets.merged,
            Offload.TCP_MERGE: tcp,
            Offload.UDP_MERGE: udp,
        }
        return [one for one in Offload if used.get(one, one in self._tun.offloads)]

    def describe(self) -> Iterator[bytearray]:
        """What a `get` says, in parts for the caller to wipe; each peer as it is by then."""
        yield write_device(self.status)
        peers = iter(list(self._device.peers.values()))
        while part := list(islice(peers, _PEERS_PER_PART)):
            yield self._describe(part)

    def _describe(self, peers: list[Peer]) -> bytearray:
        texts = self._plane.describe(list(map(_DESCRIBED, peers)))
        reply = bytearray().join(texts)
        start = 0
        for one, text in zip(peers, texts, strict=True):
            if text and one.preshared_key is not None:
                one.preshared_key.write_hex(reply, start + _PRESHARED_KEY_AT)
            start += len(text)
        return reply

    def describe_state(self, public_key: bytes | None) -> Iterator[bytes]:
        """What a `state` says, of all peers or of one, in parts. KeyError if that is unknown."""
        peers = self._device.peers
        asked = iter(list(peers.values()) if public_key is None else [peers[public_key]])
        return self._describe_state(asked)

    def _describe_state(self, peers: Iterator[Peer]) -> Iterator[bytes]:
        at = now().boot
        notes = self._plane.describe_drops(at) + write_machine_state(*cipher(), self.offloads)
        bound = self._sockets is not None
        stranger = self._device.stranger
        yield write_device_state(self._up, bound, self._bind_error, stranger, notes, at)
        while part := list(islice(peers, _PEERS_PER_PART)):
            at = now().boot
            texts = self._plane.describe_state([one.id for one in part], at)
            yield b"".join(
                write_peer_state(one.public_key, text, one.last_handshake, one.notes or {}, at)
                for one, text in zip(part, texts, strict=True)
                if text
            )

    def _link_changed(self, up: bool, mtu: int) -> None:
        self._plane.set_mtu(mtu)
        if up == self._up:
            return
        self._up = up
        if up:
            self._bind(_FIRST_PAUSE)
            steps = self._device.up(now)
        else:
            self._detach()
            steps = self._device.down()
        self._begin(steps, self._flapping)

    def _bind(self, pause: float) -> None:
        """Opens the sockets, or tries again for as long as the interface is up: who has the port
        may go. It may be ourselves: a thread that sends holds the old ones for some ms."""
        known = self._bind_error
        try:
            self._attach(udp.open_sockets(self._port, self._fwmark))
        except DEFECTS as error:
            self._bind_later(error, pause)
            if self._bind_error != known:
                why = reason(error)
                _log.error("%s is up without a socket, trying again: %s", self._tun.name, why)
        else:
            if known:  # As loud as the line that it answers.
                _log.error("%s has its socket now", self._tun.name)

    def _bind_later(self, error: Defect, pause: float = _FIRST_PAUSE) -> None:
        self._bind_error = getattr(error, "errno", None) or errno.EIO
        self._retry = self._loop.call_later(pause, self._bind, min(2 * pause, _LONGEST_PAUSE))

    def _copied(self) -> None:
        """Another virtual machine may have our sessions, and must not send with the same nonces."""
        _log.info("this machine was copied or restored: all sessions of %s end", self._tun.name)
        self._begin(self._device.expire(now), self._flapping)

    def _begin(self, steps: Steps, turn: asyncio.Lock) -> asyncio.Task[bool]:
        task = self._loop.create_task(self._carry_out(steps, turn))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return task

    async def _carry_out(self, steps: Steps, turn: asyncio.Lock) -> bool:
        """Takes all steps without holding the loop, after those of the same kind that began before.

        Of defects the first is reported, as each peer may meet one; whether there was none.
        """
        first: Defect | None = None
        async with turn:
            try:
                for defect in steps:
                    first = first or defect
                    self._arm()
                    await take_turns()
            except DEFECTS as error:
                first = first or error
            self._survive(self._arm)
        if first is not None:
            context = {"message": "the device failed", "exception": first}
            self._loop.call_exception_handler(context)
        return first is None

    def _woke(self) -> None:
        self._begin(self._device.wipe(), self._flapping)

    def _ids(self) -> list[int]:
        return [peer.id for peer in self._device.peers.values()]

    def _flow(self) -> Flow | None:
        sockets = self._sockets
        return Flow(self._fwmark, self._port, sockets.interface) if sockets else None

    def _attach(self, sockets: udp.Sockets) -> None:
        """OSError, and there is no socket at all, if the plane can have no thread for them."""
        self._detach()
        self._sockets = sockets
        try:
            if Offload.GRO in self._tun.offloads:
                sockets.receive_merged()
            v4, v6 = (one.fileno() if one else None for one in (sockets.v4, sockets.v6))
            self._plane.attach_sockets(v4, v6, Offload.SEGMENT in self._tun.offloads)
        except DEFECTS:
            self._detach()
            raise
        self._plane.forget_sources(None)
        self._port = sockets.port

    def _detach(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._plane.attach_sockets(None, None)
        if self._sockets is not None:
            self._sockets.close()
        self._sockets, self._bind_error, self._retry = None, 0, None

    def _drain(self) -> None:
        """Takes events and messages for `_SLICE`; the timer comes at once for the rest."""
        if self._tun.fd < 0:
            return
        self._backlog = False
        self._survive(self._take)
        self._survive(self._arm)

    def _take(self) -> None:
        at = now()
        until = at.boot + _SLICE
        self._events.extend(self._plane.take_events())
        more = True
        while more and at.boot < until:
            if self._events:
                self._survive(self._handle, *self._events.popleft(), at)
            if message := self._plane.take_message():
                self._survive(self._device.receive, *message, at)
            more = bool(message or self._events)
            at = now()
        self._backlog = more

    def _handle(self, kind: int, peer: int, at: Now) -> None:
        if kind == PlaneEvent.TUN_LOST:
            self._lost()
        elif kind == PlaneEvent.PANIC:
            for panic in panics():
                self._loop.call_exception_handler({"message": panic})
        elif kind == PlaneEvent.THREAD_LOST and not self.closed.done():
            what = (
                "a thread that carries packets failed too often within a minute; this is a bug,"
                " please report it"
            )
            self.closed.set_exception(HostError(errno.EIO, what))
        elif kind == PlaneEvent.SOURCE_MOVED:
            self._routes.moved(peer)
        self._device.handle(kind, peer, at)

    def _tick(self) -> None:
        self._survive(self._plane.clear_timer)
        self._deadline = None
        self._survive(self._device.tick, now())
        self._drain()

    def _survive(self, action: Callable[..., None], *arguments: object) -> None:
        """A defect that one peer meets is reported, and the others do not notice."""
        try:
            action(*arguments)
        except DEFECTS as error:
            context = {"message": "the device failed", "exception": error}
            self._loop.call_exception_handler(context)

    def _arm(self) -> None:
        next_deadline = (1, "") if self._backlog else self._device.next_deadline()
        deadline = next_deadline[0] if next_deadline else None
        if deadline != self._deadline:
            self._plane.set_timer(deadline)
            self._deadline = deadline

    def _lost(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


def panics() -> list[str]:
    """Panics in Rust that were not reported yet, in words."""
    return [f"a panic, which is a bug, please report it: {place}" for place in take_panics()]


async def take_turns() -> None:
    """Lets others have the loop. What was made since the last time and is in use stays: a collector
    that looks at 100,000 peers would hold the loop for longer than any slice of work."""
    gc.collect()
    gc.freeze()
    await asyncio.sleep(0)


def now() -> Now:
    """Both clocks: the one that counts suspend for the protocol, the wall's for timestamps."""
    return Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())


def resolve(host: str, port: str) -> Endpoint:
    """The first address of a host name or number; it may block for as long as DNS does."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP)[0][4]
    scope = int(found[3]) if len(found) == 4 else 0
    return Endpoint(str(found[0]).partition("%")[0], int(found[1]), scope)
