"""Translates another program's routes for wg-quick: Table if that means the same, or else Table =
off and commands. The result has exactly the other program's routes."""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from wiresnake.conffile.dialects.document import Document

MARK = 51820
"""wg-quick's first mark and table for a default route."""


class Route(NamedTuple):
    """A route into the tunnel."""

    network: str
    table: str = "main"
    metric: int = 0
    """The metric; 0 is the kernel's choice, which is 1024 for IPv6."""
    source: str = ""

    @property
    def version(self) -> int:
        return ipaddress.ip_network(self.network).version


class Rule(NamedTuple):
    """The rule in the syntax of `ip rule add`."""

    version: int
    text: str


def with_routes(
    document: Document,
    routes: Iterable[Route],
    *,
    automatic: Mapping[int, str],
    rules: Collection[Rule] = (),
    off: bool = False,
) -> Document:
    """Returns the document with these routes. `automatic` has the IP versions whose default routes
    use wg-quick's method, a mark and two rules, each with the table that comes before the tunnel.
    With `off` no routes are made for AllowedIPs."""
    wanted = dict.fromkeys(
        one._replace(metric=0) if (one.version, one.metric) == (6, 1024) else one for one in routes
    )
    tables = dict.fromkeys(route.table for route in wanted)
    choices = ["off"] if off and not wanted else ["", *tables, "off"]
    plain = {version for version, table in automatic.items() if table == "main"}
    fitting = []
    for table in choices:
        made, versions = _made_by(document, table)
        if made <= wanted.keys() and versions <= plain:
            rest = [one for one in wanted if one not in made and not _connected(document, one)]
            more = {key: value for key, value in automatic.items() if key not in versions}
            fitting.append((len(rest) + len(more), table, rest, more))
    _, table, rest, more = min(fitting, key=lambda one: one[0])
    mark = document.fwmark
    if automatic:
        # Table = auto chooses this by itself.
        mark = mark or MARK if more else 0 if mark == MARK else mark
    by_rules = [Route(_default(version), str(mark)) for version in more]
    before = [rule for version, first in more.items() for rule in _defaults(version, first, mark)]
    hooks = [*_commands([*rest, *by_rules], [*before, *rules])]
    if 4 in more:  # As with wg-quick; otherwise a strict rp_filter drops the encrypted answers.
        hooks.insert(0, ("PostUp", "sysctl -q -w net.ipv4.conf.all.src_valid_mark=1"))
    return replace(document, table=table, fwmark=mark, hooks=(*document.hooks, *hooks))


def _made_by(document: Document, table: str) -> tuple[set[Route], set[int]]:
    """Returns what wg-quick makes of AllowedIPs with that Table: routes, and the IP versions of
    default routes that use rules."""
    if table == "off":
        return set(), set()
    networks = [prefix for peer in document.peers for prefix in peer.allowed_ips]
    made = {Route(network, table or "main") for network in networks}
    if table:
        return made, set()
    defaults = {route for route in made if route.network.endswith("/0")}
    made = {one for one in made - defaults if not _connected(document, one)}
    return made, {route.version for route in defaults}


def _connected(document: Document, route: Route) -> bool:
    """Returns whether an Address already brings an equivalent route."""
    network = ipaddress.ip_network(route.network)
    return route[1:] == ("main", 0, "") and any(
        network.version == one.version and network.subnet_of(one.network)  # type: ignore[arg-type]
        for one in map(ipaddress.ip_interface, document.addresses)
    )


def _default(version: int) -> str:
    return "0.0.0.0/0" if version == 4 else "::/0"


def _defaults(version: int, first: str, mark: int) -> Iterator[Rule]:
    """Yields rules as wg-quick makes them, each before the existing ones."""
    yield Rule(version, f"not fwmark {mark} table {mark}")
    yield Rule(version, f"table {first} suppress_prefixlength 0")


def _commands(routes: Iterable[Route], rules: Collection[Rule]) -> Iterator[tuple[str, str]]:
    for route in routes:
        words = [f"ip -{route.version} route add {route.network} dev %i"]
        words += [f"table {route.table}"] * (route.table != "main")
        words += [f"metric {route.metric}"] * bool(route.metric)
        words += [f"src {route.source}"] * bool(route.source)
        yield "PostUp", " ".join(words)
    for version, text in rules:
        yield "PostUp", f"ip -{version} rule add {text}"
    for version, text in rules:
        yield "PostDown", f"ip -{version} rule del {text}"
