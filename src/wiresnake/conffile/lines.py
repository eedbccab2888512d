"""A configuration file as lines with places: what every reader of wg-quick files stands on.

The grammar is that of `wg` and `wg-quick`: `Key = value` under [Interface] and [Peer], names
case-insensitive, comments from '#' (hooks keep theirs), CRLF and a UTF-8 BOM do no harm.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

HOOKS = frozenset(("preup", "postup", "predown", "postdown", "onup", "ondown"))
"""Their values are shell commands, so that a '#' in them is the shell's."""
WHITESPACE = " \t\n\v\f\r"
"""What `wg` takes for it; to Python a no-break space would be some too."""
_NO_WHITESPACE = str.maketrans("", "", WHITESPACE)
_TOLD = re.compile(
    rb"(?im)^(?:\xef\xbb\xbf)?[ \t]*(?:(?P<header>\[[^\n]*)"
    rb"|\#[ \t]*(?P<key>endpoint|dns)[ \t]*=(?P<value>[^\n]*))"
)
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
    key: str
    """Without whitespace, as written; empty for a header, a comment or an empty line."""
    value: str
    """What stands behind '=', stripped and without comment; of a hook with everything."""
    equals: bool
    key_column: int
    """Counted from 1; of a header or another text, where it begins."""
    value_column: int
    comment: str
    """What stands behind '#', stripped."""

    @property
    def name(self) -> str:
        """The key in lower case."""
        return self.key.lower()


def read(text: str) -> Iterator[Line]:
    """Every line in order, the empty ones too."""
    section = ""
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = read_line(raw, number, section)
        section = line.section
        yield line


def read_line(raw: str, number: int, section: str) -> Line:
    """One line, without its newline, that stands in that section unless it opens another."""
    whole = raw.removesuffix("\r")
    code, _, comment = whole.partition("#")
    key, equals, value = code.partition("=")
    key = squeeze(key)
    if equals and key.lower() in HOOKS:
        value, comment = whole.partition("=")[2], ""
    column = len(code) - len(code.lstrip(WHITESPACE)) + 1
    bare = squeeze(code)
    header = bare.startswith("[")
    if header:
        section = bare.lower().removeprefix("[").removesuffix("]")
        key, equals, value = "", "", ""
    elif not equals:
        key, value = "", bare
    at = len(code.partition("=")[0]) + 1 + len(value) - len(value.lstrip(WHITESPACE)) + 1
    return Line(
        number,
        whole,
        section,
        header,
        key,
        value.strip(WHITESPACE),
        bool(equals),
        column,
        at if equals else column,
        comment.strip(WHITESPACE),
    )


def told(text: bytes | bytearray) -> dict[str, str]:
    """What comments outside of peers say for the next one: `# endpoint = HOST:PORT`, `# dns = ...`.
    No other line, which may be a secret, is taken out of the buffer."""
    found = {}
    peer = False
    for line in _TOLD.finditer(text):
        if header := line["header"]:
            peer = squeeze(header.decode("ascii", "replace")).lower().startswith("[peer]")
        elif not peer:
            value = line["value"].decode("utf-8", "surrogateescape").strip(WHITESPACE)
            found[line["key"].decode("ascii").lower()] = value
    return found


def squeeze(text: str) -> str:
    """Without any whitespace, as `wg` reads a line."""
    return text.translate(_NO_WHITESPACE)


def printable(name: str) -> str:
    """Names go to terminals: no character of theirs steers one. What is not UTF-8 is kept, as
    `surrogateescape` has it."""
    return "".join(one for one in name if one.isprintable() or "\udc80" <= one <= "\udcff").strip()


def shown(value: str) -> str:
    """A value for an error to quote: a key that slipped into another line is not shown."""
    return _KEY.sub("(hidden)", value)
