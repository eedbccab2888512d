"""A configuration file as text, line by line, for code that checks, rewrites and converts files.

Code that must keep secrets uses the positions of `scanner` instead.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from wiresnake.conffile import scanner
from wiresnake.conffile.scanner import decoded
from wiresnake.conffile.schema import WHITESPACE, Key

_NO_WHITESPACE = str.maketrans("", "", WHITESPACE)
_KEY = re.compile("[A-Za-z0-9+/]{40,}=?")


class Line(NamedTuple):
    """One line of a file."""

    number: int
    text: str
    """The line as written, without its end."""
    section: str
    """The line's section in lower case: `interface`, `peer`; empty before the first. A header
    belongs to the section that it begins."""
    header: bool
    known: Key | None
    """The key, if one of this name exists in any section."""
    key: str
    """The key as written, without whitespace; empty for a header, a comment or other text."""
    value: str
    """The text after '=', stripped and without a comment; a command keeps everything. For other
    text the whole line, without whitespace."""
    equals: bool
    key_column: int
    """The key's column, counted from 1; for a header or other text, where it begins."""
    value_column: int
    comment: str
    """The text after '#', stripped."""


NO_LINE = Line(1, "", "", False, None, "", "", False, 1, 1, "")
"""A place at the beginning of a file, without a line."""


def read(text: str) -> Iterator[Line]:
    """Yields every line in order, except empty ones."""
    data = text.encode("utf-8", "surrogateescape")
    for line in scanner.scan(data):
        yield view(data, line)


def view(data: bytes | bytearray, line: scanner.Line) -> Line:
    """Returns one line as text. Lines with a secret must not be passed if the buffer is to be
    wiped."""
    setting, other = line.equals >= 0, line.kind == "other"
    value = decoded(data, line.value, line.value_end) if setting or other else ""
    return Line(
        line.number,
        decoded(data, line.begin, line.end),
        line.section,
        line.kind == "header",
        line.key,
        squeeze(decoded(data, line.code, line.equals)) if setting else "",
        squeeze(value) if other else value,
        setting,
        len(decoded(data, line.begin, line.code)) + 1,
        len(decoded(data, line.begin, line.value)) + 1,
        decoded(data, line.comment + 1, line.end).strip(WHITESPACE) if line.comment >= 0 else "",
    )


def squeeze(text: str) -> str:
    """Returns the text without any whitespace, as `wg` reads a line."""
    if text.isascii():  # The bytes take a tenth of the time.
        return scanner.squeezed(text.encode()).decode()
    return text.translate(_NO_WHITESPACE)


def printable(name: str) -> str:
    """Returns a name that is safe to print: without characters that control a terminal. Bytes that
    are not UTF-8 stay, as `surrogateescape` represents them."""
    if not name.isprintable():
        name = "".join(one for one in name if one.isprintable() or "\udc80" <= one <= "\udcff")
    return name.strip()


def shown(value: str) -> str:
    """Returns a value for an error message; a key that slipped into it is hidden."""
    return _KEY.sub("(hidden)", value)
