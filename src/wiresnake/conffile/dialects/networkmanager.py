"""NetworkManager's keyfiles, .nmconnection (nm-settings-keyfile(5))."""

import ipaddress
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from wiresnake.conffile import labels, schema
from wiresnake.conffile.dialects import ini
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer, merged
from wiresnake.conffile.dialects.ini import Entry, Section
from wiresnake.conffile.dialects.reader import Reader, details
from wiresnake.conffile.dialects.routes import Route, with_routes
from wiresnake.conffile.dialects.wg_quick import without_hooks
from wiresnake.errors import ConfigError
from wiresnake.text import unsigned

_PEER_TITLE = "wireguard-peer."
_INTERFACE = {
    "private-key": schema.PRIVATE_KEY,
    "listen-port": schema.LISTEN_PORT,
    "fwmark": schema.FWMARK,
    "mtu": schema.MTU,
}
_PEER = {
    "endpoint": schema.ENDPOINT,
    "persistent-keepalive": schema.PERSISTENT_KEEPALIVE,
    "preshared-key": schema.PRESHARED_KEY,
}
_OWN = frozenset(("id", "uuid", "type", "interface-name", "timestamp", "zone"))
"""Keys of [connection] that are read, or only concern NetworkManager."""
_DETAILS = details(
    "permissions autoconnect-priority autoconnect-retries autoconnect-slaves autoconnect-ports"
    " read-only stable-id llmnr mdns lldp metered gateway-ping-timeout ip-ping-timeout auth-retries"
    " wait-activation-delay wait-device-timeout mud-url multi-connect down-on-poweroff"
)
_DETAILS_OF_IP = details(
    "dns-options dad-timeout link-local required-timeout token auto-route-ext-gw"
    " temp-valid-lifetime temp-preferred-lifetime"
)
"""Keys for automatic addresses do not concern tunnels."""
_AUTOMATIC = ("dhcp-", "ra-")
"""The prefix of keys for automatic addresses, also of future ones."""
_SILENT = frozenset(
    ("ignore-auto-dns", "ignore-auto-routes", "may-fail", "addr-gen-mode", "ip6-privacy")
)
"""Details that are not reported, because every file has some."""
_SECTIONS = frozenset(("proxy", "user", "match", "hostname", "802-1x"))
"""Empty values, without meaning for the tunnel."""


def write(document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """Returns the file by its name."""
    bare, left = without_hooks(document, "NetworkManager runs no commands of a connection")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", "NetworkManager keeps connections itself"))
    table = document.table.lower()
    if table not in ("", "off", "main", "254") and not table.isdecimal():
        left.append(LeftOut(0, "Table", "NetworkManager only knows tables by number"))
        bare = replace(bare, table="")
    versions = {_version(address) for address in document.addresses}
    if {_version(server) for server in document.dns} - versions or (
        document.search and not versions
    ):
        why = "NetworkManager asks servers only over an IP version that has an Address"
        left.append(LeftOut(0, "DNS", why))
        kept = tuple(server for server in bare.dns if _version(server) in versions)
        bare = replace(bare, dns=kept, search=bare.search if versions else ())
    return {f"{name}.nmconnection": "\n".join([*_lines(bare, name), ""])}, left


def _lines(document: Document, name: str) -> Iterator[str]:
    yield from ("[connection]", f"id={name}", "type=wireguard", f"interface-name={name}")
    yield from ("autoconnect=false", "", "[wireguard]")
    yield from ini.written(_INTERFACE, document)
    if document.table.lower() == "off":
        yield "peer-routes=false"
    if document.table and document.default:
        yield from ("ip4-auto-default-route=0", "ip6-auto-default-route=0")
    for peer in document.peers:
        yield from ("", f"[{_PEER_TITLE}{peer.public_key}]")
        if peer.name:
            yield labels.comment(peer.name)
        yield from ini.written(_PEER, peer)
        if peer.preshared_key:
            yield "preshared-key-flags=0"
        if peer.allowed_ips:
            yield f"allowed-ips={';'.join(peer.allowed_ips)};"
    for version in (4, 6):
        yield from ("", f"[ipv{version}]")
        yield from _ip(document, version)


def _ip(document: Document, version: int) -> Iterator[str]:
    addresses = [one for one in document.addresses if _version(one) == version]
    networks = (one for peer in document.peers for one in peer.allowed_ips)
    # Without IPv6 on the interface, IPv6 would bypass the tunnel.
    empty = "link-local" if version == 6 and any(":" in one for one in networks) else "disabled"
    yield f"method={'manual' if addresses else empty}"
    yield from (f"address{number}={one}" for number, one in enumerate(addresses, 1))
    table = {"main": "254"}.get(document.table.lower(), document.table)
    if table.isdecimal():
        yield f"route-table={table}"
    if not addresses:
        return
    servers = [one for one in document.dns if _version(one) == version]
    if servers:
        # As with wg-quick, only these servers while the tunnel is up.
        yield from (f"dns={';'.join(servers)};", "dns-priority=-50")
    if document.search:
        yield f"dns-search={';'.join(document.search)};"


def _version(address: str) -> int:
    try:
        return ipaddress.ip_interface(address).version
    except ValueError:  # wg-quick would still take such an item for a name server.
        raise ConfigError(f"DNS '{address}' is not an IP address") from None


def read(name: str, text: str) -> tuple[Document, str, list[tuple[str, LeftOut]]]:
    """Returns the document, the interface's name, and what was left out; ConfigError with
    `name`:line:column."""
    reader = _Reader(name)
    for section in ini.read(text, name):
        reader.feed(section)
    if not reader.wireguard:
        raise ConfigError(f"{name}:1:1: not type=wireguard; give the file of a tunnel")
    return reader.finish(), reader.name, reader.left


@dataclass
class _Family:
    """The routes of [ipv4] or [ipv6]."""

    table: str = "main"
    metric: int = 0
    never_default: bool = False
    auto_default: bool | None = None
    off: bool = False
    gateways: list[Entry] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)


@dataclass
class _Reader(Reader):
    wireguard: bool = False
    peers: list[Peer] = field(default_factory=list)
    families: dict[int, _Family] = field(default_factory=lambda: {4: _Family(), 6: _Family()})
    peer_routes: bool = True
    exclusive: bool = False
    """Whether the servers are for all names."""
    asked: Entry | None = None
    """The first line with servers."""
    mtu: Entry | None = None
    """IPv6's own."""

    def feed(self, section: Section) -> None:
        if section.title == "connection":
            self._connection(section)
        elif section.title == "wireguard":
            self._wireguard(section)
        elif section.title.startswith(_PEER_TITLE):
            self._peer(section)
        elif section.title in ("ipv4", "ipv6"):
            for entry in section.entries:
                self._ip(entry, int(section.title[-1]))
        elif section.entries:
            say = self.leave if section.title in _SECTIONS else self.refuse
            say(section.header, "not a section of a WireGuard connection")

    def _connection(self, section: Section) -> None:
        self.wireguard = section.last("type") == "wireguard"
        self.name = section.last("interface-name") or section.last("id")
        for entry in section.entries:
            if entry.key == "autoconnect":
                if entry.value != "false":
                    self.leave(entry, "systemctl enable wiresnake@NAME starts it at boot")
            elif entry.key not in _OWN:
                self.other(entry, _DETAILS)
        if zone := section.last("zone"):
            # NetworkManager sets the zone only if firewalld runs.
            command = "! firewall-cmd -q --state || firewall-cmd -q --zone={} --{}-interface=%i"
            zone = shlex.quote(zone)
            self.hook(command.format(zone, "change"))
            self.hook(command.format(zone, "remove"), schema.POST_DOWN.name)

    def _wireguard(self, section: Section) -> None:
        if not section.last("private-key"):
            why = "the private key is kept outside the file; write it into the file"
            self.refuse(section.entry("private-key"), why)
        for entry in section.entries:
            match entry.key:
                case name if name in _INTERFACE:
                    self.document = self.changed(self.document, _INTERFACE[name], entry)
                case "peer-routes":
                    self.peer_routes = not _false(entry.value)
                case "private-key-flags":
                    pass
                case "ip4-auto-default-route" | "ip6-auto-default-route":
                    wanted = {"0": False, "false": False, "1": True, "true": True}.get(entry.value)
                    self.families[int(entry.key[2])].auto_default = wanted
                case _:
                    self.refuse(entry)

    def _peer(self, section: Section) -> None:
        public = section.title.removeprefix(_PEER_TITLE)
        peer = Peer(self.value(schema.PUBLIC_KEY, section.header, public), section.name)
        for entry in section.entries:
            match entry.key:
                case name if name in _PEER:
                    peer = self.changed(peer, _PEER[name], entry)
                case "preshared-key-flags":
                    # 4 means that none is needed.
                    if entry.value not in ("0", "4") and not section.last("preshared-key"):
                        why = "the preshared key is kept outside the file; write it into the file"
                        self.refuse(entry, why)
                case "allowed-ips":
                    networks = _list(entry.value)
                    found = [self.value(schema.ALLOWED_IPS, entry, one) for one in networks]
                    peer = replace(peer, allowed_ips=tuple(found))
                case _:
                    self.refuse(entry)
        self.peers.append(peer)

    def _ip(self, entry: Entry, version: int) -> None:
        _, key, value = entry
        family = self.families[version]
        if _numbered(key, "address"):
            text, comma, _ = value.partition(",")
            if comma:
                family.gateways.append(entry)
            self.add(schema.ADDRESS, self.value(schema.ADDRESS, entry, text.strip()))
        elif _numbered(key, "route"):
            self._route(entry, family)
        elif key == "gateway":
            family.gateways.append(entry)
        elif key == "dns":
            self.asked = self.asked or entry
            for server in _list(value):
                self.add_server(entry, server)
        elif key == "dns-search":
            family.domains += _list(value)
        elif key == "dns-priority":
            self.exclusive |= value.startswith("-")
        elif key == "route-table":
            if value.isascii() and value.isdecimal():
                table = self.value(schema.TABLE, entry)
                family.table = "main" if table in ("0", "254") else table
            else:
                self.refuse(entry, "not a table's number; write one")
        elif key == "route-metric":
            try:
                family.metric = family.metric if value == "-1" else unsigned(value, 32)
            except ValueError:
                self.refuse(entry, "not a number; write one")
        elif key == "never-default":
            family.never_default = not _false(value)
        elif key == "method":
            self._method(entry, family, version)
        elif key == "mtu" and version == 6:
            self.mtu = entry
        elif key.startswith(_AUTOMATIC):
            self.leave(entry)
        elif key not in _SILENT:
            self.other(entry, _DETAILS_OF_IP)

    def _method(self, entry: Entry, family: _Family, version: int) -> None:
        if entry.value in ("shared", "link-local") and (entry.value, version) != ("link-local", 6):
            self.refuse(entry, "wg-quick has static addresses only; write method=manual")
        elif entry.value not in ("manual", "disabled", "ignore", "link-local"):
            self.leave(entry, f"a tunnel has no {entry.value} addresses")
        # NetworkManager then removes IPv6 from the interface.
        family.off = version == 6 and entry.value == "disabled"

    def _route(self, entry: Entry, family: _Family) -> None:
        """Reads `network[,gateway[,metric]]`; packets for a tunnel need no gateway."""
        network, *rest = (part.strip() for part in entry.value.split(","))
        metric = rest[1] if len(rest) > 1 else ""
        try:
            route = str(ipaddress.ip_network(network, strict=False))
        except ValueError:
            route = ""
        if not route or (metric and not (metric.isascii() and metric.isdecimal())):
            self.refuse(entry, "not a route to a network; write network,gateway,metric")
            return
        self.routes.append(Route(route, metric=int(metric or family.metric)))

    def finish(self) -> Document:
        document = self.document = replace(self.document, peers=merged(self.peers))
        if self.mtu and self.mtu.value not in ("", "0", "auto", str(document.mtu)):
            self.refuse(self.mtu, "wg-quick has one MTU for both; write mtu= of [wireguard] alone")
        automatic: dict[int, str] = {}
        routes = []
        for route in self.routes:
            family = self.families[route.version]
            if not family.off and not (family.never_default and route.network.endswith("/0")):
                routes.append(route._replace(table=family.table))
        for peer in document.peers if self.peer_routes else ():
            for network in peer.allowed_ips:
                version = 6 if ":" in network else 4
                family = self.families[version]
                default = network.endswith("/0")
                if family.off or (default and family.never_default):
                    continue
                if default and family.auto_default is not False:
                    automatic[version] = family.table
                else:
                    routes.append(Route(network, family.table, family.metric))
        for version, family in self.families.items():
            led = version in automatic or any(one.network.endswith("/0") for one in routes)
            for entry in family.gateways:
                if family.never_default or led:
                    self.leave(entry, "a gateway, which tunnels do not have; the address was taken")
                else:
                    why = "a gateway makes a default route; remove it, or set never-default=true"
                    self.refuse(entry, why)
        self._split_dns(automatic)
        return with_routes(self.document, routes, automatic=automatic, off=not self.peer_routes)

    def _split_dns(self, automatic: Collection[int]) -> None:
        document = self.document
        domains = list(
            dict.fromkeys(one for each in self.families.values() for one in each.domains)
        )
        whole = self.exclusive or {"~", "~."} & set(domains)
        only = [one for one in domains if one.startswith("~") and one not in ("~", "~.")]
        if whole or not only or not document.dns:
            search = (one for one in domains if not one.startswith("~"))
            self.document = replace(document, search=tuple(search))
            if document.dns and self.asked and not (whole or automatic):
                why = (
                    "in addition to other servers; these servers were taken, and are the only"
                    " ones here"
                )
                self.leave(self.asked, why)
            return
        self.ask_for_some(domains, only=not automatic)


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.replace(",", ";").split(";") if part.strip()]


def _numbered(key: str, word: str) -> bool:
    """Matches `address1`; older versions also write `addresses1`."""
    return re.fullmatch(f"{word}(s|es)?[0-9]+", key) is not None


def _false(value: str) -> bool:
    return value.lower() in ("false", "0", "no", "off")
