"""New configurations: a server with networks of its own, and peers with its next addresses.

Only text and numbers; the caller reads and writes the files.
"""

import base64
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.errors import ConfigError
from wiresnake.quick import forwarding, lines, names
from wiresnake.quick.check import check
from wiresnake.quick.relations import Section, items

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORT = 51820
_TRIES = 1000


def free_networks(taken: Sequence[Network]) -> tuple[Interface, Interface]:
    """The server's first address in a private IPv4 /24 and in a ULA /64 (RFC 4193), both random,
    so that two sites that meet one day hardly have the same, and none overlapping `taken`."""
    for _ in range(_TRIES):
        four = ipaddress.ip_interface(f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.1/24")
        if not _overlaps(four.network, taken):
            break
    else:
        raise ConfigError("found no free network in 10.0.0.0/8; choose one with --address")
    while True:
        site = bytes([0xFD]) + secrets.token_bytes(5)
        six = ipaddress.ip_interface((int.from_bytes(site + bytes(9) + b"\x01"), 64))
        if not _overlaps(six.network, taken):
            return four, six


def _overlaps(network: Network, others: Iterable[Network]) -> bool:
    return any(network.version == one.version and network.overlaps(one) for one in others)


def networks(text: str) -> list[Network]:
    """All that a file claims: its addresses' networks and what is behind its peers; a default
    route claims nothing."""
    server = _Sections(text)
    found = [interface.network for interface in _interfaces(server.interface)]
    return [one for one in (*found, *_allowed(server.peers)) if one.prefixlen]


def listen_port(text: str) -> int | None:
    value = _Sections(text).interface.value("listenport")
    return int(value) if value.isascii() and value.isdecimal() else None


def saves(text: str) -> bool:
    """Whether wg-quick writes the file anew as the interface goes down."""
    return _Sections(text).interface.value("saveconfig").lower() == "true"


def server(
    name: str,
    addresses: Sequence[Interface],
    port: int,
    *,
    endpoint: str | None = None,
    dns: str | None = None,
    nat: bool = False,
    forward: bool = False,
) -> str:
    """The text of a new server's file. What `peer` needs to know later stands in comments. Peers
    reach each other if it is to `forward`; with `nat` all that the server reaches."""
    told = [f"# `wiresnake new peer NAME --server {name}` adds a peer."]
    if endpoint:
        told.append(f"# endpoint = {with_port(endpoint, port)}")
    if dns := _servers(dns):
        told.append(f"# dns = {dns}")
    key = _base64(PrivateKey.generate())
    body = [
        "[Interface]",
        f"PrivateKey = {key}",
        f"Address = {', '.join(map(str, addresses))}",
        f"ListenPort = {port}",
    ]
    if nat:
        body += forwarding.nat(name, addresses)
    elif forward:
        body += forwarding.among_peers(name, addresses)
    return "\n".join([*told, *body, ""])


@dataclass(frozen=True, slots=True)
class Pair:
    """The server's file with the new peer, and the peer's own file."""

    server: str = field(repr=False)
    peer: str = field(repr=False)
    addresses: tuple[str, ...]


def peer(
    name: str,
    text: str,
    *,
    file: str,
    endpoint: str | None = None,
    allowed: Sequence[str] = (),
    addresses: Sequence[str] = (),
    dns: str | None = None,
    keepalive: int = 0,
    preshared: bool = True,
) -> Pair:
    """Adds a peer to a server's file; all that stands there stays as it is.

    ConfigError says what is missing in `file`, or what is taken.
    """
    for finding in check(text):
        if finding.level == "error":
            place = f"{file}:{finding.line}:{finding.column}"
            raise ConfigError(f"{place}: {finding.reason}; {finding.remedy}")
    sections = _Sections(text)
    if name in sections.names:
        raise ConfigError(f"{file} has a peer '{name}' already; choose another name")
    private = sections.interface.value("privatekey")
    own = PrivateKey.from_base64(private.encode()) if private else None
    if own is None:
        raise ConfigError(f"{file} has no PrivateKey; `wiresnake new server` makes a whole file")
    endpoint = endpoint or sections.told.get("endpoint")
    if not endpoint:
        raise ConfigError(
            f"nothing says how peers reach the server: give --endpoint HOST, or write"
            f" '# endpoint = HOST:PORT' into {file}"
        )
    port = sections.interface.value("listenport")
    endpoint = with_port(endpoint, port)
    hosts = _given(addresses, sections, file) or _next(sections, file)
    key = PrivateKey.generate()
    shared = [f"PresharedKey = {_base64(PresharedKey.generate())}"] if preshared else []
    dns = _servers(dns or sections.told.get("dns"))
    theirs = [
        "[Interface]",
        f"PrivateKey = {_base64(key)}",
        f"Address = {', '.join(hosts)}",
        *([f"DNS = {dns}"] if dns else []),
        "",
        "[Peer]",
        f"PublicKey = {base64.b64encode(own.public).decode()}",
        *shared,
        f"AllowedIPs = {', '.join(allowed or _inside(sections))}",
        f"Endpoint = {endpoint}",
        *([f"PersistentKeepalive = {keepalive}"] if keepalive else []),
        "",
    ]
    ours = [
        "[Peer]",
        f"# friendly_name = {name}",
        f"PublicKey = {base64.b64encode(key.public).decode()}",
        *shared,
        f"AllowedIPs = {', '.join(hosts)}",
        "",
    ]
    gap = "\n" if text.endswith("\n") or not text else "\n\n"
    return Pair(text + gap + "\n".join(ours), "\n".join(theirs), tuple(hosts))


def with_port(endpoint: str, port: str | int) -> str:
    """`HOST:PORT` from a host with or without a port, an IPv6 address with or without brackets."""
    try:
        address = ipaddress.ip_address(endpoint.strip("[]"))
    except ValueError:
        host, colon, number = endpoint.rpartition(":")
        plain = re.fullmatch(r"[^\s/#]+", endpoint) is not None
        if plain and host and re.fullmatch("[0-9]{1,5}", number) and 0 < int(number) < 65536:
            return endpoint
        if colon or not plain:
            raise ConfigError(f"'{endpoint}' is no endpoint; give HOST or HOST:PORT") from None
        host = endpoint
    else:
        host = f"[{address}]" if address.version == 6 else str(address)
    if not port:
        raise ConfigError(f"the server has no ListenPort; give --endpoint {host}:PORT")
    return f"{host}:{port}"


def _servers(dns: str | None) -> str | None:
    words = re.split(r"[\s,]+", dns.strip()) if dns else []
    if any("#" in word or "=" in word for word in words):
        raise ConfigError(f"'{dns}' is no list of DNS servers; as 10.7.0.1, example.com")
    return ", ".join(words)


class _Sections:
    """A server's file, cut up."""

    def __init__(self, text: str) -> None:
        self.interface = Section(lines.Line(1, "", "", False, "", "", False, 1, 1, ""))
        self.peers: list[Section] = []
        self.names = {notes.name for notes in names.read(text).values()}
        self.told: dict[str, str] = {}
        """What comments outside of peers say: `# endpoint = HOST:PORT`, `# dns = ...`."""
        opened = self.interface
        for line in lines.read(text):
            if line.header and line.section == "peer":
                opened = Section(line)
                self.peers.append(opened)
            elif line.header:
                opened = self.interface
            elif line.key:
                opened.lines.setdefault(line.name, []).append(line)
            key, equals, value = map(str.strip, line.comment.partition("="))
            if equals and line.section != "peer" and key in ("endpoint", "dns"):
                self.told[key] = value


def _interfaces(section: Section) -> list[Interface]:
    found = []
    for line in section.lines.get("address", ()):
        for item, _ in items(line):
            try:
                found.append(ipaddress.ip_interface(item))
            except ValueError:
                continue
    return found


def _allowed(peers: Iterable[Section]) -> list[Network]:
    found = []
    for one in peers:
        for line in one.lines.get("allowedips", ()):
            for item, _ in items(line):
                try:
                    found.append(ipaddress.ip_network(item.removeprefix("+"), strict=False))
                except ValueError:
                    continue
    return found


def _inside(sections: _Sections) -> list[str]:
    """What is behind the tunnel at least: the server's networks."""
    return list(dict.fromkeys(str(one.network) for one in _interfaces(sections.interface)))


def _next(sections: _Sections, file: str) -> list[str]:
    """The first free address of each of the server's networks, the same in all if it can be."""
    own = _interfaces(sections.interface)
    wide = {one.network: None for one in own if one.network.num_addresses > 1}
    if not wide:
        raise ConfigError(f"{file} has no Address with a network; give the peer's with --address")
    taken = _allowed(sections.peers)
    return [_free(network, own, taken, file) for network in wide]


def _free(network: Network, own: list[Interface], taken: list[Network], file: str) -> str:
    # A peer that has the whole network, a default route say, leaves parts of it to others.
    inside = [
        one for one in taken if one.version == network.version and one.prefixlen > network.prefixlen
    ]
    singles = {one[0] for one in inside if one.num_addresses == 1} | {one.ip for one in own}
    wide = [one for one in inside if one.num_addresses > 1]
    for host in network.hosts():
        if host not in singles and not any(host in one for one in wide):
            return f"{host}/{host.max_prefixlen}"
        if len(singles) > 1 << 20:
            break
    raise ConfigError(
        f"no free address is left in {network} of {file}; remove a peer, or give one"
        " of another network with --address"
    )


def _given(addresses: Sequence[str], sections: _Sections, file: str) -> list[str]:
    """Addresses that the user chose; each must be free."""
    own = {one.ip for one in _interfaces(sections.interface)}
    taken = set(_allowed(sections.peers))
    found = []
    for text in addresses:
        try:
            host = ipaddress.ip_address(text.partition("/")[0])
            if ipaddress.ip_interface(text).network.num_addresses > 1 and "/" in text:
                raise ValueError
        except ValueError:
            raise ConfigError(f"'{text}' is no address of one host; write 10.0.0.2") from None
        if host in own or ipaddress.ip_network(host) in taken:
            raise ConfigError(f"{host} is taken in {file}; choose another, or leave --address out")
        found.append(f"{host}/{host.max_prefixlen}")
    return found


def _base64(key: PrivateKey | PresharedKey) -> str:
    buffer = bytearray(44)
    key.write_base64(buffer, 0)
    return buffer.decode()
