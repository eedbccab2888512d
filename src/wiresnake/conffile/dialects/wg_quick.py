"""wg-quick's own dialect, and those of the apps, which are parts of it with additions."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from wiresnake.conffile import labels, lines
from wiresnake.conffile.check import FOREIGN, QUICK, WG
from wiresnake.conffile.dialects.document import (
    Document,
    LeftOut,
    Peer,
    canonical,
    is_server,
    merged,
)
from wiresnake.conffile.lines import HOOKS, Line, squeeze
from wiresnake.conffile.relations import items
from wiresnake.errors import ConfigError

_KEYS = {section: {key.lower(): key for key in (*WG[section], *QUICK[section])} for section in WG}


def read(text: str, name: str) -> tuple[Document, list[LeftOut]]:
    """Keys of other dialects and unknown ones are left out; a wrong value is a ConfigError with
    `name`:line:column."""
    reader = _Reader()
    for line in lines.read(text):
        try:
            reader.feed(line)
        except ConfigError as error:
            raise ConfigError(f"{name}:{line.number}:{line.value_column}: {error}") from None
    return reader.finish(name), reader.left


@dataclass
class _Reader:
    document: Document = field(default_factory=Document)
    peers: list[tuple[int, Peer]] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    open: str = ""

    def feed(self, line: Line) -> None:
        if line.header:
            self._header(line)
        elif line.equals:
            self._setting(line)
        elif line.value:
            raise ConfigError("neither a section nor 'Key = value'; comments start with '#'")
        elif self.open == "peer" and not self.peers[-1][1].name:
            self._change_peer(name=labels.of_comment(line.comment))

    def _header(self, line: Line) -> None:
        self.open = squeeze(line.text.partition("#")[0]).lower()[1:-1]
        if self.open == "peer":
            self.peers.append((line.number, Peer("")))
        elif self.open != "interface":
            why = "an unknown section"
            self.left.append(LeftOut(line.number, f"[{line.section}]", why, changes=True))

    def _setting(self, line: Line) -> None:
        known = _KEYS.get(self.open)
        if not self.open:
            raise ConfigError("a line before any section; write [Interface] above it")
        if known is None:
            return  # The section is left out, and that is said.
        key = known.get(line.name)
        if key is None:
            # What is no known key may be half of a secret that a line break has cut.
            shown = line.key if line.name in FOREIGN or len(line.key) <= 12 else "a line"
            self.left.append(LeftOut(line.number, shown, *_why_unknown(line.name, line.value)))
        elif line.name in HOOKS and not squeeze(line.value):
            pass  # Generators of files write them; nothing is run.
        elif line.name in HOOKS:
            if self.open == "peer":
                self._change_peer(hooks=(*self.peers[-1][1].hooks, (key, line.value)))
            else:
                hooks = (*self.document.hooks, (key, line.value))
                self.document = replace(self.document, hooks=hooks)
        else:
            found = [(item, canonical(line.name, item)) for item, _ in items(line) if item]
            if found or line.name not in ("address", "dns", "mtu", "table"):
                self._take(line.name, [value for _, value in found])

    def _take(self, name: str, found: list[str]) -> None:
        if not found:
            raise ConfigError("the value is missing; give it one or remove the line")
        one, document = found[0], self.document
        match name:
            case "publickey":
                self._change_peer(public_key=one)
            case "presharedkey":
                self._change_peer(preshared_key=one)
            case "allowedips":
                self._change_peer(allowed_ips=(*self.peers[-1][1].allowed_ips, *found))
            case "endpoint":
                self._change_peer(endpoint=one)
            case "persistentkeepalive":
                self._change_peer(keepalive=int(one))
            case "privatekey":
                self.document = replace(document, private_key=one)
            case "listenport":
                self.document = replace(document, listen_port=int(one))
            case "fwmark":
                self.document = replace(document, fwmark=int(one))
            case "mtu":
                self.document = replace(document, mtu=int(one))
            case "table":
                self.document = replace(document, table=one)
            case "saveconfig":
                self.document = replace(document, save=one.lower() == "true")
            case "address":
                self.document = replace(document, addresses=(*document.addresses, *found))
            case "dns":
                servers = tuple(filter(is_server, found))
                search = tuple(word for word in found if not is_server(word))
                self.document = replace(
                    document, dns=document.dns + servers, search=document.search + search
                )

    def _change_peer(self, **changes: object) -> None:
        number, peer = self.peers[-1]
        self.peers[-1] = number, replace(peer, **changes)  # type: ignore[arg-type]

    def finish(self, name: str) -> Document:
        known: set[str] = set()
        for number, peer in self.peers:
            if not peer.public_key:
                what = "this [Peer] has no PublicKey; add the other end's"
                raise ConfigError(f"{name}:{number}:1: {what}")
            if peer.public_key in known:
                why = "this peer comes a second time; its AllowedIPs replace the first ones"
                self.left.append(LeftOut(number, "[Peer]", why))
            known.add(peer.public_key)
        return replace(self.document, peers=merged(peer for _, peer in self.peers))


def _why_unknown(name: str, value: str) -> tuple[str, bool]:
    """Why a key is left out, and whether the tunnel does something else without it."""
    match FOREIGN.get(name):
        case "Android" if name == "includedapplications":
            why = "only these apps use the tunnel; on Linux all would, unless routes, rules or"
            return f"{why} namespaces choose", True
        case "Android":
            return "Android's choice of apps, which this host has none of", False
        case "AmneziaWG":
            if name.startswith(("j", "i")):
                return "AmneziaWG's junk, which the other end does without", False
            plain = name[1:] if name.startswith("h") else "0"
            if squeeze(value) == plain:
                return "AmneziaWG's, with the value of plain WireGuard", False
            why = "AmneziaWG's disguise; if the other end has it, plain WireGuard cannot talk to it"
            return why, True
    return "an unknown key, which wg refuses too; correct or remove the line", True


def write(document: Document) -> str:
    """wg-quick's text."""
    return "\n".join([*_interface(document), *_peers(document), ""])


def _interface(document: Document) -> Iterator[str]:
    yield "[Interface]"
    if document.private_key:
        yield f"PrivateKey = {document.private_key}"
    if document.addresses:
        yield f"Address = {', '.join(document.addresses)}"
    if document.listen_port:
        yield f"ListenPort = {document.listen_port}"
    if document.fwmark:
        yield f"FwMark = {document.fwmark:#x}"
    if document.dns or document.search:
        yield f"DNS = {', '.join((*document.dns, *document.search))}"
    if document.mtu:
        yield f"MTU = {document.mtu}"
    if document.table:
        yield f"Table = {document.table}"
    if document.save:
        yield "SaveConfig = true"
    for key, command in document.hooks:
        yield f"{key} = {command}"


def _peers(document: Document) -> Iterator[str]:
    for peer in document.peers:
        yield ""
        yield "[Peer]"
        if peer.name:
            yield f"# friendly_name = {peer.name}"
        yield f"PublicKey = {peer.public_key}"
        if peer.preshared_key:
            yield f"PresharedKey = {peer.preshared_key}"
        if peer.allowed_ips:
            yield f"AllowedIPs = {', '.join(peer.allowed_ips)}"
        if peer.endpoint:
            yield f"Endpoint = {peer.endpoint}"
        if peer.keepalive:
            yield f"PersistentKeepalive = {peer.keepalive}"
        for key, command in peer.hooks:
            yield f"{key} = {command}"


def for_app(document: Document, app: str) -> tuple[Document, list[LeftOut]]:
    """Less what the app refuses to import: one strange key, and it takes nothing."""
    if not document.private_key:
        raise ConfigError(f"{app} takes no configuration without PrivateKey; add one")
    left = []
    if document.fwmark:
        left.append(LeftOut(0, "FwMark", f"{app} has no marks"))
    if document.table and not (app == "Windows" and document.table.lower() == "off"):
        left.append(LeftOut(0, "Table", f"{app} makes routes to all AllowedIPs", changes=True))
        document = replace(document, table="")
    if document.save:
        left.append(LeftOut(0, "SaveConfig", f"{app} keeps configurations itself"))
    bare, hooks = without_hooks(document, f"{app} cannot run commands of Linux")
    return replace(bare, fwmark=0, save=False), left + hooks


def without_hooks(document: Document, why: str) -> tuple[Document, list[LeftOut]]:
    peers = tuple(replace(peer, hooks=()) for peer in document.peers)
    pairs = [*document.hooks, *(pair for peer in document.peers for pair in peer.hooks)]
    keys = dict.fromkeys(key for key, _ in pairs)
    left = [LeftOut(0, key, why, changes=True) for key in keys]
    return replace(document, hooks=(), peers=peers), left
