"""A device: its peers, and which of them a message, an event or a deadline belongs to.

Rule 1: a change cannot fail here, because it was checked when it was read.
Rule 2: a message that does not fit is ignored: no exception, no log line, no answer.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from wiresnake._native import Endpoint, PrivateKey, SharedSecret
from wiresnake.errors import DEFECTS, Defect
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix, Stranger
from wiresnake.protocol import noise
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.messages import CookieReply, Initiation, Response
from wiresnake.protocol.peer import Observer, Peer, Shared
from wiresnake.protocol.plane import Entropy, Plane, PlaneEvent
from wiresnake.protocol.timers import Now

T = TypeVar("T")
Steps = Iterator[Defect | None]
"""Long work that yields regularly. It yields None, or the defect that one peer met."""

_DEADLINES_PER_TICK: Final = 20
"""Each may send an initiation, which takes 0.2 ms. Thousands at once would block the loop."""
_PEERS_PER_SLICE: Final = 100
"""Each may take 10 µs."""


class Device:
    """The state machine of one interface: it takes inputs and the time, and calls the plane."""

    def __init__(
        self,
        plane: Plane,
        entropy: Entropy,
        timing: Timing = Timing(),  # noqa: B008
        settle: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Starts without a key and peers, and down.

        `settle` is called with a peer's id when a handshake message has changed its endpoint,
        before anything is sent there.
        """
        self.peers: dict[bytes, Peer] = {}
        self.stranger: Stranger | None = None
        self._shared = Shared(plane, entropy, timing, settle=settle)
        self._by_id: dict[int, Peer] = {}
        self._routes: dict[Prefix, Peer] = {}

    @property
    def private_key(self) -> PrivateKey | None:
        identity = self._shared.identity
        return None if identity is None else identity.private

    def configure(self, change: DeviceChange, clock: Callable[[], Now]) -> Steps:
        """Applies the keys and peers of a change. The port and the mark are the tunnel's.

        The caller runs the returned steps to the end, as those of `up` and `down`. They yield
        regularly, since 100,000 peers take a second. Messages, events, deadlines and the steps of
        `up` or `down` may run in between, but not those of another change. Each step yields None,
        or the defect that stopped the work on one peer.

        A prefix that stays, or moves to another peer, always has an owner, because prefixes and
        peers are removed last. Only `replace_peers` acts first, as in every WireGuard: it ends all
        sessions.
        """
        if change.replace_peers:
            yield from _in_turns(self.peers.values(), self._remove)
        if change.private_key is not None:
            key = None if change.private_key is CLEAR else change.private_key
            yield from self._set_private_key(key, clock())
        dropped: dict[Prefix, Peer] = {}
        last = {one.public_key: one for one in change.peers}
        yield from _in_turns(
            sorted(change.peers, key=lambda one: one.remove and last[one.public_key] is one),
            lambda each: self._configure_peer(each, dropped, clock()),
        )
        yield from _in_turns(dropped.items(), lambda each: self._disallow(each[1], each[0]))

    def up(self, clock: Callable[[], Now]) -> Steps:
        """Marks the interface as up at once. The steps send what waited and start keepalives.

        The caller runs the steps of `up` and `down` in the order in which they were called.
        """
        begins = not self._shared.up
        self._shared.up = True
        return self._each(lambda peer: peer.start(clock())) if begins else iter(())

    def down(self) -> Steps:
        """Marks the interface as down at once. The steps stop timers and end sessions."""
        ends = self._shared.up
        self._shared.up = False
        return self._each(Peer.stop) if ends else iter(())

    def expire(self, clock: Callable[[], Now]) -> Steps:
        """Stops sending in all sessions, as a copy of this machine may have the same keys.

        The sessions still receive (kernel: wg_vm_notification).
        """
        return self._each(lambda peer: peer.restart(clock()))

    def wipe(self) -> Steps:
        """Wipes all session keys, after the machine slept (kernel: wg_pm_notification)."""
        return self._each(Peer.zero_keys)

    def observe(self, observer: Observer | None) -> None:
        """Reports the events of peers to this observer from now on, or to nobody."""
        self._shared.observe = observer
        self._shared.plane.watch(observer is not None)

    def receive(self, message: bytes, source: Endpoint, now: Now) -> None:
        """Consumes one handshake message or cookie reply that the plane's gate let pass."""
        identity = self._shared.identity
        if identity is None or not self._shared.up:
            return
        if initiation := Initiation.parse(message):

            def find(public_key: bytes) -> SharedSecret | None:
                return self._static_static(public_key, source, now)

            if initiated := noise.consume_initiation(identity, initiation, find):
                self.peers[initiated.static].answer(initiated, source, now)
        elif response := Response.parse(message):
            if peer := self._shared.indices.get(response.receiver):
                peer.complete(response, source, now)
        elif reply := CookieReply.parse(message):  # noqa: SIM102  # one shape for all three
            if peer := self._shared.indices.get(reply.receiver):
                peer.keep_cookie(reply, now)

    def handle(self, event: int, peer_id: int, now: Now) -> None:
        """Handles an event of the plane. It is ignored if the peer has been removed since."""
        peer = self._by_id.get(peer_id)
        if peer is not None and event < PlaneEvent.TUN_LOST:
            peer.handle(PlaneEvent(event), now)

    def tick(self, now: Now) -> None:
        """Handles a few of the deadlines that have passed; `next_deadline` gives the rest."""
        for peer_id, timer in islice(self._shared.timers.expired(now.boot), _DEADLINES_PER_TICK):
            self._by_id[peer_id].expire(timer, now)

    def next_deadline(self) -> tuple[int, str] | None:
        """Returns when `tick` is due next, in ns of CLOCK_BOOTTIME, and the reason."""
        return self._shared.timers.next()

    def _each(self, action: Callable[[Peer], None]) -> Steps:
        """Acts on all present peers, except those that are removed before their turn."""

        def act(peer: Peer) -> None:
            if peer.id in self._by_id:
                action(peer)

        yield from _in_turns(self._by_id.values(), act)

    def _static_static(self, public_key: bytes, source: Endpoint, now: Now) -> SharedSecret | None:
        peer = self.peers.get(public_key)
        if peer is None:
            number = self.stranger.number + 1 if self.stranger else 1
            self.stranger = Stranger(number, public_key, source, now.boot)
        return None if peer is None else peer.static_static()

    def _set_private_key(self, key: PrivateKey | None, now: Now) -> Steps:
        """Gives all peers the new key in one step, then yields the defects."""
        if key == self.private_key:
            return
        public = None if key is None else key.public
        if public in self.peers:
            self._remove(self.peers[public])
        self._shared.identity = (
            None if key is None or public is None else noise.Identity(key, public)
        )
        self._shared.plane.set_identity(public)

        def renew(peer: Peer) -> None:
            peer.renew_identity()
            if key is not None and self._shared.up:
                peer.start(now)

        yield from filter(None, list(_in_turns(self.peers.values(), renew)))

    def _configure_peer(self, change: PeerChange, dropped: dict[Prefix, Peer], now: Now) -> None:
        plane = self._shared.plane
        peer = self.peers.get(change.public_key)
        if change.remove:
            if peer is not None:
                self._remove(peer)
            return
        if peer is None:
            identity = self._shared.identity
            own = identity is not None and identity.public == change.public_key
            if change.update_only or own:
                return
            peer = Peer(change.public_key, plane.add_peer(), self._shared)
            self.peers[peer.public_key] = self._by_id[peer.id] = peer
        if change.preshared_key is not None:
            peer.preshared_key = None if change.preshared_key is CLEAR else change.preshared_key
        if change.endpoint is not None:
            plane.set_endpoint(peer.id, change.endpoint)
        if change.replace_allowed_ips:
            dropped.update(dict.fromkeys(peer.allowed_ips, peer))
        for add, prefix in change.allowed_ips:
            if not add and prefix in peer.allowed_ips:
                dropped[prefix] = peer
            elif add:
                if dropped.pop(prefix, None) is peer:
                    del peer.allowed_ips[prefix]  # It moves to the end of the list.
                self._allow(peer, prefix)
        if change.persistent_keepalive is not None:
            peer.set_persistent_keepalive(change.persistent_keepalive, now)
        if self._shared.up:
            plane.send_staged(peer.id)

    def _remove(self, peer: Peer) -> None:
        for prefix in list(peer.allowed_ips):
            self._disallow(peer, prefix)
        del self.peers[peer.public_key], self._by_id[peer.id]
        peer.forget()

    def _allow(self, peer: Peer, prefix: Prefix) -> None:
        owner = self._routes.get(prefix)
        peer.allowed_ips[prefix] = None
        if owner is peer:
            return
        if owner is not None:
            del owner.allowed_ips[prefix]
        self._routes[prefix] = peer
        self._shared.plane.allow(peer.id, *prefix)

    def _disallow(self, peer: Peer, prefix: Prefix) -> None:
        if prefix in peer.allowed_ips:
            del peer.allowed_ips[prefix], self._routes[prefix]
            self._shared.plane.disallow(*prefix)


def _in_turns(each: Iterable[T], action: Callable[[T], None]) -> Steps:
    """Acts on each item of a snapshot. A defect at one does not affect the others."""
    for number, one in enumerate(list(each), 1):
        defect = None
        try:
            action(one)
        except DEFECTS as error:
            defect = error
        if defect is not None or number % _PEERS_PER_SLICE == 0:
            yield defect
