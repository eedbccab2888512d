"""What happens to the peers of an interface: one class for each event.

They are made only while somebody listens. `wiresnake.Tunnel.events` yields them, the daemon writes
them as text (`events=1`, docs/uapi.md), and `wiresnake events` reads that text back into them.
"""

from dataclasses import dataclass
from typing import Literal

Ended = Literal["expired", "no_answer", "removed", "down"]
"""Why a peer is no longer connected. `expired`: its last keys were wiped, 540 s after they were
made; `no_answer`: 20 initiations were in vain, in 100 s; `removed`: it is no longer a peer; `down`:
the interface went down."""


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """Something happened to a peer."""

    public_key: str
    """In base64, as in configuration files."""
    endpoint: str | None
    """Where its datagrams go by now: `192.0.2.1:51820`, `[2001:db8::1]:51820`; None is unknown."""


@dataclass(frozen=True, slots=True)
class HandshakeCompleted(PeerEvent):
    """A handshake made a session with a peer that had none; `Connected` follows."""

    initiator: bool | None = None
    """Whether it was we who began; None where only the result can be seen, as of the kernel's."""


@dataclass(frozen=True, slots=True)
class Rekeyed(PeerEvent):
    """A handshake made a new session with a peer that was connected."""

    initiator: bool | None = None
    """Whether it was we who began; None where only the result can be seen, as of the kernel's."""


@dataclass(frozen=True, slots=True)
class Connected(PeerEvent):
    """The peer has a session, after a time without one."""


@dataclass(frozen=True, slots=True)
class Disconnected(PeerEvent):
    """The peer was connected, and is no longer."""

    reason: Ended


@dataclass(frozen=True, slots=True)
class Roamed(PeerEvent):
    """An authenticated message came from elsewhere; of data at most one event a second and peer."""

    old_endpoint: str


@dataclass(frozen=True, slots=True)
class Unreachable(PeerEvent):
    """Nothing gets through to the peer, connected or not."""

    reason: Literal["no_answer", "send_error"]
    """`no_answer`: initiations were in vain; `send_error`: the kernel refused to send, which is
    reported at most once a second and peer."""
    initiations: int | None = None
    """How many, since the last completed handshake; with `no_answer`."""
    errno: int | None = None
    """The kernel's, positive; with `send_error`."""


@dataclass(frozen=True, slots=True)
class SourceRejected(PeerEvent):
    """A packet of the peer came from an inner address that is not among its allowed IPs; at most
    one event a second and peer."""

    source: str
    """That address, of the last such packet."""
    count: int
    """How many packets there have been."""


Step = Literal[
    "initiation sent",
    "initiation received",
    "response sent",
    "response received",
    "cookie received",
    "session made",
    "keepalive",
]
"""Each is a decision of our own, or was authenticated and fresh. A `keepalive` is an empty packet
that goes out unless others wait."""


@dataclass(frozen=True, slots=True)
class HandshakeStep(PeerEvent):
    """A step on the way to what the other events report. Only the log hears of it, at debug level:
    `Tunnel.events` and `events=1` do not."""

    step: Step
    number: int | None = None
    """Of an initiation that was sent: the how manieth since the last completed handshake."""


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The listener was too slow, and the oldest events were dropped."""

    count: int


Event = PeerEvent | EventsLost
