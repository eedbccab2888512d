"""systemd-networkd: a .netdev file with keys and peers, and a .network file with addresses, DNS
and the rules that wg-quick makes for a default route (systemd.netdev(5), systemd.network(5))."""

import ipaddress
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePath

from wiresnake.conffile import forwarding, labels, schema
from wiresnake.conffile.dialects import ini
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer, merged
from wiresnake.conffile.dialects.ini import Entry, Section
from wiresnake.conffile.dialects.reader import Reader, details
from wiresnake.conffile.dialects.routes import MARK, Route, Rule, with_routes
from wiresnake.conffile.dialects.wg_quick import without_hooks
from wiresnake.errors import ConfigError
from wiresnake.text import unsigned

_OFF = frozenset(("", "off", "no", "false", "n", "f", "0"))
_INTERFACE = {
    "PrivateKey": schema.PRIVATE_KEY,
    "ListenPort": schema.LISTEN_PORT,
    "FirewallMark": schema.FWMARK,
}
_PEER = {
    "PublicKey": schema.PUBLIC_KEY,
    "PresharedKey": schema.PRESHARED_KEY,
    "AllowedIPs": schema.ALLOWED_IPS,
    "Endpoint": schema.ENDPOINT,
    "PersistentKeepalive": schema.PERSISTENT_KEEPALIVE,
}


def write(document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """Returns the two files by their names."""
    bare, left = without_hooks(document, "networkd runs no commands")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", "networkd never writes its files"))
    table = document.table.lower()
    if table not in ("", "off", "main", "local", "default") and not table.isdecimal():
        why = "networkd knows tables by number, or by the names in its own networkd.conf"
        left.append(LeftOut(0, "Table", why, changes=True))
        bare = replace(bare, table="off")
    files = {f"{name}.netdev": _netdev(bare, name), f"{name}.network": _network(bare, name)}
    return {file: "\n".join([*text, ""]) for file, text in files.items()}, left


def _mark(document: Document) -> int:
    """Yields the sections that keep the encrypted datagrams out of a default route with a mark, as
    wg-quick does."""
    automatic = document.default and not document.table
    return document.fwmark or (MARK if automatic else 0)


def _netdev(document: Document, name: str) -> Iterator[str]:
    yield from ("[NetDev]", f"Name={name}", "Kind=wireguard")
    if document.mtu:
        yield f"MTUBytes={document.mtu}"
    yield from ("", "[WireGuard]")
    yield from ini.written(_INTERFACE, replace(document, fwmark=_mark(document)))
    if document.table.lower() != "off":
        yield f"RouteTable={document.table or 'main'}"
    for peer in document.peers:
        yield from ("", "[WireGuardPeer]")
        if peer.name:
            yield labels.comment(peer.name)
        yield from ini.written(_PEER, peer)
        if peer.default and not document.table:
            yield f"RouteTable={_mark(document)}"


def _network(document: Document, name: str) -> Iterator[str]:
    yield from ("[Match]", f"Name={name}", "", "[Network]")
    yield from (f"Address={address}" for address in document.addresses)
    yield from (f"DNS={server}" for server in document.dns)
    # As with wg-quick, all names go to these servers while the tunnel is up.
    if domains := (*(("~.",) if document.dns else ()), *document.search):
        yield f"Domains={' '.join(domains)}"
    if document.default and not document.table:
        # All routes to a peer are in its table, also those for the other IP version.
        prefixes = [one for peer in document.peers if peer.default for one in peer.allowed_ips]
        versions = {4 if "." in prefix else 6 for prefix in prefixes}
        family = {(4,): "ipv4", (6,): "ipv6", (4, 6): "both"}[tuple(sorted(versions))]
        mark = _mark(document)
        yield from ("", "[RoutingPolicyRule]", f"Family={family}", "Table=main")
        yield from ("SuppressPrefixLength=0", "Priority=32764")
        yield from ("", "[RoutingPolicyRule]", f"Family={family}", f"FirewallMark={mark}")
        yield from ("InvertRule=yes", f"Table={mark}", "Priority=32765")


def read(
    netdev: tuple[str, str], network: tuple[str, str] | None
) -> tuple[Document, str, list[tuple[str, LeftOut]]]:
    """Reads the names and texts of both files; returns the document, the interface's name, and what
    was left out of which file. ConfigError with name:line:column."""
    reader = _Reader(netdev[0])
    sections = ini.read(netdev[1], netdev[0])
    for section in sections:
        reader.netdev(section)
    if not reader.kind:
        raise ConfigError(f"{netdev[0]}:1:1: not Kind=wireguard; give the .netdev file of a tunnel")
    reader.judge_key()
    if network is None:
        why = "no .network file was given: it has addresses, DNS and routes"
        reader.refuse(Entry(1, "Address", ""), why)
    else:
        reader.file = network[0]
        for section in ini.read(network[1], network[0]):
            reader.network(section)
    return reader.finish(), reader.name, reader.left


_SWITCHES = frozenset(
    (
        *("IPMasquerade", "DHCPServer", "IPv6SendRA", "DNSOverTLS", "DNSSEC", "IPv4ProxyARP"),
        *("IPv6ProxyNDP", "DefaultRouteOnDevice", "VRF"),
    )
)
"""Keys of [Network] that mean nothing when switched off."""
_DETAILS = {
    "NetDev": details("Description", "a description")
    | details("MACAddress", "a tunnel has no MAC address"),
    "Match": details(
        "Host Virtualization KernelCommandLine KernelVersion Version Credential Architecture"
        " Firmware Type Kind Driver Property",
        "a condition; `wiresnake up` asks for none",
    ),
    "Link": details(
        "RequiredForOnline RequiredFamilyForOnline ActivationPolicy MACAddress ARP Multicast"
        " AllMulticast Promiscuous Group"
    ),
    "Network": details(
        "Description LLMNR MulticastDNS NTP DHCP LinkLocalAddressing ConfigureWithoutCarrier"
        " IPv6LinkLocalAddressGenerationMode IPv6StableSecretAddress IPv6AcceptRA"
        " IPv6DuplicateAddressDetection IPv6PrivacyExtensions IPv4RouteLocalnet"
        " IgnoreCarrierLoss KeepConfiguration BindCarrier LLDP EmitLLDP IPv6MTUBytes"
        " DNSSECNegativeTrustAnchors IPv6RetransmissionTimeSec IPv4ReversePathFilter"
    ),
    "Address": details(
        "Label Broadcast Scope PreferredLifetime DuplicateAddressDetection AutoJoin RouteMetric"
        " ManageTemporaryAddress HomeAddress"
    ),
    "Route": details("GatewayOnLink Scope Protocol IPv6Preference Description")
    | details("Gateway", "packets for a tunnel need no gateway"),
}


@dataclass
class _Reader(Reader):
    kind: bool = False
    peers: list[tuple[Peer, Section]] = field(default_factory=list)
    device: Section = field(default_factory=lambda: Section(1, "WireGuard"))
    rules: list[Section] = field(default_factory=list)
    private: bool = False
    """Reads the private key, or adds a command that sets it."""
    domains: list[str] = field(default_factory=list)
    dns_default: bool | None = None
    masquerade: tuple[str, Entry] | None = None

    def netdev(self, section: Section) -> None:
        match section.title:
            case "NetDev":
                self._net_dev(section)
            case "WireGuard":
                self._wire_guard(section)
            case "WireGuardPeer":
                self._peer(section)
            case "Match":
                for entry in section.entries:
                    self.other(entry, _DETAILS[section.title])
            case _:
                self.refuse(section.header, "not a section of a WireGuard device")

    def _net_dev(self, section: Section) -> None:
        for entry in section.entries:
            match entry.key:
                case "Name":
                    self.name = entry.value
                case "Kind":
                    self.kind = entry.value == "wireguard"
                case "MTUBytes":
                    self.document = self.changed(self.document, schema.MTU, entry)
                case _:
                    self.other(entry, _DETAILS.get(section.title, {}))

    def _wire_guard(self, section: Section) -> None:
        self.device = section
        file = section.last("PrivateKeyFile")
        if file:  # It takes precedence over PrivateKey.
            self.hook(f"wiresnake set %i private-key {shlex.quote(file)}")
        self.private |= bool(file or section.last("PrivateKey"))
        for entry in section.entries:
            match entry.key:
                case "PrivateKey" if file or self._credential(entry):
                    pass
                case "ListenPort" if entry.value == "auto":
                    self.leave(entry, "derived from the name by networkd; here it is random")
                case "PrivateKeyFile" | "RouteTable" | "RouteMetric":
                    pass
                case "FwMark":
                    self.document = self.changed(self.document, schema.FWMARK, entry)
                case name if name in _INTERFACE:
                    self.document = self.changed(self.document, _INTERFACE[name], entry)
                case _:
                    self.other(entry, _DETAILS.get(section.title, {}))

    def _credential(self, entry: Entry) -> bool:
        """Returns whether the value names a systemd credential, which only networkd gets."""
        if not entry.value.startswith("@"):
            return False
        why = (
            "a credential, which systemd gives only to networkd; write the value into the file:"
            " `systemd-creds decrypt /etc/credstore.encrypted/NAME -` shows it"
        )
        self.refuse(entry, why)
        return True

    def judge_key(self) -> None:
        """Reports a missing key: networkd then looks for a credential with the file's name."""
        if not self.private:
            why = (
                "the key is missing, and networkd takes it from the credential"
                f" network.wireguard.private.{PurePath(self.file).stem}; write PrivateKey=, or"
                " PrivateKeyFile="
            )
            self.refuse(self.device.entry("PrivateKey"), why)

    def _peer(self, section: Section) -> None:
        peer = Peer("", section.name)
        psk_file = section.last("PresharedKeyFile")
        lost = False
        for entry in section.entries:
            match entry.key:
                case "PublicKey" if self._credential(entry):
                    lost = True
                case "PresharedKey" if psk_file or self._credential(entry):
                    pass
                case "Endpoint" if self._credential(entry):
                    pass
                case "AllowedIPs" if (
                    not entry.value
                ):  # With systemd an empty value starts a list again.
                    peer = replace(peer, allowed_ips=())
                case "AllowedIPs":
                    parts = (part.strip() for part in entry.value.split(","))
                    more = [self.value(schema.ALLOWED_IPS, entry, part) for part in parts]
                    peer = replace(peer, allowed_ips=(*peer.allowed_ips, *more))
                case "PresharedKeyFile" | "RouteTable" | "RouteMetric":
                    pass
                case name if name in _PEER:
                    peer = self.changed(peer, _PEER[name], entry)
                case _:
                    self.other(entry, _DETAILS.get(section.title, {}))
        if lost:
            return
        if not peer.public_key:
            what = "this [WireGuardPeer] has no PublicKey, which wg-quick needs in the file; add it"
            raise ConfigError(f"{self.file}:{section.line}:1: {what}")
        if psk_file:
            command = f"wiresnake set %i peer {peer.public_key} preshared-key"
            self.hook(f"{command} {shlex.quote(psk_file)}")
        self.peers.append((peer, section))

    def _peer_routes(self) -> bool:
        """Returns whether routes are, or would be, made for AllowedIPs."""
        of_all, metric_of_all = self._table(self.device), self._metric(self.device)
        tables = [of_all]
        for peer, section in self.peers:
            tables.append(self._table(section) if section.last("RouteTable") else of_all)
            metric = self._metric(section) if section.last("RouteMetric") else metric_of_all
            if tables[-1]:
                self.routes += [Route(prefix, tables[-1], metric) for prefix in peer.allowed_ips]
        return any(tables)

    def _table(self, section: Section, key: str = "RouteTable") -> str:
        """Returns the table of a section; empty if routes are off."""
        value = section.last(key).lower()
        if value in _OFF:
            return ""
        if value in ("main", "local", "default"):
            return value
        try:
            unsigned(value, 32)
        except ValueError:
            why = "neither a table's number nor main; write the number, which is in networkd.conf"
            self.refuse(section.entry(key), why)
            return ""
        return "main" if value == "254" else value

    def _metric(self, section: Section, key: str = "RouteMetric") -> int:
        line, _, value = section.entry(key)
        try:
            return unsigned(value or "0", 32)
        except ValueError:
            what = f"{key} is not a number; write one"
            raise ConfigError(f"{self.file}:{line}:1: {what}") from None

    def network(self, section: Section) -> None:
        if section.title == "RoutingPolicyRule":
            self.rules.append(section)
            return
        for entry in section.entries:
            _, key, value = entry
            match section.title, key:
                case (("Network" | "Address"), "Address"):
                    self.add(schema.ADDRESS, self.value(schema.ADDRESS, entry))
                case "Network", "DNS":
                    for server in value.split():
                        self.add_server(entry, server)
                case "Network", "Domains":
                    self.domains += value.split()
                case "Network", "DNSDefaultRoute":
                    self.dns_default = value.lower() not in _OFF
                case "Network", "IPMasquerade" if value.lower() not in _OFF:
                    self.masquerade = value.lower(), entry
                case "Network", ("IPForward" | "IPv4Forwarding" | "IPv6Forwarding"):
                    self._forward(key, value.lower())
                case "Network", name if name in _SWITCHES and value.lower() in _OFF:
                    pass
                case "Network", "DefaultRouteOnDevice":
                    self.routes.append(Route("0.0.0.0/0"))
                case "Network", "Gateway":
                    self.routes.append(Route("::/0" if ":" in value else "0.0.0.0/0"))
                case "Link", "MTUBytes":
                    self.document = self.changed(self.document, schema.MTU, entry)
                case "Match", "Name":
                    if not any(fnmatchcase(self.name, word) for word in value.split()):
                        why = (
                            f"the .netdev file is for {self.name}: give the matching .network file"
                        )
                        self.refuse(entry, why)
                case "Route", ("Destination" | "Table" | "Metric" | "PreferredSource" | "Type"):
                    pass
                case _:
                    self.other(entry, _DETAILS.get(section.title, {}))
        if section.title == "Route":
            self._route(section)

    def _forward(self, key: str, value: str) -> None:
        """Adds forwarding, which networkd switches on and leaves on."""
        if value in _OFF:
            return
        if key == "IPForward" and value != "ipv6":
            self.hook("sysctl -q -w net.ipv4.ip_forward=1")
        if key == "IPv4Forwarding":
            self.hook("sysctl -q -w net/ipv4/conf/%i/forwarding=1")
        if key == "IPv6Forwarding" or (key == "IPForward" and value != "ipv4"):
            self.hook("sysctl -q -w net.ipv6.conf.all.forwarding=1")

    def _route(self, section: Section) -> None:
        destination = section.last("Destination") or (
            "::/0" if ":" in section.last("Gateway") else "0.0.0.0/0"
        )
        source = section.last("PreferredSource")
        try:
            network = str(ipaddress.ip_network(destination, strict=False))
            source = str(ipaddress.ip_address(source)) if source else ""
        except ValueError:
            network = ""
        if not network or section.last("Type") not in ("", "unicast"):
            why = "a route that does not lead into the tunnel; use PostUp = ip route add ... for it"
            self.refuse(section.header, why)
            return
        table = self._table(section, "Table") if section.last("Table") else "main"
        if table:
            self.routes.append(Route(network, table, self._metric(section, "Metric"), source))

    def finish(self) -> Document:
        self._split_dns()
        self._masquerade()
        self.document = replace(self.document, peers=merged(peer for peer, _ in self.peers))
        peer_routes = self._peer_routes()
        rules = [(section, rule) for section in self.rules for rule in self._rule(section)]
        automatic: dict[int, str] = {}
        for version in (4, 6):
            self._judge_rules(version, rules, automatic)
        return with_routes(
            self.document,
            self.routes,
            automatic=automatic,
            rules=[rule for _, rule in rules],
            off=not peer_routes,
        )

    def _judge_rules(
        self, version: int, rules: list[tuple[Section, Rule]], automatic: dict[int, str]
    ) -> None:
        """Removes two rules that do the same as wg-quick's handling of a default route."""
        mark = str(self.document.fwmark)
        ours = [(section, rule) for section, rule in rules if rule.version == version]
        way = [_shape(rule) for _, rule in ours]
        shapes = (
            ("table main", "suppress_prefixlength 0"),
            (f"not fwmark {mark}", f"table {mark}"),
        )
        if mark == "0" or not all(shape in way for shape in shapes):
            return
        for section, rule in ours:
            if _shape(rule) in shapes:
                rules.remove((section, rule))
        for route in [one for one in self.routes if (one.version, one.table) == (version, mark)]:
            self.routes.remove(route)
            if route.network.endswith("/0"):
                automatic[version] = "main"
            else:
                self.routes.append(route._replace(table="main"))

    def _rule(self, section: Section) -> Iterator[Rule]:
        """Returns the rule in the syntax of `ip rule` for each IP version; nothing if it has an
        unknown setting."""
        words: dict[str, str] = {}
        versions: tuple[int, ...] = (4,)
        for entry in section.entries:
            _, key, value = entry
            form = _RULE.get(key)
            if key == "Family":
                versions = {"ipv6": (6,), "both": (4, 6)}.get(value, (4,))
            elif key == "InvertRule":
                words["not"] = "" if value.lower() in _OFF else "not "
            elif form is None or not re.fullmatch(form[1], value):
                self.refuse(entry, "PostUp = ip rule add ... with a PostDown makes such a rule")
                return
            elif value:
                if form[1] in (_MARK, _NUMBER) and "/" not in value:
                    value = str(int(value, 16 if value.startswith("0x") else 10))
                words[form[0]] = f"{form[0]} {value}"
                if key in ("From", "To") and "Family" not in (one.key for one in section.entries):
                    versions = (6,) if ":" in value else (4,)
        inverted = words.pop("not", "")
        order = [form[0] for form in _RULE.values()]
        text = " ".join(words[word] for word in order if word in words)
        yield from (Rule(version, inverted + text) for version in versions)

    def _masquerade(self) -> None:
        """Adds masquerading: this host forwards packets from the tunnel with its own address."""
        if self.masquerade is None:
            return
        value, entry = self.masquerade
        versions = {"ipv4": (4,), "ipv6": (6,)}.get(value, (4, 6))
        interfaces = map(ipaddress.ip_interface, self.document.addresses)
        addresses = [one for one in interfaces if one.version in versions]
        try:
            made = forwarding.nat(self.name, addresses) if addresses else []
        except ConfigError as error:
            self.refuse(entry, str(error))
            return
        for line in made:
            key, equals, command = line.partition(" = ")
            if equals and not key.startswith("#"):
                self.hook(command, key)

    def _split_dns(self) -> None:
        document = self.document
        only = [one for one in self.domains if one.startswith("~") and one != "~."]
        whole = "~." in self.domains or self.dns_default
        plain = tuple(one for one in self.domains if not one.startswith("~"))
        if not document.dns or whole or (not only and self.dns_default is None):
            self.document = replace(document, search=(*document.search, *plain))
        else:
            self.ask_for_some(self.domains, only=True)


_NET = r"[0-9a-fA-F.:]+(/[0-9]+)?"
_NUMBER = r"[0-9]{1,10}"
_MARK = r"(0x[0-9a-fA-F]+|[0-9]+)(/(0x[0-9a-fA-F]+|[0-9]+))?"
_RULE = {
    "From": ("from", _NET),
    "To": ("to", _NET),
    "FirewallMark": ("fwmark", _MARK),
    "IncomingInterface": ("iif", r"[a-zA-Z0-9_.-]{1,15}"),
    "OutgoingInterface": ("oif", r"[a-zA-Z0-9_.-]{1,15}"),
    "IPProtocol": ("ipproto", r"[a-z0-9-]+"),
    "SourcePort": ("sport", r"[0-9]+(-[0-9]+)?"),
    "DestinationPort": ("dport", r"[0-9]+(-[0-9]+)?"),
    "User": ("uidrange", r"[0-9]+-[0-9]+"),
    "Table": ("table", f"main|local|default|{_NUMBER}"),
    "SuppressPrefixLength": ("suppress_prefixlength", _NUMBER),
    "Priority": ("priority", _NUMBER),
}
"""systemd's keys as arguments of `ip rule`, in its order, with valid values, because root runs the
command."""


def _shape(rule: Rule) -> tuple[str, ...]:
    """The rule's arguments without the priority, in pairs."""
    words = re.sub(r" ?priority [0-9]+", "", rule.text)
    return tuple(re.findall(r"(?:not )?\w+ \S+", words))
