"""The state of a running interface as plain text values, fast to make for 10,000 peers.

Keys are in base64. Secrets here cannot be wiped; they are for short-lived commands that print them.
"""

from typing import Literal, NamedTuple

Backend = Literal["user", "kernel"]


class PeerState(NamedTuple):
    public_key: str
    preshared_key: str | None
    endpoint: str | None
    """`192.0.2.1:51820` or `[2001:db8::1]:51820`."""
    allowed_ips: tuple[str, ...]
    """`address/length` each, in the device's order."""
    latest_handshake: tuple[int, int]
    """Seconds since 1970 and ns; (0, 0) is never."""
    received: int
    sent: int
    """Bytes of the outer UDP payload."""
    persistent_keepalive: int
    """Seconds; 0 is off."""


class InterfaceState(NamedTuple):
    name: str
    backend: Backend
    private_key: str | None
    public_key: str | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerState, ...]
