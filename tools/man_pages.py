"""Writes the manual: wiresnake(8), wiresnaked(8), and a page for each subcommand.

All of it is what the parsers say, so that `--help` and the manual cannot differ. With --check
nothing is written, and it fails when a page is out of date.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from wiresnake.arguments import EXIT_CODES
from wiresnake.cli import help
from wiresnake.cli.commands import COMMANDS, module_of
from wiresnake.daemon.main import parser as daemon_parser

PAGES = Path("packaging/data/share/man/man8")
DATE = "2026-11-23"
"""The date of the release, as the pages must not change every day."""

DESCRIPTION = """\
wg(8) and wg-quick(8) in one command: the same arguments, and the same output wherever a script may
read it, for the interfaces of any WireGuard, including the kernel's. Without a subcommand it runs
"wiresnake show".

Called as wg or wg-quick, through a symbolic link, it has only that tool's subcommands, and
"wg --version" begins with the name and the number that scripts expect."""
ENVIRONMENT = {
    "WG_COLOR_MODE": "always, never or auto: colours, as in wg(8)",
    "WG_HIDE_KEYS": "never: `show` prints private and preshared keys, as in wg(8)",
    "WG_ENDPOINT_RESOLUTION_RETRIES": "how often resolving a name is tried again, or infinity; 15",
    "WIRESNAKE_DEBUG": "1: a defect is shown with a traceback, which may contain secrets",
}
FILES = {
    "/etc/wireguard/IFACE.conf": "the file that `up`, `reload` and `save` use for an interface",
    "/run/wireguard/IFACE.sock": "the socket of an interface that a daemon runs, not the kernel",
    "/run/wiresnake/IFACE.json": "what `up` added to this host, for `down` and `reload`",
}


def pages() -> Iterator[tuple[str, str]]:
    """Yields the name and the text of every page."""
    yield "wiresnake.8", _overview()
    yield "wiresnaked.8", _page(daemon_parser(), "a WireGuard interface in userspace")
    for group in COMMANDS.values():
        for word, (_, summary) in group.items():
            module = module_of(word)
            assert module is not None
            yield f"wiresnake-{word}.8", _page(module.parser(word), summary)


def _overview() -> str:
    lines = _head("wiresnake", "the operator's tool for WireGuard")
    lines += [".SH SYNOPSIS", ".B wiresnake", ".RI [ COMMAND ]", ".RI [ ... ]"]
    lines += [".SH DESCRIPTION", *_paragraphs(DESCRIPTION), ".SH COMMANDS"]
    for title, group in COMMANDS.items():
        lines.append(f".SS {_text(title.capitalize())}")
        for word, (_, summary) in group.items():
            lines += [".TP", f".BR wiresnake\\-{_text(word)} (8)", _text(summary)]
    lines += [".SH ENVIRONMENT", *_list(ENVIRONMENT), ".SH FILES", *_list(FILES)]
    lines += [".SH EXIT STATUS", *_list({str(code): text for code, text in EXIT_CODES.items()})]
    hooks = "If a hook fails, `up` and `down` exit with its code, or 128+n if signal n ended it."
    lines += [".PP", _text(hooks), "A PostDown that fails leaves the interface down all the same."]
    lines += _epilog(help.EXAMPLES)
    also = [".BR wiresnaked (8),", ".BR wg (8),", ".BR wg\\-quick (8)"]
    return "\n".join([*lines, ".SH SEE ALSO", *also, ""])


def _page(parser: argparse.ArgumentParser, summary: str) -> str:
    name = parser.prog.replace(" ", "-")
    lines = _head(name, summary)
    lines += [".SH SYNOPSIS", ".nf", *map(_text, _usage(parser)), ".fi"]
    lines += [".SH DESCRIPTION", *_paragraphs(parser.description or summary)]
    lines += _arguments(parser)
    for nested in _nested(parser):
        lines += [f".SH {_text(nested.prog.upper())}", *_paragraphs(nested.description or "")]
        lines += [".PP", ".nf", *map(_text, _usage(nested)), ".fi", *_arguments(nested, ".SS")]
        if nested.epilog != parser.epilog:
            lines += _epilog(nested.epilog or "", ".SS")
    lines += _epilog(parser.epilog or "")
    return "\n".join([*lines, ".SH SEE ALSO", ".BR wiresnake (8)", ""])


def _head(name: str, summary: str) -> list[str]:
    release = f'"wiresnake {version("wiresnake")}" "System Administration"'
    title = f".TH {_text(name.upper())} 8 {DATE} {release}"
    note = '.\\" Made by tools/man_pages.py from the parsers of the command line.'
    return [note, title, ".SH NAME", f"{_text(name)} \\- {_text(summary)}"]


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    lines = parser.format_usage().removeprefix("usage: ").rstrip().splitlines()
    return [line.removeprefix("       ") for line in lines]


def _nested(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _arguments(parser: argparse.ArgumentParser, heading: str = ".SH") -> Iterator[str]:
    """Writes positional arguments and options, each group under its own heading."""
    for options, title in ((False, "ARGUMENTS"), (True, "OPTIONS")):
        actions = [
            action
            for action in parser._actions
            if bool(action.option_strings) == options
            and action.help is not argparse.SUPPRESS
            and action.dest != "help"
        ]
        if actions:
            yield f"{heading} {title}"
        for action in actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    yield from (".TP", f".B {_text(choice.dest)}", _text(choice.help or ""))
                continue
            formatter = parser._get_formatter()
            words = formatter._format_action_invocation(action)
            if options and action.nargs != 0:  # Python 3.13 names the value once.
                value = formatter._format_args(action, action.dest.upper())
                words = ", ".join(f"{option} {value}" for option in action.option_strings)
            yield from (".TP", f".B {_text(words)}", _text(formatter._expand_help(action)))


def _epilog(text: str, heading: str = ".SH") -> Iterator[str]:
    """Writes blocks separated by empty lines. A block that begins with `title:` is a section; any
    other is a note."""
    noting = False
    for block in filter(None, re.split(r"\n\s*\n", text.strip("\n"))):
        title = re.match(r"([a-z][\w ]*):(?: |$)", block, re.MULTILINE)
        if title:
            name = "EXIT STATUS" if title[1].lower() == "exit codes" else title[1].upper()
            yield f"{heading} {_text(name)}"
            block = block[title.end() :].strip("\n")
            noting = False
        elif noting or block.startswith("  "):
            yield ".PP"
        else:
            yield f"{heading} NOTES"
            noting = True
        yield from _lines(block)


def _lines(block: str) -> Iterator[str]:
    """Writes paragraphs. Indented lines are kept; others are running text."""
    for indented, lines in groupby(block.splitlines(), lambda line: line.startswith("  ")):
        text = map(_text, lines)
        yield from (".nf", *text, ".fi") if indented else text


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield from (_text(line.strip()) for line in paragraph.splitlines() if line.strip())


def _list(entries: dict[str, str]) -> Iterator[str]:
    for name, text in entries.items():
        yield from (".TP", f".B {_text(name)}", _text(text))


_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def _text(text: str) -> str:
    """Escapes text for roff, so that it is shown, and can be copied, exactly as written."""
    escaped = "".join(_SPECIAL.get(letter, letter) for letter in text.rstrip())
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the tree")
    options = parser.parse_args()
    os.environ["COLUMNS"] = "80"  # argparse would fold usage lines by the terminal's width.
    folder = options.root / PAGES
    made = dict(pages())
    stale = [
        name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    left = [path for path in folder.glob("*.8") if path.name not in made]
    if not options.check:
        folder.mkdir(parents=True, exist_ok=True)
        for name in stale:
            (folder / name).write_text(made[name])
        for path in left:
            path.unlink()
        return 0
    for name in [*stale, *(path.name for path in left)]:
        print(f"{PAGES / name} is out of date: run .venv/bin/python tools/man_pages.py")
    return 1 if stale or left else 0


if __name__ == "__main__":
    sys.exit(main())
