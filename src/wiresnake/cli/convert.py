"""`wiresnake import` and `export`: convert files of other WireGuard programs to ours, and back."""

import argparse
import sys
from pathlib import Path

from wiresnake.arguments import Parser
from wiresnake.conffile import files, lines
from wiresnake.conffile.dialects import catalogue
from wiresnake.conffile.dialects.catalogue import Text
from wiresnake.conffile.dialects.document import LeftOut
from wiresnake.conffile.files import New
from wiresnake.errors import ConfigError

_AFTERWARDS = {
    "networkd": "networkd reads them after: chgrp systemd-network FILES; chmod 640 FILES;"
    " mv FILES /etc/systemd/network; networkctl reload",
    "networkmanager": "NetworkManager reads it from /etc/NetworkManager/system-connections after:"
    " nmcli connection reload",
}


def parser(command: str) -> Parser:
    return _import_parser(command) if command == "import" else _export_parser(command)


def _import_parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Reads the configuration of another WireGuard program and writes one for"
        " wg-quick and wiresnake. A setting without an equivalent becomes a command that does"
        " the same. A lost detail is reported, line by line. If the tunnel would do something"
        " else without a setting, nothing is written.",
        epilog="""\
examples:
  wiresnake import office.nmconnection -o /etc/wireguard
  wiresnake import wg0.netdev wg0.network -o wg0.conf

exit codes: 0 written, even if a detail was left out; 1 failed or refused""",
    )
    made.add_argument("files", nargs="+", metavar="FILE", help="networkd has two for a tunnel")
    made.add_argument(
        "--from",
        dest="dialect",
        choices=("auto", *catalogue.FROM),
        default="auto",
        help="the program it belongs to (default: detected)",
    )
    made.add_argument(
        "--lossy",
        action="store_true",
        help="leave out even settings without which the tunnel does something else; read them"
        " first",
    )
    return _output(made)


def _export_parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Converts a wg-quick file for another WireGuard program. Settings without an"
        " equivalent are left out and reported, line by line.",
        epilog="""\
examples:
  wiresnake export --to android phone.conf -o for-phone.conf
  wiresnake export --to networkd wg0 -o /etc/systemd/network

exit codes: 0 written, even if something was left out; 1 failed""",
    )
    made.add_argument("file", metavar="FILE|NAME", help="a path, or the name of an interface")
    made.add_argument("--to", dest="dialect", choices=catalogue.TO, required=True, help="for whom")
    return _output(made)


def _output(made: Parser) -> Parser:
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="a file or a folder (default: standard output, which then shows secrets)",
    )
    made.add_argument("--force", action="store_true", help="replace a file that exists")
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    if argv[0] == "import":
        _import(arguments)
    else:
        _export(arguments)
    return 0


def _import(arguments: argparse.Namespace) -> None:
    texts = [Text(path, files.load(Path(path))) for path in arguments.files]
    dialect = arguments.dialect
    dialect = catalogue.recognise(texts) if dialect == "auto" else dialect
    read = catalogue.read(dialect, texts)
    if arguments.output and arguments.output.is_dir():
        _must_be_name(read.name, "give the file a name with -o")
    made, _ = catalogue.write("wg-quick", read.document, read.name)
    refused = [left for _, left in read.left if left.changes and not arguments.lossy]
    for path, left in read.left:
        _say(path, left, "cannot take" if left in refused else "left out")
    if refused:
        keys = " and ".join(dict.fromkeys(left.key for left in refused))
        raise ConfigError(
            f"nothing was written: without {keys} the tunnel would do something else. Change the"
            " file as described, or leave them out with --lossy"
        )
    if read.document.hooks:
        keys = ", ".join(dict.fromkeys(key for key, _ in read.document.hooks))
        print(
            f"{arguments.files[0]}: has {keys}, which root will run; read them first",
            file=sys.stderr,
        )
    _write(made, arguments.output, arguments.force)


def _export(arguments: argparse.Namespace) -> None:
    made = exported(arguments.file, arguments.dialect)
    if _write(made, arguments.output, arguments.force) and arguments.dialect in _AFTERWARDS:
        print(_AFTERWARDS[arguments.dialect], file=sys.stderr)


def exported(argument: str, dialect: str) -> dict[str, str]:
    """Converts a configuration, given by path or name, and returns files by their names. Reports on
    stderr what was left out."""
    path = files.find(argument)
    text = files.load(path)
    read = catalogue.read("wg-quick", [Text(str(path), text)])
    if dialect in _AFTERWARDS:
        _must_be_name(read.name, "rename the file")
    made, left = catalogue.write(dialect, read.document, read.name)
    for _, one in read.left:
        _say(str(path), one)
    for line in lines.read(text):
        for one in left:
            if line.key.lower() == one.key.lower():
                _say(str(path), one._replace(line=line.number))
    return made


def _must_be_name(name: str, remedy: str) -> None:
    """The name may come from an untrusted file, and becomes the name of a file and an interface."""
    if not files.is_name(name):
        raise ConfigError(f"'{ascii(name)[1:-1]}' is not a valid interface name; {remedy}")


def _say(path: str, left: LeftOut, what: str = "left out") -> None:
    print(f"{path}:{left.line}: {what} {left.key}: {left.why}", file=sys.stderr)


def _write(made: dict[str, str], output: Path | None, force: bool) -> bool:
    """Writes the files, or prints them; returns whether files were written."""
    if output is None:
        for name, text in made.items():
            print(f"# {name}\n{text}" if len(made) > 1 else text, end="")
        return False
    if output.is_dir():
        places = {output / name: text for name, text in made.items()}
    elif len(made) == 1:
        places = dict.fromkeys([output], *made.values())
    else:
        places = {output.with_suffix(Path(name).suffix): text for name, text in made.items()}
        if output.suffix not in ("", *(Path(name).suffix for name in made)):
            raise ConfigError(f"{output}: the result is {' and '.join(made)}; give a folder")
    files.save(*(New(path, text, force) for path, text in places.items()))
    print(f"wrote {' '.join(map(str, places))}", file=sys.stderr)
    return True
