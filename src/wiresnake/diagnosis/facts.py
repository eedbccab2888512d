"""All that a diagnosis rests on: gathered first, judged afterwards."""

from dataclasses import dataclass
from typing import Literal

from wiresnake.protocol.constants import SESSION_SECONDS
from wiresnake.uapi.snapshot import InterfaceState, PeerState
from wiresnake.uapi.vocabulary import DeviceReport, PeerReport

_AT_ONCE_MS = 100
"""Between a message and our answer to it."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where the kernel sends a packet for an address."""

    target: str
    device: str = ""
    gateway: str = ""
    error: int = 0
    """An errno where it sends it nowhere."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What became of a name: addresses, or the resolver's words."""

    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """How an endpoint took a ping and an empty UDP datagram."""

    answers_ping: bool
    udp_error: int = 0
    """An errno that an ICMP message brought back; 0 is silence, as WireGuard would keep."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What this host does with packets of the peer for others."""

    off: tuple[int, ...] = ()
    """The IP versions that it does not forward."""
    dropped_by: tuple[str, ...] = ()
    """Chains of its firewall."""
    masked: bool = False
    """Some packets get an address of this host."""
    unread: bool = False
    """Only root can read the firewall."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One peer, as it is asked for. The reports are None where the device gives none."""

    state: InterfaceState
    up: bool
    wall: float
    """Seconds since 1970."""
    peer: PeerState | None
    missing: str | None = None
    """The public key that was asked for, if the device has no such peer."""
    in_file: bool = False
    """The configuration file has that peer."""
    address: str | None = None
    """The address that was asked for."""
    device: DeviceReport | None = None
    report: PeerReport | None = None
    file_endpoint: str = ""
    """As the configuration file has it."""
    lookup: Lookup | None = None
    """Of the name in it."""
    endpoint_way: Way | None = None
    inner_ways: tuple[Way, ...] = ()
    """To the address that was asked for, or to one of each of the peer's allowed IPs."""
    probe: Probe | None = None
    forwarding: Forwarding | None = None
    """Of a peer that calls this host, and talks."""

    @property
    def kind(self) -> Literal["ours", "kernel", "foreign"]:
        """Who runs the device, which decides what can be known."""
        if self.state.backend == "kernel":
            return "kernel"
        return "foreign" if self.device is None else "ours"

    @property
    def handshake_age(self) -> float | None:
        """Seconds since the last completed handshake."""
        if self.peer is None or self.peer.latest_handshake == (0, 0):
            return None
        seconds, nanoseconds = self.peer.latest_handshake
        return max(self.wall - seconds - nanoseconds / 1e9, 0)

    @property
    def talking(self) -> bool:
        """It has a session, and has not left us asking for another in vain, nor keeps asking."""
        if self.report is None:
            return self.handshake_age is not None and self.handshake_age < SESSION_SECONDS
        asked, heard = self.report.first_initiation_age_ms, self.report.received_age_ms
        in_vain = (
            self.report.initiations >= 2 and asked is not None and (heard is None or heard > asked)
        )
        return self.report.session == "live" and not in_vain and not self.asks_in_vain

    @property
    def asks_in_vain(self) -> bool:
        """It asks for a session again, and all that we hear of it since is that."""
        report = self.report
        if report is None or report.unconfirmed_response_age_ms is None:
            return False
        heard = report.received_age_ms
        only = heard is None or heard >= report.unconfirmed_response_age_ms - _AT_ONCE_MS
        return report.unconfirmed_responses >= 2 and only

    @property
    def endpoint(self) -> str:
        return (self.peer and self.peer.endpoint) or ""

    @property
    def others_talk(self) -> bool:
        """Another peer has a session: the device's socket and this host's network work."""
        return any(
            self.wall - other.latest_handshake[0] < SESSION_SECONDS
            for other in self.state.peers
            if other is not self.peer
        )
