"""What the protocol asks of a data plane, and what a plane tells it.

`_native.Plane` carries real packets; `tests/sim/plane.py` is the same in Python, under a virtual
clock: the executable specification. The plane keeps what must hold for every packet even while
Python is busy (counters, replay window, limits, session slots, roaming); it decides nothing else.
"""

from enum import IntEnum
from typing import NamedTuple, Protocol

from wiresnake._native import Endpoint, PrivateKey, Session


class PlaneEvent(IntEnum):
    """What a plane reports of a peer.

    The first three, UNREPORTED and SOURCE_MOVED are armed: a plane posts one only while its bit is
    clear, and sets it. So a peer causes at most one of each kind per deadline, whatever its packet
    rate. Until the bit is cleared again, only the stamp moves.
    """

    HANDSHAKE_WANTED = 0
    """A packet was staged for want of a session, or the session in use is due for a rekey.

    `install` as initiator, a confirmed session, `wipe` and `purge` clear the bit."""
    DATA_SENT = 1
    """Data left and nothing has come back yet: `Stamps.data_sent` went from 0. `disarm` clears."""
    DATA_RECEIVED = 2
    """Data came and nothing has left yet: `Stamps.data_received` went from 0. `disarm` clears."""
    SESSION_CONFIRMED = 3
    """The first authenticated message of a session that we answered: next became current."""
    UNREPORTED = 4
    """What no timer needs but a subscriber wants to hear, while `watch` is on;
    `take_unreported` clears."""
    TUN_LOST = 5
    """The TUN device is gone; the peer is 0 and means nothing."""
    THREAD_LOST = 6
    """A thread of the plane has failed too often: it can carry no more. The peer is 0."""
    PANIC = 7
    """Rust panicked, which is a bug, and went on without what it had in hand: `take_panics` says
    where. The peer is 0."""
    SOURCE_MOVED = 8
    """Data came in by another address or interface, or from another endpoint; armed, too."""


class Stamps(NamedTuple):
    """When things last happened to a peer, in ns of CLOCK_BOOTTIME; 0 is never or not any more."""

    data_sent: int
    """First data sent since anything authenticated was received."""
    data_received: int
    """First data received since anything authenticated was sent."""
    last_data_received: int
    wanted: int
    """Last time that a packet wanted a handshake; 0 once the bit of HANDSHAKE_WANTED is cleared."""
    sent: int
    """Last authenticated message sent, of any type but a cookie reply."""
    received: int
    """Last authenticated message received."""


class Entropy(Protocol):
    """Randomness, injected so that a simulation can repeat itself."""

    def private_key(self) -> PrivateKey: ...
    def uniform(self, limit: int) -> int: ...


class Plane(Protocol):
    """A data plane, as far as the protocol needs one. Peers are the plane's own small integers;
    every method of an unknown peer is a KeyError."""

    def set_identity(self, public: bytes | None) -> None:
        """Own public key for the gate; None lets no handshake message pass."""

    def add_peer(self) -> int: ...

    def remove_peer(self, peer: int) -> None:
        """Forgets the peer, its sessions and staged packets. Its allowed IPs must be disallowed
        before, and its reserved indices released."""

    def set_endpoint(self, peer: int, endpoint: Endpoint | None) -> None: ...

    def endpoint(self, peer: int) -> Endpoint | None: ...

    def watch(self, watched: bool) -> None:
        """Whether UNREPORTED is posted."""

    def take_unreported(
        self, peer: int
    ) -> tuple[Endpoint | None, tuple[int, str] | None, tuple[int, int] | None]:
        """What has not been told yet: whence data moved the endpoint; count and last one of inner
        sources that are not the peer's, and of failed sends (errno), each once a second."""

    def forget_sources(self, peer: int | None) -> None:
        """Lets the host choose whence it sends to the peer, until the peer is heard again. None: to
        every peer, as the circumstances have changed; then what stuck is only to be judged anew."""

    def allow(self, peer: int, prefix: bytes, length: int) -> None:
        """Routes prefix/length (4 or 16 bytes, host bits zero) to the peer, and to no other."""

    def disallow(self, prefix: bytes, length: int) -> None:
        """Removes the route; nothing happens if there is none."""

    def reserve(self, peer: int) -> int:
        """A fresh random receiver index that now leads to this peer."""

    def release(self, index: int) -> None:
        """Frees a reserved index that no session took."""

    def install(self, peer: int, session: Session) -> None:
        """Puts the session at its reserved local index.

        As initiator: it becomes current, what was next (else current) becomes previous, and
        staged packets leave. As responder: it becomes next, and previous and the old next are
        wiped; the first authenticated message makes it current (and posts SESSION_CONFIRMED).
        That message is counted as received before what is staged leaves.
        """

    def expire(self, peer: int) -> None:
        """The sessions receive still, but no longer send (the device's key has changed)."""

    def wipe(self, peer: int) -> None:
        """Wipes all the peer's sessions; the staged packets stay."""

    def purge(self, peer: int) -> None:
        """Drops the peer's staged packets."""

    def send(self, peer: int, message: bytes) -> None:
        """Sends a handshake message (TOS 0x88) to the peer's endpoint, if it has one.

        Counts as authenticated and sent: moves `Stamps.sent`, clears `Stamps.data_received`.
        """

    def send_staged(self, peer: int) -> None:
        """Sends what is staged, if there is a session; else wants a handshake if any is staged."""

    def send_keepalive(self, peer: int) -> None:
        """Stages an empty packet if nothing is staged, then sends what is staged."""

    def count_received(self, peer: int, length: int) -> None:
        """An authenticated handshake message of that length came: moves `Stamps.received`,
        clears `Stamps.data_sent`, adds to the peer's received bytes."""

    def stamps(self, peer: int) -> tuple[int, int, int, int, int, int]:
        """The fields of `Stamps`."""

    def disarm(self, peer: int, kind: int, stamp: int) -> bool:
        """Clears stamp and bit of DATA_SENT or DATA_RECEIVED; False if the stamp moved meanwhile.

        The comparison is with data_sent, or data_received."""

    def transfer(self, peer: int) -> tuple[int, int]:
        """Bytes received and sent, as the outer UDP payload's length."""
