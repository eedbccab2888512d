"""The interface between the protocol and a data plane.

`_native.Plane` carries real packets. `tests/sim/plane.py` does the same in Python under a virtual
clock and is the executable specification. The plane enforces what must hold for every packet even
while Python is busy: counters, replay window, limits, session slots, roaming. It decides nothing
else.
"""

from enum import IntEnum
from typing import NamedTuple, Protocol

from wiresnake._native import Endpoint, PrivateKey, Session


class PlaneEvent(IntEnum):
    """An event that the plane posts for the protocol.

    The first three, UNREPORTED and SOURCE_MOVED are armed: the plane posts one only while its bit
    is clear, and then sets the bit. So a peer causes at most one of each kind per deadline, at any
    packet rate. Until the bit is cleared again, only the stamp changes.
    """

    HANDSHAKE_WANTED = 0
    """A packet was staged because there is no session, or the current session is due for a rekey.

    `install` as initiator, a confirmed session, `wipe` and `purge` clear the bit."""
    DATA_SENT = 1
    """Data left and nothing has come back yet: `Stamps.data_sent` is no longer 0.

    `disarm` clears the bit."""
    DATA_RECEIVED = 2
    """Data came and nothing has left yet: `Stamps.data_received` is no longer 0.

    `disarm` clears the bit."""
    SESSION_CONFIRMED = 3
    """The first authenticated message of a session as responder came: next became current."""
    UNREPORTED = 4
    """There is news for `take_unreported`, which clears the bit. Only while `watch` is on."""
    TUN_LOST = 5
    """The TUN device is gone. The peer is 0."""
    THREAD_LOST = 6
    """A thread of the plane has failed too often and was not restarted. The peer is 0."""
    PANIC = 7
    """Rust panicked, which is a bug, and dropped the packets that it was working on. `take_panics`
    says where. The peer is 0."""
    SOURCE_MOVED = 8
    """Data came in by another address or interface, or from another endpoint. Armed, too."""


class Stamps(NamedTuple):
    """When things last happened to a peer, in ns of CLOCK_BOOTTIME; 0 is never, or cleared."""

    data_sent: int
    """First data sent since the last authenticated message received."""
    data_received: int
    """First data received since the last authenticated message sent."""
    last_data_received: int
    wanted: int
    """Last time that a packet wanted a handshake; 0 once the bit of HANDSHAKE_WANTED is cleared."""
    sent: int
    """Last authenticated message sent, of any type except a cookie reply."""
    received: int
    """Last authenticated message received."""


class Entropy(Protocol):
    """A source of randomness. It is passed in, so that a simulation can be repeated."""

    def private_key(self) -> PrivateKey: ...
    def uniform(self, limit: int) -> int: ...


class Plane(Protocol):
    """The part of a data plane that the protocol uses.

    A peer is a small integer that the plane chose. Methods raise KeyError for an unknown peer.
    """

    def set_identity(self, public: bytes | None) -> None:
        """Sets the device's public key for the gate; with None no handshake message passes."""

    def add_peer(self) -> int: ...

    def remove_peer(self, peer: int) -> None:
        """Removes the peer with its sessions and staged packets.

        Its allowed IPs must be disallowed and its reserved indices released before.
        """

    def set_endpoint(self, peer: int, endpoint: Endpoint | None) -> None: ...

    def endpoint(self, peer: int) -> Endpoint | None: ...

    def watch(self, watched: bool) -> None:
        """Turns the event UNREPORTED on or off."""

    def take_unreported(
        self, peer: int
    ) -> tuple[Endpoint | None, tuple[int, str] | None, tuple[int, int] | None]:
        """Returns and clears what was not reported yet.

        First the endpoint that the peer had before data moved it; then the count and the last
        inner source that is not among its allowed IPs; then the count and the errno of failed
        sends. The last two come at most once a second.
        """

    def forget_sources(self, peer: int | None) -> None:
        """Lets the host choose the source address for the peer until the peer is heard again.

        With None, for a change that affects all peers, the sources stay but must be checked again.
        """

    def allow(self, peer: int, prefix: bytes, length: int) -> None:
        """Routes prefix/length (4 or 16 bytes, host bits zero) to this peer only."""

    def disallow(self, prefix: bytes, length: int) -> None:
        """Removes the route, if there is one."""

    def reserve(self, peer: int) -> int:
        """Returns a new random receiver index, which now leads to this peer."""

    def release(self, index: int) -> None:
        """Frees a reserved index that no session uses."""

    def install(self, peer: int, session: Session) -> None:
        """Installs the session at its reserved local index.

        As initiator: the session becomes current, next (or else current) becomes previous, and
        staged packets leave. As responder: the session becomes next, and previous and the old
        next are wiped; the first authenticated message makes it current and posts
        SESSION_CONFIRMED. That message is counted as received before staged packets leave.
        """

    def expire(self, peer: int) -> None:
        """Stops sending in the peer's sessions, which still receive."""

    def wipe(self, peer: int) -> None:
        """Wipes all sessions of the peer; staged packets stay."""

    def purge(self, peer: int) -> None:
        """Drops the peer's staged packets."""

    def send(self, peer: int, message: bytes) -> None:
        """Sends a handshake message (TOS 0x88) to the peer's endpoint, if it has one.

        It counts as an authenticated message: sets `Stamps.sent`, clears `Stamps.data_received`.
        """

    def send_staged(self, peer: int) -> None:
        """Sends the staged packets, or posts HANDSHAKE_WANTED if there is no session for them."""

    def send_keepalive(self, peer: int) -> None:
        """Sends the staged packets, or an empty packet if none is staged."""

    def count_received(self, peer: int, length: int) -> None:
        """Counts an authenticated handshake message of `length` bytes as received.

        Sets `Stamps.received`, clears `Stamps.data_sent`, adds to the peer's received bytes.
        """

    def stamps(self, peer: int) -> tuple[int, int, int, int, int, int]:
        """Returns the fields of `Stamps`."""

    def disarm(self, peer: int, kind: int, stamp: int) -> bool:
        """Clears stamp and bit of DATA_SENT or DATA_RECEIVED; False if the stamp moved meanwhile.

        `stamp` is the expected value of data_sent or data_received."""

    def transfer(self, peer: int) -> tuple[int, int]:
        """Returns the bytes received and sent, as lengths of the outer UDP payload."""
