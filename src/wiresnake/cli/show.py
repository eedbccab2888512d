"""`wiresnake show` and `showconf`: print interfaces and peers as `wg` does.

They use argparse only for help, because `show` has 40 ms.
"""

import os
import sys
import time
from typing import TYPE_CHECKING

from wiresnake.cli.invoked_as import program
from wiresnake.cli.show_text import FIELDS, as_json, pretty, script
from wiresnake.devices.interface import explain, interface_names, open_interface
from wiresnake.errors import HostError
from wiresnake.uapi.snapshot import InterfaceState

if TYPE_CHECKING:
    from wiresnake.arguments import Parser


def main(argv: list[str]) -> int:
    """Returns 0, or 1 if no interface could be read or an argument is wrong."""
    command, *words = argv
    if "-h" in words or "--help" in words:
        parser(command).print_help()
        return 0
    return _showconf(words) if command == "showconf" else _show(words)


def _show(words: list[str]) -> int:
    json = "--json" in words
    words = [word for word in words if word != "--json"]
    name = words[0] if words else "all"
    field = words[1] if len(words) > 1 else None
    if len(words) > (1 if name == "interfaces" else 2):
        return _usage("show")
    if name == "interfaces":
        return _print_names(json)
    if name == "all":
        names = interface_names()
        states = [one for other in names if (one := _read(other, f" {other}"))]
    else:
        names, states = [name], [one for one in [_read(name)] if one]
    if field is not None and field not in FIELDS and states:
        print(f"Invalid parameter: `{field}'", file=sys.stderr)
        return _usage("show")
    secrets = os.environ.get("WG_HIDE_KEYS") == "never"
    if json:
        print(as_json(states, field or "", secrets=secrets))
    elif field:
        sys.stdout.write("".join([script(one, field, name == "all") for one in states]))
    else:
        now, color = int(time.time()), _color()
        texts = [pretty(one, now, color=color, secrets=secrets) for one in states]
        sys.stdout.write("\n".join(texts))
    if not words and not names and sys.stdout.isatty():
        hint = "this host has no WireGuard interface; `wiresnake --help` says how to make one"
        print(f"wiresnake: {hint}", file=sys.stderr)
    return 1 if names and not states else 0


def _showconf(words: list[str]) -> int:
    if len(words) != 1:
        return _usage("showconf")
    state = _read(words[0])
    if state is None:
        return 1
    from wiresnake.conffile.write import write_config  # Only JSON needs it.

    sys.stdout.write(write_config(state))
    return 0


def _read(name: str, named: str = "") -> InterfaceState | None:
    try:
        return open_interface(name).read()
    except HostError as error:
        print(f"Unable to access interface{named}: {explain(error, name)}", file=sys.stderr)
        return None


def _print_names(json: bool) -> int:
    names = interface_names()
    if json:
        from json import dumps

        print(dumps(names))
    elif names:
        print(*names)
    return 0


def _color() -> bool:
    mode = os.environ.get("WG_COLOR_MODE")
    return mode == "always" or (mode != "never" and sys.stdout.isatty())


def _usage(command: str) -> int:
    print(f"Usage: {program()} {command} {_USAGE[command]}", file=sys.stderr)
    return 1


_USAGE = {
    "show": f"{{ <interface> | all | interfaces }} [{' | '.join(FIELDS)}] [--json]",
    "showconf": "<interface>",
}


def parser(command: str) -> "Parser":
    from wiresnake.arguments import Parser

    made = Parser(
        prog=f"wiresnake {command}",
        usage=f"wiresnake {command} {_USAGE[command]}",
        description=_DESCRIPTION[command],
        epilog=_EPILOG[command],
    )
    if command == "showconf":
        made.add_argument("interface", help="the interface, secrets included")
        return made
    made.add_argument("interface", nargs="?", default="all", help="a name, all, or interfaces")
    made.add_argument("field", nargs="?", choices=FIELDS, metavar="field", help=", ".join(FIELDS))
    made.add_argument(
        "--json", action="store_true", help="print an object by interface name; see below"
    )
    return made


_DESCRIPTION = {
    "show": """\
Show WireGuard interfaces and their peers: the kernel's, and those of any daemon with a socket in
/var/run/wireguard. `interfaces` prints their names; a field is for scripts: one value per line,
separated by tabs. The output is byte for byte that of `wg show`. A field shows secrets; the form
without a field hides them.""",
    "showconf": "Print an interface's configuration as a file for `setconf`, secrets included.",
}
_EPILOG = {
    "show": """\
JSON: {IFACE: {privateKey, publicKey, listenPort, fwmark, peers: {PUBLIC_KEY: {presharedKey,
endpoint, latestHandshake, transferRx, transferTx, persistentKeepalive, allowedIps: [...]}}}}, like
contrib/json/wg-json of wireguard-tools. Keys are base64 strings, or "(hidden)" without a field;
latestHandshake is in seconds since 1970; absent or zero values are left out. With a field the
object contains only that field; `interfaces` gives a list.

environment:
  WG_COLOR_MODE=always|never   colours (default: on a terminal)
  WG_HIDE_KEYS=never           show secrets in the form without a field, and in its JSON

examples:
  wiresnake show
  wiresnake show wg0 latest-handshakes
  wiresnake show all dump
  wiresnake show wg0 --json | jq '.wg0.peers[].endpoint'

exit codes: 0 done; 1 no interface could be read, or an argument is wrong""",
    "showconf": """\
examples:
  (umask 077; wiresnake showconf wg0 >wg0.conf)

exit codes: 0 done; 1 the interface could not be read""",
}
