"""The state and decisions of one peer: handshakes and timers (§6; kernel timers.c).

Rule 1: the plane counts and keeps timestamps, the peer decides. At each deadline it reads the
plane's stamps, its only source for what has happened since.
Rule 2: no wake-up is lost. While an event of the plane is armed, a deadline is pending here, or
`wants_handshake` keeps the event until the peer can act on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from wiresnake._native import Endpoint, PresharedKey, SharedSecret, SymmetricState
from wiresnake.events import (
    Connected,
    Disconnected,
    Ended,
    HandshakeCompleted,
    HandshakeStep,
    PeerEvent,
    Rekeyed,
    Roamed,
    SourceRejected,
    Step,
    Unreachable,
)
from wiresnake.model import Note, Prefix
from wiresnake.protocol import noise
from wiresnake.protocol.constants import (
    INITIATIONS_PER_SECOND,
    MAX_TIMER_HANDSHAKES,
    SECOND,
    Timing,
)
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import INITIATION_SIZE, RESPONSE_SIZE, CookieReply, Response
from wiresnake.protocol.plane import Entropy, Plane, PlaneEvent, Stamps
from wiresnake.protocol.timers import Now, Timer, Timers
from wiresnake.text import base64_text

Observer = Callable[[PeerEvent], None]
"""Receives the events of peers."""

_LONG_AGO: Final = -(1 << 62)
_OF_A_HANDSHAKE: Final = ("initiation", "bad_response", "unconfirmed_response")
"""Notes that a completed handshake clears."""


@dataclass(slots=True)
class Shared:
    """The state that the peers of one device share."""

    plane: Plane
    entropy: Entropy
    timing: Timing
    timers: Timers = field(default_factory=Timers)
    up: bool = False
    identity: noise.Identity | None = None
    indices: "dict[int, Peer]" = field(default_factory=dict)
    """Peers by the sender index of their pending handshake or last handshake message."""
    observe: Observer | None = None
    settle: Callable[[int], None] = lambda _: None
    """Called with a peer's id after its endpoint was set, before anything is sent there."""


@dataclass(slots=True, eq=False)
class Peer:
    """A peer: its configuration and state. 10,000 of them must stay small."""

    public_key: bytes
    id: int
    """The plane's number of the peer."""
    shared: Shared = field(repr=False)
    preshared_key: PresharedKey | None = None
    persistent_keepalive: int = 0
    """Seconds; 0 is off."""
    allowed_ips: dict[Prefix, None] = field(default_factory=dict)
    """In the order in which they were added."""
    last_handshake: int = 0
    """Wall clock in ns of the last completed handshake; 0 is never."""
    wants_handshake: bool = False
    """The plane reported HANDSHAKE_WANTED, and no handshake has completed since."""
    connected: bool = False
    """A session was reported, and its end has not been reported yet."""
    notes: dict[str, Note] | None = None
    """Counts for the operator (`state=1`); None for most idle peers."""

    _handshake: noise.Handshake | None = field(default=None, repr=False)
    _index: int | None = None
    """Sender index of the last handshake message."""
    _cookies: Cookies = field(init=False, repr=False)
    _static_static: SharedSecret | None = field(default=None, repr=False)
    _knows_static_static: bool = False
    _greatest_timestamp: bytes = bytes(12)
    _last_consumed: int = _LONG_AGO
    """When the peer's last initiation was accepted."""
    _last_sent: int = _LONG_AGO
    """When the last initiation or response was sent."""
    _attempts: int = 0
    """Retries in this series of initiations."""
    _last_wanted: int = 0
    """`Stamps.wanted` when it was last read."""
    _keepalive_sent: int | None = None
    """`Stamps.sent` after a passive keepalive that must be followed by another."""

    def __post_init__(self) -> None:
        self._cookies = Cookies(self.public_key)

    # Configuration, up and down.

    def start(self, now: Now) -> None:
        """Begins to send, when the interface comes up or the device gets a key."""
        if self.persistent_keepalive:
            self._send_keepalive()
            self._arm(Timer.PERSISTENT_KEEPALIVE, now.boot + self.persistent_keepalive * SECOND)
        else:
            self.shared.plane.send_staged(self.id)
        if self.wants_handshake:
            self._begin_series(now)

    def stop(self) -> None:
        """Stops all timers and wipes all keys when the interface goes down.

        The next `start` may initiate at once, without the wait of 5 s.
        """
        plane = self.shared.plane
        self._disconnect("down")
        plane.take_unreported(self.id)  # Clears the bit, whose deadline is cancelled below.
        plane.wipe(self.id)
        plane.purge(self.id)
        self._drop_handshake()
        self.shared.timers.cancel_all(self.id)
        for kind in PlaneEvent.DATA_SENT, PlaneEvent.DATA_RECEIVED:
            while not self._disarm(kind):  # An armed event would have no deadline.
                pass
        self._last_sent, self._attempts = _LONG_AGO, 0
        self._keepalive_sent, self.wants_handshake = None, False

    def forget(self) -> None:
        """Ends everything of this peer, which is removed from the device."""
        self._disconnect("removed")
        self.shared.timers.cancel_all(self.id)
        self._drop_handshake()
        self.shared.plane.remove_peer(self.id)

    def renew_identity(self) -> None:
        """Stops using everything that depends on the device's old private key."""
        self._static_static, self._knows_static_static = None, False
        self._end_sessions()

    def restart(self, now: Now) -> None:
        """Ends sessions and the pending handshake, as a copy of this machine may have the same."""
        self._end_sessions()
        if self.wants_handshake:
            self._begin_series(now)

    def _end_sessions(self) -> None:
        """Stops sending in all sessions; they still receive. The next packet starts a handshake."""
        self._drop_handshake()
        self._last_sent = _LONG_AGO
        self.shared.plane.expire(self.id)

    def zero_keys(self) -> None:
        """Wipes all keys. The next packet, or a pending retry, starts a handshake."""
        self.shared.timers.cancel(self.id, Timer.ZERO_KEYS)
        self._drop_handshake()
        self.shared.plane.wipe(self.id)
        self._disconnect("expired")

    def set_persistent_keepalive(self, seconds: int, now: Now) -> None:
        switched_on = not self.persistent_keepalive and seconds
        self.persistent_keepalive = seconds
        if not seconds:
            self.shared.timers.cancel(self.id, Timer.PERSISTENT_KEEPALIVE)
        elif self.shared.up:
            if switched_on:
                self._send_keepalive()
            self._look_at_persistent_keepalive(now)

    def static_static(self) -> SharedSecret | None:
        """Returns DH(S_priv, S_pub), which is computed once; None if the key is of low order."""
        if not self._knows_static_static and self.shared.identity is not None:
            self._static_static = self.shared.identity.private.exchange(self.public_key)
            self._knows_static_static = True
        return self._static_static

    # Messages.

    def answer(self, initiated: noise.Initiated, source: Endpoint, now: Now) -> None:
        """Responds to an authenticated initiation if it is fresh (§5.1, §5.4.3)."""
        too_soon = now.boot - self._last_consumed < SECOND // INITIATIONS_PER_SECOND
        stale = initiated.timestamp <= self._greatest_timestamp
        if stale:
            self._note("stale_initiation", now)
        if too_soon or stale:
            return
        self._greatest_timestamp, self._last_consumed = initiated.timestamp, now.boot
        plane = self.shared.plane
        plane.count_received(self.id, INITIATION_SIZE)
        self._follow(source)
        self._step("initiation received")
        # Two responses were not confirmed: the address and interface that the peer wrote to may
        # have no way back. So each third response leaves by the host's own route.
        if self._unconfirmed() % 3 == 2:
            plane.forget_sources(self.id)
        # The kernel drops its own pending initiation here. Two peers that initiate at the same
        # time then void each other's handshake, repeatedly if the latency is high. So one of the
        # two, by its public key, keeps its initiation.
        identity = self.shared.identity
        if identity is None or identity.public < self.public_key:
            self._drop_handshake()
        self._last_sent = now.boot
        index = plane.reserve(self.id)
        ephemeral = self.shared.entropy.private_key()
        response = noise.create_response(initiated, self.preshared_key, ephemeral, index)
        if response is None:
            plane.release(index)
            return
        self._claim(index)
        self._install(initiated.state, False, index, initiated.index, now)
        plane.send(self.id, self._cookies.add_macs(response.pack(), now.boot))
        self._note("unconfirmed_response", now)
        self._step("response sent")

    def complete(self, response: Response, source: Endpoint, now: Now) -> None:
        """Consumes the response to the pending initiation, which makes a session (§5.4.5)."""
        handshake, identity, plane = self._handshake, self.shared.identity, self.shared.plane
        if handshake is None or identity is None or handshake.index != response.receiver:
            return
        state = noise.consume_response(identity, handshake, self.preshared_key, response)
        if state is None:
            self._note("bad_response", now)
            return
        plane.count_received(self.id, RESPONSE_SIZE)
        self._step("response received")
        self._follow(source)
        self._handshake = None  # Its index now belongs to the session.
        if self._index != handshake.index:
            self._unclaim(handshake.index)
        _, sent = plane.transfer(self.id)
        self._install(state, True, handshake.index, response.sender, now)
        self._finish_series(True, now)
        # The responder may not send before it receives data: with nothing staged, a keepalive.
        if plane.transfer(self.id)[1] == sent:
            self._send_keepalive()

    def keep_cookie(self, reply: CookieReply, now: Now) -> None:
        """Keeps the cookie for the next message. Sends nothing: a cookie proves no endpoint."""
        if self._cookies.consume(reply, now.boot):
            self._note("cookie_reply", now)
            self._step("cookie received")

    # Events.

    def handle(self, event: PlaneEvent, now: Now) -> None:
        if event is PlaneEvent.HANDSHAKE_WANTED:
            # 0 if a session was made while the event was waiting.
            if wanted := self._stamps().wanted:
                self._last_wanted, self.wants_handshake = wanted, True
                self._begin_series(now)
        elif event is PlaneEvent.SESSION_CONFIRMED:
            self._finish_series(False, now)
        elif event is PlaneEvent.UNREPORTED:
            # Else the event stays armed until the deadline: the moves of a peer that roams all the
            # time are reported once a second, with the last endpoint.
            if not self.shared.timers.is_set(self.id, Timer.UNREPORTED):
                self._tell_unreported(now)
        elif not self.shared.up:
            while not self._disarm(event):
                pass
        # The stamp is 0 again if an answer came before this event was handled. The event stays
        # armed until the deadline all the same: pings cause one event per deadline, not one each.
        elif event is PlaneEvent.DATA_SENT:
            self._watch_data_sent(self._stamps().data_sent or now.boot)
        elif event is PlaneEvent.DATA_RECEIVED:
            self._watch_data_received(self._stamps().data_received or now.boot)

    # Deadlines.

    def expire(self, timer: Timer, now: Now) -> None:
        """Acts on a deadline that has passed."""
        match timer:
            case Timer.RETRANSMIT:
                self._retransmit(now)
            case Timer.NEW_HANDSHAKE:
                self._look_at_data_sent(now)
            case Timer.KEEPALIVE:
                self._look_at_data_received(now)
            case Timer.PERSISTENT_KEEPALIVE:
                self._look_at_persistent_keepalive(now)
            case Timer.ZERO_KEYS:
                self.zero_keys()
            case Timer.UNREPORTED:
                self._tell_unreported(now)

    def _retransmit(self, now: Now) -> None:
        plane, timers, timing = self.shared.plane, self.shared.timers, self.shared.timing
        wanted = self._stamps().wanted
        if wanted != self._last_wanted:
            self._last_wanted, self._attempts = wanted, 0
        if self._attempts <= MAX_TIMER_HANDSHAKES:
            plane.forget_sources(self.id)
            if self._initiate(now):
                self._attempts += 1
            return
        if self._disarm(PlaneEvent.DATA_RECEIVED):
            timers.cancel(self.id, Timer.KEEPALIVE)
            self._keepalive_sent = None
        plane.purge(self.id)
        self.wants_handshake = False
        sent = (self.notes or {}).get("initiation", Note(0, 0, 0)).number
        self._tell(lambda key, at: Unreachable(key, at, "no_answer", initiations=sent))
        self._disconnect("no_answer")
        if not timers.is_set(self.id, Timer.ZERO_KEYS):
            self._arm(Timer.ZERO_KEYS, now.boot + 3 * timing.reject_after_time)

    def _look_at_data_sent(self, now: Now) -> None:
        plane, timing = self.shared.plane, self.shared.timing
        while True:
            since = self._stamps().data_sent
            if since and since + timing.keepalive_timeout + timing.rekey_timeout > now.boot:
                return self._watch_data_sent(since)
            if since:
                plane.forget_sources(self.id)
                self._begin_series(now)
            if plane.disarm(self.id, PlaneEvent.DATA_SENT, since):
                return None

    def _look_at_data_received(self, now: Now) -> None:
        plane, timeout = self.shared.plane, self.shared.timing.keepalive_timeout
        while True:
            stamps = self._stamps()
            since = stamps.data_received
            if self._keepalive_sent is not None:
                # The second keepalive is due unless something was sent after the first.
                due = stamps.sent == self._keepalive_sent
                again = since != 0
            else:
                due = since != 0 and since + timeout <= now.boot
                again = stamps.last_data_received > since
            self._keepalive_sent = None
            if due:
                self._send_keepalive()
                if again:
                    self._keepalive_sent = sent = self._stamps().sent
                    return self._watch_data_received(max(sent, now.boot))
            elif since:
                return self._watch_data_received(since)
            if plane.disarm(self.id, PlaneEvent.DATA_RECEIVED, since):
                return None

    def _look_at_persistent_keepalive(self, now: Now) -> None:
        interval = self.persistent_keepalive * SECOND
        stamps = self._stamps()
        due = max(stamps.sent, stamps.received) + interval
        if due <= now.boot:
            self._send_keepalive()
            due = now.boot + interval
        self._arm(Timer.PERSISTENT_KEEPALIVE, due)

    def _watch_data_sent(self, since: int) -> None:
        timing = self.shared.timing
        quiet = timing.keepalive_timeout + timing.rekey_timeout
        self._arm(Timer.NEW_HANDSHAKE, since + quiet + self._jitter())

    def _watch_data_received(self, since: int) -> None:
        self._arm(Timer.KEEPALIVE, since + self.shared.timing.keepalive_timeout)

    # Handshakes.

    def _begin_series(self, now: Now) -> None:
        self._attempts = 0
        self._initiate(now)

    def _finish_series(self, initiator: bool, now: Now) -> None:
        self.shared.timers.cancel(self.id, Timer.RETRANSMIT)
        self._attempts = 0
        self.wants_handshake = False
        self.last_handshake = now.wall
        notes = self.notes or {}
        for what in _OF_A_HANDSHAKE:
            notes.pop(what, None)
        if not self.shared.up:  # The event came after the interface went down.
            return
        made = Rekeyed if self.connected else HandshakeCompleted
        self._tell(lambda key, at: made(key, at, initiator))
        if not self.connected:
            self.connected = True
            self._tell(Connected)

    def _initiate(self, now: Now) -> bool:
        """Sends an initiation, or schedules one for the earliest time allowed (§6.1)."""
        plane, identity, timing = self.shared.plane, self.shared.identity, self.shared.timing
        if not self.shared.up or identity is None:
            return False
        allowed = self._last_sent + timing.rekey_timeout
        if now.boot < allowed:
            if not self.shared.timers.is_set(self.id, Timer.RETRANSMIT):
                self._arm(Timer.RETRANSMIT, allowed)
            return False
        self._last_sent = now.boot
        self._arm(Timer.RETRANSMIT, now.boot + timing.rekey_timeout + self._jitter())
        self._drop_handshake()
        static_static = self.static_static()
        if static_static is None:
            return True  # A low-order key: nothing is sent, and the series gives up in time.
        index = plane.reserve(self.id)
        created = noise.create_initiation(
            identity,
            self.public_key,
            static_static,
            self.shared.entropy.private_key(),
            noise.tai64n(now.wall),
            index,
        )
        if created is None:
            plane.release(index)
            return True
        self._handshake, initiation = created
        self._claim(index)
        plane.send(self.id, self._cookies.add_macs(initiation.pack(), now.boot))
        self._step("initiation sent", self._note("initiation", now))
        return True

    def _install(
        self, state: SymmetricState, initiator: bool, local: int, remote: int, now: Now
    ) -> None:
        timing = self.shared.timing
        session = state.split(initiator, local, remote, now.boot, timing.lifetimes)
        self.shared.plane.install(self.id, session)
        self._step("session made")
        self._arm(Timer.ZERO_KEYS, now.boot + 3 * timing.reject_after_time)

    def _claim(self, index: int) -> None:
        in_flight = None if self._handshake is None else self._handshake.index
        if self._index is not None and self._index != in_flight:
            self._unclaim(self._index)
        self._index = index
        self.shared.indices[index] = self

    def _unclaim(self, index: int) -> None:
        # The plane may have given the index to another peer since.
        if self.shared.indices.get(index) is self:
            del self.shared.indices[index]

    def _drop_handshake(self) -> None:
        if self._handshake is not None:
            self.shared.plane.release(self._handshake.index)
            self._unclaim(self._handshake.index)
            self._handshake = None
        if self._index is not None:
            self._unclaim(self._index)
            self._index = None

    # Notes and events for the operator.

    def _note(self, what: str, now: Now) -> int:
        if self.notes is None:
            self.notes = {}
        number, first, _ = self.notes.get(what, (0, now.boot, 0))
        self.notes[what] = Note(number + 1, first, now.boot)
        return number + 1

    def _step(self, step: Step, number: int | None = None) -> None:
        self._tell(lambda key, at: HandshakeStep(key, at, step, number))

    def _tell(self, event: Callable[[str, str | None], PeerEvent]) -> None:
        """Reports an event of this peer if there is an observer."""
        if self.shared.observe is not None:
            endpoint = self.shared.plane.endpoint(self.id)
            self.shared.observe(event(base64_text(self.public_key), endpoint and str(endpoint)))

    def _tell_unreported(self, now: Now) -> None:
        roamed_from, rejected, send_error = self.shared.plane.take_unreported(self.id)
        if roamed_from is not None and roamed_from != self.shared.plane.endpoint(self.id):
            self._tell(lambda key, at: Roamed(key, at, str(roamed_from)))
            self._arm(Timer.UNREPORTED, now.boot + SECOND)
        if rejected is not None:
            count, source = rejected
            self._tell(lambda key, at: SourceRejected(key, at, source, count))
        if send_error is not None:
            _, errno = send_error
            self._tell(lambda key, at: Unreachable(key, at, "send_error", errno=errno))

    def _disconnect(self, reason: Ended) -> None:
        if self.connected:
            self.connected = False
            self._tell(lambda key, at: Disconnected(key, at, reason))

    def _follow(self, source: Endpoint) -> None:
        """Sets the endpoint to the source of an authenticated handshake message."""
        plane = self.shared.plane
        before = plane.endpoint(self.id) if self.shared.observe is not None else None
        plane.set_endpoint(self.id, source)
        self.shared.settle(self.id)
        if before is not None and before != source:
            self._tell(lambda key, at: Roamed(key, at, str(before)))

    # Small helpers.

    def _send_keepalive(self) -> None:
        self.shared.plane.send_keepalive(self.id)
        self._step("keepalive")

    def _unconfirmed(self) -> int:
        """Returns how many responses in a row have led to no session."""
        return (self.notes or {}).get("unconfirmed_response", Note(0, 0, 0)).number

    def _stamps(self) -> Stamps:
        return Stamps(*self.shared.plane.stamps(self.id))

    def _arm(self, timer: Timer, deadline: int) -> None:
        self.shared.timers.set(self.id, timer, deadline)

    def _jitter(self) -> int:
        return self.shared.entropy.uniform(self.shared.timing.max_jitter + 1)

    def _disarm(self, kind: PlaneEvent) -> bool:
        """Clears an armed event with its present stamp; False if the stamp moved meanwhile."""
        stamps = self._stamps()
        stamp = stamps.data_sent if kind is PlaneEvent.DATA_SENT else stamps.data_received
        return self.shared.plane.disarm(self.id, kind, stamp)
