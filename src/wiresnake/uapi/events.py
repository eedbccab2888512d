"""What happens to the peers of a running interface, one after the other."""

from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "handshake",
    "rekey",
    "connected",
    "disconnected",
    "roamed",
    "unreachable",
    "rejected_source",
    "lost",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Detail = str | int | bool


class Event(NamedTuple):
    """One event; docs/uapi.md says what each kind means and which details it has."""

    time_ns: int
    """Since 1970."""
    interface: str
    public_key: str
    """base64; empty for `lost`, which concerns the listener."""
    kind: Kind
    details: dict[str, Detail]
