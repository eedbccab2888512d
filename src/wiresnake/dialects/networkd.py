"""systemd-networkd: a .netdev file with keys and peers, and a .network file with addresses, DNS
and the rules that wg-quick makes for a default route (systemd.netdev(5), systemd.network(5))."""

import ipaddress
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from wiresnake.dialects import ini
from wiresnake.dialects.document import Document, LeftOut, Peer, canonical, merged
from wiresnake.dialects.ini import Section
from wiresnake.dialects.wg_quick import without_hooks
from wiresnake.errors import ConfigError

_MARK = 51820
"""wg-quick's first mark and table for a default route."""
_OFF = frozenset(("", "off", "no", "false", "n", "f", "0"))


def write(document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """The two files by their names."""
    bare, left = without_hooks(document, "networkd runs no commands")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", "networkd never writes its files"))
    files = {f"{name}.netdev": _netdev(bare, name), f"{name}.network": _network(bare, name)}
    return {file: "\n".join([*text, ""]) for file, text in files.items()}, left


def _mark(document: Document) -> int:
    """As wg-quick, which keeps the encrypted datagrams out of a default route by a mark."""
    automatic = document.default and not document.table
    return document.fwmark or (_MARK if automatic else 0)


def _netdev(document: Document, name: str) -> Iterator[str]:
    yield from ("[NetDev]", f"Name={name}", "Kind=wireguard")
    if document.mtu:
        yield f"MTUBytes={document.mtu}"
    yield from ("", "[WireGuard]")
    if document.private_key:
        yield f"PrivateKey={document.private_key}"
    if document.listen_port:
        yield f"ListenPort={document.listen_port}"
    if mark := _mark(document):
        yield f"FirewallMark={mark}"
    if document.table.lower() != "off":
        yield f"RouteTable={document.table or 'main'}"
    for peer in document.peers:
        yield from ("", "[WireGuardPeer]")
        if peer.name:
            yield f"# friendly_name = {peer.name}"
        yield f"PublicKey={peer.public_key}"
        if peer.preshared_key:
            yield f"PresharedKey={peer.preshared_key}"
        if peer.allowed_ips:
            yield f"AllowedIPs={','.join(peer.allowed_ips)}"
        if peer.endpoint:
            yield f"Endpoint={peer.endpoint}"
        if peer.keepalive:
            yield f"PersistentKeepalive={peer.keepalive}"
        if peer.default and not document.table:
            yield f"RouteTable={_mark(document)}"


def _network(document: Document, name: str) -> Iterator[str]:
    yield from ("[Match]", f"Name={name}", "", "[Network]")
    yield from (f"Address={address}" for address in document.addresses)
    yield from (f"DNS={server}" for server in document.dns)
    # As wg-quick's: all names go to these servers while the tunnel is up.
    if domains := (*(("~.",) if document.dns else ()), *document.search):
        yield f"Domains={' '.join(domains)}"
    if document.default and not document.table:
        prefixes = [prefix for peer in document.peers for prefix in peer.allowed_ips]
        versions = {4 if "." in prefix else 6 for prefix in prefixes if prefix.endswith("/0")}
        family = {(4,): "ipv4", (6,): "ipv6", (4, 6): "both"}[tuple(sorted(versions))]
        mark = _mark(document)
        yield from ("", "[RoutingPolicyRule]", f"Family={family}", "Table=main")
        yield from ("SuppressPrefixLength=0", "Priority=32764")
        yield from ("", "[RoutingPolicyRule]", f"Family={family}", f"FirewallMark={mark}")
        yield from ("InvertRule=yes", f"Table={mark}", "Priority=32765")


def read(
    netdev: tuple[str, str], network: tuple[str, str] | None
) -> tuple[Document, str, list[tuple[str, LeftOut]]]:
    """From the names and texts of both files: what they say, the interface's name, and what was
    left out of which file. ConfigError with name:line:column."""
    reader = _Reader(netdev[0])
    sections = ini.read(netdev[1], netdev[0])
    for section in sections:
        reader.netdev(section)
    if not reader.kind:
        raise ConfigError(f"{netdev[0]}:1:1: not Kind=wireguard; give the .netdev file of a tunnel")
    if network is None:
        reader.leave(1, "Address", "no .network file was given: it has addresses and DNS")
    else:
        reader.file = network[0]
        rules = []
        for section in ini.read(network[1], network[0]):
            if section.title == "RoutingPolicyRule":
                rules.append(section)
            else:
                reader.network(section)
        reader.judge_rules(rules)
    return reader.finish(), reader.name, reader.left


@dataclass
class _Reader:
    file: str
    name: str = ""
    kind: bool = False
    document: Document = field(default_factory=Document)
    peers: list[tuple[Peer, str]] = field(default_factory=list)
    """Each with its RouteTable."""
    table: str = ""
    routes: set[str] = field(default_factory=set)
    """The tables of [Route]s."""
    automatic: bool = False
    left: list[tuple[str, LeftOut]] = field(default_factory=list)

    def leave(self, line: int, key: str, why: str) -> None:
        self.left.append((self.file, LeftOut(line, key, why)))

    def _canonical(self, name: str, line: int, value: str) -> str:
        try:
            return canonical(name, value)
        except ConfigError as error:
            raise ConfigError(f"{self.file}:{line}:1: {error}") from None

    def netdev(self, section: Section) -> None:
        match section.title:
            case "NetDev":
                self._net_dev(section)
            case "WireGuard":
                self._wire_guard(section)
            case "WireGuardPeer":
                self._peer(section)
            case _:
                self.leave(section.line, f"[{section.title}]", "no section of a WireGuard device")

    def _net_dev(self, section: Section) -> None:
        for line, key, value in section.entries:
            match key:
                case "Name":
                    self.name = value
                case "Kind":
                    self.kind = value == "wireguard"
                case "MTUBytes":
                    self._mtu(line, value)
                case _:
                    self.leave(line, key, "wg-quick has nothing like it")

    def _mtu(self, line: int, value: str) -> None:
        self.document = replace(self.document, mtu=int(self._canonical("mtu", line, value)))

    def _wire_guard(self, section: Section) -> None:
        for line, key, value in section.entries:
            match key:
                case "PrivateKey":
                    key_text = self._canonical("privatekey", line, value)
                    self.document = replace(self.document, private_key=key_text)
                case "PrivateKeyFile":
                    self._hook(f"wg set %i private-key {shlex.quote(value)}")
                case "ListenPort" if value == "auto":
                    self.leave(line, key, "derived from the name by networkd; here it is random")
                case "ListenPort":
                    port = int(self._canonical("listenport", line, value))
                    self.document = replace(self.document, listen_port=port)
                case "FirewallMark" | "FwMark":
                    mark = int(self._canonical("fwmark", line, value))
                    self.document = replace(self.document, fwmark=mark)
                case "RouteTable":
                    self.table = value.lower()
                case _:
                    self.leave(line, key, "wg-quick has nothing like it")

    def _hook(self, command: str) -> None:
        hooks = (*self.document.hooks, ("PostUp", command))
        self.document = replace(self.document, hooks=hooks)

    def _peer(self, section: Section) -> None:
        peer = Peer("", section.name)
        allowed: list[str] = []
        psk_file = ""
        for line, key, value in section.entries:
            match key:
                case "PublicKey":
                    peer = replace(peer, public_key=self._canonical("publickey", line, value))
                case "PresharedKey":
                    psk = self._canonical("presharedkey", line, value)
                    peer = replace(peer, preshared_key=psk)
                case "PresharedKeyFile":
                    psk_file = value
                case "AllowedIPs" if not value:
                    allowed.clear()  # systemd's way to begin a list anew.
                case "AllowedIPs":
                    parts = (part.strip() for part in value.split(","))
                    allowed += [self._canonical("allowedips", line, part) for part in parts]
                case "Endpoint":
                    peer = replace(peer, endpoint=self._canonical("endpoint", line, value))
                case "PersistentKeepalive":
                    seconds = int(self._canonical("persistentkeepalive", line, value))
                    peer = replace(peer, keepalive=seconds)
                case "RouteTable":
                    pass
                case _:
                    self.leave(line, key, "wg-quick has nothing like it")
        if not peer.public_key:
            what = "this [WireGuardPeer] has no PublicKey, which wg-quick needs in the file; add it"
            raise ConfigError(f"{self.file}:{section.line}:1: {what}")
        if psk_file:
            self._hook(f"wg set %i peer {peer.public_key} preshared-key {shlex.quote(psk_file)}")
        table = section.last("RouteTable").lower()
        self.peers.append((replace(peer, allowed_ips=tuple(allowed)), table))

    def network(self, section: Section) -> None:
        for line, key, value in section.entries:
            match section.title, key:
                case (("Network" | "Address"), "Address"):
                    address = self._canonical("address", line, value)
                    addresses = (*self.document.addresses, address)
                    self.document = replace(self.document, addresses=addresses)
                case "Network", "DNS":
                    for server in value.split():
                        self._dns(line, server)
                case "Network", "Domains":
                    for domain in value.split():
                        self._domain(line, domain)
                case "Link", "MTUBytes":
                    self._mtu(line, value)
                case "Match", "Name":
                    if value != self.name:
                        why = f"the .netdev file's is {self.name}: does this file belong to it?"
                        self.leave(line, key, why)
                case "Route", ("Destination" | "Table"):
                    pass
                case _:
                    self.leave(line, key, f"wg-quick has nothing like it in [{section.title}]")
        if section.title == "Route":
            self._route(section)

    def _dns(self, line: int, server: str) -> None:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            self.leave(line, "DNS", "wg-quick knows servers by their bare address only")
            return
        self.document = replace(self.document, dns=(*self.document.dns, server))

    def _domain(self, line: int, domain: str) -> None:
        if domain == "~.":
            return  # All names go to these servers: so it is with wg-quick.
        if domain.startswith("~"):
            self.leave(line, "Domains", "wg-quick cannot send only some names to the servers")
            return
        self.document = replace(self.document, search=(*self.document.search, domain))

    def _route(self, section: Section) -> None:
        try:
            network = str(ipaddress.ip_network(section.last("Destination") or "::/0"))
        except ValueError:
            network = ""
        if any(network in peer.allowed_ips for peer, _ in self.peers):
            self.routes.add(section.last("Table").lower() or "main")
        else:
            why = "wg-quick makes routes to AllowedIPs only; PostUp = ip route add ... makes others"
            self.leave(section.line, "[Route]", why)

    def judge_rules(self, rules: list[Section]) -> None:
        """Those that stand for wg-quick's way with a default route, and others."""
        mark = str(self.document.fwmark)
        suppress, others = None, None
        for rule in rules:
            if rule.last("Table") == "main" and rule.last("SuppressPrefixLength") == "0":
                suppress = rule
            elif rule.last("InvertRule") in ("yes", "true", "1", "on") and (
                rule.last("FirewallMark"),
                rule.last("Table"),
            ) == (mark, mark):
                others = rule
        defaults = [table or self.table for peer, table in self.peers if peer.default]
        whole = suppress is not None and others is not None and mark != "0"
        tables = set(defaults) | (self.routes - {"main"})
        self.automatic = whole and bool(defaults) and tables - _OFF == {mark}
        for rule in rules:
            if not self.automatic or rule not in (suppress, others):
                why = "PostUp = ip rule add ... with a PreDown makes a rule"
                self.leave(rule.line, "[RoutingPolicyRule]", why)

    def finish(self) -> Document:
        document = replace(self.document, peers=merged(peer for peer, _ in self.peers))
        if self.automatic:
            mark = 0 if document.fwmark == _MARK else document.fwmark
            return replace(document, table="", fwmark=mark)
        tables = {self.table} | {table for _, table in self.peers if table} | self.routes
        tables = {table for table in tables if table not in _OFF}
        if len(tables) > 1:
            self.leave(1, "RouteTable", f"wg-quick has one table for all; took {min(tables)}")
        table = min(tables, default="off")
        if not re.fullmatch("[a-z0-9_.-]+", table):
            self.leave(1, "RouteTable", "neither a table's number nor a name")
            table = "off"
        return replace(document, table="" if table == "main" and not document.default else table)
