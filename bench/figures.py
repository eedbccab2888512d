"""The figures that can be measured: name, unit, and whether more is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    label: str
    """The title for people, with the unit."""
    more: bool
    """Whether more is better."""
    digits: int = 2
    compared: bool = True
    """Whether the tables show its ratio to that of the subject that others are compared with."""


FIGURES = {
    "gbit": Figure("Gbit/s", True),
    "tunnel_cpu": Figure("tunnel CPU s/GB", False),
    "total_cpu": Figure("total CPU s/GB", False, compared=False),
    "retransmits": Figure("resent", False, 0, compared=False),
    "delivered": Figure("delivered/s", True, 0),
    "offered": Figure("offered/s", True, 0, compared=False),
    "lossless": Figure("highest rate/s under 0.1 % loss", True, 0),
    "p50": Figure("round trip p50 us", False, 1),
    "p99": Figure("round trip p99 us", False, 1),
    "handshakes": Figure("handshakes/s", True, 0),
    "handshake_cpu": Figure("CPU s per 1,000 handshakes", False, 3),
    "configure": Figure("s to configure", False, 3),
    "dump": Figure("s to dump", False, 3),
    "get": Figure("s for a raw get", False, 3),
    "waited": Figure("ms waited at most for a tiny request", False, 1),
    "rss": Figure("MB RSS", False, 1),
    "peer_memory": Figure("KB a peer", False),
    "show": Figure("ms for show", False, 1),
    "above": Figure("ms above `python -c pass`", False, 1, compared=False),
    "show_dump": Figure("ms for show dump", False, 1),
    "show_json": Figure("ms for show --json", False, 1, compared=False),
    "up": Figure("s for up", False),
    "down": Figure("s for down", False),
    "reload": Figure("s for reload", False),
    "lost": Figure("pings lost", False, 0, compared=False),
    "pings": Figure("pings/s", True, 0, compared=False),
    "gap": Figure("longest ms without a byte", False, 1, compared=False),
    "rmem_max": Figure("net.core.rmem_max MB", True, 1, compared=False),
    "connect": Figure("ms to connect p50", False, 3),
    "round_trip": Figure("ms for the tunnel's round trip p50", False, 3, compared=False),
    "connect_above": Figure("ms above the round trip", False, 3, compared=False),
    "start": Figure("ms to start", False, 1, compared=False),
    "start_above": Figure("ms above the bare command", False, 1, compared=False),
    "import": Figure("ms to import", False, 1, compared=False),
    "pss": Figure("MB PSS", False, 1, compared=False),
    "processes": Figure("processes", False, 0, compared=False),
    "idle_cpu": Figure("ms of CPU in 10 s", False, 1, compared=False),
    "connections": Figure("connections at once", True, 0, compared=False),
    "errors": Figure("errors", False, 0, compared=False),
    "connecting": Figure("s to connect all", False, 1, compared=False),
    "instructions": Figure("instructions a packet", False, 0),
}
