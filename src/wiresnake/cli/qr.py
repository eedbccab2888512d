"""`wiresnake qr`: shows a configuration as a QR code, which the apps for phones read."""

import shutil
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.cli.convert import exported
from wiresnake.cli.extras import needed_by
from wiresnake.conffile import files, generate
from wiresnake.errors import ConfigError
from wiresnake.linux import streams

if TYPE_CHECKING:
    from segno import QRCode

_LARGEST = 2953
"""Bytes in the largest QR code with the least redundancy."""
_MARGIN = 4
"""Light modules around the code, which the standard requires."""
_BLACK_ON_WHITE = "\033[38;5;16;48;5;231m"
_COLOURS = ("\033[48;5;231m", "\033[48;5;16m")
"""The background of a light and of a dark module."""
_HALVES = {(0, 0): " ", (1, 0): "\u2580", (0, 1): "\u2584", (1, 1): "\u2588"}
"""One character shows two modules, one above the other."""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Shows a configuration as a QR code, for the WireGuard apps of phones. It holds"
        " the private key: anyone who sees it can use the tunnel. Settings that the apps refuse,"
        " such as PostUp, are left out and reported. A server's own file is refused, because its"
        " key is not for phones.",
        epilog="""\
examples:
  wiresnake qr phone.conf
  wiresnake qr phone.conf --png phone.png

exit codes: 0 shown or written, 1 failed""",
    )
    made.add_argument("file", metavar="FILE|NAME", help="a path, or the name of an interface")
    kinds = made.add_mutually_exclusive_group()
    kinds.add_argument("--png", type=Path, metavar="OUT", help="write a picture instead")
    kinds.add_argument("--svg", type=Path, metavar="OUT", help="write a vector picture instead")
    made.add_argument("--raw", action="store_true", help="show the file unchanged, with comments")
    made.add_argument(
        "--force", action="store_true", help="replace a file that exists; show a server's own"
    )
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    picture: Path | None = arguments.png or arguments.svg
    path = files.find(arguments.file)
    text = files.load(path)
    if generate.is_servers(text) and not arguments.force:
        raise ConfigError(
            f"{path} belongs to a server, and its private key must not leave it. A phone gets its"
            " own keys and code with `wiresnake new peer NAME`; --force shows this one"
        )
    if not arguments.raw:
        [text] = exported(arguments.file, "android").values()
    if picture is None:
        show(text)
    else:
        _draw(text, picture, "png" if arguments.png else "svg", arguments.force)
    return 0


def show(text: str) -> None:
    """Prints the code, and warnings on stderr."""
    if streams.terminal_shows_blocks():
        drawn = terminal(text)
        width = len(drawn[0])
        print("\n".join(f"{_BLACK_ON_WHITE}{line}\033[0m" for line in drawn), flush=True)
    else:
        drawn = ascii_terminal(text)
        width = 2 * (len(_code(text).matrix) + 2 * _MARGIN)
        print("\n".join(drawn), flush=True)
    print(
        "This code shows the private key: anyone who sees it can use the tunnel.", file=sys.stderr
    )
    columns, lines = shutil.get_terminal_size()
    if sys.stdout.isatty() and (width > columns or len(drawn) >= lines):
        hint = (
            f"The code needs {width} columns and {len(drawn)} lines; this terminal has {columns}"
            f" and {lines}"
        )
        hint += ": make the window larger, or the letters smaller,"
        print(f"{hint} or write a picture: wiresnake qr FILE --png OUT", file=sys.stderr)


def terminal(text: str) -> list[str]:
    """Returns the code's lines, two rows of modules each, in black on white. With the terminal's
    own colours it would be inverted on half of all terminals."""
    rows = [[int(cell) for cell in row] for row in _code(text).matrix_iter(border=_MARGIN)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return ["".join(_HALVES[two] for two in zip(*pair, strict=True)) for pair in pairs]


def ascii_terminal(text: str) -> list[str]:
    """Returns the same for a terminal without block elements: one row of modules per line, two
    coloured spaces per module, so twice as large."""
    lines = []
    for row in _code(text).matrix_iter(border=_MARGIN):
        runs = (_COLOURS[int(cell)] + "  " * len(list(run)) for cell, run in groupby(row))
        lines.append(f"{''.join(runs)}\033[0m")
    return lines


def _code(text: str) -> "QRCode":
    with needed_by("a QR code"):
        import segno  # Imported here so that other commands do not wait for it.

    data = text.encode("utf-8", "surrogateescape")
    try:
        return segno.make_qr(data, error="l", boost_error=True, mode="byte")
    except segno.DataOverflowError:
        raise ConfigError(
            f"{len(data)} bytes are too many for a QR code, which holds {_LARGEST} at most; leave"
            " out peers, or send the file itself"
        ) from None


def _draw(text: str, path: Path, kind: str, force: bool) -> None:
    import io

    drawn = io.BytesIO()
    _code(text).save(drawn, kind=kind, scale=8, border=_MARGIN, light="white")
    files.save(files.New(path, drawn.getvalue(), force))
    print(f"wrote {path}; it shows the private key", file=sys.stderr)
