"""A Linux host's network, as far as one interface goes: reads it, creates and deletes links."""

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, count
from typing import NamedTuple

from wiresnake.errors import HostError
from wiresnake.linux import netlink, rtnetlink
from wiresnake.linux.netlink import Refused, Request, attribute, fields, number, unsigned
from wiresnake.linux.rtnetlink import FAMILIES, RouteNetlink, address_text, pack_prefix
from wiresnake.model import Dns
from wiresnake.network import dns, firewall, journal
from wiresnake.network.model import MAIN_TABLE, Block, Guard, Network, Policy, Route, Rule
from wiresnake.network.steps import BLOCK_METRIC, BOOT, UNREACHABLE

_UP = 1
_NO_LINK = struct.pack("BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
_UNICAST, _LINK_SCOPE = 1, 253
_INVERT, _TO_TABLE = 2, 1
_IPV6_METRIC = 1024
_KERNEL_MADE = (1, 2, 3)
"""IFA_PROTO of ::1, of router advertisements and of link-local addresses, from Linux 5.18."""
_PLAIN_ROUTE = {1, 4, 15}
"""Destination, device, table: all that `ip route add X dev IF` gives."""


_Packed = tuple[int, bytes, int]
"""Version, address and length."""


def read(interface: str, marks: Collection[int] = (), *, ask_dns: bool = True) -> Network | None:
    """What is there now and could be ours; None without such an interface.

    Routes as `ip route add X dev IF` makes them, in any table; addresses that the kernel did not
    make (before Linux 5.18 it does not say so: there its IPv6 link-local one is among them); rules
    and firewall of the tables that have such routes, and of `marks`.
    """
    with RouteNetlink() as kernel:
        link = _link(kernel, interface)
        return _read(kernel, interface, link, marks, ask_dns) if link else None


def remains(interface: str, marks: Collection[int]) -> Network:
    """What outlived an interface that is gone: rules and firewall of these marks, name servers."""
    with RouteNetlink() as kernel:
        return _read(kernel, interface, None, marks, True)


def index(interface: str) -> int:
    """Its number, which no other interface gets before the next boot; 0 if there is none."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def exists(interface: str) -> bool:
    return index(interface) != 0


def mtu(interface: str) -> int:
    """0 without such an interface."""
    with RouteNetlink() as kernel:
        link = _link(kernel, interface)
    return link.mtu if link else 0


def create(interface: str) -> None:
    """A link of the kernel's WireGuard; HostError with EOPNOTSUPP where the kernel has none."""
    kind = attribute(18, attribute(1, b"wireguard"))
    flags = rtnetlink.CREATE | rtnetlink.EXCLUSIVE
    request = Request(rtnetlink.NEW_LINK, _NO_LINK + netlink.name(3, interface) + kind, flags)
    _carry_out(request, f"ip link add dev {interface} type wireguard")


def delete(interface: str) -> None:
    request = Request(rtnetlink.DELETE_LINK, _NO_LINK + netlink.name(3, interface))
    _carry_out(request, f"ip link delete dev {interface}")


def free_table(interface: str, first: int = 51820) -> int:
    """A table without use for the interface's default routes: one that it left itself, else the
    first one from there.

    In use is a table with a route of either version, one that another interface's record names,
    and one with a block that a rule leads to: that holds back the traffic of a tunnel whose daemon
    is dead. A block alone is what stock wg-quick, which knows none, leaves of a tunnel of ours.
    """
    record = journal.read(interface)
    own = record.marks if record else frozenset[int]()
    with RouteNetlink() as kernel:
        taken = journal.marks_of_others(interface)
        held = {*_led_to(kernel)} - own
        for table in chain(sorted(own), count(first)):
            routes = [
                route for version in (4, 6) for route in _routes(kernel, version, number(15, table))
            ]
            if (
                table not in taken
                and all(map(_is_block, routes))
                and not (routes and table in held)
            ):
                return table
    raise AssertionError("tables do not end")


def holder(mark: int, interface: str) -> str | None:
    """Another interface, which is gone and whose traffic a table of this number holds back."""
    name = journal.marks_of_others(interface).get(mark)
    if name is None or exists(name):
        return None
    policy = remains(name, (mark,)).policy
    return name if policy and policy.rules else None


def _led_to(kernel: RouteNetlink) -> Iterator[int]:
    """The tables that any rule leads to."""
    for version in (4, 6):
        header = struct.pack("BBBBBBBBI", FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
        for body in kernel.all(rtnetlink.GET_RULE, header):
            yield unsigned(fields(body[12:]).get(15, body[4:5]))


def route_mtu(endpoints: Iterable[str], mark: int = 0) -> int:
    """The least MTU on the way to these IP addresses (the route's, else the device's), else of the
    default route, else 1500. wg-quick's guess is 80 less."""
    with RouteNetlink() as kernel:
        found = [route for address in endpoints if (route := _way(kernel, address, mark))]
        if not found:
            defaults = (
                route
                for version in (4, 6)
                for route in _routes(kernel, version, number(15, MAIN_TABLE))
                if route.length == 0 and 4 in route.has
            )
            found = [route for route in (next(defaults, None),) if route]
        return min((_mtu(kernel, route) for route in found), default=0) or 1500


def route_device(address: str, mark: int = 0) -> str | None:
    """The device that a datagram to the address, with that mark, leaves by; None: no route."""
    with RouteNetlink() as kernel:
        route = _way(kernel, address, mark)
    return socket.if_indextoname(unsigned(route.has[4])) if route and 4 in route.has else None


def routed() -> list[str]:
    """The networks that any route of this host leads to, but for default routes."""
    with RouteNetlink() as kernel:
        return [
            f"{address_text(route.has[1])}/{route.length}"
            for version in (4, 6)
            for route in _routes(kernel, version, b"")
            if 1 in route.has
        ]


def routed_by(table: int = MAIN_TABLE) -> dict[str, str]:
    """The networks that a routing table of this host leads to, each with its device, but for
    default routes."""
    found: dict[str, str] = {}
    with RouteNetlink() as kernel:
        for version in (4, 6):
            for route in _routes(kernel, version, number(15, table)):
                if 1 in route.has and 4 in route.has:
                    with contextlib.suppress(OSError):  # The device is gone since.
                        device = socket.if_indextoname(unsigned(route.has[4]))
                        found[f"{address_text(route.has[1])}/{route.length}"] = device
    return found


def covered(prefixes: Iterable[str], addresses: Iterable[str]) -> set[str]:
    """Those of the prefixes that the connected network of an address leads to already, so that
    wg-quick adds no route (`ip route show dev IF match PREFIX`)."""
    networks = [str(ipaddress.ip_interface(address).network) for address in addresses]
    # The host route of an IPv4 address stands in another table, where wg-quick does not look.
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
    """Of all tunnels' rules of one IP version those of these tables, each followed by its own copy
    of the main table's rule.

    Every tunnel has such a copy. Its own is the one that stands before its other rule, with no
    other tunnel's between them.
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


class _Link(NamedTuple):
    number: int
    up: bool
    mtu: int


class _Route(NamedTuple):
    length: int
    tos: int
    protocol: int
    scope: int
    kind: int
    has: dict[int, memoryview]


def _read(
    kernel: RouteNetlink, interface: str, link: _Link | None, marks: Collection[int], ask_dns: bool
) -> Network:
    addresses: list[str] = []
    routes: list[Route] = []
    if link:
        for version in (4, 6):
            own = _addresses(kernel, version, link.number)
            # The kernel puts each new IPv6 address before the others.
            addresses += own if version == 4 else reversed(own)
            routes += _plain_routes(kernel, version, link.number)
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
            if any(_is_block(one) for one in _routes(kernel, version, number(15, table))):
                yield Block(version, table)


def _is_block(route: "_Route") -> bool:
    metric = unsigned(route.has.get(6, b""))
    return (route.length, route.kind, metric) == (0, UNREACHABLE, BLOCK_METRIC)


def _link(kernel: RouteNetlink, interface: str) -> _Link | None:
    try:
        body = kernel.ask(Request(rtnetlink.GET_LINK, _NO_LINK + netlink.name(3, interface)))
    except Refused as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    own, flags = struct.unpack_from("iI", body, 4)
    return _Link(own, bool(flags & _UP), unsigned(fields(body[16:])[4]))


def _addresses(kernel: RouteNetlink, version: int, index: int) -> list[str]:
    header = struct.pack("BBBBI", FAMILIES[version], 0, 0, 0, index)
    found = []
    for body in kernel.all(rtnetlink.GET_ADDRESS, header):
        has = fields(body[8:])
        local, address = has.get(2, has[1]), has[1]
        made_by = has.get(11, b"\0")[0]
        if local == address and made_by not in _KERNEL_MADE:
            found.append(f"{address_text(local)}/{body[1]}")
    return found


def _routes(kernel: RouteNetlink, version: int, which: bytes) -> list[_Route]:
    header = struct.pack("BBBBBBBBI", FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
    return [_parse(body) for body in kernel.all(rtnetlink.GET_ROUTE, header + which)]


def _parse(body: memoryview) -> _Route:
    _, length, _, tos, _, protocol, scope, kind = struct.unpack_from("BBBBBBBB", body)
    return _Route(length, tos, protocol, scope, kind, fields(body[12:]))


def _plain_routes(kernel: RouteNetlink, version: int, index: int) -> Iterator[Route]:
    for route in _routes(kernel, version, number(4, index)):
        has = route.has
        plain = has.keys() <= _PLAIN_ROUTE
        if version == 6:
            metric = unsigned(has.get(6, b""))
            plain = metric == _IPV6_METRIC and not has.keys() & {5, 7, 9, 18, 22}
        elif route.scope != _LINK_SCOPE:
            plain = False
        if plain and (route.tos, route.protocol, route.kind) == (0, BOOT, _UNICAST):
            packed = has.get(1, bytes(4 if version == 4 else 16))
            yield Route(f"{address_text(packed)}/{route.length}", unsigned(has[15]))


def _tunnel_rules(kernel: RouteNetlink, version: int) -> Iterator[Rule]:
    """All tunnels' rules, in the two forms that wg-quick makes."""
    header = struct.pack("BBBBBBBBI", FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
    for body in kernel.all(rtnetlink.GET_RULE, header):
        _, to, source, tos, _, _, _, action = struct.unpack_from("BBBBBBBB", body)
        flags = unsigned(body[8:12])
        has = fields(body[12:])
        table, mark = unsigned(has.get(15, b"")), unsigned(has.get(10, b""))
        suppress = unsigned(has.get(14, b"\xff\xff\xff\xff"))
        plain = (to, source, tos, action) == (0, 0, 0, _TO_TABLE) and not has.keys() & {3, 17}
        if plain and (
            (flags & _INVERT and mark and mark == table)
            or (not flags & _INVERT and not mark and table == MAIN_TABLE and suppress == 0)
        ):
            yield Rule(version, table, unsigned(has.get(6, b"")))


def _way(kernel: RouteNetlink, address: str, mark: int) -> _Route | None:
    version, packed, length = pack_prefix(address)
    header = struct.pack("BBBBBBBBI", FAMILIES[version], length, 0, 0, 0, 0, 0, 0, 0)
    body = header + attribute(1, packed) + (number(16, mark) if mark else b"")
    try:
        return _parse(kernel.ask(Request(rtnetlink.GET_ROUTE, body)))
    except Refused:
        return None


def _mtu(kernel: RouteNetlink, route: _Route) -> int:
    """The route's own, else its device's."""
    metrics = fields(route.has.get(8, memoryview(b"")))
    if 2 in metrics:
        return unsigned(metrics[2])
    if 4 not in route.has:
        return 0
    header = struct.pack("BxHiII", socket.AF_UNSPEC, 0, unsigned(route.has[4]), 0, 0)
    body = kernel.ask(Request(rtnetlink.GET_LINK, header))
    return unsigned(fields(body[16:])[4])


def _carry_out(request: Request, says: str) -> None:
    with RouteNetlink() as kernel:
        for error in kernel.carry_out([request]).values():
            raise failure(says, error)


def failure(says: str, error: OSError) -> HostError:
    """The HostError of a step that failed, with the number."""
    return HostError(error.errno or errno.EIO, f"{says}: {error.strerror or error}")
