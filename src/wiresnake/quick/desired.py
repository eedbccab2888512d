"""What a file asks of the host's network, as one value."""

import re
from collections.abc import Iterable
from glob import glob

from wiresnake.errors import ConfigError
from wiresnake.host.model import MAIN_TABLE, Network, Policy, Route
from wiresnake.quick.config import QuickConfig

_TABLE_NAMES = (
    "/usr/share/iproute2/rt_tables",
    "/usr/lib/iproute2/rt_tables",
    "/etc/iproute2/rt_tables",
    "/etc/iproute2/rt_tables.d/*.conf",
)
_KNOWN_TABLES = {"default": 253, "main": MAIN_TABLE, "local": 255}


def needs_mark(config: QuickConfig, allowed: Iterable[str]) -> bool:
    """Whether a default route goes through the tunnel by rules, so that the tunnel's own
    datagrams need a mark to go past it."""
    return config.table in ("", "auto") and any(map(_is_default, allowed))


def network(
    config: QuickConfig, allowed: Iterable[str], *, mtu: int, mark: int, path: str = ""
) -> Network:
    """The whole of it. `allowed` are all peers' networks, `mark` is the device's own."""
    prefixes = sorted(set(allowed), key=_stock_order, reverse=True)
    policy = None
    match config.table:
        case "off":
            routes = []
        case "" | "auto":
            if any(map(_is_default, prefixes)):
                versions = sorted({6 if ":" in one else 4 for one in prefixes if _is_default(one)})
                policy = Policy(mark, tuple(versions))
            reached = _Connected(config.addresses)
            routes = [
                Route(one, mark) if _is_default(one) else Route(one)
                for one in prefixes
                if _is_default(one) or not reached.covers(one)
            ]
        case name:
            table = table_number(name, path)
            routes = [Route(one, table) for one in prefixes]
    return Network(
        mtu=mtu, addresses=config.addresses, routes=tuple(routes), policy=policy, dns=config.dns
    )


def table_number(name: str, path: str) -> int:
    """A table's number from what `ip route` takes for one."""
    try:
        number = int(name, 0)
        if 0 < number < 1 << 32:
            return number
    except ValueError:
        for pattern in _TABLE_NAMES:
            for file in glob(pattern):
                with open(file, encoding="utf-8", errors="replace") as lines:
                    text = lines.read()
                if found := re.search(rf"^\s*(\w+)\s+{re.escape(name)}\s*(?:#.*)?$", text, re.M):
                    return int(found[1], 0)
        if name in _KNOWN_TABLES:
            return _KNOWN_TABLES[name]
    raise ConfigError(
        f"{path}: there is no routing table {name!r}; write its number, or name it in"
        " /etc/iproute2/rt_tables"
    )


def _is_default(prefix: str) -> bool:
    return prefix.endswith("/0")


def _stock_order(prefix: str) -> tuple[int, str]:
    """The longest first, equals as `sort -nr -k 2 -t /` leaves them."""
    return int(prefix.rpartition("/")[2]), prefix


class _Connected:
    """The networks that addresses bring along, whose routes wg-quick does not add again."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        import ipaddress

        self._parse = ipaddress.ip_network
        networks = [ipaddress.ip_interface(one).network for one in addresses]
        # The kernel makes no route in the main table for an IPv4 address alone.
        self._networks = [one for one in networks if (one.version, one.prefixlen) != (4, 32)]

    def covers(self, prefix: str) -> bool:
        if not self._networks:
            return False
        own = self._parse(prefix)
        return any(
            one.version == own.version
            and one.prefixlen <= own.prefixlen
            and own.network_address in one
            for one in self._networks
        )
