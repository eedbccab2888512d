"""The events of an interface's peers, one class each.

Events are made only while somebody listens. `wiresnake.Tunnel.events` yields them, the daemon
writes them as text (`events=1`, docs/uapi.md), and `wiresnake events` parses that text.
"""

from dataclasses import dataclass
from typing import Literal

Ended = Literal["expired", "no_answer", "removed", "down"]
"""Why a peer is no longer connected.

`expired`: its last keys were wiped, 540 s after they were made. `no_answer`: 20 initiations in
100 s got no answer. `removed`: the peer was removed. `down`: the interface went down."""


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """The base class of all events of a peer."""

    public_key: str
    """The peer's public key in base64, as in configuration files."""
    endpoint: str | None
    """The peer's present endpoint, as `192.0.2.1:51820` or `[2001:db8::1]:51820`; None: unknown."""


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(PeerEvent):
    """A handshake made a session with a peer that had none. `Connected` follows."""

    initiator: bool | None = None
    """True if this side initiated; None if that is unknown, as with a kernel interface."""


@dataclass(frozen=True, slots=True)
class Rekeyed(PeerEvent):
    """A handshake made a new session with a peer that was connected already."""

    initiator: bool | None = None
    """True if this side initiated; None if that is unknown, as with a kernel interface."""


@dataclass(frozen=True, slots=True)
class Connected(PeerEvent):
    """The peer has a session, after a time without one."""


@dataclass(frozen=True, slots=True)
class Disconnected(PeerEvent):
    """The peer was connected and no longer is."""

    reason: Ended


@dataclass(frozen=True, slots=True)
class Roamed(PeerEvent):
    """The endpoint changed, because an authenticated message came from elsewhere.

    Data causes at most one such event per second and peer.
    """

    old_endpoint: str


@dataclass(frozen=True, slots=True)
class Unreachable(PeerEvent):
    """Nothing gets through to the peer. It may still be connected."""

    reason: Literal["no_answer", "send_error"]
    """`no_answer`: initiations got no answer. `send_error`: the kernel refused to send; there is
    at most one such event per second and peer."""
    initiations: int | None = None
    """With `no_answer`: the number of initiations since the last completed handshake."""
    errno: int | None = None
    """With `send_error`: the kernel's error number, positive."""


@dataclass(frozen=True, slots=True)
class SourceRejected(PeerEvent):
    """A packet of the peer was dropped, as its inner source is not among the peer's allowed IPs.

    There is at most one such event per second and peer.
    """

    source: str
    """The source address of the last such packet."""
    count: int
    """The number of such packets so far."""


Step = Literal[
    "initiation sent",
    "initiation received",
    "response sent",
    "response received",
    "cookie received",
    "session made",
    "keepalive",
]
"""A step of a handshake: a decision of this side, or an authentic and fresh message.

A `keepalive` is an empty packet, which is only sent if no other packet waits."""


@dataclass(frozen=True, slots=True)
class HandshakeStep(PeerEvent):
    """A step of a handshake. It only goes to the log, at debug level.

    `Tunnel.events` and `events=1` do not report it.
    """

    step: Step
    number: int | None = None
    """For a sent initiation: its number since the last completed handshake, from 1."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The reader was too slow, so its oldest events were dropped."""

    count: int
    """The number of lost events."""


Event = PeerEvent | EventsLost
