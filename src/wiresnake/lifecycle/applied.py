"""Remembers in /run/wiresnake what a file said when it was last applied and a device does not give
back.

Only root can read it, because commands may hold secrets. A record of an interface that has gone,
according to its index, is ignored.
"""

import contextlib
import json
import socket
from dataclasses import dataclass, field
from typing import NamedTuple

from wiresnake.linux import files
from wiresnake.network import journal

PeerHooks = tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
"""A peer's public key, OnUp and OnDown."""


class Said(NamedTuple):
    """What the file said about a peer, except its endpoint."""

    preshared_key: str = ""
    """`others.digest` of the preshared key; empty if there was none."""
    keepalive: int = 0
    allowed_ips: tuple[str, ...] = ()


class SaidOfInterface(NamedTuple):
    """What the file said about the interface itself; None or empty: nothing."""

    public_key: str = ""
    listen_port: int | None = None
    fwmark: int | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Applied:
    endpoints: dict[str, str] = field(default_factory=dict)
    """Endpoints as written in the file, by public key."""
    mtu: int | None = None
    """What the file said about the interface."""
    hooks: PeerHooks = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    save: bool = False
    """What `down` needs from a file that may be gone by then."""
    events: int = 0
    """The number of the keeper, which runs `hooks`."""
    peers: dict[str, Said] | None = None
    """The peers that the file named, by public key; None in a record of an older version."""
    interface: SaidOfInterface | None = None


def load(interface: str) -> Applied | None:
    """Returns the record, or None if there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if (path := journal.find(f"{interface}.applied")) is None:
            return None
        record = journal.frozen(json.loads(path.read_text("utf-8")))
        if record.pop("index") == socket.if_nametoindex(interface):
            if (peers := record.get("peers")) is not None:
                record["peers"] = {key: Said(*one) for key, one in peers.items()}
            if interface_said := record.get("interface"):
                record["interface"] = SaidOfInterface(*interface_said)
            return Applied(**record)
    return None


def save(interface: str, applied: Applied) -> None:
    if (path := journal.place(f"{interface}.applied")) is None:
        return
    record = {"index": socket.if_nametoindex(interface), **vars(applied)}
    files.replace(path, json.dumps(record).encode())


def forget(interface: str) -> None:
    if path := journal.find(f"{interface}.applied"):
        path.unlink(missing_ok=True)
