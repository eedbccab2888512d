"""`wiresnake check`: finds mistakes in configuration files, and says where they are."""

import json
import os
import stat
import sys
from pathlib import Path

from wiresnake.arguments import Parser
from wiresnake.conffile import files
from wiresnake.conffile.check import Finding, check
from wiresnake.errors import ConfigError, HostError


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Finds mistakes in wg-quick files and prints FILE:LINE:COLUMN: error or"
        " warning: reason; remedy. An error makes a file unusable. A warning is accepted, but"
        " probably does something other than intended. A file in /etc/wireguard is also"
        " compared with this host's routes.",
        epilog="""\
examples:
  wiresnake check                  all of /etc/wireguard
  wiresnake check wg0              /etc/wireguard/wg0.conf
  wiresnake check --strict ./wg0.conf || exit

exit codes: 0 no errors, 1 errors (with --strict: or warnings), or a file that cannot be read""",
    )
    made.add_argument(
        "files",
        nargs="*",
        metavar="FILE|NAME",
        help="a path, or the name of an interface (default: all of /etc/wireguard)",
    )
    made.add_argument("--strict", action="store_true", help="warnings count as errors")
    made.add_argument(
        "--verbose",
        action="store_true",
        help="print notes too: things that are allowed, such as an empty hook",
    )
    made.add_argument("--json", action="store_true", help="print one JSON array")
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    paths = [files.find(argument) for argument in arguments.files]
    paths = paths or sorted(files.FOLDER.glob("*.conf"))
    if not paths:
        hidden = files.FOLDER.exists() and not os.access(files.FOLDER, os.R_OK)
        remedy = "run it as root" if hidden else "name a file"
        print(f"wiresnake: no *.conf found in {files.FOLDER}; {remedy}", file=sys.stderr)
        if arguments.json:
            print("[]")
        return 1
    found: list[tuple[Path, Finding]] = []
    unread = set()
    for path in paths:
        try:
            text = files.load(path)
        except HostError as error:
            said = error.message
            print(f"wiresnake: {said}", file=sys.stderr)
            found.append(
                (path, Finding(1, 1, "error", said, "check that it exists and is readable"))
            )
            unread.add(path)
            continue
        except ConfigError as error:  # It is not a text.
            reason, _, remedy = str(error).removeprefix(f"{path}:1:1: ").partition("; ")
            found.append((path, Finding(1, 1, "error", reason, remedy)))
            continue
        findings = (*_of_file(path), *check(text, path.stem, _routed(path)))
        found += [(path, one) for one in findings if one.level != "note" or arguments.verbose]
    if arguments.json:
        rows = [{"file": str(path), **finding._asdict()} for path, finding in found]
        print(json.dumps(rows, indent=2))
    else:
        for path, (line, column, level, reason, remedy) in found:
            if path in unread:
                continue  # It was reported on stderr.
            print(f"{path}:{line}:{column}: {level}: {reason}; {remedy}")
    wrong = ("error", "warning") if arguments.strict else ("error",)
    bad = any(finding.level in wrong for _, finding in found)
    return 1 if bad else 0


def _routed(path: Path) -> dict[str, str]:
    """Returns this host's networks for a file in /etc/wireguard. A file elsewhere may be for
    another host."""
    from wiresnake.network import observe

    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(files.FOLDER):
        return {}
    try:
        return observe.routed_by()
    except OSError:
        return {}


def _of_file(path: Path) -> list[Finding]:
    """Returns problems of the file itself: its mode and its name."""
    found = []
    status = path.stat()
    folder = os.stat(os.path.dirname(os.path.realpath(path)))
    if stat.S_ISREG(status.st_mode) and status.st_mode & folder.st_mode & 0o007:
        reason = "the file and its folder are open to everybody on this machine"
        found.append(Finding(1, 1, "warning", reason, f"chmod 600 {path}"))
    name = os.path.basename(path)
    if name.endswith(".conf") and not files.is_name(name.removesuffix(".conf")):
        reason = "this file's name is not valid for an interface"
        remedy = "rename it: 1 to 15 of a-z, A-Z, 0-9, _ = + . - before .conf"
        found.append(Finding(1, 1, "warning", reason, remedy))
    return found
