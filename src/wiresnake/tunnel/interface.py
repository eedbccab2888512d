"""One WireGuard interface in this process.

It connects the pure device to a plane, sockets, an interface and a clock, on an asyncio loop. It
makes no decision of the protocol. Its own decisions are those of the kernel module's device.c and
socket.c: the device is up while the interface is, and a port once chosen stays.
"""

import asyncio
import errno
import logging
import os
import re
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from typing import TYPE_CHECKING, Self

import wiresnake._native as native
from wiresnake._native import take_panics
from wiresnake.errors import DEFECTS, Defect, HostError, reason
from wiresnake.events import HandshakeStep, PeerEvent
from wiresnake.linux import udp
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.model import DeviceChange, DeviceStatus, PeerStatus
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.device import Device, Steps
from wiresnake.protocol.plane import Entropy, PlaneEvent
from wiresnake.protocol.timers import Now
from wiresnake.text import base64_text
from wiresnake.tunnel.events import Events, Subscription
from wiresnake.tunnel.host import Host, Plane
from wiresnake.tunnel.routes import Flow

if TYPE_CHECKING:
    from wiresnake.conffile.config import Config

_SLICE = 5_000_000
"""Events and handshake messages block the loop for at most this many ns."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 5.0
"""Seconds until opening the sockets is tried again, doubled each time."""

_log = logging.getLogger(__name__)


class Interface:
    """A WireGuard interface that exists while its `async with` block runs, or until it is deleted.

    Entering the block makes the interface, gives it its addresses and MTU, brings it up, and sets
    private key, peers, port and mark. The kernel routes the networks of its addresses through it,
    as with any interface. Nothing else on the host changes: there are no other routes, and DNS,
    `Table` and hooks are only for `wiresnake up`. Leaving the block removes the interface.

    Entering raises HostError if the system refuses something, and ConfigError if `interface` is
    not a valid name. A tunnel is entered once.

    Several tunnels may share a process and a loop. A tunnel must only be used from its loop's
    thread.
    """

    def __init__(
        self,
        config: "Config | None" = None,
        interface: str | Tun = "wg0",
        *,
        timing: Timing = Timing(),  # noqa: B008
        host: Host = Host(),  # noqa: B008
        plane: Plane | None = None,
        entropy: Entropy | None = None,
        housekeep: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares a tunnel. Nothing happens before it is entered.

        `interface` is a name, or an open TUN device, which the tunnel then owns. Without `config`
        the interface must be brought up by others, and `apply` sets its peers. `housekeep` is
        called between the steps of long work: a process may do its own short work there. The
        other arguments replace parts of the real machine, for tests.
        """
        self._config, self._interface, self._host = config, interface, host
        self._housekeep = housekeep
        self.plane: Plane = native.Plane() if plane is None else plane
        """Only for reports, as `device` is: they must not be changed from outside."""
        entropy = native.Entropy() if entropy is None else entropy
        self.device = Device(self.plane, entropy, timing, self._settle)
        self._sockets: udp.Sockets | None = None
        self._unbound: Defect | None = None
        """Why the interface is up without a socket."""
        self._retry: asyncio.TimerHandle | None = None
        self._up = False
        self._port = 0
        self._any_port = True
        self._fwmark = 0
        self._deadline: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Of the loop, for a plane without one."""
        self._events = Events(self.device.observe)
        self._changing, self._flapping = asyncio.Lock(), asyncio.Lock()
        """The first is held by a change, the second by an up, down or wipe, which do not wait for
        changes."""
        self._changes: set[asyncio.Task[bool]] = set()
        self._waiting: deque[tuple[int, int]] = deque()
        """Events of the plane that were not handled yet."""
        self._backlog = False
        """`_SLICE` ended before all events and messages were handled."""
        self._opened = ExitStack()
        self._entered = False
        self.closed: asyncio.Future[None]
        """Done when the interface is gone, deleted by somebody or by `close`.

        Its result is None, or HostError if the tunnel failed.
        """

    async def __aenter__(self) -> Self:
        if self._entered:
            raise HostError(errno.EALREADY, "it is entered once; make another one")
        self._entered = True
        self._open()
        try:
            if self._config is not None:
                await self._configure(self._config)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        await asyncio.sleep(0)  # Lets the cancelled tasks end.
        if kind is None:
            self.closed.result()

    def close(self) -> None:
        """Stops everything and removes the interface. It is safe to call twice."""
        self._opened.close()
        self.plane.close()  # Also if it was never opened.

    def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()
        made = self._interface
        self._tun = tun = self._host.open_tun(made) if isinstance(made, str) else made
        with ExitStack() as opened:
            opened.callback(self._end)
            opened.callback(os.close, tun.fd)
            opened.callback(self.plane.close)
            opened.callback(self._detach)
            self._routes = self._host.watch_routes(self.plane, self._ids, self._flow)
            opened.callback(self._routes.close)
            self._host.attach_tun(self.plane, tun)
            opened.callback(self._set_timer, None)
            for fd, action in (self.plane.event_fd, self._drain), (self.plane.timer_fd, self._tick):
                if fd >= 0:
                    self._loop.add_reader(fd, action)
                    opened.callback(self._loop.remove_reader, fd)
            opened.callback(self._host.watch_sleep(self._woke).close)
            opened.callback(self._host.watch_generation(self._copied).close)
            watch = self._host.watch_link(tun.fd, self._link_changed, self._lost)
            opened.callback(watch.close)
            if _log.isEnabledFor(logging.DEBUG):
                self._events.log(self._report)
            self._opened = opened.pop_all()

    def _end(self) -> None:
        for task in self._changes:
            task.cancel()
        self._lost()

    async def _configure(self, config: "Config") -> None:
        """Brings the interface up before the change, so that a port in use raises an error here."""
        mtu = self._host.configure_link(self._tun.name, config.addresses, config.mtu)
        self._link_changed(True, mtu)
        await self.apply(config.change())

    async def apply(self, change: DeviceChange) -> None:
        """Applies the whole change, or raises HostError and applies nothing.

        HostError means that the system refused the port or the mark, or that the tunnel is not
        open. A port that is already bound is not bound again. A change with a private key is a
        whole configuration: if it asks for any port, the chosen port stays. Otherwise each
        `wg syncconf` of an unchanged file would move the port.
        """
        if not self._entered or self.closed.done():
            raise HostError(errno.ESHUTDOWN, "the tunnel is not open")
        port = self._port if change.listen_port is None else change.listen_port
        if port == 0 and self._any_port and change.private_key is not None:
            port = self._port
        mark = self._fwmark if change.fwmark is None else change.fwmark
        moves = port != self._port or (port == 0 and change.listen_port is not None)
        missing = self._sockets is None and change.listen_port is not None
        if self._up and (moves or missing):
            sockets = self._host.open_sockets(port, mark)
            try:
                self._attach(sockets)
            except DEFECTS as error:
                self._bind_later(error)
                raise
        elif mark != self._fwmark and self._sockets is not None:
            self._sockets.set_mark(mark)
            self.plane.forget_sources(None)
        if not self._up:
            self._port = port
        if change.listen_port is not None:
            self._any_port = change.listen_port == 0
        self._fwmark = mark
        # The change is finished even if the client that asked for it is disconnected meanwhile.
        steps = self._begin(self.device.configure(change, self._host.clock), self._changing)
        await asyncio.wait((steps,))
        if steps.cancelled():
            raise HostError(errno.ESHUTDOWN, f"{self._tun.name} was closed meanwhile")
        if not steps.result():
            what = "a peer could not be changed; this is a bug, please report it"
            raise HostError(errno.EIO, what)

    def events(self) -> Subscription:
        """Returns the events of all peers from now on, for `async for`.

        It ends with the interface. A reader that falls more than 4096 events behind loses the
        oldest, and gets `EventsLost` with their number.
        """
        return self._events.subscribe()

    @property
    def status(self) -> DeviceStatus:
        """The present state of the device, without its peers."""
        why = getattr(self._unbound, "errno", None) or errno.EIO if self._unbound else 0
        port, bound = self._port, self._sockets is not None
        return DeviceStatus(self.device.private_key, port, self._fwmark, self._up, bound, why)

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The present state of all peers, in the order in which they were added."""
        return tuple(
            PeerStatus(
                base64_text(peer.public_key),
                self.plane.endpoint(peer.id),
                tuple(peer.allowed_ips),
                peer.last_handshake,
                *self.plane.transfer(peer.id),
                peer.persistent_keepalive,
            )
            for peer in self.device.peers.values()
        )

    @property
    def offloads(self) -> list[Offload]:
        """The offloads in use; without a socket only those of the TUN device."""
        segment, tcp, udp = self.plane.offloads()
        used = {
            Offload.SEGMENT: segment,
            Offload.GRO: self._sockets is not None and self._sockets.merged,
            Offload.TCP_MERGE: tcp,
            Offload.UDP_MERGE: udp,
        }
        return [one for one in Offload if used.get(one, one in self._tun.offloads)]

    def _link_changed(self, up: bool, mtu: int) -> None:
        self.plane.set_mtu(mtu)
        if up == self._up:
            return
        self._up = up
        if up:
            self._bind(_FIRST_PAUSE)
            steps = self.device.up(self._host.clock)
        else:
            self._detach()
            steps = self.device.down()
        self._begin(steps, self._flapping)

    def _bind(self, pause: float) -> None:
        """Opens the sockets, or tries again later while the interface is up.

        Another program may free the port. It may also be this process: a sending thread keeps the
        old sockets open for some ms.
        """
        known = self._unbound and reason(self._unbound)
        try:
            self._attach(self._host.open_sockets(self._port, self._fwmark))
        except DEFECTS as error:
            self._bind_later(error, pause)
            if (why := reason(error)) != known:
                _log.error("%s is up without a socket, trying again: %s", self._tun.name, why)
        else:
            if known:  # At the level of the line that reported the failure.
                _log.error("%s has its socket now", self._tun.name)

    def _bind_later(self, error: Defect, pause: float = _FIRST_PAUSE) -> None:
        self._unbound = error
        self._retry = self._loop.call_later(pause, self._bind, min(2 * pause, _LONGEST_PAUSE))

    def _copied(self) -> None:
        """Ends all sessions, as a copy of this machine could send with the same nonces."""
        _log.info("this machine was copied or restored: all sessions of %s end", self._tun.name)
        self._begin(self.device.expire(self._host.clock), self._flapping)

    def _begin(self, steps: Steps, turn: asyncio.Lock) -> asyncio.Task[bool]:
        task = self._loop.create_task(self._carry_out(steps, turn))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return task

    async def _carry_out(self, steps: Steps, turn: asyncio.Lock) -> bool:
        """Runs all steps without blocking the loop, after earlier ones of the same kind.

        Returns whether there was no defect. Only the first is reported, as each peer may meet one.
        """
        first: Defect | None = None
        async with turn:
            try:
                for defect in steps:
                    first = first or defect
                    self._arm()
                    self._housekeep()
                    await asyncio.sleep(0)
            except DEFECTS as error:
                first = first or error
            self._survive(self._arm)
        if first is not None:
            context = {"message": "the device failed", "exception": first}
            self._loop.call_exception_handler(context)
        return first is None

    def _woke(self) -> None:
        self._begin(self.device.wipe(), self._flapping)

    def _settle(self, peer: int) -> None:
        self._routes.settle(peer)

    def _ids(self) -> list[int]:
        return [peer.id for peer in self.device.peers.values()]

    def _flow(self) -> Flow | None:
        sockets = self._sockets
        return Flow(self._fwmark, self._port, sockets.interface) if sockets else None

    def _attach(self, sockets: udp.Sockets) -> None:
        """Gives the sockets to the plane. OSError, and no socket, if it cannot start a thread."""
        self._detach()
        self._sockets = sockets
        try:
            if Offload.GRO in self._tun.offloads:
                sockets.receive_merged()
            v4, v6 = (one.fileno() if one else None for one in (sockets.v4, sockets.v6))
            self.plane.attach_sockets(v4, v6, Offload.SEGMENT in self._tun.offloads)
        except DEFECTS:
            self._detach()
            raise
        self.plane.forget_sources(None)
        self._port = sockets.port

    def _detach(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self.plane.attach_sockets(None, None)
        if self._sockets is not None:
            self._sockets.close()
        self._sockets, self._unbound, self._retry = None, None, None

    def _drain(self) -> None:
        """Handles events and messages for `_SLICE`. The timer then fires at once for the rest."""
        self._backlog = False
        self._survive(self._take)
        self._survive(self._arm)

    def _take(self) -> None:
        at = self._host.clock()
        until = at.boot + _SLICE
        self._waiting.extend(self.plane.take_events())
        more = True
        while more and at.boot < until:
            if self._waiting:
                self._survive(self._handle, *self._waiting.popleft(), at)
            if message := self.plane.take_message():
                self._survive(self.device.receive, *message, at)
            more = bool(message or self._waiting)
            at = self._host.clock()
        self._backlog = more

    def _handle(self, kind: int, peer: int, at: Now) -> None:
        if kind == PlaneEvent.TUN_LOST:
            self._lost()
        elif kind == PlaneEvent.PANIC:
            for panic in panics(self._host.take_panics):
                self._loop.call_exception_handler({"message": panic})
        elif kind == PlaneEvent.THREAD_LOST and not self.closed.done():
            what = (
                "a thread that carries packets failed too often within a minute; this is a bug,"
                " please report it"
            )
            self.closed.set_exception(HostError(errno.EIO, what))
            self._lost()
        elif kind == PlaneEvent.SOURCE_MOVED:
            self._routes.moved(peer)
        self.device.handle(kind, peer, at)

    def _tick(self) -> None:
        self._survive(self.plane.clear_timer)
        self._deadline = None
        self._survive(self.device.tick, self._host.clock())
        self._drain()

    def _survive(self, action: Callable[..., None], *arguments: object) -> None:
        """Runs the action and reports a defect in it, so that other peers are not affected."""
        try:
            action(*arguments)
        except DEFECTS as error:
            context = {"message": "the device failed", "exception": error}
            self._loop.call_exception_handler(context)

    def _arm(self) -> None:
        next_deadline = (1, "") if self._backlog else self.device.next_deadline()
        deadline = next_deadline[0] if next_deadline else None
        if deadline != self._deadline:
            self._set_timer(deadline)
            self._deadline = deadline

    def _set_timer(self, deadline: int | None) -> None:
        if self.plane.timer_fd >= 0:
            self.plane.set_timer(deadline)
            return
        if self._timer is not None:
            self._timer.cancel()
        rest = None if deadline is None else max(0, deadline - self._host.clock().boot) / 1e9
        self._timer = None if rest is None else self._loop.call_later(rest, self._tick)

    def _report(self, event: PeerEvent) -> None:
        """Logs an event at debug level, with a short form of the key.

        Strangers cause no events, so they cannot fill the log.
        """
        key = event.public_key
        what = event.step if isinstance(event, HandshakeStep) else _words(type(event).__name__)
        said = ((one.name, getattr(event, one.name)) for one in fields(event)[2:])
        details = "".join(f", {name}={value}" for name, value in said if value not in (None, what))
        where = event.endpoint or "an unknown endpoint"
        peer = f"{self._tun.name}: peer({key[:4]}…{key[39:43]}) at {where}"
        _log.debug("%s: %s%s", peer, what, details)

    def _lost(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self._events.end()


def _words(name: str) -> str:
    """Splits a class name: HandshakeCompleted becomes `handshake completed`."""
    return re.sub("(?<!^)(?=[A-Z])", " ", name).lower()


def panics(take: Callable[[], list[str]] = take_panics) -> list[str]:
    """Returns a message for each panic in Rust that was not reported yet."""
    return [f"a panic, which is a bug, please report it: {place}" for place in take()]
