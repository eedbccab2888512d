"""Makes new configurations: a server with its own networks, and peers with its next addresses.

This works on text and numbers only; the caller reads and writes the files.
"""

import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.conffile import forwarding, labels, lines, scanner, schema
from wiresnake.conffile.check import check
from wiresnake.conffile.dialects import wg_quick
from wiresnake.conffile.dialects.document import Document, Peer
from wiresnake.conffile.relations import Section
from wiresnake.conffile.write import written
from wiresnake.errors import ConfigError
from wiresnake.text import base64_text

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORT = 51820
_TRIES = 1000
_LONGEST = 64
_MOST = 1 << 20
"""The most hosts of a network that are tried."""


def free_networks(taken: Sequence[Network]) -> tuple[Interface, Interface]:
    """Returns the server's first address in a private IPv4 /24 and in a ULA /64 (RFC 4193). Both
    are random, so that two sites hardly ever have the same, and do not overlap `taken`."""
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
    """Returns all networks that a file claims: those of its addresses and of its peers. A default
    route claims nothing."""
    server = _Sections(text)
    found = [interface.network for interface in _interfaces(server.interface)]
    return [one for one in (*found, *_allowed(server.peers)) if one.prefixlen]


def listen_port(text: str) -> int | None:
    value = _Sections(text).interface.value(schema.LISTEN_PORT)
    return int(value) if value.isascii() and value.isdecimal() else None


def is_servers(text: str) -> bool:
    """Returns whether a file is a server's: it listens, and has no endpoint for any peer."""
    sections = _Sections(text)
    calls = any(one.value(schema.ENDPOINT) for one in sections.peers)
    return bool(sections.interface.value(schema.LISTEN_PORT)) and not calls


def saves(text: str) -> bool:
    """Returns whether wg-quick overwrites the file when the interface goes down."""
    return _Sections(text).interface.value(schema.SAVE_CONFIG).lower() == "true"


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
    """Returns the text of a new server's file. Comments keep what `peer` needs later. With
    `forward` peers reach each other, with `nat` everything that the server reaches."""
    comments = [f"# `wiresnake new peer NAME --server {name}` adds a peer."]
    if endpoint:
        comments.append(f"# endpoint = {with_port(endpoint, port)}")
    if dns := _servers(dns):
        comments.append(f"# dns = {dns}")
    key = _base64(PrivateKey.generate())
    file = Document(private_key=key, addresses=tuple(map(str, addresses)), listen_port=port)
    forwards: Sequence[str] = ()
    if nat:
        forwards = forwarding.nat(name, addresses)
    elif forward:
        forwards = forwarding.among_peers(name, addresses)
    return "\n".join([*comments, wg_quick.write(file) + "".join(f"{line}\n" for line in forwards)])


@dataclass(frozen=True, slots=True)
class Pair:
    """The server's file with the new peer, and the peer's own file."""

    server: str = field(repr=False)
    peer: str = field(repr=False)
    addresses: tuple[str, ...]
    changed: tuple[str, ...]
    """The public keys that are new in the server's file, or removed from it."""
    noted: str = ""
    """The endpoint, if the server's file now remembers it for the next peer."""


def assert_name(name: str) -> None:
    """Raises ConfigError unless the name fits into a comment and can name a file. It need not be an
    interface's name (`files.is_name`), because a phone accepts any name."""
    shown = labels.displayed(lines.printable(name))
    plain = shown == name and not name.startswith((".", "-")) and "/" not in name
    if not name or not plain or len(name.encode()) > _LONGEST:
        raise ConfigError(
            f"'{shown}' is not a valid peer name: use up to {_LONGEST} bytes without '/', and do"
            " not begin with '.', '-' or a blank"
        )


def masquerades(text: str) -> bool:
    """Returns whether a hook of the file mentions NAT. Scripts that it calls are not examined."""
    known = ((line.known, line.value.lower()) for line in lines.read(text))
    hooks = [value for key, value in known if key and key.kind == "command"]
    return any(word in hook for hook in hooks for word in ("masquerade", "snat"))


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
    taken: Sequence[Network] = (),
    replaces: bool = False,
) -> Pair:
    """Adds a peer to a server's file, whose other contents stay unchanged.

    `taken` are addresses in use that the file may not have. `dns` is empty for none, and None for
    what the file remembers. With `replaces` the peer of that name gets new keys and keeps
    everything else. ConfigError says what is missing in `file`, or what is taken.
    """
    for finding in check(text):
        if finding.level == "error":
            place = f"{file}:{finding.line}:{finding.column}"
            raise ConfigError(f"{place}: {finding.reason}; {finding.remedy}")
    sections = _Sections(text)
    old = sections.called(name)
    if replaces and not old:
        raise ConfigError(f"{file} has no peer '{name}' to replace")
    if old and not replaces:
        raise ConfigError(
            f"{file} already has a peer '{name}'; choose another name, or give it new keys with"
            " --replace"
        )
    private = sections.interface.value(schema.PRIVATE_KEY)
    own = PrivateKey.from_base64(private.encode()) if private else None
    if own is None:
        raise ConfigError(f"{file} has no PrivateKey; `wiresnake new server` makes a whole file")
    known = sections.remembered.get("endpoint")
    endpoint = endpoint or known
    if not endpoint:
        raise ConfigError(
            f"the server's address for peers is unknown: give --endpoint HOST, or write '#"
            f" endpoint = HOST:PORT' into {file}"
        )
    port = sections.interface.value(schema.LISTEN_PORT)
    endpoint = with_port(endpoint, port)
    taken = [*_allowed(sections.peers), *taken]
    if replaces:
        hosts = _same(old, sections, file)
    else:
        hosts = _given(addresses, sections, taken, file) or _next(sections, taken, file)
    key = PrivateKey.generate()
    shared = _base64(PresharedKey.generate()) if preshared else ""
    dns = _servers(sections.remembered.get("dns") if dns is None else dns)
    ours = Peer(
        base64_text(own.public),
        preshared_key=shared,
        allowed_ips=tuple(allowed or _inside(sections)),
        endpoint=endpoint,
        persistent_keepalive=keepalive,
    )
    theirs = Document(
        private_key=_base64(key),
        addresses=tuple(hosts),
        dns=tuple(dns.split(", ")) if dns else (),
        peers=(ours,),
    )
    public = base64_text(key.public)
    new = Peer(public, name, shared, tuple(hosts))
    if replaces:
        text = _with_keys(text, old, new)
    else:
        text += "\n" if text.endswith("\n") or not text else "\n\n"
        text += "".join(f"{line}\n" for line in wg_quick.write_peer(new))
    if not known:
        text = _with_endpoint(text, endpoint)
    changed = (public, *sorted({one.value(schema.PUBLIC_KEY) for one in old}))
    noted = "" if known else endpoint
    return Pair(text, wg_quick.write(theirs), tuple(hosts), changed, noted)


def without(text: str, peer: str, *, file: str) -> tuple[str, str]:
    """Returns a server's file without the peer of that name or public key, and its public key. The
    comment directly above the section is removed too. ConfigError if there is no such peer, or more
    than one.
    """
    sections = _Sections(text)
    found = sections.called(peer)
    keys = {one.value(schema.PUBLIC_KEY) for one in found}
    if not keys:
        raise ConfigError(
            f"{file} has no peer '{peer}'; give the name in the file or the public key"
        )
    if len(keys) > 1:
        raise ConfigError(f"{file} has {len(keys)} peers called '{peer}': give the public key")
    rows = text.split("\n")
    for section in reversed(found):
        begin, end = _extent(rows, section)
        del rows[begin:end]
        if begin == len(rows):  # Removes the empty lines before a last section.
            while rows and not rows[-1].strip():
                rows.pop()
            rows.append("")
    return "\n".join(rows), keys.pop()


def _extent(rows: Sequence[str], section: Section) -> tuple[int, int]:
    """Returns the rows of a peer, with the empty ones after it."""

    def is_comment(at: int) -> bool:
        line = next(lines.read(rows[at]), lines.NO_LINE)
        plain = not (line.header or line.equals or line.value)
        return plain and bool(line.comment) and not labels.is_kept(line)

    begin = section.header.number - 1
    end = max([begin, *(line.number - 1 for found in section.lines.values() for line in found)]) + 1
    while begin and is_comment(begin - 1):
        begin -= 1
    after = end
    while after < len(rows) and is_comment(after):
        after += 1
    # Otherwise the comment belongs to the next peer.
    if after == len(rows) or not rows[after].strip():
        end = after
    while end < len(rows) and not rows[end].strip():
        end += 1
    return begin, end


def _with_keys(text: str, peer: Sequence[Section], keys: Peer) -> str:
    """Replaces the keys in place; the rest of the peer stays."""
    rows = text.split("\n")
    gone: set[int] = set()
    for section in peer:
        ending = "\r" if rows[section.header.number - 1].endswith("\r") else ""
        new = [f"{row}{ending}" for row in written(_KEYS, keys)]
        first, *more = (line.number - 1 for line in section.lines[schema.PUBLIC_KEY])
        more += (line.number - 1 for line in section.lines.get(schema.PRESHARED_KEY, ()))
        rows[first] = "\n".join(new)
        gone.update(more)
    return "\n".join(row for at, row in enumerate(rows) if at not in gone)


_KEYS = (schema.PUBLIC_KEY, schema.PRESHARED_KEY)


def _with_endpoint(text: str, endpoint: str) -> str:
    """Writes the endpoint below the first header, for the next peer."""
    rows = text.split("\n")
    header = next(line for line in lines.read(text) if line.header and line.section == "interface")
    ending = "\r" if header.text != rows[header.number - 1] else ""
    rows.insert(header.number, f"# endpoint = {endpoint}{ending}")
    return "\n".join(rows)


def with_port(endpoint: str, port: str | int) -> str:
    """Returns `HOST:PORT` for a host with or without a port, an IPv6 address with or without
    brackets."""
    try:
        address = ipaddress.ip_address(endpoint.strip("[]"))
    except ValueError:
        host, colon, number = endpoint.rpartition(":")
        plain = re.fullmatch(r"[^\s/#]+", endpoint) is not None
        if plain and host and re.fullmatch("[0-9]{1,5}", number) and 0 < int(number) < 65536:
            return endpoint
        if colon or not plain:
            raise ConfigError(f"'{endpoint}' is not an endpoint; give HOST or HOST:PORT") from None
        host = endpoint
    else:
        host = f"[{address}]" if address.version == 6 else str(address)
    if not port:
        raise ConfigError(f"the server has no ListenPort; give --endpoint {host}:PORT")
    return f"{host}:{port}"


def _servers(dns: str | None) -> str | None:
    words = re.split(r"[\s,]+", dns.strip()) if dns else []
    if any("#" in word or "=" in word for word in words):
        raise ConfigError(f"'{dns}' is not a list of DNS servers, such as 10.7.0.1, example.com")
    return ", ".join(words)


class _Sections:
    """A server's file, cut into sections."""

    def __init__(self, text: str) -> None:
        self.interface = Section(lines.NO_LINE)
        self.peers: list[Section] = []
        data = text.encode("utf-8", "surrogateescape")
        self._names = {key: peer.name for key, peer in labels.read(data).items()}
        self.remembered = labels.remembered(data, scanner.scan(data))
        opened = self.interface
        for line in lines.read(text):
            if line.header and line.section == "peer":
                opened = Section(line)
                self.peers.append(opened)
            elif line.header:
                opened = self.interface
            elif line.key:
                opened.lines.setdefault(line.known, []).append(line)

    def called(self, peer: str) -> list[Section]:
        """Returns the peers of that name or public key."""
        keys = {peer, *(key for key, name in self._names.items() if name == peer)}
        return [one for one in self.peers if one.value(schema.PUBLIC_KEY) in keys]


def _interfaces(section: Section) -> list[Interface]:
    return [one for one, _ in section.each(schema.ADDRESS, ipaddress.ip_interface)]


def _allowed(peers: Iterable[Section]) -> list[Network]:
    def network(item: str) -> Network:
        return ipaddress.ip_network(item.removeprefix("+"), strict=False)

    return [one for peer in peers for one, _ in peer.each(schema.ALLOWED_IPS, network)]


def _inside(sections: _Sections) -> list[str]:
    """Returns the server's networks, which peers always reach through the tunnel."""
    return list(dict.fromkeys(str(one.network) for one in _interfaces(sections.interface)))


def _next(sections: _Sections, taken: Sequence[Network], file: str) -> list[str]:
    """Returns the first free address in each of the server's networks, with the same number if
    possible."""
    own = _interfaces(sections.interface)
    wide = {one.network: None for one in own if one.network.num_addresses > 1}
    if not wide:
        raise ConfigError(f"{file} has no Address with a network; give the peer's with --address")
    free = [_Free(network, own, taken) for network in wide]
    smallest = min(free, key=lambda one: one.network.num_addresses)
    for number in smallest.numbers():
        if all(number in one for one in free):
            return [one.host(number) for one in free]
    found = []
    for one in free:
        first = next((number for number in one.numbers() if number in one), None)
        if first is None:
            raise ConfigError(
                f"{one.network} of {file} has no free address; remove a peer, or give an address"
                " of another network with --address"
            )
        found.append(one.host(first))
    return found


class _Free:
    """Yields the numbers of a network's free hosts."""

    def __init__(
        self, network: Network, own: Sequence[Interface], taken: Sequence[Network]
    ) -> None:
        self.network = network
        # A peer with the whole network, such as a default route, does not own every address in it.
        inside = [
            one
            for one in taken
            if one.version == network.version and one.prefixlen > network.prefixlen
        ]
        self._singles = {one[0] for one in inside if one.num_addresses == 1}
        self._singles |= {one.ip for one in own}
        self._wide = [one for one in inside if one.num_addresses > 1]

    def numbers(self) -> Iterator[int]:
        """Yields the numbers of all hosts that are worth trying."""
        first = int(self.network.network_address)
        return (int(host) - first for host in islice(self.network.hosts(), _MOST))

    def __contains__(self, number: int) -> bool:
        if not number and self.network.num_addresses > 2:
            return False  # The network's own address, and IPv6's anycast address for routers.
        host = self.network[number]
        return host not in self._singles and not any(host in one for one in self._wide)

    def host(self, number: int) -> str:
        host = self.network[number]
        return f"{host}/{host.max_prefixlen}"


def _same(old: Sequence[Section], sections: _Sections, file: str) -> list[str]:
    """Returns the addresses of an existing peer."""
    inside = [one.network for one in _interfaces(sections.interface)]
    hosts = [
        f"{one[0]}/{one.prefixlen}"
        for one in _allowed(old)
        if one.num_addresses == 1 and any(one[0] in network for network in inside)
    ]
    if not hosts:
        raise ConfigError(f"{file} has no address in the server's networks for that peer")
    return hosts


def _given(
    addresses: Sequence[str], sections: _Sections, taken: Sequence[Network], file: str
) -> list[str]:
    """Reads addresses that the user chose; each must be free."""
    own = {one.ip for one in _interfaces(sections.interface)}
    found = []
    for text in addresses:
        try:
            host = ipaddress.ip_address(text.partition("/")[0])
            if ipaddress.ip_interface(text).network.num_addresses > 1 and "/" in text:
                raise ValueError
        except ValueError:
            what = f"'{text}' is not an address of a single host, such as 10.0.0.2"
            raise ConfigError(what) from None
        if host in own or ipaddress.ip_network(host) in taken:
            raise ConfigError(f"{host} is taken in {file}; choose another, or omit --address")
        found.append(f"{host}/{host.max_prefixlen}")
    return found


def _base64(key: PrivateKey | PresharedKey) -> str:
    buffer = bytearray(44)
    key.write_base64(buffer, 0)
    return buffer.decode()
