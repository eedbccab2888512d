"""What an interface adds to its host: one value that `up` makes, `reload` converges and `down`
removes."""

from dataclasses import dataclass
from typing import NamedTuple

from wiresnake.model import Dns

MAIN_TABLE = 254
IPV6_MTU = 1280
"""The minimum MTU for IPv6: below it the kernel removes a link's IPv6 addresses and routes."""


class Route(NamedTuple):
    prefix: str
    """The network as `ipaddress` writes it, host bits zero: `10.0.0.0/24`."""
    table: int = MAIN_TABLE


class Rule(NamedTuple):
    """`not fwmark TABLE table TABLE`; with the main table, `table main suppress_prefixlength 0`."""

    version: int
    table: int
    priority: int = 0
    """The priority; 0 leaves it to the kernel."""


class Guard(NamedTuple):
    """wg-quick's firewall for one IP version: packets from outside cannot reach the interface's
    addresses except through the tunnel, and answers to marked datagrams carry the mark."""

    version: int
    mark: int
    addresses: tuple[str, ...]
    """Without length."""


class Block(NamedTuple):
    """An unreachable default route, the last in a tunnel's table. It outlives the interface and its
    routes, so that traffic for the tunnel never leaves unencrypted."""

    version: int
    table: int


class Policy(NamedTuple):
    """Routing by mark for a default route (wg-quick's "auto" with 0.0.0.0/0 or ::/0): ip rules, an
    anti-spoofing firewall, src_valid_mark, and a block, which wg-quick does not have."""

    mark: int
    """The mark of the encrypted datagrams, and the number of the table."""
    versions: tuple[int, ...]
    """The IP versions: 4, 6 or both."""
    rules: tuple[Rule, ...] | None = None
    """The existing rules; None: those that these versions need."""
    guards: tuple[Guard, ...] | None = None
    """The existing firewall; None: what these versions and the addresses need."""
    blocks: tuple[Block, ...] | None = None
    """The existing blocks; None: one for each of these versions."""


@dataclass(frozen=True, slots=True)
class Network:
    mtu: int
    """The MTU; 0 if there is no interface, only what outlived it."""
    addresses: tuple[str, ...] = ()
    """Addresses such as `10.0.0.1/24`, in the order in which they are added."""
    routes: tuple[Route, ...] = ()
    policy: Policy | None = None
    dns: Dns = Dns()  # noqa: RUF009  # a tuple
    up: bool = True
