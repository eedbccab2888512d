"""Cuts a configuration file into lines, and each line into the positions of its parts.

The grammar is that of `wg` and `wg-quick`: `Key = value` in [Interface] and [Peer],
case-insensitive names with whitespace anywhere, comments from '#' (commands keep it). CRLF and a
UTF-8 BOM are accepted. Values stay in the buffer, because they may be secrets.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from wiresnake.conffile import schema
from wiresnake.conffile.schema import Key

WHITESPACE = schema.WHITESPACE.encode()
SPACE = rb"[%b]" % WHITESPACE.replace(b"\n", b"")
"""A pattern for whitespace within a line."""
_LINE = re.compile(
    rb"(?m)^(?:\A\xef\xbb\xbf)?%b*+"
    rb"(?:(\[[^#\n]*)|([^=#\n]*)=%b*+([^#\n]*)|([^#\n]+))?+(#[^\n]*)?" % (SPACE, SPACE)
)
_LONGEST = 60
"""The longest text that is looked up as a key, in bytes. Longer text may be a misplaced secret."""


Kind = Literal["header", "setting", "comment", "other"]


class Line(NamedTuple):
    """One line that is not empty. All positions are indices into the buffer."""

    kind: Kind
    number: int
    section: str
    """The line's section in lower case; empty before the first. A header belongs to the section
    that it begins."""
    key: Key | None
    """The key of a setting, if one of this name exists in any section."""
    begin: int
    end: int
    """The end, without the line break."""
    code: int
    """The first character after leading whitespace."""
    equals: int
    """The '=' of a setting; -1 for other lines."""
    value: int
    value_end: int
    """The value of a setting without whitespace around it; otherwise the whole line without a
    comment."""
    comment: int
    """The '#'; -1 without a comment."""


def scan(text: bytes | bytearray) -> Iterator[Line]:
    """Yields every line in order, except empty ones. Call `wg.settle` first."""
    section = ""
    keys: dict[bytes, Key | None] = {}
    titles: dict[bytes, str] = {}
    for number, found in enumerate(_LINE.finditer(text), 1):
        if found.lastindex is None:
            continue
        begin, end = found.span()
        code = value = value_end = comment = found.start(5)
        kind: Kind = "comment"
        key, equals = None, -1
        if found.start(2) >= 0:
            kind, (code, equals), (value, value_end) = "setting", found.span(2), found.span(3)
            if equals - code <= _LONGEST:
                raw = found[2]
                if raw not in keys:
                    keys[raw] = schema.find(squeezed(raw).decode("latin-1").lower())
                key = keys[raw]
                if key is not None and key.kind == "command":  # The shell reads a '#' in it.
                    value_end, comment = end, -1
        elif found.start(1) >= 0:
            kind, (code, value_end) = "header", found.span(1)
            value = code
            raw = found[1]
            if raw not in titles:
                title = squeezed(raw).decode("utf-8", "surrogateescape").lower()
                titles[raw] = title.removeprefix("[").removesuffix("]")
            section = titles[raw]
        elif found.start(4) >= 0:
            kind, (code, value_end) = "other", found.span(4)
            value = code
        if text[end - 1] == _CR:
            end -= 1
            value = min(value, end)
        while value_end > value and text[value_end - 1] in WHITESPACE:
            value_end -= 1
        if not begin and text.startswith(_BOM):
            begin = len(_BOM)
        line = kind, number, section, key, begin, end, code, equals, value, value_end, comment
        yield tuple.__new__(Line, line)  # Takes half the time of calling Line.


_CR = ord("\r")
_BOM = b"\xef\xbb\xbf"


def squeezed(part: bytes | bytearray) -> bytes:
    """Returns the bytes without any whitespace, as `wg` reads a line."""
    return bytes(part).translate(None, WHITESPACE)


def decoded(text: bytes | bytearray, begin: int, end: int) -> str:
    """Decodes a part that is not a secret; bytes that are not UTF-8 survive."""
    return text[begin:end].decode("utf-8", "surrogateescape")
