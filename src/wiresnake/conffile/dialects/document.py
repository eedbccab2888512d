"""What a WireGuard configuration says, in whichever dialect: the one value that all are read into
and written from. It is text with its meaning known, as in a wg-quick file."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from wiresnake.conffile import values
from wiresnake.errors import ConfigError
from wiresnake.model import Prefix
from wiresnake.text import unsigned


class LeftOut(NamedTuple):
    """Something that a dialect has no words for."""

    line: int
    """Of the file that was read; 0 if all lines with that key are meant."""
    key: str
    why: str
    changes: bool = False
    """Without it the tunnel does something else: an import is refused. Otherwise a detail."""


@dataclass(frozen=True, slots=True)
class Peer:
    public_key: str
    name: str = ""
    preshared_key: str = field(default="", repr=False)
    allowed_ips: tuple[str, ...] = ()
    endpoint: str = ""
    keepalive: int = 0
    hooks: tuple[tuple[str, str], ...] = ()

    @property
    def default(self) -> bool:
        """Whether a default route leads to it."""
        return any(prefix.endswith("/0") for prefix in self.allowed_ips)


@dataclass(frozen=True, slots=True)
class Document:
    """Zero or empty is what the file does not say."""

    private_key: str = field(default="", repr=False)
    listen_port: int = 0
    fwmark: int = 0
    addresses: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 0
    table: str = ""
    """`off`, a number or a name; empty is wg-quick's auto."""
    hooks: tuple[tuple[str, str], ...] = ()
    """Keys of wg-quick and their commands, in order."""
    save: bool = False
    peers: tuple[Peer, ...] = ()

    @property
    def default(self) -> bool:
        return any(peer.default for peer in self.peers)


def canonical(name: str, value: str) -> str:
    """A value as every dialect writes it; `name` is wg-quick's, in lower case. ConfigError says
    what is wrong and what to write."""
    for problem in values.problems(name, value):
        if problem.level == "error":
            raise ConfigError(f"{problem.reason}; {problem.remedy}")
    match name:
        case "allowedips":
            prefix = Prefix.parse(value)
            return f"{ipaddress.ip_address(prefix.address)}/{prefix.length}"
        case "address":
            return values.abbreviated(value) or str(ipaddress.ip_interface(value))
        case "endpoint":
            host, port = values.endpoint(value)
            number = values.port_number(port)
            return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
        case "listenport":
            return str(values.port_number(value))
        case "fwmark":
            value = "0" if value.lower() == "off" else value
            return str(int(value, 16 if value.startswith("0x") else 10))
        case "persistentkeepalive":
            return str(0 if value.lower() == "off" else unsigned(value, 16))
        case "mtu":
            return str(int(value, 16 if value.startswith("0x") else 10))
        case "table":
            return "" if value.lower() == "auto" else value
    return value


def merged(peers: Iterable[Peer]) -> tuple[Peer, ...]:
    """A peer that comes again changes what came first, as `wg` takes it."""
    found: dict[str, Peer] = {}
    for peer in peers:
        before = found.get(peer.public_key, peer)
        found[peer.public_key] = Peer(
            peer.public_key,
            peer.name or before.name,
            peer.preshared_key or before.preshared_key,
            tuple(dict.fromkeys(peer.allowed_ips)),
            peer.endpoint or before.endpoint,
            peer.keepalive or before.keepalive,
            peer.hooks or before.hooks,
        )
    return tuple(found.values())


def is_server(text: str) -> bool:
    """Whether wg-quick takes a word under DNS for a server, else for a search domain."""
    return ":" in text or not text.strip("0123456789.")
