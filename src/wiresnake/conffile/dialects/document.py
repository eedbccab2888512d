"""A WireGuard configuration as one value, which all dialects are read into and written from. Its
values are text, as in a wg-quick file."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wiresnake.conffile import values, wg
from wiresnake.conffile.schema import Key
from wiresnake.errors import ConfigError
from wiresnake.model import Prefix


class LeftOut(NamedTuple):
    """A setting that a dialect cannot express."""

    line: int
    """The line of the file; 0 for all lines with that key."""
    key: str
    why: str
    changes: bool = False
    """Whether the tunnel does something else without it, so that an import is refused. Otherwise it
    is a detail."""


@dataclass(frozen=True, slots=True)
class Peer:
    public_key: str
    name: str = ""
    preshared_key: str = field(default="", repr=False)
    allowed_ips: tuple[str, ...] = ()
    endpoint: str = ""
    persistent_keepalive: int = 0
    hooks: tuple[tuple[str, str], ...] = ()

    @property
    def default(self) -> bool:
        """Whether a default route leads to the peer."""
        return any(prefix.endswith("/0") for prefix in self.allowed_ips)


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration. Zero or empty values are not set."""

    private_key: str = field(default="", repr=False)
    listen_port: int = 0
    fwmark: int = 0
    addresses: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 0
    table: str = ""
    """The table: `off`, a number or a name; empty is wg-quick's auto."""
    hooks: tuple[tuple[str, str], ...] = ()
    """Hooks: keys of wg-quick and their commands, in order."""
    save: bool = False
    peers: tuple[Peer, ...] = ()

    @property
    def default(self) -> bool:
        return any(peer.default for peer in self.peers)


def parsed(key: Key, value: str) -> Any:
    """Returns a value in the form of a document. ConfigError says what is wrong and what to
    write."""
    for problem in values.problems(key, value):
        if problem.level == "error":
            raise ConfigError(f"{problem.reason}; {problem.remedy}")
    match key.kind:
        case "networks":
            prefix = Prefix.parse(value)
            return f"{ipaddress.ip_address(prefix.address)}/{prefix.length}"
        case "addresses":
            return values.abbreviated(value) or str(ipaddress.ip_interface(value))
        case "endpoint":
            host, port = values.endpoint(value)
            number = values.port_number(port)
            return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        case "port":
            return values.port_number(value)
        case "mark" | "seconds":
            return wg.plain(key, value)
        case "mtu":
            return int(value, 16 if value.startswith("0x") else 10)
        case "switch":
            return value.lower() == "true"
        case "table":
            return "" if value.lower() == "auto" else value
    return value


def merged(peers: Iterable[Peer]) -> tuple[Peer, ...]:
    """Adds a peer. A repeated peer changes the first one, as with `wg`."""
    found: dict[str, Peer] = {}
    for peer in peers:
        before = found.get(peer.public_key, peer)
        found[peer.public_key] = Peer(
            peer.public_key,
            peer.name or before.name,
            peer.preshared_key or before.preshared_key,
            tuple(dict.fromkeys(peer.allowed_ips)),
            peer.endpoint or before.endpoint,
            peer.persistent_keepalive or before.persistent_keepalive,
            peer.hooks or before.hooks,
        )
    return tuple(found.values())
