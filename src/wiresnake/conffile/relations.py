"""Checks of several lines of a wg-quick file together: peers that take each other's addresses, a
tunnel that runs into itself. All of this is accepted and silently does something other than
intended."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from wiresnake._native import PrivateKey
from wiresnake.conffile import schema, values
from wiresnake.conffile.lines import NO_LINE, Line, squeeze
from wiresnake.conffile.schema import Key
from wiresnake.conffile.values import Problem
from wiresnake.conffile.wg import public_key
from wiresnake.model import Prefix

T = TypeVar("T")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Place(NamedTuple):
    line: int
    column: int


@dataclass
class Section:
    """All [Interface] sections together, or one [Peer]."""

    header: Line
    lines: dict[Key | None, list[Line]] = field(default_factory=dict)
    """All lines by key, including unknown keys."""

    def last(self, key: Key) -> Line | None:
        found = self.lines.get(key)
        return found[-1] if found else None

    def value(self, key: Key) -> str:
        """Returns the value that counts, without whitespace; empty if there is none."""
        last = self.last(key)
        return squeeze(last.value) if last else ""

    def each(self, key: Key, read: Callable[[str], T]) -> Iterator[tuple[T, Place]]:
        """The items of all lines of a key, as they are read; what cannot be read is an error of its
        own."""
        for line in self.lines.get(key, ()):
            for item, column in items(line):
                try:
                    found = read(item)
                except ValueError:
                    continue
                yield found, Place(line.number, column)


Found = Iterator[tuple[Place, Problem]]


def problems(interface: Section | None, peers: list[Section], comments: bool) -> Found:
    """Checks the whole file; `comments` says whether it has some that `save` drops."""
    allowed = list(_allowed(peers))
    if interface is None:
        place = _place(peers[0].header) if peers else Place(1, 1)
        yield place, _warning("no [Interface] with a PrivateKey", _NEW_KEY)
        interface = Section(NO_LINE)
    else:
        yield from _of_interface(interface, comments)
        yield from _of_routes(interface, allowed)
    yield from _of_keys(interface, peers)
    for peer in peers:
        yield from _of_peer(peer)
    yield from _of_owners(interface, allowed)
    yield from _of_nets(allowed)
    yield from _of_loops(interface, peers, allowed)
    yield from _of_halves(interface, allowed)


def on_host(
    interface: Section | None, peers: list[Section], name: str, routed: Mapping[str, str]
) -> Found:
    """Finds conflicts with this host: its routes, and the interface's name."""
    table = interface.value(schema.TABLE).lower() if interface else ""
    if table not in ("", "auto", "main", "254"):
        return
    own = set(_connected(interface)) if interface else set()
    for one in _allowed(peers):
        device = routed.get(one.network)
        if one.prefix.length and device not in (None, name) and one.prefix not in own:
            reason = (
                f"{one.network} is already reached through {device} on this host, not through"
                " this tunnel"
            )
            remedy = "remove it, or write its two halves to send all of it into the tunnel"
            yield one.place, _warning(f"{reason}: `up` may fail", remedy)
    defaults = [one for one in _allowed(peers) if not one.prefix.length]
    if defaults and table in ("", "auto") and not re.fullmatch("[a-zA-Z0-9_.-]*", name):
        reason = f"nft cannot name a table after '{name}', which a default route needs: `up` fails"
        yield defaults[0].place, _warning(reason, "name the interface with letters and digits only")


def items(line: Line) -> Iterator[tuple[str, int]]:
    """Yields the items of a list with their columns, or any other value as a whole. Empty items of
    AllowedIPs count, because they are mistakes."""
    kind = line.known.kind if line.known else None
    if kind == "networks":
        at = line.value_column
        for part in line.value.split(","):
            yield squeeze(part), at + len(part) - len(part.lstrip())
            at += len(part) + 1
    elif kind in ("addresses", "dns"):
        for match in re.finditer(r"[^\s,]+", line.value):
            yield match[0], line.value_column + match.start()
    elif line.known and line.known.quick:
        yield line.value, line.value_column
    else:
        yield squeeze(line.value), line.value_column


_NEW_KEY = "add one: `wiresnake genkey` makes a key"


class _Allowed(NamedTuple):
    prefix: Prefix
    place: Place
    peer: Section

    @property
    def network(self) -> str:
        return f"{ipaddress.ip_address(self.prefix.address)}/{self.prefix.length}"


def _allowed(peers: list[Section]) -> Iterator[_Allowed]:
    for peer in peers:
        for network, place in peer.each(schema.ALLOWED_IPS, _network):
            yield _Allowed(network, place, peer)


def _network(item: str) -> Prefix:
    return Prefix.parse(item.removeprefix("+"))


def _place(line: Line) -> Place:
    return Place(line.number, line.key_column)


def _warning(reason: str, remedy: str) -> Problem:
    return Problem("warning", reason, remedy)


def _of_interface(interface: Section, comments: bool) -> Found:
    if schema.PRIVATE_KEY not in interface.lines and not interface.lines.keys() & {
        schema.PRE_UP,
        schema.POST_UP,
    }:
        yield _place(interface.header), _warning("no PrivateKey", _NEW_KEY)
    dns = interface.last(schema.DNS)
    servers = any(found for found, _ in interface.each(schema.DNS, values.is_server))
    if dns and dns.value and not servers:
        reason = "DNS has search domains but no server, so it does nothing"
        yield _place(dns), _warning(reason, "add a server's address")
    save = interface.last(schema.SAVE_CONFIG)
    if save and save.value.lower() == "true" and comments:
        reason = (
            "SaveConfig removes all comments when the interface goes down, except names of peers"
        )
        reason += " and what `new` remembers"
        yield _place(save), _warning(reason, "write SaveConfig = false, or remove other comments")
    mtu = interface.last(schema.MTU)
    six = any(":" in line.value for line in interface.lines.get(schema.ADDRESS, ()))
    if mtu and mtu.value.isdecimal() and 576 <= int(mtu.value) < 1280 and six:
        reason = (
            f"MTU {mtu.value} is below 1280, the minimum for IPv6, whose addresses will not work"
        )
        yield _place(mtu), _warning(reason, "write 1280 or more")


def _of_routes(interface: Section, allowed: list[_Allowed]) -> Found:
    table = interface.last(schema.TABLE)
    if table is None or table.value.lower() != "off":
        return
    if interface.lines.keys() & {schema.PRE_UP, schema.POST_UP}:
        return
    if any(not one.prefix.length for one in allowed):
        reason = "Table = off: no route leads into the tunnel, not even a default route"
        yield _place(table), _warning(reason, "remove it, or add routes in PostUp")


def _of_keys(interface: Section, peers: list[Section]) -> Found:
    private = interface.value(schema.PRIVATE_KEY)
    own = _own_public(private)
    known: dict[bytes, int] = {}
    for peer in peers:
        line = peer.last(schema.PUBLIC_KEY)
        try:
            public = public_key(peer.value(schema.PUBLIC_KEY))
        except ValueError:
            continue
        assert line is not None
        if public == own:
            reason = "this PublicKey is the interface's own: the peer is silently ignored"
            yield _place(line), _warning(reason, "write the other end's public key")
        if peer.value(schema.PUBLIC_KEY) == private:
            reason = "PublicKey is the same as PrivateKey"
            yield _place(line), _warning(reason, "write the other end's: wg pubkey derives it")
        if public in known:
            reason = (
                f"the peer of line {known[public]} again: only the AllowedIPs of this section count"
            )
            yield _place(line), _warning(reason, "merge the two into one [Peer]")
        known[public] = line.number


def _own_public(private: str) -> bytes | None:
    try:
        key = PrivateKey.from_base64(private.encode())
    except ValueError:
        return None
    return key.public if key else None


def _of_peer(peer: Section) -> Found:
    if schema.PUBLIC_KEY not in peer.lines:
        problem = Problem("error", "this [Peer] has no PublicKey", "add the other end's")
        yield _place(peer.header), problem
    if schema.ALLOWED_IPS not in peer.lines:
        reason = "this [Peer] has no AllowedIPs, so nothing is sent to it or accepted from it"
        yield _place(peer.header), _warning(reason, "add its addresses")
    keepalive = peer.last(schema.PERSISTENT_KEEPALIVE)
    if (
        keepalive
        and schema.ENDPOINT not in peer.lines
        and keepalive.value.lower() not in ("off", "0")
    ):
        reason = (
            "PersistentKeepalive without Endpoint only starts once the peer has contacted this host"
        )
        remedy = "remove it, or add an Endpoint; it belongs to the end behind the NAT"
        yield _place(keepalive), _warning(reason, remedy)


def _of_owners(interface: Section, allowed: list[_Allowed]) -> Found:
    addresses = {host for host, _ in interface.each(schema.ADDRESS, _host)}
    owners: dict[Prefix, _Allowed] = {}
    for one in allowed:
        before = owners.get(one.prefix)
        # A repeated peer is reported elsewhere.
        if before and before.peer.value(schema.PUBLIC_KEY) != one.peer.value(schema.PUBLIC_KEY):
            reason = (
                f"line {before.place.line} has {one.network} too, and the last peer silently gets"
                " it"
            )
            yield one.place, _warning(reason, "give each network to one peer")
        owners[one.prefix] = one
        if one.prefix in addresses:
            reason = f"{one.network} is the interface's own Address: nothing goes to this peer"
            yield one.place, _warning(reason, "write the peer's address")


def _of_nets(allowed: list[_Allowed]) -> Found:
    """Finds networks within another peer's network, which is correct: the longer prefix decides."""
    owners = {one.prefix: one for one in allowed}
    lengths = sorted({(len(one.address), one.length) for one in owners}, reverse=True)
    for one in allowed:
        address, length = one.prefix
        for size, shorter in lengths:
            if size != len(address) or shorter >= length:
                continue
            outer = owners.get(_cut(address, shorter))
            if outer and outer.peer is not one.peer:
                reason = (
                    f"{one.network} lies within {outer.network} of line {outer.place.line}:"
                    " its packets go to this peer"
                )
                yield one.place, Problem("note", reason, "nothing to do if that is intended")
                break


def _cut(address: bytes, length: int) -> Prefix:
    rest = 8 * len(address) - length
    return Prefix((int.from_bytes(address) >> rest << rest).to_bytes(len(address)), length)


def _host(item: str) -> Prefix:
    return Prefix.parse(item.partition("/")[0])


def _of_halves(interface: Section, allowed: list[_Allowed]) -> Found:
    """Finds full tunnels in halves: their routes are in the main table and disappear with the
    interface."""
    if interface.value(schema.TABLE).lower() not in ("", "auto"):
        return
    there = {one.network: one for one in allowed}
    for halves in ("0.0.0.0/1", "128.0.0.0/1"), ("::/1", "8000::/1"):
        whole = halves[0].replace("/1", "/0")
        if there.keys() >= {*halves} and whole not in there:
            reason = f"{' and '.join(halves)} go around the tunnel while its daemon is dead"
            remedy = f"{whole} instead keeps it shut"
            yield there[halves[0]].place, Problem("note", reason, remedy)


def _of_loops(interface: Section, peers: list[Section], allowed: list[_Allowed]) -> Found:
    """Finds endpoints inside the tunnel. wg-quick keeps the encrypted datagrams out of a default
    route only; any other route catches them, and so does the network of an Address."""
    routes = dict.fromkeys(_connected(interface), "the network of Address")
    if interface.value(schema.TABLE).lower() in ("", "auto"):
        routes |= {one.prefix: one.network for one in allowed if one.prefix.length}
    lengths = {prefix.length for prefix in routes}
    for peer in peers:
        line = peer.last(schema.ENDPOINT)
        host = _numeric_endpoint(peer.value(schema.ENDPOINT))
        if line is None or host is None:
            continue
        around = (Prefix.parse(f"{host}/{n}") for n in lengths if n <= (128 if ":" in host else 32))
        network = next((routes[prefix] for prefix in around if prefix in routes), None)
        if network:
            reason = f"Endpoint is inside {network}, whose route leads into the tunnel itself"
            remedy = "the endpoint must be an address outside the tunnel"
            yield Place(line.number, line.value_column), _warning(reason, remedy)


def _connected(interface: Section) -> Iterator[Prefix]:
    return (prefix for prefix, _ in interface.each(schema.ADDRESS, Prefix.parse))


def _numeric_endpoint(text: str) -> str | None:
    try:
        host, _ = values.endpoint(text)
    except ValueError:
        return None
    return values.numeric_host(host) if "%" not in host else None
