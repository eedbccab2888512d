"""Cuts a configuration file into lines, and each line into the places of its parts.

The grammar is that of `wg` and `wg-quick`: `Key = value` under [Interface] and [Peer], names
case-insensitive and with whitespace anywhere, comments from '#' (commands keep theirs), CRLF and
a UTF-8 BOM do no harm. No value is taken out of the buffer, as it may be a secret.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from wiresnake.conffile import schema
from wiresnake.conffile.schema import Key

WHITESPACE = schema.WHITESPACE.encode()
SPACE = rb"[%b]" % WHITESPACE.replace(b"\n", b"")
"""A pattern of whitespace within a line."""
_LINE = re.compile(
    rb"(?m)^(?:\A\xef\xbb\xbf)?%b*+"
    rb"(?:(\[[^#\n]*)|([^=#\n]*)=%b*+([^#\n]*)|([^#\n]+))?+(#[^\n]*)?" % (SPACE, SPACE)
)
_LONGEST = 60
"""Bytes of what is looked up as a key. More are none, and may be a secret that lost its place."""


Kind = Literal["header", "setting", "comment", "other"]


class Line(NamedTuple):
    """One line that is not empty. All places are indices into the buffer."""

    kind: Kind
    number: int
    section: str
    """The section that the line stands in, in lower case; empty before the first. Of a header, its
    own."""
    key: Key | None
    """Of a setting, if there is such a key in any section."""
    begin: int
    end: int
    """Without the end of the line."""
    code: int
    """Behind the whitespace at the beginning."""
    equals: int
    """Of a setting; -1 of others."""
    value: int
    value_end: int
    """The value of a setting without whitespace around it; otherwise all the code."""
    comment: int
    """Of its '#'; -1 if there is none."""


def scan(text: bytes | bytearray) -> Iterator[Line]:
    """Every line in order but the empty ones. `wg.settle` comes first."""
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
                if key is not None and key.kind == "command":  # A '#' in it is the shell's.
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
        yield tuple.__new__(Line, line)  # In half the time of calling Line.


_CR = ord("\r")
_BOM = b"\xef\xbb\xbf"


def squeezed(part: bytes | bytearray) -> bytes:
    """Without any whitespace, as `wg` reads a line."""
    return bytes(part).translate(None, WHITESPACE)


def decoded(text: bytes | bytearray, begin: int, end: int) -> str:
    """A part that is no secret; what is not UTF-8 in it survives."""
    return text[begin:end].decode("utf-8", "surrogateescape")
