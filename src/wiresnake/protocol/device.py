"""A device: who its peers are, and whose message, event or deadline this is.

Rule 1: the user's change cannot fail, it was checked when it was read.
Rule 2: a message that does not fit is nothing. No exception, no log, no answer.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from wiresnake._native import Endpoint, PrivateKey, SharedSecret
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix, Stranger
from wiresnake.protocol import noise
from wiresnake.protocol.constants import Timing
from wiresnake.protocol.messages import CookieReply, Initiation, Response
from wiresnake.protocol.peer import Observer, Peer, Surroundings
from wiresnake.protocol.plane import Entropy, Event, Plane
from wiresnake.protocol.timers import Now

T = TypeVar("T")

_DEADLINES_PER_TICK: Final = 20
"""Each may cost an initiation, 0.2 ms: thousands at once must not hold up everything else."""
_PEERS_PER_SLICE: Final = 100
"""Each may take 10 us."""


class Device:
    """The state machine of one interface: inputs and the time in, calls of the plane out."""

    def __init__(
        self,
        plane: Plane,
        entropy: Entropy,
        timing: Timing = Timing(),  # noqa: B008
        settle: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`settle` hears of each peer that has followed a handshake message to its source, before
        anything is sent there."""
        self.peers: dict[bytes, Peer] = {}
        self.stranger: Stranger | None = None
        self._around = Surroundings(plane, entropy, timing, settle=settle)
        self._by_id: dict[int, Peer] = {}
        self._routes: dict[Prefix, Peer] = {}

    @property
    def private_key(self) -> PrivateKey | None:
        identity = self._around.identity
        return None if identity is None else identity.private

    def configure(self, change: DeviceChange, clock: Callable[[], Now]) -> Iterator[None]:
        """Applies keys and peers; the port and the mark are the runtime's.

        What it, `up` and `down` return is to be run to its end. It yields now and then, as 100,000
        peers take a second: messages, events and deadlines may come in between, but not the steps
        of another of these three.
        """
        if change.replace_peers:
            yield from _in_turns(list(self.peers.values()), self._remove)
        if change.private_key is not None:
            self._set_private_key(
                None if change.private_key is CLEAR else change.private_key, clock()
            )
        yield from _in_turns(change.peers, lambda each: self._configure_peer(each, clock()))

    def up(self, clock: Callable[[], Now]) -> Iterator[None]:
        """The interface is up: what waited is sent, and persistent keepalives begin."""
        if self._around.up:
            return iter(())
        self._around.up = True
        return _in_turns(list(self.peers.values()), lambda peer: peer.start(clock()))

    def down(self) -> Iterator[None]:
        """The interface is down: nothing is sent, no timer runs, no session is left."""
        if not self._around.up:
            return iter(())
        self._around.up = False
        return _in_turns(list(self.peers.values()), Peer.stop)

    def observe(self, observer: Observer | None) -> None:
        """Tells one observer of what happens to peers from now on, or nobody."""
        self._around.observe = observer
        self._around.plane.watch(observer is not None)

    def receive(self, message: bytes, source: Endpoint, now: Now) -> None:
        """Consumes one handshake message or cookie reply that the plane's gate let pass."""
        identity = self._around.identity
        if identity is None or not self._around.up:
            return
        if initiation := Initiation.parse(message):

            def find(public_key: bytes) -> SharedSecret | None:
                return self._static_static(public_key, source, now)

            if initiated := noise.consume_initiation(identity, initiation, find):
                self.peers[initiated.static].answer(initiated, source, now)
        elif response := Response.parse(message):
            if peer := self._around.indices.get(response.receiver):
                peer.complete(response, source, now)
        elif reply := CookieReply.parse(message):  # noqa: SIM102  # one shape for all three
            if peer := self._around.indices.get(reply.receiver):
                peer.keep_cookie(reply, now)

    def handle(self, event: int, peer_id: int, now: Now) -> None:
        """Takes note of an event of the plane; late, of a peer that is gone, it is nothing."""
        peer = self._by_id.get(peer_id)
        if peer is not None and event < Event.TUN_LOST:
            peer.handle(Event(event), now)

    def tick(self, now: Now) -> None:
        """Looks at peers whose deadline has passed, a few; `next_deadline` tells of the rest."""
        for peer_id, timer in islice(self._around.timers.expired(now.boot), _DEADLINES_PER_TICK):
            self._by_id[peer_id].expire(timer, now)

    def next_deadline(self) -> tuple[int, str] | None:
        """When `tick` is needed next, in ns of CLOCK_BOOTTIME, and the reason."""
        return self._around.timers.next()

    def _static_static(self, public_key: bytes, source: Endpoint, now: Now) -> SharedSecret | None:
        peer = self.peers.get(public_key)
        if peer is None:
            number = self.stranger.number + 1 if self.stranger else 1
            self.stranger = Stranger(number, public_key, source, now.boot)
        return None if peer is None else peer.static_static()

    def _set_private_key(self, key: PrivateKey | None, now: Now) -> None:
        if key == self.private_key:
            return
        public = None if key is None else key.public
        if public in self.peers:
            self._remove(self.peers[public])
        self._around.identity = (
            None if key is None or public is None else noise.Identity(key, public)
        )
        self._around.plane.set_identity(public)
        for peer in self.peers.values():
            peer.renew_identity()
            if key is not None and self._around.up:
                peer.start(now)

    def _configure_peer(self, change: PeerChange, now: Now) -> None:
        plane = self._around.plane
        peer = self.peers.get(change.public_key)
        if change.remove:
            if peer is not None:
                self._remove(peer)
            return
        if peer is None:
            identity = self._around.identity
            own = identity is not None and identity.public == change.public_key
            if change.update_only or own:
                return
            peer = Peer(change.public_key, plane.add_peer(), self._around)
            self.peers[peer.public_key] = self._by_id[peer.id] = peer
        if change.preshared_key is not None:
            peer.preshared_key = None if change.preshared_key is CLEAR else change.preshared_key
        if change.endpoint is not None:
            plane.set_endpoint(peer.id, change.endpoint)
        if change.replace_allowed_ips:
            for prefix in list(peer.allowed_ips):
                self._disallow(peer, prefix)
        for add, prefix in change.allowed_ips:
            if add:
                self._allow(peer, prefix)
            else:
                self._disallow(peer, prefix)
        if change.persistent_keepalive is not None:
            peer.set_persistent_keepalive(change.persistent_keepalive, now)
        if self._around.up:
            plane.send_staged(peer.id)

    def _remove(self, peer: Peer) -> None:
        for prefix in list(peer.allowed_ips):
            self._disallow(peer, prefix)
        del self.peers[peer.public_key], self._by_id[peer.id]
        peer.forget()

    def _allow(self, peer: Peer, prefix: Prefix) -> None:
        owner = self._routes.get(prefix)
        if owner is not None and owner is not peer:
            del owner.allowed_ips[prefix]
        self._routes[prefix] = peer
        peer.allowed_ips[prefix] = None
        self._around.plane.allow(peer.id, *prefix)

    def _disallow(self, peer: Peer, prefix: Prefix) -> None:
        if prefix in peer.allowed_ips:
            del peer.allowed_ips[prefix], self._routes[prefix]
            self._around.plane.disallow(*prefix)


def _in_turns(each: Iterable[T], action: Callable[[T], None]) -> Iterator[None]:
    for number, one in enumerate(each, 1):
        action(one)
        if number % _PEERS_PER_SLICE == 0:
            yield
