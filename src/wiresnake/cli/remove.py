"""`wiresnake remove`: removes a peer from a server."""

import errno

from wiresnake.arguments import Parser
from wiresnake.cli import new as making
from wiresnake.conffile import files, generate
from wiresnake.conffile.files import New
from wiresnake.errors import HostError


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Removes a peer from the server's file, with the comment directly above it."
        " The rest stays. To give a lost phone new keys instead, use `wiresnake new peer NAME"
        " --replace`.",
        epilog="""\
examples:
  wiresnake remove phone --reload
  wiresnake remove phone --server office

exit codes: 0 done; 1 failed, and no file has changed""",
    )
    made.add_argument("peer", metavar="PEER", help="its name in the file, or its public key")
    made.add_argument(
        "--server", default="wg0", metavar="NAME|FILE", help="the server (default: wg0)"
    )
    made.add_argument(
        "--reload", action="store_true", help="remove it from the running server at once"
    )
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    path = files.find(arguments.server)
    if not files.exists(path) and path.parent.is_dir():
        raise HostError(errno.ENOENT, f"{path} does not exist; name another with --server")
    with making.locked(path.parent):
        text, key = generate.without(files.load(path), arguments.peer, file=str(path))
        files.save(New(path, text, replace=True))
    print(f"removed {arguments.peer} from {path}", flush=True)
    up = making.is_up(path)
    if arguments.reload and up:
        return making.reload(path, [key])
    if arguments.reload:
        making.say_not_up(path)
    if up:
        print(f"the peer can use the tunnel until: wiresnake {making.command(path, up)}")
        if generate.saves(text):
            print(
                "Do this before the interface goes down: with SaveConfig = true that would bring"
                " the peer back."
            )
    return 0
