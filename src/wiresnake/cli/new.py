"""`wiresnake new server|peer`: makes working configurations, with one command each."""

import argparse
import contextlib
import errno
import ipaddress
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from wiresnake.arguments import Parser
from wiresnake.conffile import files, generate
from wiresnake.conffile.files import New
from wiresnake.errors import ConfigError, HostError, WiresnakeError
from wiresnake.linux import streams
from wiresnake.linux.files import lock

T = TypeVar("T")

EPILOG = """\
examples:
  wiresnake new server --endpoint vpn.example.com --nat
  wiresnake new peer phone --full-tunnel
  wiresnake new peer laptop --allowed 192.168.7.0/24 --keepalive 25 -o laptop.conf
  wiresnake new peer phone --replace --reload    # it was lost: new keys, same addresses

exit codes: 0 made; 1 failed, and no file has changed"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Makes a server's configuration, or adds a peer to it and makes the peer's"
        " configuration.",
        epilog=EPILOG,
    )
    kinds = made.add_subparsers(dest="kind", required=True, metavar="server|peer")
    server = kinds.add_parser(
        "server",
        help="make a server's configuration, with its own networks",
        description="Makes NAME.conf with a new key and networks that nothing here uses yet: a"
        " private IPv4 network and a unique local IPv6 network.",
        epilog=EPILOG,
    )
    server.add_argument("--name", default="wg0", help="the interface's name (default: wg0)")
    server.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="how peers reach this host; remembered for `new peer`",
    )
    server.add_argument(
        "--port", type=_number(1), help="the UDP port (default: 51820, or the next free one)"
    )
    server.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS/LENGTH",
        help="the server's address and network; can be given again, or as a list with commas",
    )
    server.add_argument("--dns", help="the DNS servers of peers; remembered for `new peer`")
    server.add_argument(
        "--nat",
        action="store_true",
        help="let peers reach the internet through this host: forwarding and masquerading (nft)",
    )
    server.add_argument(
        "--dir", type=Path, default=files.FOLDER, help="the folder (default: /etc/wireguard)"
    )
    server.add_argument("--force", action="store_true", help="replace a file that exists")
    peer = kinds.add_parser(
        "peer",
        help="make a peer's configuration, and add the peer to the server's file",
        description="Adds a [Peer] with the next free addresses to the server's file, writes the"
        " peer's own file and shows it as a QR code. Either both files are written or neither.",
        epilog=EPILOG,
    )
    peer.add_argument(
        "name",
        metavar="NAME",
        help="the name of the peer and of its file; on a computer also of the interface: 1 to 15"
        " letters, digits, _=+.-",
    )
    peer.add_argument(
        "--server", default="wg0", metavar="NAME|FILE", help="the server (default: wg0)"
    )
    routes = peer.add_mutually_exclusive_group()
    routes.add_argument(
        "--full-tunnel", action="store_true", help="the peer sends everything through the tunnel"
    )
    routes.add_argument(
        "--allowed",
        action="append",
        default=[],
        metavar="NETWORK",
        help="what the peer sends through the tunnel (default: the server's networks)",
    )
    peer.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="how it reaches the server (default: as remembered)",
    )
    peer.add_argument(
        "--address",
        action="append",
        default=[],
        help="its addresses (default: the next free one of each network)",
    )
    dns = peer.add_mutually_exclusive_group()
    dns.add_argument("--dns", help="its DNS servers (default: as remembered)")
    dns.add_argument(
        "--no-dns", action="store_true", help="no DNS servers, for a computer that keeps its own"
    )
    peer.add_argument(
        "--keepalive",
        type=_number(0),
        default=0,
        metavar="SECONDS",
        help="keep the path through a NAT open; 25 suits most (default: off)",
    )
    peer.add_argument(
        "--psk",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a preshared key, against future quantum computers (default: yes)",
    )
    peer.add_argument(
        "--replace",
        action="store_true",
        help="make new keys for an existing peer, for example a lost one; the rest stays",
    )
    peer.add_argument("-o", "--output", type=Path, help="its file (default: ./NAME.conf)")
    peer.add_argument("--force", action="store_true", help="replace a file that exists")
    peer.add_argument("--no-qr", dest="qr", action="store_false", help="do not show the QR code")
    peer.add_argument(
        "--reload", action="store_true", help="add the peer to the running server at once"
    )
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    return _server(arguments) if arguments.kind == "server" else _peer(arguments)


def _server(arguments: argparse.Namespace) -> int:
    name: str = arguments.name
    if not files.is_name(name):
        raise ConfigError(
            f"'{name}' is not a valid interface name; use 1 to 15 letters, digits, _=+.-"
        )
    nft = shutil.which("nft") is not None
    if arguments.nat and not nft:
        raise ConfigError("--nat needs nft: install nftables")
    path: Path = arguments.dir / f"{name}.conf"
    with _made(path.parent), locked(path.parent):
        others = [_text(one) for one in sorted(path.parent.glob("*.conf")) if one != path]
        taken = [network for text in others for network in generate.networks(text)]
        addresses = _listed(arguments.address, ipaddress.ip_interface)
        addresses = addresses or _free_networks([*taken, *_here()])
        for one in addresses:
            if one.network.num_addresses > 2 and one.ip == one.network.network_address:
                first = f"{one.ip + 1}/{one.network.prefixlen}"
                raise ConfigError(f"{one} is a network; give an address in it: {first}")
            if any(one.version == net.version and one.network.overlaps(net) for net in taken):
                raise ConfigError(f"{one} overlaps another configuration's; choose another")
        ports = {generate.listen_port(text) for text in others}
        port = arguments.port or next(
            n for n in range(generate.DEFAULT_PORT, 65536) if n not in ports
        )
        text = generate.server(
            name,
            addresses,
            port,
            endpoint=arguments.endpoint,
            dns=arguments.dns,
            nat=arguments.nat,
            forward=nft,
        )
        files.save(New(path, text, arguments.force))
    with _telling():
        print(f"wrote {path}: {', '.join(map(str, addresses))}, UDP port {port}")
        shown = _argument(path)
        option = "" if arguments.endpoint else " --endpoint HOST"
        print(f"next:\n  wiresnake up {shown}\n  wiresnake new peer NAME --server {shown}{option}")
        if not arguments.nat:
            met = "\nPostUp" in text
            whom = "and each other" if met else "only, and not each other without nft"
            print(f"Peers reach this host {whom}; with --nat also what this host reaches.")
        if nft:
            _say_what_refuses(name, [str(one.network) for one in addresses])
    return 0


def _say_what_refuses(name: str, prefixes: Sequence[str]) -> None:
    from wiresnake.diagnosis.forwarding import refusing

    for chain in refusing(name, prefixes):
        print(f"{chain} drops what peers send to others. Allow {name} there.")
        if "firewalld" in chain:
            add = f"firewall-cmd --permanent --zone=trusted --add-interface={name}"
            print(f"  {add} && firewall-cmd --reload")


def _peer(arguments: argparse.Namespace) -> int:
    name = unicodedata.normalize("NFC", arguments.name)  # One name, however it was typed.
    generate.assert_name(name)
    path = files.find(arguments.server)
    output: Path = arguments.output or Path(f"{name}.conf")
    if not files.exists(path) and path.parent.is_dir():
        what = (
            f"{path} does not exist; make it with `wiresnake new server`, or name another with"
            " --server"
        )
        raise HostError(errno.ENOENT, what)
    if os.path.realpath(output) == os.path.realpath(path):
        raise ConfigError(f"{output} is the server's own file; choose another with -o")
    allowed = [str(network) for network in _listed(arguments.allowed, ipaddress.ip_network)]
    with locked(path.parent):
        up = is_up(path)
        pair = generate.peer(
            name,
            files.load(path),
            file=str(path),
            endpoint=arguments.endpoint,
            allowed=("0.0.0.0/0", "::/0") if arguments.full_tunnel else allowed,
            addresses=_listed(arguments.address, str),
            dns="" if arguments.no_dns else arguments.dns,
            keepalive=arguments.keepalive,
            preshared=arguments.psk,
            taken=_in_use(path.stem) if up else (),
            replaces=arguments.replace,
        )
        files.save(New(output, pair.peer, arguments.force), New(path, pair.server, replace=True))
    # The output of reload goes to stderr, and must come after this.
    with _telling():
        if arguments.qr:
            from wiresnake.cli import qr

            try:
                qr.show(pair.peer)
            except WiresnakeError as error:
                print(f"wiresnake: {error.message}", file=sys.stderr)
        print(f"wrote {output}: {', '.join(pair.addresses)}; added to {path}")
        if pair.noted:
            print(f"remembered in {path} for the next peer: endpoint = {pair.noted}")
        if not files.is_name(output.stem):
            print(f"A phone accepts that name. For a Linux interface, rename {output} to 1 to 15")
            print("letters, digits, _=+.- and .conf.")
        if arguments.full_tunnel and not generate.masquerades(pair.server):
            print(
                f"The peer sends everything here, and {path} has no NAT: unless a firewall on this"
            )
            print("host masquerades, it reaches nothing else. See `new server --nat`.")
    if arguments.reload and up:
        return reload(path, pair.changed)
    with _telling():
        if arguments.reload:
            say_not_up(path)
        print(f"the server will know the peer after: wiresnake {command(path, up)}")
        if up and generate.saves(pair.server):
            print("Do this before it goes down: with SaveConfig = true that would lose the peer.")
    return 0


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Guards output that follows after the files are written: if it cannot be written, the command
    still succeeds."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        streams.give_output_up()
        if not isinstance(error, BrokenPipeError):
            what = f"the files are written, but the output is lost: {error.strerror}"
            print(f"wiresnake: {what}", file=sys.stderr)


def is_up(server: Path) -> bool:
    """Returns whether the server's interface is up."""
    return os.path.exists(f"/sys/class/net/{server.stem}")


def say_not_up(server: Path) -> None:
    print(f"{server.stem} is not up, so nothing was reloaded")


def command(server: Path, up: bool) -> str:
    """Returns the command that applies the file with all its changes."""
    return f"{'reload' if up else 'up'} {_argument(server)}"


def reload(server: Path, peers: Sequence[str]) -> int:
    """Applies the file's settings of these peers, by public key, to the running interface, and
    nothing else. Returns the exit code."""
    from wiresnake.cli import main

    only = (word for key in peers for word in ("--only", key))
    return main.main(["reload", *only, _argument(server)])


def _in_use(interface: str) -> list[generate.Network]:
    """Returns addresses of this host and of a running interface's peers, which no new peer can
    have."""
    from wiresnake.devices.interface import open_interface

    try:
        peers = open_interface(interface).read().peers
    except HostError as error:
        what = f"{interface} is up, and the addresses in use cannot be read"
        raise HostError(error.errno, f"{what}: {error.strerror}; run this as root") from None
    allowed = (one for peer in peers for one in peer.allowed_ips)
    return [*map(ipaddress.ip_network, allowed), *_here()]


def _number(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and low <= int(text[:9]) < 65536):
            raise argparse.ArgumentTypeError(f"must be a number from {low} to 65535, not '{text}'")
        return int(text)

    return read


def _listed(arguments: list[str], read: Callable[[str], T]) -> list[T]:
    """Reads an option that can be given again, each time with a list."""
    found = []
    for item in (item.strip() for argument in arguments for item in argument.split(",")):
        try:
            found.append(read(item))
        except ValueError:
            what = f"'{item}' is not an IP address with a length, such as 10.7.0.1/24"
            raise ConfigError(what) from None
    return found


def _here() -> list[generate.Network]:
    """Returns the networks of this host's addresses and routes."""
    from wiresnake.network import observe

    try:
        return [ipaddress.ip_network(one) for one in observe.routed()]
    except OSError:
        return []


def _free_networks(taken: list[generate.Network]) -> list[generate.Interface]:
    """Leaves out the IPv6 network if this Linux runs without IPv6, which would refuse the
    address."""
    four, six = generate.free_networks(taken)
    return [four, six] if os.path.exists("/proc/net/if_inet6") else [four]


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes /etc/wireguard for a host's first configuration, and removes it again after a
    failure."""
    missing = not folder.exists()
    if missing:
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise HostError(error.errno, f"cannot make {folder}: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if missing:
            folder.rmdir()
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder: two commands at once must not give two peers the same address."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise HostError(error.errno, f"cannot read {folder}: {error.strerror}") from None
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _text(path: Path) -> str:
    """Reads another configuration; one that cannot be read claims no addresses."""
    try:
        return files.load(path)
    except (HostError, ConfigError):
        return ""


def _argument(path: Path) -> str:
    """Returns the argument by which commands name the file."""
    return path.stem if path.parent == files.FOLDER else str(path)
