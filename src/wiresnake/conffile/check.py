"""Finds every mistake in a wg-quick file in one pass.

An error makes the file unusable. A warning is something that we and the stock `wg` and `wg-quick`
accept, but that probably does something other than intended.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

from wiresnake.conffile import labels, lines, relations, schema, values
from wiresnake.conffile.lines import Line, squeeze
from wiresnake.conffile.relations import Place, Section
from wiresnake.conffile.schema import FOREIGN, WHITESPACE, Key
from wiresnake.conffile.values import Problem

NOTHING: Mapping[str, str] = {}


class Finding(NamedTuple):
    line: int
    column: int
    """Line and column count from 1."""
    level: str
    reason: str
    remedy: str


def check(text: str, name: str = "", routed: Mapping[str, str] = NOTHING) -> list[Finding]:
    """Returns every mistake in a file, in the order of its lines.

    With the interface's `name` conflicts with this host count, too. `routed` has the networks of
    the main table, each with its device.
    """
    reader = _Reader(text)
    if text.startswith("\ufeff"):
        reason = "the file begins with a byte order mark, which stock wg-quick rejects"
        reader.add(Place(1, 1), Problem("warning", reason, "save it as UTF-8 without one"))
    for place, problem in relations.problems(reader.interface, reader.peers, reader.comments):
        reader.add(place, problem)
    if name:
        for place, problem in relations.on_host(reader.interface, reader.peers, name, routed):
            reader.add(place, problem)
    return sorted(set(reader.findings))


class _Reader:
    """Checks line by line, and collects sections for the checks that need several lines."""

    def __init__(self, text: str) -> None:
        self.findings: list[Finding] = []
        self.interface: Section | None = None
        self.peers: list[Section] = []
        self.comments = False
        self._open: Section | None = None
        self._spaced = False
        for line in lines.read(text):
            self._feed(line)

    def error(self, line: Line, reason: str, remedy: str, column: int = 0) -> None:
        place = Place(line.number, column or line.key_column)
        self.add(place, Problem("error", reason, remedy))

    def warn(self, line: Line, reason: str, remedy: str) -> None:
        self.add(Place(line.number, line.key_column), Problem("warning", reason, remedy))

    def add(self, place: Place, problem: Problem) -> None:
        self.findings.append(Finding(*place, *problem))

    def _feed(self, line: Line) -> None:
        self.comments |= bool(line.comment) and not labels.is_kept(line)
        if line.header:
            self._header(line)
        elif not line.equals:
            self._text(line)
        else:
            self._setting(line)

    def _header(self, line: Line) -> None:
        code = line.text.partition("#")[0].strip(WHITESPACE)
        self._spaced = squeeze(code) != code
        self._open = None
        if squeeze(code).lower() == "[interface]":
            self.interface = self._open = self.interface or Section(line)
        elif squeeze(code).lower() == "[peer]":
            self._open = Section(line)
            self.peers.append(self._open)
        else:
            self.error(line, "unknown section", "there are [Interface] and [Peer]")

    def _text(self, line: Line) -> None:
        if not line.value:
            return
        if line.value.startswith(";"):
            self.error(line, "';' does not begin a comment", "begin it with '#'")
        else:
            remedy = "comments start with '#'"
            self.error(line, "neither a section nor 'Key = value'", remedy)

    def _setting(self, line: Line) -> None:
        if line.key.startswith(";"):
            self.error(line, "';' does not begin a comment", "begin it with '#'")
        elif not line.key.isascii():
            reason = "a character in the key that is not ASCII"
            self.error(line, reason, "type the key again; copying changed it")
        elif self._open is None:
            self._lost(line)
        elif line.known is None or line.known.section != line.section:
            self._unknown(line)
        else:
            self._known(self._open, line, line.known)

    def _lost(self, line: Line) -> None:
        if not line.section:
            reason = f"{line.known.name if line.known else 'a line'} comes before any section"
            self.error(line, reason, "write [Interface] above it")
        # In an unknown section only the header is wrong.

    def _unknown(self, line: Line) -> None:
        here = f"[{line.section.title()}]"
        if line.known:
            remedy = f"move it to [{line.known.section.title()}]"
            self.error(line, f"{line.known.name} does not belong in {here}", remedy)
        elif foreign := FOREIGN.get(line.key.lower()):
            reason = f"{line.key} is a key of {foreign}"
            self.error(line, reason, "read the file with `wiresnake import`")
        else:
            own = sorted(schema.keys_of(line.section), key=lambda key: key.quick)
            names = {key.name.lower(): key.name for key in (*own, *schema.KEYS)}
            near = get_close_matches(line.key.lower(), names, 1, 0.7)
            # What does not look like a key may be half of a secret, cut by a line break.
            key = f" '{line.key}'" if near or len(line.key) <= 12 else ""
            known = f"{here} has {', '.join(key.name for key in own)}"
            remedy = f"did you mean {names[near[0]]}?" if near else known
            self.error(line, f"unknown key{key} in {here}", remedy)

    def _known(self, opened: Section, line: Line, key: Key) -> None:
        stock = key.quick and key.section == "interface"
        if stock and (self._spaced or _inner_space(line)):
            reason = (
                f"{key.name}, or the section above it, contains spaces, which the stock tools"
                " reject"
            )
            self.warn(line, reason, "write it without spaces")
        before = opened.last(key)
        if before and not key.is_list:
            reason = f"{key.name} appears twice: this one replaces that of line {before.number}"
            remedy = "remove one of the two"
            if key is schema.PUBLIC_KEY:
                remedy = "remove one of the two, or write [Peer] above it for another peer"
            self.warn(line, reason, remedy)
        opened.lines.setdefault(key, []).append(line)
        if not squeeze(line.value):
            self._empty(line, key)
            return
        if not key.quick and not line.value.isascii():
            reason = f"a character in {key.name} that is not ASCII"
            self.error(line, reason, "type it again; copying changed it", line.value_column)
            return
        for item, column in relations.items(line):
            for problem in values.problems(key, item):
                self.add(Place(line.number, column), problem)

    def _empty(self, line: Line, key: Key) -> None:
        remedy = "give it a value or remove the line"
        if not key.quick or key.kind == "switch":
            self.error(line, f"{key.name} has no value", remedy)
        elif key.kind == "command":  # Generators of files write them.
            place = Place(line.number, line.key_column)
            self.add(place, Problem("note", f"{key.name} has no command and does nothing", remedy))
        else:
            self.warn(line, f"{key.name} has no value and does nothing", remedy)


def _inner_space(line: Line) -> bool:
    key = line.text.partition("=")[0].strip(WHITESPACE)
    return squeeze(key) != key
