"""rtnetlink: reads and changes links, addresses, routes and rules."""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from wiresnake.linux.netlink import (
    CAP_ACK,
    EXT_ACK,
    SOL_NETLINK,
    STRICT,
    Netlink,
    Refused,
    Request,
    attribute,
    fields,
    name,
    number,
    unsigned,
)

# <linux/rtnetlink.h>; the number for deleting follows that for making.
NEW_LINK, GET_LINK = 16, 18
NEW_ADDRESS, GET_ADDRESS = 20, 22
NEW_ROUTE, GET_ROUTE = 24, 26
NEW_RULE, GET_RULE = 32, 34
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 2, 4, 5, 6, 7
_RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_MARK, _RTA_VIA, _RTA_ENCAP = 8, 9, 15, 16, 18, 22
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_RTAX_MTU = 2
_RTPROT_BOOT = 3
"""The protocol number of `ip route add` and `ip rule add`."""
_RTN_UNICAST, _RTN_UNREACHABLE = 1, 7
_UNIVERSE, _LINK_SCOPE, _NOWHERE = 0, 253, 255
FIB_MATCH = 0x2000
"""RTM_F_FIB_MATCH: the answer is the matching route, not the resulting one."""
# <linux/if_link.h>, <linux/if_addr.h>, <linux/fib_rules.h>
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 4, 18, 1
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_PROTO = 1, 2, 11
_KERNEL_MADE = (1, 2, 3)
"""IFA_PROTO of ::1, of router advertisements and of link-local addresses, from Linux 5.18."""
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN = 3, 6, 10, 14
_FRA_TABLE, _FRA_OIFNAME = 15, 17
_FR_ACT_TO_TBL, _FIB_RULE_INVERT = 1, 2

# <linux/netlink.h>: flags for making something; without them it is deleted.
DELETE, REPLACE, EXCLUSIVE, CREATE = 0, 0x100, 0x200, 0x400
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")
"""Attributes of routes and rules."""
_PLAIN_ROUTE = {_RTA_DST, _RTA_OIF, _RTA_TABLE}
_NOT_PLAIN = {_RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_VIA, _RTA_ENCAP}
_IPV6_METRIC = 1024
_ATTEMPTS = 5
_NOTHING = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""Errors for a missing table and a missing address family."""


class Group(IntEnum):
    """RTNLGRP_*: the multicast groups for everything that decides which way a datagram goes."""

    LINK = 1
    IPV4_ADDRESS = 5
    IPV4_ROUTE = 7
    IPV4_RULE = 8
    IPV6_ADDRESS = 9
    IPV6_ROUTE = 11
    IPV6_RULE = 19
    NEXT_HOP = 32


class Link(NamedTuple):
    number: int
    up: bool
    mtu: int


class Route(NamedTuple):
    """A route as the kernel reports it."""

    length: int
    tos: int
    protocol: int
    scope: int
    kind: int
    has: dict[int, memoryview]

    @property
    def prefix(self) -> str | None:
        """The prefix, such as `10.0.0.0/24`; None for a default route."""
        packed = self.has.get(_RTA_DST)
        return None if packed is None else f"{address_text(packed)}/{self.length}"

    @property
    def device(self) -> int:
        """The index of its interface; 0 if it names none."""
        return unsigned(self.has.get(_RTA_OIF, b""))

    @property
    def gateway(self) -> str:
        return address_text(self.has[_RTA_GATEWAY]) if _RTA_GATEWAY in self.has else ""

    @property
    def source(self) -> bytes:
        """The source address of datagrams on this route."""
        return bytes(self.has.get(_RTA_PREFSRC, b""))

    @property
    def table(self) -> int:
        return unsigned(self.has[_RTA_TABLE])

    @property
    def metric(self) -> int:
        return unsigned(self.has.get(_RTA_PRIORITY, b""))

    @property
    def mtu(self) -> int:
        """The route's own MTU; 0 if it has none."""
        return unsigned(fields(self.has.get(_RTA_METRICS, memoryview(b""))).get(_RTAX_MTU, b""))

    @property
    def unreachable(self) -> bool:
        return self.kind == _RTN_UNREACHABLE

    def is_plain(self, version: int) -> bool:
        """Whether `ip route add PREFIX dev IF` makes such a route."""
        if version == 6:
            plain = self.metric == _IPV6_METRIC and not self.has.keys() & _NOT_PLAIN
        else:
            plain = self.scope == _LINK_SCOPE and self.has.keys() <= _PLAIN_ROUTE
        return plain and (self.tos, self.protocol, self.kind) == (0, _RTPROT_BOOT, _RTN_UNICAST)


class Rule(NamedTuple):
    """A rule as the kernel reports it."""

    table: int
    mark: int
    priority: int
    suppress: int
    """Prefixes up to this length are ignored in the table; 0xFFFFFFFF: none."""
    inverted: bool
    plain: bool
    """Whether it applies to all packets."""


class RouteNetlink(Netlink):
    """Opens a socket on which the kernel explains refusals and filters dumps."""

    def __init__(self) -> None:
        super().__init__()
        for option in (CAP_ACK, EXT_ACK, STRICT):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def all(self, kind: int, body: bytes) -> list[memoryview]:
        """Returns all answers for the request's address family; the kernel filters by the rest of
        the request. Without IPv6 the kernel refuses, or answers for all families that it has. If
        something changed during the dump it is repeated, unless changes never stop.
        """
        found: list[memoryview] = []
        for _ in range(_ATTEMPTS):
            found, whole = self.dump(Request(kind, body), _NOTHING)
            if whole:
                break
        return [one for one in found if one[0] == body[0]]

    def link(self, interface: str | int) -> Link | None:
        """Returns a link by its name or index; None if there is none."""
        try:
            answer = self.ask(Request(GET_LINK, _which_link(interface)))
        except Refused as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        _, _, own, flags, _ = _LINK.unpack_from(answer)
        mtu = unsigned(fields(answer[_LINK.size :])[_IFLA_MTU])
        return Link(own, bool(flags & _IFF_UP), mtu)

    def addresses(self, version: int, index: int) -> list[str]:
        """Returns an interface's addresses that the kernel did not make, each with its length."""
        found = []
        for body in self.all(GET_ADDRESS, _ADDRESS.pack(FAMILIES[version], 0, 0, 0, index)):
            has = fields(body[_ADDRESS.size :])
            local, address = has.get(_IFA_LOCAL, has[_IFA_ADDRESS]), has[_IFA_ADDRESS]
            if local == address and has.get(_IFA_PROTO, b"\0")[0] not in _KERNEL_MADE:
                found.append(f"{address_text(local)}/{body[1]}")
        return found

    def routes(self, version: int, *, table: int = 0, device: int = 0) -> list[Route]:
        """Returns all routes, or those of a table, or those that lead to an interface."""
        body = _header(version)
        body += number(_RTA_TABLE, table) if table else b""
        body += number(_RTA_OIF, device) if device else b""
        return [read_route(one) for one in self.all(GET_ROUTE, body)]

    def rules(self, version: int) -> Iterator[Rule]:
        for body in self.all(GET_RULE, _header(version)):
            _, to, source, tos, table, _, _, action, flags = _ROUTE.unpack_from(body)
            has = fields(body[_ROUTE.size :])
            everything = (to, source, tos, action) == (0, 0, 0, _FR_ACT_TO_TBL)
            yield Rule(
                unsigned(has[_FRA_TABLE]) if _FRA_TABLE in has else table,
                unsigned(has.get(_FRA_FWMARK, b"")),
                unsigned(has.get(_FRA_PRIORITY, b"")),
                unsigned(has.get(_FRA_SUPPRESS_PREFIXLEN, b"\xff\xff\xff\xff")),
                bool(flags & _FIB_RULE_INVERT),
                everything and not has.keys() & {_FRA_IIFNAME, _FRA_OIFNAME},
            )

    def way(self, address: str, mark: int = 0) -> Route:
        """Returns the route of a datagram with that mark for the address; Refused if there is
        none."""
        _, packed, _ = pack_prefix(address)
        return read_route(self.ask(way_request(packed, mark=mark)))


def way_request(
    destination: bytes,
    *,
    source: bytes = b"",
    device: int = 0,
    mark: int = 0,
    udp_ports: tuple[int, int] | None = None,
    flags: int = 0,
) -> Request:
    """Returns the RTM_GETROUTE request for a datagram's route. `udp_ports` are its source and
    destination."""
    version = 4 if len(destination) == 4 else 6
    body = _header(version, 8 * len(destination), 8 * len(source), flags=flags)
    body += attribute(_RTA_DST, destination)
    body += attribute(_RTA_SRC, source) if source else b""
    body += number(_RTA_OIF, device) if device else b""
    body += number(_RTA_MARK, mark) if mark else b""
    if udp_ports is not None:
        body += attribute(_RTA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
        for kind, port in zip((_RTA_SPORT, _RTA_DPORT), udp_ports, strict=True):
            body += attribute(kind, port.to_bytes(2))
    return Request(GET_ROUTE, body)


def read_route(body: memoryview) -> Route:
    """Unpacks a body; what a short one lacks counts as zeros."""
    head = bytes(body[: _ROUTE.size]).ljust(_ROUTE.size, b"\0")
    _, length, _, tos, _, protocol, scope, kind, _ = _ROUTE.unpack(head)
    return Route(length, tos, protocol, scope, kind, fields(body[_ROUTE.size :]))


def address_request(flags: int, index: int, prefix: str) -> Request:
    """Returns the request for an address. `flags`, as in all following functions: DELETE, or how it
    is made."""
    version, packed, length = pack_prefix(prefix)
    body = _ADDRESS.pack(FAMILIES[version], length, 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return _toggle(NEW_ADDRESS, flags, body)


def route_request(flags: int, index: int, prefix: str, table: int) -> Request:
    """Returns the request of `ip route add PREFIX dev IF table TABLE`."""
    version, packed, length = pack_prefix(prefix)
    scope = _NOWHERE if not flags else _LINK_SCOPE if version == 4 else _UNIVERSE
    body = _header(version, length, 0, table, _RTPROT_BOOT, scope, _RTN_UNICAST)
    body += attribute(_RTA_DST, packed) + number(_RTA_OIF, index) + number(_RTA_TABLE, table)
    return _toggle(NEW_ROUTE, flags, body)


def unreachable_request(flags: int, version: int, table: int, metric: int) -> Request:
    """Returns the request of `ip route add unreachable default metric METRIC table TABLE`."""
    scope = _UNIVERSE if flags else _NOWHERE
    body = _header(version, 0, 0, table, _RTPROT_BOOT, scope, _RTN_UNREACHABLE)
    return _toggle(
        NEW_ROUTE, flags, body + number(_RTA_PRIORITY, metric) + number(_RTA_TABLE, table)
    )


def rule_request(
    flags: int, version: int, table: int, *, unless_mark: int | None, priority: int
) -> Request:
    """Returns the request of `ip rule add not fwmark MARK table TABLE`, or with None of `ip rule
    add table TABLE suppress_prefixlength 0`. A `priority` of 0 leaves it to the kernel."""
    invert = 0 if unless_mark is None else _FIB_RULE_INVERT
    body = _header(version, 0, 0, table, kind=_FR_ACT_TO_TBL, flags=invert)
    body += number(_FRA_TABLE, table)
    if unless_mark is None:
        body += number(_FRA_SUPPRESS_PREFIXLEN, 0)
    else:
        body += number(_FRA_FWMARK, unless_mark)
    if priority:
        body += number(_FRA_PRIORITY, priority)
    return _toggle(NEW_RULE, flags, body)


def link_request(index: int, mtu: int | None, up: bool) -> Request:
    """Sets the MTU, if one is named, and the link up or down."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _IFF_UP if up else 0, _IFF_UP)
    return Request(NEW_LINK, body + (number(_IFLA_MTU, mtu) if mtu else b""))


def new_link_request(interface: str, kind: str) -> Request:
    """Returns the request of `ip link add dev IF type KIND`."""
    body = _which_link(interface)
    body += attribute(_IFLA_LINKINFO, attribute(_IFLA_INFO_KIND, kind.encode()))
    return Request(NEW_LINK, body, CREATE | EXCLUSIVE)


def delete_link_request(interface: str | int) -> Request:
    """Returns the request that deletes a link, by its name or index."""
    return Request(NEW_LINK + 1, _which_link(interface))


def _which_link(interface: str | int) -> bytes:
    if isinstance(interface, int):
        return _LINK.pack(socket.AF_UNSPEC, 0, interface, 0, 0)
    return _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + name(_IFLA_IFNAME, interface)


def _toggle(kind: int, flags: int, body: bytes) -> Request:
    return Request(kind if flags else kind + 1, body, flags)


def _header(
    version: int,
    length: int = 0,
    source_length: int = 0,
    table: int = 0,
    protocol: int = 0,
    scope: int = 0,
    kind: int = 0,
    flags: int = 0,
) -> bytes:
    """Returns a table's number; one of more than 8 bits is only in an attribute."""
    short = table if table < 256 else 0
    family = FAMILIES[version]
    return _ROUTE.pack(family, length, source_length, 0, short, protocol, scope, kind, flags)


def pack_prefix(prefix: str) -> tuple[int, bytes, int]:
    """Returns IP version, address and length."""
    text, _, length = prefix.partition("/")
    version = 6 if ":" in text else 4
    packed = socket.inet_pton(FAMILIES[version], text)
    return version, packed, int(length) if length else 8 * len(packed)


def address_text(packed: bytes | memoryview) -> str:
    if len(packed) == 4:  # With thousands of routes, `ipaddress` would take half the time.
        return socket.inet_ntoa(packed)
    return str(ipaddress.ip_address(bytes(packed)))
