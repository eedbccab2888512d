"""A configuration file as text, line by line, for what judges, rewrites and converts whole files.

Who has secrets to keep takes the places of `scanner` instead.
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
    """As written, without its end."""
    section: str
    """The section that it stands in, in lower case: `interface`, `peer`; empty before the first.
    Of a header, its own."""
    header: bool
    known: Key | None
    """If there is such a key in any section."""
    key: str
    """Without whitespace, as written; empty for a header, a comment or other text."""
    value: str
    """What stands behind '=', stripped and without comment; of a command with everything. Of other
    text all of it, without whitespace."""
    equals: bool
    key_column: int
    """Counted from 1; of a header or another text, where it begins."""
    value_column: int
    comment: str
    """What stands behind '#', stripped."""


NO_LINE = Line(1, "", "", False, None, "", "", False, 1, 1, "")
"""The beginning of a file, where nothing is."""


def read(text: str) -> Iterator[Line]:
    """Every line in order but the empty ones."""
    data = text.encode("utf-8", "surrogateescape")
    for line in scanner.scan(data):
        yield view(data, line)


def view(data: bytes | bytearray, line: scanner.Line) -> Line:
    """One line's text. No line with a secret is to be looked at if the buffer is to be wiped."""
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
    """Without any whitespace, as `wg` reads a line."""
    return text.translate(_NO_WHITESPACE)


def printable(name: str) -> str:
    """Names go to terminals: no character of theirs steers one. What is not UTF-8 is kept, as
    `surrogateescape` has it."""
    if not name.isprintable():
        name = "".join(one for one in name if one.isprintable() or "\udc80" <= one <= "\udcff")
    return name.strip()


def shown(value: str) -> str:
    """A value for an error to quote: a key that slipped into another line is not shown."""
    return _KEY.sub("(hidden)", value)
