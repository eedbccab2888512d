"""The facts that a diagnosis uses: gathered first, judged afterwards."""

from dataclasses import dataclass
from typing import Literal

from wiresnake.protocol.constants import SESSION_SECONDS
from wiresnake.uapi.snapshot import InterfaceState, PeerState
from wiresnake.uapi.vocabulary import DeviceReport, PeerReport

_AT_ONCE_MS = 100
"""Between a message and our answer to it."""


@dataclass(frozen=True, slots=True)
class Way:
    """Where the kernel sends packets for an address."""

    target: str
    device: str = ""
    gateway: str = ""
    error: int = 0
    """The errno if it sends them nowhere."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """The result of a name lookup: addresses, or the resolver's error."""

    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """How an endpoint reacted to a ping and an empty UDP datagram."""

    answers_ping: bool
    udp_error: int = 0
    """The errno of an ICMP message that came back; 0 is silence, which is WireGuard's answer."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What this host does with the peer's packets to other hosts."""

    off: tuple[int, ...] = ()
    """The IP versions that it does not forward."""
    dropped_by: tuple[str, ...] = ()
    """The firewall's chains that drop them."""
    masked: bool = False
    """Some packets get this host's address."""
    unread: bool = False
    """Only root can read the firewall."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything known about the requested peer. Reports are None if the device has none."""

    state: InterfaceState
    up: bool
    wall: float
    """Seconds since 1970."""
    peer: PeerState | None
    missing: str | None = None
    """The requested public key, if the device has no such peer."""
    in_file: bool = False
    """The configuration file has that peer."""
    address: str | None = None
    """The requested address."""
    device: DeviceReport | None = None
    report: PeerReport | None = None
    file_endpoint: str = ""
    """As written in the configuration file."""
    lookup: Lookup | None = None
    """The lookup of its name."""
    endpoint_way: Way | None = None
    inner_ways: tuple[Way, ...] = ()
    """To the requested address, or to one address in each of the peer's allowed IPs."""
    probe: Probe | None = None
    forwarding: Forwarding | None = None
    """Only for a peer that contacts this host, and talks."""

    @property
    def kind(self) -> Literal["ours", "kernel", "foreign"]:
        """Who implements the device, which decides what can be known."""
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
        """The peer has a session, and neither end asks for another one without success."""
        if self.report is None:
            return self.handshake_age is not None and self.handshake_age < SESSION_SECONDS
        asked, heard = self.report.first_initiation_age_ms, self.report.received_age_ms
        unanswered = (
            self.report.initiations >= 2 and asked is not None and (heard is None or heard > asked)
        )
        return self.report.session == "live" and not unanswered and not self.asks_without_success

    @property
    def asks_without_success(self) -> bool:
        """The peer asks for a session again, and has sent nothing else since."""
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
        """Another peer has a session, so the device's socket and this host's network work."""
        return any(
            self.wall - other.latest_handshake[0] < SESSION_SECONDS
            for other in self.state.peers
            if other is not self.peer
        )
