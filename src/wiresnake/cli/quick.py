"""`wiresnake up|down|reload|save|strip`: like wg-quick, and more."""

import argparse
import os
import shutil
import sys
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.cli.invoked_as import program
from wiresnake.cli.progress import clear, progress
from wiresnake.errors import WiresnakeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = """\
FILE-OR-NAME is the path of a file, named after the interface and .conf, or the name of an
interface, whose file is /etc/wireguard/NAME.conf. If systemd gives a credential NAME.conf, that one
comes first."""

_DESCRIPTIONS = {
    "up": """\
Bring up an interface as its file says: keys, peers, addresses, MTU, DNS, routes, rules, firewall,
PreUp and PostUp. If anything fails, everything is undone, except what hooks did. A hook can save
the interface or use `wg set`, but cannot reload it or take it down. A hook can ask on the terminal,
so no progress is shown while it runs.""",
    "down": """\
Take an interface down and undo what `up` or wg-quick did: PreDown, save if the file says
SaveConfig, remove everything, PostDown. It also cleans up after a killed `up`. If the file is gone
or has a mistake, it uses what `up` recorded, and finds the file by NAME wherever it was. A hook can
ask on the terminal, so no progress is shown while it runs.""",
    "reload": """\
Apply the file to a running interface: peers, addresses, MTU, DNS, routes, rules, firewall. Only
differences are changed, all or none of them; sessions and counters stay. Port, mark and private key
stay if the file does not give them. Hooks such as PreUp do not run. It first cleans up after a
killed command, even with --diff, and says so.""",
    "save": "Write an interface's current state to its file, which only root can read.",
    "strip": "Print a file without the keys that only wg-quick reads.",
}
_EPILOGS = {
    "up": """\
examples:
  wiresnake up wg0
  wiresnake up --backend user ./office.conf

OnUp and OnDown of a peer are run by `wiresnake events --hooks`, which this command starts. With
--foreground it notifies the service manager (Type=notify or notify-reload) when the interface is
up, reloads it at SIGHUP, takes it down at SIGTERM, and ends when another program takes it down.

exit codes: 0 the interface is up; 1 an error; the code of a hook that failed""",
    "down": """\
examples:
  wiresnake down wg0

exit codes: 0 the interface is down; 1 an error; the code of a hook that failed (after a failed
PostDown it is down)""",
    "reload": """\
examples:
  wiresnake reload --diff wg0    what would change, one per line: + added, - removed, ~ changed
  wiresnake reload wg0

A peer that roamed keeps its endpoint, unless the endpoint in the file was edited.

exit codes: 0 done, or with --diff nothing to do; 1 an error, and nothing changed; 2 with --diff:
there are changes""",
    "save": """\
examples:
  wiresnake save wg0

exit codes: 0 written; 1 an error""",
    "strip": """\
examples:
  wiresnake strip wg0 | wiresnake setconf wg0 /dev/stdin

exit codes: 0 printed; 1 an error""",
}


def main(argv: "Sequence[str]") -> int:
    """`argv` begins with the subcommand. 0 for success, 1 for failure; `reload --diff` 2 for
    changes; a hook's own code if one fails."""
    arguments = parser(argv[0]).parse_args(list(argv[1:]))
    if os.geteuid() != 0:
        return _as_root(argv)
    try:
        return _run(argv[0], arguments)
    except KeyboardInterrupt:
        _fail("interrupted; nothing has changed")
        return 130
    except WiresnakeError as error:
        return getattr(error, "code", None) or _failed(error)


def parser(command: str) -> Parser:
    """Returns the parser of one of the five subcommands."""
    made = Parser(
        prog=f"wiresnake {command}",
        description=f"{_DESCRIPTIONS[command]}\n\n{_FILE}",
        epilog=_EPILOGS[command],
    )
    if command == "up":
        made.add_argument(
            "--backend",
            choices=("auto", "kernel", "user"),
            default="auto",
            help="use the kernel's WireGuard, or a daemon (wiresnaked, or"
            " $WG_QUICK_USERSPACE_IMPLEMENTATION); auto: the kernel's if it has one",
        )
        made.add_argument(
            "--foreground", action="store_true", help="keep running, and take it down at the end"
        )
    if command == "reload":
        made.add_argument("--diff", action="store_true", help="only print what would change")
        what = made.add_mutually_exclusive_group()
        what.add_argument(
            "--keep",
            action="store_true",
            help="remove nothing that the file does not name, whoever added it",
        )
        what.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="PEER",
            help="only this peer, by its name or public key; can be given again",
        )
    made.add_argument("interface", metavar="FILE-OR-NAME", help="see above")
    return made


def _run(command: str, arguments: argparse.Namespace) -> int:
    argument = arguments.interface
    if command == "strip":
        return _strip(argument)
    if command == "up":
        from wiresnake.lifecycle.up import up

        interface = up(argument, arguments.backend, _say, _warn)
        return _stay(interface, argument) if arguments.foreground else 0
    if command == "down":
        from wiresnake.lifecycle.down import down

        down(argument, _say, _warn)
    elif command == "save":
        from wiresnake.lifecycle.save import save_present

        save_present(argument, _say, _warn)
    else:
        from wiresnake.lifecycle.reload import Wish, difference, reload

        wish = Wish(arguments.keep, tuple(arguments.only))
        # Not for `up` and `down`, whose hooks may ask on this terminal.
        with progress(f"{'comparing' if arguments.diff else 'reloading'} {argument}"):
            act = difference if arguments.diff else reload
            lines = act(argument, _say, _warn, wish) or ()
        print("".join(f"{line}\n" for line in lines), end="")
        return 2 if lines else 0
    return 0


def _stay(interface: str, argument: str) -> int:
    from wiresnake.lifecycle.down import down
    from wiresnake.lifecycle.foreground import stay
    from wiresnake.lifecycle.reload import reload

    def try_reload() -> None:
        try:
            reload(argument, _say, _warn)
        except WiresnakeError as error:  # The interface continues unchanged.
            _failed(error)

    if stay(interface, try_reload, lambda: down(argument, _say, _warn)):
        return 0
    return _fail(
        f"{interface} is gone; a full tunnel's traffic is held back until `wiresnake up` or `down`"
    )


def _strip(argument: str) -> int:
    from wiresnake.conffile import wg_quick
    from wiresnake.text import wipe

    file = wg_quick.load(wg_quick.find(argument)[1])
    text = file.stripped()
    try:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    finally:
        wipe(text)
        wipe(file.wg)
    return 0


def _as_root(argv: "Sequence[str]") -> int:
    """Starts again with sudo, as wg-quick does."""
    from wiresnake.linux.programs import ourselves

    sudo = shutil.which("sudo")
    if sudo is None:
        return _fail(f"`{argv[0]}' must be run as root")
    prompt = "wiresnake must be run as root. Please enter the password for %u to continue: "
    os.execv(sudo, [sudo, "-p", prompt, "--", *ourselves(), program(), *argv])


def _say(line: str) -> None:
    if line:
        clear()
        print(f"[#] {line}", file=sys.stderr, flush=True)


def _warn(line: str) -> None:
    clear()
    print(f"[!] {line}", file=sys.stderr, flush=True)


def _failed(error: WiresnakeError) -> int:
    return _fail(error.message)


def _fail(what: str) -> int:
    print(f"{program()}: {what}", file=sys.stderr)
    return 1
