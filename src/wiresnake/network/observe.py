"""Reads a Linux host's network as far as it concerns one interface; creates and deletes links."""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count

from wiresnake.errors import HostError
from wiresnake.linux import rtnetlink
from wiresnake.linux.netlink import Refused, Request
from wiresnake.linux.rtnetlink import Link, RouteNetlink, pack_prefix
from wiresnake.model import Dns
from wiresnake.network import dns, firewall, journal
from wiresnake.network.model import MAIN_TABLE, Block, Guard, Network, Policy, Route, Rule
from wiresnake.network.steps import BLOCK_METRIC

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_Packed = tuple[int, bytes, int]
"""IP version, address and length."""


def read(interface: str, marks: Collection[int] = (), *, ask_dns: bool = True) -> Network | None:
    """Returns what exists and could be ours; None without such an interface.

    These are routes as `ip route add X dev IF` makes them, in any table; addresses that the kernel
    did not make itself (before Linux 5.18 this cannot be known, so its IPv6 link-local address is
    among them); rules and firewall of the tables that have such routes, and of `marks`.
    """
    with RouteNetlink() as kernel:
        link = kernel.link(interface)
        return _read(kernel, interface, link, marks, ask_dns) if link else None


def remains(interface: str, marks: Collection[int]) -> Network:
    """Returns what outlived an interface: rules and firewall of these marks, and name servers."""
    with RouteNetlink() as kernel:
        return _read(kernel, interface, None, marks, True)


def index(interface: str) -> int:
    """Returns the interface's index, which no other interface gets before the next boot; 0 if there
    is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def exists(interface: str) -> bool:
    return index(interface) != 0


def mtu(interface: str) -> int:
    """Returns the MTU, or 0 without such an interface."""
    with RouteNetlink() as kernel:
        link = kernel.link(interface)
    return link.mtu if link else 0


def create(interface: str) -> None:
    """Creates a link of the kernel's WireGuard; HostError with EOPNOTSUPP if the kernel has
    none."""
    request = rtnetlink.new_link_request(interface, "wireguard")
    _carry_out(request, f"ip link add dev {interface} type wireguard")


def delete(interface: str) -> None:
    _carry_out(rtnetlink.delete_link_request(interface), f"ip link delete dev {interface}")


def free_table(interface: str, first: int = 51820) -> int:
    """Returns an unused table for the interface's default routes: one that it left itself, or the
    first one from `first`.

    A table is in use if it has a route of either IP version, if another interface's record names
    it, or if a rule leads to a block in it, which holds back the traffic of a tunnel whose daemon
    is dead. A block without a rule is what stock wg-quick leaves of our tunnels.
    """
    record = journal.read(interface)
    own = record.marks if record else frozenset[int]()
    with RouteNetlink() as kernel:
        taken = journal.marks_of_others(interface)
        held = {rule.table for version in (4, 6) for rule in kernel.rules(version)} - own
        for table in chain(sorted(own), count(first)):
            routes = [route for version in (4, 6) for route in kernel.routes(version, table=table)]
            if (
                table not in taken
                and all(map(_is_block, routes))
                and not (routes and table in held)
            ):
                return table
    raise AssertionError("there is always a free table")


def holder(mark: int, interface: str) -> str | None:
    """Returns another interface that has gone and whose traffic a table of this number holds
    back."""
    name = journal.marks_of_others(interface).get(mark)
    if name is None or exists(name):
        return None
    policy = remains(name, (mark,)).policy
    return name if policy and policy.rules else None


def route_mtu(endpoints: Iterable[str], mark: int = 0) -> int:
    """Returns the least MTU on the way to these IP addresses (the route's or the device's), or of
    the default route, or 1500. wg-quick's guess is 80 less."""
    with RouteNetlink() as kernel:
        found = [route for address in endpoints if (route := _way(kernel, address, mark))]
        if not found:
            defaults = (
                route
                for version in (4, 6)
                for route in kernel.routes(version, table=MAIN_TABLE)
                if route.length == 0 and route.device
            )
            found = [route for route in (next(defaults, None),) if route]
        return min((_mtu(kernel, route) for route in found), default=0) or 1500


def route_device(address: str, mark: int = 0) -> str | None:
    """Returns the device through which a datagram with that mark leaves for the address; None: no
    route."""
    with RouteNetlink() as kernel:
        route = _way(kernel, address, mark)
    return socket.if_indextoname(route.device) if route and route.device else None


def routed() -> list[str]:
    """Returns the networks of all routes of this host, except default routes."""
    with RouteNetlink() as kernel:
        routes = (route for version in (4, 6) for route in kernel.routes(version))
        return [prefix for route in routes if (prefix := route.prefix)]


def routed_by(table: int = MAIN_TABLE) -> dict[str, str]:
    """Returns the networks in a routing table of this host, each with its device, except default
    routes."""
    found: dict[str, str] = {}
    with RouteNetlink() as kernel:
        for version in (4, 6):
            for route in kernel.routes(version, table=table):
                if (prefix := route.prefix) and route.device:
                    with contextlib.suppress(OSError):  # The device has gone.
                        found[prefix] = socket.if_indextoname(route.device)
    return found


def covered(prefixes: Iterable[str], addresses: Iterable[str]) -> set[str]:
    """Returns those of the prefixes that an address's connected network already covers, so that
    wg-quick adds no route (`ip route show dev IF match PREFIX`)."""
    networks = [str(ipaddress.ip_interface(address).network) for address in addresses]
    # The host route of an IPv4 address is in another table, where wg-quick does not look.
    connected = [pack_prefix(one) for one in networks if ":" in one or not one.endswith("/32")]
    if not connected:
        return set()
    return {one for one in prefixes if _is_within(pack_prefix(one), connected)}


def _is_within(prefix: _Packed, networks: Iterable[_Packed]) -> bool:
    version, address, length = prefix
    for its_version, its_address, its_length in networks:
        if its_version == version and its_length <= length:
            differ = int.from_bytes(address) ^ int.from_bytes(its_address)
            if not differ >> (8 * len(address) - its_length):
                return True
    return False


def own_rules(found: Iterable[Rule], tables: Collection[int]) -> Iterator[Rule]:
    """Returns the rules of these tables among those of all tunnels, for one IP version, each
    followed by its own copy of the main table's rule.

    Every tunnel has such a copy: the one before its other rule, without another tunnel's rule
    between them.
    """
    main: Rule | None = None
    for rule in sorted(found, key=lambda rule: rule.priority):
        if rule.table == MAIN_TABLE:
            main = rule
            continue
        if rule.table in tables:
            yield rule
            if main:
                yield main
        main = None


def _read(
    kernel: RouteNetlink, interface: str, link: Link | None, marks: Collection[int], ask_dns: bool
) -> Network:
    addresses: list[str] = []
    routes: list[Route] = []
    if link:
        for version in (4, 6):
            own = kernel.addresses(version, link.number)
            # The kernel puts each new IPv6 address before the others.
            addresses += own if version == 4 else reversed(own)
            routes += (
                Route(route.prefix or _DEFAULT[version], route.table)
                for route in kernel.routes(version, device=link.number)
                if route.is_plain(version)
            )
    tables = {*marks, *(route.table for route in routes if route.table != MAIN_TABLE)}
    rules = [
        rule for version in (4, 6) for rule in own_rules(_tunnel_rules(kernel, version), tables)
    ]
    policy = None
    if rules or marks:
        guards = [guard for version in (4, 6) if (guard := firewall.read(interface, version))]
        led = {*marks, *(rule.table for rule in rules if rule.table != MAIN_TABLE)}
        policy = _policy(rules, guards, [*_blocks(kernel, sorted(led))])
    name_servers = dns.read(interface) if ask_dns else Dns()
    mtu, up = (link.mtu, link.up) if link else (0, False)
    return Network(mtu, tuple(addresses), tuple(routes), policy, name_servers, up)


def _policy(rules: list[Rule], guards: list[Guard], blocks: list[Block]) -> Policy | None:
    if not rules and not guards and not blocks:
        return None
    versions = {rule.version for rule in rules} | {guard.version for guard in guards}
    versions |= {block.version for block in blocks}
    marks = [rule.table for rule in rules if rule.table != MAIN_TABLE]
    marks += [*(guard.mark for guard in guards), *(block.table for block in blocks)]
    return Policy(marks[0], tuple(sorted(versions)), tuple(rules), tuple(guards), tuple(blocks))


def _blocks(kernel: RouteNetlink, tables: Iterable[int]) -> Iterator[Block]:
    for version in (4, 6):
        for table in tables:
            if any(map(_is_block, kernel.routes(version, table=table))):
                yield Block(version, table)


def _is_block(route: rtnetlink.Route) -> bool:
    return route.length == 0 and route.unreachable and route.metric == BLOCK_METRIC


def _tunnel_rules(kernel: RouteNetlink, version: int) -> Iterator[Rule]:
    """Returns all tunnels' rules, in the two forms that wg-quick makes."""
    for rule in kernel.rules(version):
        if rule.inverted:
            own = rule.mark and rule.mark == rule.table
        else:
            own = not rule.mark and rule.table == MAIN_TABLE and rule.suppress == 0
        if rule.plain and own:
            yield Rule(version, rule.table, rule.priority)


def _way(kernel: RouteNetlink, address: str, mark: int) -> rtnetlink.Route | None:
    try:
        return kernel.way(address, mark)
    except Refused:
        return None


def _mtu(kernel: RouteNetlink, route: rtnetlink.Route) -> int:
    """Returns the MTU of the route or of its device."""
    device = None if route.mtu or not route.device else kernel.link(route.device)
    return device.mtu if device else route.mtu


def _carry_out(request: Request, says: str) -> None:
    with RouteNetlink() as kernel:
        for error in kernel.carry_out([request]).values():
            raise failure(says, error)


def failure(says: str, error: OSError) -> HostError:
    """Returns the HostError of a failed step, with its errno."""
    return HostError(error.errno or errno.EIO, f"{says}: {error.strerror or error}")
