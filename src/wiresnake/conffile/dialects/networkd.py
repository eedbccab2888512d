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
from wiresnake.conffile.dialects.document import Document, LeftOut, Peer, canonical, merged
from wiresnake.conffile.dialects.ini import Entry, Section
from wiresnake.conffile.dialects.routes import MARK, Route, Rule, with_routes
from wiresnake.conffile.dialects.wg_quick import without_hooks
from wiresnake.conffile.schema import Key
from wiresnake.errors import ConfigError

_OFF = frozenset(("", "off", "no", "false", "n", "f", "0"))


def write(document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """The two files by their names."""
    bare, left = without_hooks(document, "networkd runs no commands")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", "networkd never writes its files"))
    table = document.table.lower()
    if table not in ("", "off", "main", "local", "default") and not table.isdecimal():
        why = "networkd knows tables by their number, or by names of its own networkd.conf"
        left.append(LeftOut(0, "Table", why, changes=True))
        bare = replace(bare, table="off")
    files = {f"{name}.netdev": _netdev(bare, name), f"{name}.network": _network(bare, name)}
    return {file: "\n".join([*text, ""]) for file, text in files.items()}, left


def _mark(document: Document) -> int:
    """As wg-quick, which keeps the encrypted datagrams out of a default route by a mark."""
    automatic = document.default and not document.table
    return document.fwmark or (MARK if automatic else 0)


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
            yield labels.comment(peer.name)
        yield f"PublicKey={peer.public_key}"
        if peer.preshared_key:
            yield f"PresharedKey={peer.preshared_key}"
        if peer.allowed_ips:
            yield f"AllowedIPs={','.join(peer.allowed_ips)}"
        if peer.endpoint:
            yield f"Endpoint={peer.endpoint}"
        if peer.persistent_keepalive:
            yield f"PersistentKeepalive={peer.persistent_keepalive}"
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
        # All routes to a peer are in its table, also those of the other IP version.
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
    """From the names and texts of both files: what they say, the interface's name, and what was
    left out of which file. ConfigError with name:line:column."""
    reader = _Reader(netdev[0])
    sections = ini.read(netdev[1], netdev[0])
    for section in sections:
        reader.netdev(section)
    if not reader.kind:
        raise ConfigError(f"{netdev[0]}:1:1: not Kind=wireguard; give the .netdev file of a tunnel")
    reader.judge_key()
    if network is None:
        reader.refuse(1, "Address", "no .network file was given: it has addresses, DNS and routes")
    else:
        reader.file = network[0]
        for section in ini.read(network[1], network[0]):
            reader.network(section)
    return reader.finish(), reader.name, reader.left


_DETAILS = {
    "NetDev": {"Description": "a description", "MACAddress": "a tunnel has no MAC address"},
    "Match": dict.fromkeys(
        (
            *("Host", "Virtualization", "KernelCommandLine", "KernelVersion", "Version"),
            *("Credential", "Architecture", "Firmware", "Type", "Kind", "Driver", "Property"),
        ),
        "a condition; `wiresnake up` asks for none",
    ),
    "Link": dict.fromkeys(
        (
            *("RequiredForOnline", "RequiredFamilyForOnline", "ActivationPolicy", "MACAddress"),
            *("ARP", "Multicast", "AllMulticast", "Promiscuous", "Group"),
        ),
        "wg-quick has nothing like it",
    ),
    "Network": dict.fromkeys(
        (
            *("Description", "LLMNR", "MulticastDNS", "NTP", "DHCP", "LinkLocalAddressing"),
            *("IPv6LinkLocalAddressGenerationMode", "IPv6StableSecretAddress", "IPv6AcceptRA"),
            *("IPv6DuplicateAddressDetection", "IPv6PrivacyExtensions", "IPv4RouteLocalnet"),
            *("ConfigureWithoutCarrier", "IgnoreCarrierLoss", "KeepConfiguration", "BindCarrier"),
            *("LLDP", "EmitLLDP", "DNSSECNegativeTrustAnchors", "IPv6MTUBytes"),
            *("IPv6RetransmissionTimeSec", "IPv4ReversePathFilter"),
        ),
        "wg-quick has nothing like it",
    ),
    "Address": dict.fromkeys(
        (
            *("Label", "Broadcast", "Scope", "PreferredLifetime", "DuplicateAddressDetection"),
            *("ManageTemporaryAddress", "AutoJoin", "RouteMetric", "HomeAddress"),
        ),
        "wg-quick has nothing like it",
    ),
    "Route": {
        "Gateway": "packets for a tunnel need no gateway",
        **dict.fromkeys(
            ("GatewayOnLink", "Scope", "Protocol", "IPv6Preference", "Description"),
            "wg-quick has nothing like it",
        ),
    },
}
"""Keys that are lost without changing what the tunnel does, and why. What is neither here nor read
changes it, or may: nobody knows what a later systemd means by it."""
_ABSENT = "wg-quick has nothing like it; write by hand what it is for, and remove the line"


@dataclass
class _Reader:
    file: str
    name: str = ""
    kind: bool = False
    document: Document = field(default_factory=Document)
    peers: list[tuple[Peer, Section]] = field(default_factory=list)
    device: Section = field(default_factory=lambda: Section(1, "WireGuard"))
    routes: list[Route] = field(default_factory=list)
    rules: list[Section] = field(default_factory=list)
    private: bool = False
    """The private key is there, or a command brings it."""
    domains: list[str] = field(default_factory=list)
    dns_default: bool | None = None
    masquerade: tuple[str, Entry] | None = None
    left: list[tuple[str, LeftOut]] = field(default_factory=list)

    def leave(self, line: int, key: str, why: str) -> None:
        """A detail."""
        self.left.append((self.file, LeftOut(line, key, why)))

    def refuse(self, line: int, key: str, why: str) -> None:
        """Without it the tunnel would do something else."""
        self.left.append((self.file, LeftOut(line, key, why, changes=True)))

    def _other(self, section: Section, entry: Entry) -> None:
        """A key that is not read."""
        why = _DETAILS.get(section.title, {}).get(entry.key)
        if why is None:
            self.refuse(entry.line, entry.key, _ABSENT)
        else:
            self.leave(entry.line, entry.key, why)

    def _canonical(self, key: Key, line: int, value: str) -> str:
        try:
            return canonical(key, value)
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
            case "Match":
                for entry in section.entries:
                    self._other(section, entry)
            case _:
                self.refuse(section.line, f"[{section.title}]", "no section of a WireGuard device")

    def _net_dev(self, section: Section) -> None:
        for entry in section.entries:
            line, key, value = entry
            match key:
                case "Name":
                    self.name = value
                case "Kind":
                    self.kind = value == "wireguard"
                case "MTUBytes":
                    self._mtu(line, value)
                case _:
                    self._other(section, entry)

    def _mtu(self, line: int, value: str) -> None:
        self.document = replace(self.document, mtu=int(self._canonical(schema.MTU, line, value)))

    def _wire_guard(self, section: Section) -> None:
        self.device = section
        file = section.last("PrivateKeyFile")
        if file:  # It wins over PrivateKey.
            self._hook(f"wiresnake set %i private-key {shlex.quote(file)}")
        self.private |= bool(file or section.last("PrivateKey"))
        for entry in section.entries:
            line, key, value = entry
            match key:
                case "PrivateKey" if file or self._credential(entry):
                    pass
                case "PrivateKey":
                    key_text = self._canonical(schema.PRIVATE_KEY, line, value)
                    self.document = replace(self.document, private_key=key_text)
                case "ListenPort" if value == "auto":
                    self.leave(line, key, "derived from the name by networkd; here it is random")
                case "ListenPort":
                    port = int(self._canonical(schema.LISTEN_PORT, line, value))
                    self.document = replace(self.document, listen_port=port)
                case "FirewallMark" | "FwMark":
                    mark = int(self._canonical(schema.FWMARK, line, value))
                    self.document = replace(self.document, fwmark=mark)
                case "PrivateKeyFile" | "RouteTable" | "RouteMetric":
                    pass
                case _:
                    self._other(section, entry)

    def _credential(self, entry: Entry) -> bool:
        """Whether the value is the name of a systemd credential, which only networkd is given."""
        if not entry.value.startswith("@"):
            return False
        why = (
            "a credential, which systemd hands to networkd alone; write the value itself into the"
            " file: `systemd-creds decrypt /etc/credstore.encrypted/NAME -` shows it"
        )
        self.refuse(entry.line, entry.key, why)
        return True

    def judge_key(self) -> None:
        """Without a key networkd looks for a credential of the file's name."""
        if not self.private:
            why = (
                "there is none: networkd takes it from the credential network.wireguard.private."
                f"{PurePath(self.file).stem}; write PrivateKey=, or PrivateKeyFile="
            )
            self.refuse(self.device.line, "PrivateKey", why)

    def _hook(self, command: str, key: str = "PostUp") -> None:
        hooks = (*self.document.hooks, (key, command))
        self.document = replace(self.document, hooks=hooks)

    def _peer(self, section: Section) -> None:
        peer = Peer("", section.name)
        allowed: list[str] = []
        psk_file = section.last("PresharedKeyFile")
        lost = False
        for entry in section.entries:
            line, key, value = entry
            match key:
                case "PublicKey" if self._credential(entry):
                    lost = True
                case "PublicKey":
                    peer = replace(peer, public_key=self._canonical(schema.PUBLIC_KEY, line, value))
                case "PresharedKey" if psk_file or self._credential(entry):
                    pass
                case "PresharedKey":
                    psk = self._canonical(schema.PRESHARED_KEY, line, value)
                    peer = replace(peer, preshared_key=psk)
                case "AllowedIPs" if not value:
                    allowed.clear()  # With systemd an empty value starts a list again.
                case "AllowedIPs":
                    parts = (part.strip() for part in value.split(","))
                    allowed += [self._canonical(schema.ALLOWED_IPS, line, part) for part in parts]
                case "Endpoint" if self._credential(entry):
                    pass
                case "Endpoint":
                    peer = replace(peer, endpoint=self._canonical(schema.ENDPOINT, line, value))
                case "PersistentKeepalive":
                    seconds = int(self._canonical(schema.PERSISTENT_KEEPALIVE, line, value))
                    peer = replace(peer, persistent_keepalive=seconds)
                case "PresharedKeyFile" | "RouteTable" | "RouteMetric":
                    pass
                case _:
                    self._other(section, entry)
        if lost:
            return
        if not peer.public_key:
            what = "this [WireGuardPeer] has no PublicKey, which wg-quick needs in the file; add it"
            raise ConfigError(f"{self.file}:{section.line}:1: {what}")
        if psk_file:
            command = f"wiresnake set %i peer {peer.public_key} preshared-key"
            self._hook(f"{command} {shlex.quote(psk_file)}")
        self.peers.append((replace(peer, allowed_ips=tuple(allowed)), section))

    def _peer_routes(self) -> bool:
        """Whether any are made for AllowedIPs, or would be."""
        of_all, metric_of_all = self._table(self.device), self._metric(self.device)
        tables = [of_all]
        for peer, section in self.peers:
            tables.append(self._table(section) if section.last("RouteTable") else of_all)
            metric = self._metric(section) if section.last("RouteMetric") else metric_of_all
            if tables[-1]:
                self.routes += [
                    Route(prefix, tables[-1], _metric(prefix, metric))
                    for prefix in peer.allowed_ips
                ]
        return any(tables)

    def _table(self, section: Section, key: str = "RouteTable") -> str:
        """Of a section; empty if routes are off."""
        value = section.last(key).lower()
        if value in _OFF:
            return ""
        if value in ("main", "local", "default"):
            return value
        if value.isascii() and value.isdecimal() and not int(value) >> 32:
            return "main" if value == "254" else value
        line = section.all(key)[-1].line
        why = "neither a table's number nor main; write its number, which networkd.conf has"
        self.refuse(line, key, why)
        return ""

    def _metric(self, section: Section, key: str = "RouteMetric") -> int:
        value = section.last(key)
        if not value:
            return 0
        if not (value.isascii() and value.isdecimal()) or int(value) >> 32:
            line = section.all(key)[-1].line
            raise ConfigError(f"{self.file}:{line}:1: {key} is not a number; write one")
        return int(value)

    def network(self, section: Section) -> None:
        if section.title == "RoutingPolicyRule":
            self.rules.append(section)
            return
        for entry in section.entries:
            line, key, value = entry
            match section.title, key:
                case (("Network" | "Address"), "Address"):
                    address = self._canonical(schema.ADDRESS, line, value)
                    addresses = (*self.document.addresses, address)
                    self.document = replace(self.document, addresses=addresses)
                case "Network", "DNS":
                    for server in value.split():
                        self._dns(line, server)
                case "Network", "Domains":
                    self.domains += value.split()
                case "Network", "DNSDefaultRoute":
                    self.dns_default = value.lower() not in _OFF
                case "Network", "IPMasquerade" if value.lower() not in _OFF:
                    self.masquerade = value.lower(), entry
                case "Network", ("IPForward" | "IPv4Forwarding" | "IPv6Forwarding"):
                    self._forward(key, value.lower())
                case "Network", (
                    "IPMasquerade"
                    | "DHCPServer"
                    | "IPv6SendRA"
                    | "DNSOverTLS"
                    | "DNSSEC"
                    | "IPv4ProxyARP"
                    | "IPv6ProxyNDP"
                    | "DefaultRouteOnDevice"
                    | "VRF"
                ) if value.lower() in _OFF:
                    pass
                case "Network", "DefaultRouteOnDevice":
                    self.routes.append(Route("0.0.0.0/0"))
                case "Network", "Gateway":
                    self.routes.append(Route("::/0" if ":" in value else "0.0.0.0/0"))
                case "Link", "MTUBytes":
                    self._mtu(line, value)
                case "Match", "Name":
                    if not any(fnmatchcase(self.name, word) for word in value.split()):
                        why = f"the .netdev file's is {self.name}: give the .network file of that"
                        self.refuse(line, key, why)
                case "Route", ("Destination" | "Table" | "Metric" | "PreferredSource" | "Type"):
                    pass
                case _:
                    self._other(section, entry)
        if section.title == "Route":
            self._route(section)

    def _dns(self, line: int, server: str) -> None:
        bare, name, _ = server.partition("#")
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            why = "wg-quick knows servers by their bare address only; write that"
            self.refuse(line, "DNS", why)
            return
        if name:
            self.leave(line, "DNS", "the server's name, for DNS over TLS; its address was taken")
        self.document = replace(self.document, dns=(*self.document.dns, bare))

    def _forward(self, key: str, value: str) -> None:
        """Networkd switches it on, and leaves it."""
        if key == "IPForward":
            four, six = (value not in _OFF and value != other for other in ("ipv6", "ipv4"))
        else:
            four, six = (
                key == name and value not in _OFF for name in ("IPv4Forwarding", "IPv6Forwarding")
            )
        if four and key == "IPForward":
            self._hook("sysctl -q -w net.ipv4.ip_forward=1")
        elif four:
            self._hook("sysctl -q -w net/ipv4/conf/%i/forwarding=1")
        if six:
            self._hook("sysctl -q -w net.ipv6.conf.all.forwarding=1")

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
            why = "no route that leads into the tunnel; PostUp = ip route add ... makes others"
            self.refuse(section.line, "[Route]", why)
            return
        table = self._table(section, "Table") if section.last("Table") else "main"
        if table:
            metric = _metric(network, self._metric(section, "Metric"))
            self.routes.append(Route(network, table, metric, source))

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
        """Two rules that stand for wg-quick's way with a default route are taken out."""
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
        """In the words of `ip rule`, for each IP version; nothing if there is a word too many."""
        words: dict[str, str] = {}
        versions: tuple[int, ...] = (4,)
        for line, key, value in section.entries:
            form = _RULE.get(key)
            if key == "Family":
                versions = {"ipv6": (6,), "both": (4, 6)}.get(value, (4,))
            elif key == "InvertRule":
                words["not"] = "" if value.lower() in _OFF else "not "
            elif form is None or not re.fullmatch(form[1], value):
                self.refuse(line, key, "PostUp = ip rule add ... with a PostDown makes such a rule")
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
        """Packets out of the tunnel get this host's address, and it forwards them."""
        if self.masquerade is None:
            return
        value, entry = self.masquerade
        versions = {"ipv4": (4,), "ipv6": (6,)}.get(value, (4, 6))
        interfaces = map(ipaddress.ip_interface, self.document.addresses)
        addresses = [one for one in interfaces if one.version in versions]
        try:
            made = forwarding.nat(self.name, addresses) if addresses else []
        except ConfigError as error:
            self.refuse(entry.line, entry.key, str(error))
            return
        for line in made:
            key, equals, command = line.partition(" = ")
            if equals and not key.startswith("#"):
                self._hook(command, key)

    def _split_dns(self) -> None:
        """wg-quick sends all names to the servers; what sends only some is resolved's."""
        document = self.document
        only = [one for one in self.domains if one.startswith("~") and one != "~."]
        whole = "~." in self.domains or self.dns_default
        plain = tuple(one for one in self.domains if not one.startswith("~"))
        if not document.dns or whole or (not only and self.dns_default is None):
            self.document = replace(document, search=(*document.search, *plain))
            return
        self.document = replace(document, dns=())
        self._hook(f"resolvectl dns %i {' '.join(document.dns)}")
        if self.domains:
            self._hook(f"resolvectl domain %i {' '.join(map(shlex.quote, self.domains))}")
        self._hook("resolvectl default-route %i false")


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
"""systemd's keys as words of `ip rule`, in its order, and what a value may be: root runs it."""


def _shape(rule: Rule) -> tuple[str, ...]:
    """Its words without the priority, in pairs."""
    words = re.sub(r" ?priority [0-9]+", "", rule.text)
    return tuple(re.findall(r"(?:not )?\w+ \S+", words))


def _metric(network: str, metric: int) -> int:
    """0 for what the kernel would choose itself."""
    return 0 if ":" in network and metric == 1024 else metric
