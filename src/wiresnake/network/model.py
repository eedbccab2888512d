"""What an interface adds to its host: one value that `up` makes, `reload` converges and `down`
removes."""

from dataclasses import dataclass
from typing import NamedTuple

from wiresnake.model import Dns

MAIN_TABLE = 254
IPV6_MTU = 1280
"""The least that IPv6 works with: below it the kernel takes a link's IPv6 addresses and routes."""


class Route(NamedTuple):
    prefix: str
    """`10.0.0.0/24`: as `ipaddress` writes it, host bits zero."""
    table: int = MAIN_TABLE


class Rule(NamedTuple):
    """`not fwmark TABLE table TABLE`; with the main table, `table main suppress_prefixlength 0`."""

    version: int
    table: int
    priority: int = 0
    """Where the kernel put it; 0 leaves that to the kernel."""


class Guard(NamedTuple):
    """wg-quick's firewall of one IP version: nothing from outside reaches the interface's addresses
    past the tunnel, and answers to marked datagrams carry the mark."""

    version: int
    mark: int
    addresses: tuple[str, ...]
    """Without length."""


class Block(NamedTuple):
    """An unreachable default, the last of a tunnel's table: it outlives the interface and its
    routes, so that nothing that was for the tunnel goes around it in the clear."""

    version: int
    table: int


class Policy(NamedTuple):
    """Routing by mark for a default route (wg-quick's "auto" with 0.0.0.0/0 or ::/0): ip rules,
    anti-spoof firewall and src_valid_mark, and a block, which wg-quick does not have."""

    mark: int
    """The mark of the encrypted datagrams, and the number of the table."""
    versions: tuple[int, ...]
    """4, 6 or both."""
    rules: tuple[Rule, ...] | None = None
    """The rules found; None: all that these versions need."""
    guards: tuple[Guard, ...] | None = None
    """The firewall found; None: what these versions and the addresses need."""
    blocks: tuple[Block, ...] | None = None
    """The blocks found; None: one for each of these versions."""


@dataclass(frozen=True, slots=True)
class Network:
    mtu: int
    """0 where there is no interface, only what outlived it."""
    addresses: tuple[str, ...] = ()
    """`10.0.0.1/24`, in the order in which they are added."""
    routes: tuple[Route, ...] = ()
    policy: Policy | None = None
    dns: Dns = Dns()  # noqa: RUF009  # a tuple
    up: bool = True
