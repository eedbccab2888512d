"""`wiresnake proxy`: SOCKS5, HTTP and fixed forwards into a tunnel, without root."""

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import resource
import signal
import sys
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.errors import ConfigError, HostError, reason
from wiresnake.text import split_endpoint, unsigned

if TYPE_CHECKING:
    from wiresnake.proxy.access import Login
    from wiresnake.proxy.run import Wishes
    from wiresnake.sockets.tunnel import Tunnel

_PORT = 1080
_DESCRIPTORS = 4
"""Of a client that has an association, which needs the most; and some for the rest."""
_REST = 64

_EPILOG = f"""\
FILE-OR-NAME is the path of a file, or the name of an interface, whose file is
/etc/wireguard/NAME.conf. The tunnel exists only in this command: no root, no interface, and no
change of the host's network. Names are looked up inside the tunnel, by the DNS servers of the file.

FORWARD is [BIND:]PORT:HOST:HOSTPORT, as for ssh, with brackets around IPv6 addresses. With /udp at
the end it carries datagrams. A BIND of * is all addresses; the default is 127.0.0.1 for -L and all
addresses of the tunnel for -R. Without PersistentKeepalive in the file, peers may not reach the
ports of -R, as this end says nothing until it is used.

The proxy listens at 127.0.0.1:{_PORT} unless there is one of -L, -R and -W without --listen. SOCKS5
(CONNECT and UDP ASSOCIATE) and HTTP (CONNECT and http://) share its port.

examples:
  wiresnake proxy wg0.conf
  curl --proxy socks5h://127.0.0.1:{_PORT} http://10.0.0.1/
  wiresnake proxy wg0.conf -L 5432:db.internal:5432 -L 5353:10.0.0.1:53/udp
  wiresnake proxy wg0.conf -R 8080:localhost:8000    what runs here, for the other peers
  ssh -o ProxyCommand='wiresnake proxy wg0.conf -W %h:%p' 10.0.0.1

A client has 10 s to say what it wants. When all places are taken, a newcomer gets that of the
oldest client without a connection, and otherwise waits. An association ends after 5 minutes without
a datagram, a client of a /udp forward after 2.

exit codes: 0 Ctrl-C, or with -W the connection has ended; 1 an error; 143 SIGTERM"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Leads programs into a tunnel: a SOCKS5 and HTTP proxy, and fixed forwards.",
        epilog=_EPILOG,
    )
    made.add_argument("file", metavar="FILE-OR-NAME", help="see below")
    made.add_argument(
        "--listen",
        metavar="[ADDRESS:]PORT",
        type=_place,
        help=f"where the proxy listens (default: 127.0.0.1:{_PORT}; port 0: any)",
    )
    made.add_argument("--user", metavar="NAME", help="the user that clients of the proxy need")
    made.add_argument(
        "--password-file", metavar="FILE", help="file with that user's password on its only line"
    )
    made.add_forwards()
    made.add_argument(
        "-W",
        dest="W",
        metavar="HOST:PORT",
        help="connect standard input and output to this place, and serve nothing",
    )
    made.add_argument(
        "--clients", metavar="N", type=_count, default=1000, help="clients at once (default: 1000)"
    )
    made.add_argument(
        "--stack",
        choices=("kernel", "user"),
        help="the TCP/IP stack (default: the kernel's where the host allows it)",
    )
    return made


def main(argv: list[str]) -> int:
    made = parser(argv[0])
    arguments = made.parse_args(argv[1:])
    if (arguments.user is None) != (arguments.password_file is None):
        made.error("--user and --password-file need each other")
    if arguments.W and (arguments.L or arguments.R or arguments.listen or arguments.user):
        made.error("-W serves nothing, so it excludes --listen, --user, -L and -R")
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_until_terminated(arguments))
    return 130 if arguments.W else 0


async def _until_terminated(arguments: argparse.Namespace) -> int:
    """SIGINT is turned into KeyboardInterrupt by asyncio, also before there is a tunnel."""
    work = asyncio.ensure_future(_run(arguments))
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        work.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await work
    except asyncio.CancelledError:
        if not terminated:
            raise
    return 143 if terminated else 0


async def _run(arguments: argparse.Namespace) -> None:
    from wiresnake.conffile import files
    from wiresnake.sockets.tunnel import Tunnel

    wishes = None if arguments.W else _wishes(arguments)
    file = files.find(arguments.file)
    async with Tunnel.from_file(file, stack=arguments.stack) as tunnel:
        work = asyncio.ensure_future(
            _serve(tunnel, wishes) if wishes else _join(tunnel, arguments.W)
        )
        try:
            await asyncio.wait((work, tunnel.closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = not work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if ended:
            work.result()
            return
        tunnel.closed.result()
        raise HostError(errno.ESHUTDOWN, "the tunnel has ended")


async def _serve(tunnel: "Tunnel", wishes: "Wishes") -> None:
    from wiresnake.proxy.run import LOOPBACK, run
    from wiresnake.proxy.udp import FLOWS

    flows = sum(FLOWS for forward in (*wishes.into, *wishes.out_of) if forward.udp)
    _raise_descriptors(wishes.limit * _DESCRIPTORS + flows + _REST)
    address = wishes.listen[0] if wishes.listen and not wishes.login else LOOPBACK
    if not ipaddress.ip_address(address).is_loopback:
        _say(
            f"warning: anyone who reaches {address} can use the tunnel; --user and --password-file"
            " ask for a password"
        )
    await run(tunnel, wishes, _say)


async def _join(tunnel: "Tunnel", place: str) -> None:
    from wiresnake.proxy import stdio
    from wiresnake.proxy.forwards import parse_place
    from wiresnake.proxy.sides import connect

    host, port = parse_place(place)
    with await connect(tunnel, host, port) as sock:
        try:
            await stdio.join(sock)
        except BrokenPipeError:
            raise
        except OSError as error:
            what = f"the connection to {place} broke: {reason(error)}"
            raise HostError(error.errno or errno.EIO, what) from None


def _wishes(arguments: argparse.Namespace) -> "Wishes":
    from wiresnake.proxy.forwards import Forward
    from wiresnake.proxy.run import LOOPBACK, Wishes

    into, out_of = (tuple(map(Forward.parse, words)) for words in (arguments.L, arguments.R))
    listen = arguments.listen
    if not (listen or into or out_of):
        listen = LOOPBACK, _PORT
    login = _login(arguments.user, arguments.password_file) if arguments.user else None
    return Wishes(listen, login, into, out_of, arguments.clients)


def _login(user: str, path: str) -> "Login":
    from wiresnake.cli import secret_files
    from wiresnake.proxy.access import Login

    try:
        password = bytes(secret_files.read(path)).rstrip(b"\r\n")
    except OSError as error:
        raise HostError(error.errno or errno.EIO, f"cannot read {path}: {reason(error)}") from None
    name = user.encode("utf-8", "surrogateescape")
    if not 0 < len(name) < 256 or b":" in name:
        raise ConfigError("--user takes a name of 1 to 255 bytes without a colon")
    if not 0 < len(password) < 256 or b"\n" in password:
        raise ConfigError(f"{path} needs one line, a password of 1 to 255 bytes")
    return Login(name, password)


def _raise_descriptors(number: int) -> None:
    """Raises our own limit, so that all clients can be served at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(text: str) -> None:
    print(f"wiresnake: {text}", file=sys.stderr, flush=True)


def _place(text: str) -> tuple[str, int]:
    """Reads `1080`, `10.0.0.1:1080` or `[::1]:1080`."""
    host, port = split_endpoint(text)
    host = host or "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        return host, unsigned(port, 16)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address and port: {text!r}") from None


def _count(text: str) -> int:
    try:
        if number := unsigned(text, 20):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"not a number of clients: {text!r}")
