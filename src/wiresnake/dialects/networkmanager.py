"""NetworkManager's keyfiles, .nmconnection (nm-settings-keyfile(5))."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from wiresnake.dialects import ini
from wiresnake.dialects.document import Document, LeftOut, Peer, canonical, merged
from wiresnake.dialects.ini import Entry, Section
from wiresnake.dialects.wg_quick import without_hooks
from wiresnake.errors import ConfigError

_PEER = "wireguard-peer."
_OWN = frozenset(("id", "uuid", "type", "interface-name", "timestamp"))
"""Of [connection]: what is NetworkManager's own affair."""


def write(document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """The file by its name."""
    bare, left = without_hooks(document, "NetworkManager runs no commands of a connection")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", "NetworkManager keeps connections itself"))
    table = document.table.lower()
    if table not in ("", "off", "main", "254") and not table.isdecimal():
        left.append(LeftOut(0, "Table", "NetworkManager knows tables by their number only"))
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
    if document.private_key:
        yield f"private-key={document.private_key}"
    if document.listen_port:
        yield f"listen-port={document.listen_port}"
    if document.fwmark:
        yield f"fwmark={document.fwmark}"
    if document.mtu:
        yield f"mtu={document.mtu}"
    if document.table.lower() == "off":
        yield "peer-routes=false"
    elif document.table and document.default:
        yield from ("ip4-auto-default-route=0", "ip6-auto-default-route=0")
    for peer in document.peers:
        yield from ("", f"[{_PEER}{peer.public_key}]")
        if peer.name:
            yield f"# friendly_name = {peer.name}"
        if peer.endpoint:
            yield f"endpoint={peer.endpoint}"
        if peer.preshared_key:
            yield from (f"preshared-key={peer.preshared_key}", "preshared-key-flags=0")
        if peer.keepalive:
            yield f"persistent-keepalive={peer.keepalive}"
        if peer.allowed_ips:
            yield f"allowed-ips={';'.join(peer.allowed_ips)};"
    for version in (4, 6):
        yield from ("", f"[ipv{version}]")
        yield from _ip(document, version)


def _ip(document: Document, version: int) -> Iterator[str]:
    addresses = [one for one in document.addresses if _version(one) == version]
    yield f"method={'manual' if addresses else 'disabled'}"
    yield from (f"address{number}={one}" for number, one in enumerate(addresses, 1))
    table = {"main": "254"}.get(document.table.lower(), document.table)
    if table.isdecimal():
        yield f"route-table={table}"
    if not addresses:
        return
    servers = [one for one in document.dns if _version(one) == version]
    if servers:
        # As wg-quick's: these servers alone, while the tunnel is up.
        yield from (f"dns={';'.join(servers)};", "dns-priority=-50")
    if document.search:
        yield f"dns-search={';'.join(document.search)};"


def _version(address: str) -> int:
    return ipaddress.ip_interface(address).version


def read(name: str, text: str) -> tuple[Document, str, list[LeftOut]]:
    """What the file says, the interface's name, and what was left out; ConfigError with
    `name`:line:column."""
    reader = _Reader(name)
    for section in ini.read(text, name):
        reader.feed(section)
    if not reader.wireguard:
        raise ConfigError(f"{name}:1:1: not type=wireguard; give the file of a tunnel")
    return reader.finish(), reader.name, reader.left


@dataclass
class _Reader:
    file: str
    name: str = ""
    wireguard: bool = False
    document: Document = field(default_factory=Document)
    peers: list[Peer] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    peer_routes: bool = True
    left: list[LeftOut] = field(default_factory=list)

    def leave(self, entry: Entry, why: str = "wg-quick has nothing like it") -> None:
        self.left.append(LeftOut(entry.line, entry.key, why))

    def _canonical(self, name: str, entry: Entry, value: str) -> str:
        try:
            return canonical(name, value)
        except ConfigError as error:
            raise ConfigError(f"{self.file}:{entry.line}:1: {error}") from None

    def feed(self, section: Section) -> None:
        if section.title == "connection":
            self._connection(section)
        elif section.title == "wireguard":
            self._wireguard(section)
        elif section.title.startswith(_PEER):
            self._peer(section)
        elif section.title in ("ipv4", "ipv6"):
            for entry in section.entries:
                self._ip(entry)
        elif section.entries:
            why = "no section of a WireGuard connection"
            self.left.append(LeftOut(section.line, f"[{section.title}]", why))

    def _connection(self, section: Section) -> None:
        self.wireguard = section.last("type") == "wireguard"
        self.name = section.last("interface-name") or section.last("id")
        for entry in section.entries:
            if entry.key == "autoconnect":
                if entry.value != "false":
                    self.leave(entry, "systemctl enable wiresnake@NAME starts it at boot")
            elif entry.key not in _OWN:
                self.leave(entry)

    def _wireguard(self, section: Section) -> None:
        for entry in section.entries:
            value = entry.value
            match entry.key:
                case "private-key":
                    key = self._canonical("privatekey", entry, value)
                    self.document = replace(self.document, private_key=key)
                case "listen-port":
                    port = int(self._canonical("listenport", entry, value))
                    self.document = replace(self.document, listen_port=port)
                case "fwmark":
                    mark = int(self._canonical("fwmark", entry, value))
                    self.document = replace(self.document, fwmark=mark)
                case "mtu":
                    mtu = int(self._canonical("mtu", entry, value))
                    self.document = replace(self.document, mtu=mtu)
                case "peer-routes":
                    self.peer_routes = value != "false"
                case "private-key-flags" if value != "0":
                    self.leave(entry, "the private key is kept outside of the file; write it in")
                case "private-key-flags":
                    pass
                case "ip4-auto-default-route" | "ip6-auto-default-route":
                    if value == "0":
                        self.tables.append("254")
                case _:
                    self.leave(entry)

    def _peer(self, section: Section) -> None:
        header = Entry(section.line, section.title, "")
        public = self._canonical("publickey", header, section.title.removeprefix(_PEER))
        peer = Peer(public, section.name)
        for entry in section.entries:
            value = entry.value
            match entry.key:
                case "endpoint":
                    peer = replace(peer, endpoint=self._canonical("endpoint", entry, value))
                case "preshared-key":
                    psk = self._canonical("presharedkey", entry, value)
                    peer = replace(peer, preshared_key=psk)
                case "preshared-key-flags" if value not in ("0", "4"):
                    self.leave(entry, "the preshared key is kept outside of the file; write it in")
                case "preshared-key-flags":
                    pass
                case "persistent-keepalive":
                    seconds = int(self._canonical("persistentkeepalive", entry, value))
                    peer = replace(peer, keepalive=seconds)
                case "allowed-ips":
                    found = [self._canonical("allowedips", entry, one) for one in _list(value)]
                    peer = replace(peer, allowed_ips=tuple(found))
                case _:
                    self.leave(entry)
        self.peers.append(peer)

    def _ip(self, entry: Entry) -> None:
        key, value, document = entry.key, entry.value, self.document
        if key.startswith("address") and key.removeprefix("address").isdecimal():
            text, comma, _ = value.partition(",")
            if comma:
                self.leave(entry, "a gateway, which a tunnel has none; the address was taken")
            address = self._canonical("address", entry, text.strip())
            self.document = replace(document, addresses=(*document.addresses, address))
        elif key == "dns":
            servers = (*document.dns, *(one for one in _list(value) if self._is_server(entry, one)))
            self.document = replace(document, dns=servers)
        elif key == "dns-search":
            domains = [one for one in _list(value) if one not in ("~", "~.")]
            if any(one.startswith("~") for one in domains):
                self.leave(entry, "wg-quick cannot send only some names to the servers")
            search = (one for one in domains if not one.startswith("~"))
            merged_search = tuple(dict.fromkeys((*document.search, *search)))
            self.document = replace(document, search=merged_search)
        elif key == "route-table" and value.isdecimal():
            self.tables.append(self._canonical("table", entry, value))
        elif key == "method":
            if value not in ("manual", "disabled", "ignore", "link-local"):
                self.leave(entry, f"a tunnel has no {value} addresses")
        elif key not in ("dns-priority", "may-fail", "addr-gen-mode"):
            self.leave(entry)

    def _is_server(self, entry: Entry, text: str) -> bool:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            self.leave(entry, "wg-quick knows servers by their bare address only")
            return False
        return True

    def finish(self) -> Document:
        peers = merged(self.peers)
        if not self.peer_routes:
            return replace(self.document, peers=peers, table="off")
        numbers = sorted(set(self.tables) - {"0"}, key=lambda one: one == "254")
        table = numbers[0] if numbers else ""
        if len(numbers) > 1 and "254" not in numbers:
            self.left.append(LeftOut(1, "route-table", f"wg-quick has one for all; took {table}"))
        return replace(self.document, peers=peers, table="main" if table == "254" else table)


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.replace(",", ";").split(";") if part.strip()]
