"""Turns a file into the value of the host's network that it asks for."""

from collections.abc import Iterable

from wiresnake.conffile.lines import shown
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.errors import ConfigError
from wiresnake.linux import rt_tables
from wiresnake.network import observe
from wiresnake.network.model import IPV6_MTU, MAIN_TABLE, Network, Policy, Route
from wiresnake.text import host_of
from wiresnake.uapi.snapshot import InterfaceState

_OUTER_HEADERS = 80
"""Bytes of IPv6, UDP and the message itself."""


def needs_mark(config: QuickConfig, allowed: Iterable[str]) -> bool:
    """Returns whether rules send a default route through the tunnel, so that the tunnel's own
    datagrams need a mark to bypass it."""
    return config.table in ("", "auto") and any(map(_is_default, allowed))


def guess_mtu(state: InterfaceState) -> int:
    """Returns wg-quick's MTU: that of the paths to the peers, minus the outer headers. `mark` is
    that of the tunnel's own datagrams: without it, a default route through the tunnel would seem to
    be their path.
    """
    hosts = {host_of(peer.endpoint) for peer in state.peers if peer.endpoint}
    return observe.route_mtu(sorted(hosts), state.fwmark) - _OUTER_HEADERS


def network(
    config: QuickConfig, allowed: Iterable[str], *, mtu: int, mark: int, path: str = ""
) -> Network:
    """Returns the whole network. `allowed` are all peers' networks, `mark` is the device's. If the
    MTU is too small for IPv6 there are no IPv6 addresses: see `lost`.
    """
    prefixes = sorted(set(allowed), key=_stock_order, reverse=True)
    policy = None
    match config.table:
        case "off":
            routes = []
        case "" | "auto":
            if any(map(_is_default, prefixes)):
                versions = sorted({6 if ":" in one else 4 for one in prefixes if _is_default(one)})
                policy = Policy(mark, tuple(versions))
            defaults = [Route(one, mark) for one in prefixes if _is_default(one)]
            others = [one for one in prefixes if not _is_default(one)]
            reached = observe.covered(others, config.addresses)
            routes = [Route(one) for one in others if one not in reached] + defaults
        case name:
            table = table_number(name, path)
            routes = [Route(one, table) for one in prefixes]
    addresses = config.addresses
    if mtu < IPV6_MTU:
        if any(":" in route.prefix for route in routes):
            raise ConfigError(
                f"{path}: IPv6 needs an MTU of {IPV6_MTU}, but this is {mtu}; raise it (MTU ="
                f" {IPV6_MTU}), or remove the IPv6 networks from AllowedIPs"
            )
        addresses = tuple(one for one in addresses if ":" not in one)
    return Network(
        mtu=mtu, addresses=addresses, routes=tuple(routes), policy=policy, dns=config.dns
    )


def lost(config: QuickConfig, network: Network) -> str | None:
    """Yields messages about what the interface has to do without."""
    if gone := [one for one in config.addresses if one not in network.addresses]:
        return (
            f"without Address {', '.join(gone)}: IPv6 needs an MTU of {IPV6_MTU}, but this is"
            f" {network.mtu}"
        )
    return None


def table_number(name: str, path: str) -> int:
    """Returns the number of a routing table, from a number or a name as `ip route` takes it."""
    try:
        number = int(name, 0)
        if 0 <= number < 1 << 32:
            return number or MAIN_TABLE
    except ValueError:
        if (known := rt_tables.numbers().get(name)) is not None:
            return known
    raise ConfigError(
        f"{path}: there is no routing table {shown(name)!r}; write its number, or name it in"
        " /etc/iproute2/rt_tables"
    )


def _is_default(prefix: str) -> bool:
    return prefix.endswith("/0")


def _stock_order(prefix: str) -> tuple[int, str]:
    """Sorts the longest prefixes first, and equal ones as `sort -nr -k 2 -t /` does."""
    return int(prefix.rpartition("/")[2]), prefix
