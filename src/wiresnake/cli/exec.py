"""`wiresnake exec`: runs a command inside a tunnel, without root."""

import argparse
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser

if TYPE_CHECKING:
    from wiresnake.sockets.keeper import Services

_EPILOG = """\
FILE-OR-NAME is the path of a file, or the name of an interface, whose file is
/etc/wireguard/NAME.conf. The command has a network of its own, with loopback and this tunnel only,
so nothing can leave by another way; where the tunnel does not lead, there is nothing. Names are
resolved by the file's DNS servers, and not at all without any. Files, user and terminal are the
host's. Exit code and signals are the command's own.

Nothing is changed on the host. Hooks, Table and FwMark of the file are not used. The tunnel ends
with the last process in it.

Where the host refuses user namespaces or /dev/net/tun to ordinary users, `wiresnake proxy` reaches
into a tunnel by SOCKS5 or HTTP.

FORWARD is [BIND:]PORT:HOST:HOSTPORT, as for ssh and for `wiresnake proxy`: -L leads a port of this
host into the tunnel, -R a port in the tunnel to this host.

examples:
  wiresnake exec ./office.conf -- curl http://10.0.0.1/
  wiresnake exec ./office.conf -- bash        a shell, all of whose programs are in the tunnel
  wiresnake exec --join ./office.conf -- ping 10.0.0.1      in the tunnel of that shell

exit codes: 0 and all others are the command's own, except 1 the tunnel could not be opened; 126 the
command cannot be executed; 127 it was not found"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        usage=f"wiresnake {command} [-h] [--join | -L FORWARD ...] FILE-OR-NAME -- COMMAND ...",
        description="Runs a command inside a tunnel, without root.",
        epilog=_EPILOG,
    )
    made.add_argument("--join", action="store_true", help="use the tunnel that runs already")
    made.add_forwards()
    made.add_argument("file", metavar="FILE-OR-NAME", help="a path, or the name of an interface")
    made.add_argument(
        "command",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="the command and its arguments, after --",
    )
    return made


def main(argv: list[str]) -> int:
    made = parser(argv[0])
    arguments = made.parse_args(argv[1:])
    command = arguments.command[arguments.command[:1] == ["--"] :]
    if not command:
        made.error("COMMAND is missing")
    if arguments.join and (arguments.L or arguments.R):
        made.error("--join uses a tunnel as it is: give -L and -R to the command that opens it")
    from wiresnake.conffile import files
    from wiresnake.sockets import command as inside

    file = files.find(arguments.file)
    if arguments.join:
        inside.join(file, command)
    inside.run(file, command, _forwards(arguments) if arguments.L or arguments.R else None)


def _forwards(arguments: argparse.Namespace) -> "Services":
    from wiresnake.proxy.forwards import Forward
    from wiresnake.proxy.run import Wishes, serving

    into, out_of = (tuple(map(Forward.parse, words)) for words in (arguments.L, arguments.R))
    return lambda tunnel: serving(tunnel, Wishes(into=into, out_of=out_of), lambda _: None)
