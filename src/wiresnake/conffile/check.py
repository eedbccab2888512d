"""What is wrong in a wg-quick file, and where: all of it in one look.

An error is what keeps the file from being used. A warning is what is accepted, by us and by stock
`wg` and `wg-quick`, and does something else than its writer can have meant.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

from wiresnake.conffile import lines, relations, values
from wiresnake.conffile.lines import HOOKS, Line, squeeze
from wiresnake.conffile.relations import Place, Section
from wiresnake.conffile.values import Problem

WG = {
    "interface": ("PrivateKey", "ListenPort", "FwMark"),
    "peer": ("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"),
}
QUICK = {
    "interface": (
        *("Address", "DNS", "MTU", "Table", "SaveConfig"),
        *("PreUp", "PostUp", "PreDown", "PostDown"),
    ),
    "peer": ("OnUp", "OnDown"),
}
"""What `strip` removes; [Peer]'s are our own addition."""
LISTS = frozenset(("address", "dns", "allowedips"))
FOREIGN = {
    **dict.fromkeys(("includedapplications", "excludedapplications"), "Android"),
    **dict.fromkeys(("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "itime"), "AmneziaWG"),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "i1", "i2", "i3", "i4", "i5"), "AmneziaWG"),
    **dict.fromkeys(("j1", "j2", "j3"), "AmneziaWG"),
}
"""Keys of other dialects, which `wiresnake import` reads."""

_KEYS = {section: (*WG[section], *QUICK[section]) for section in WG}
_NAMES = {section: {key.lower(): key for key in keys} for section, keys in _KEYS.items()}
_QUICK_NAMES = {section: {key.lower() for key in keys} for section, keys in QUICK.items()}


class Finding(NamedTuple):
    line: int
    column: int
    """Both from 1."""
    level: str
    reason: str
    remedy: str


def check(text: str) -> list[Finding]:
    """Everything that is wrong in a file, in the order of its lines."""
    reader = _Reader()
    if text.startswith("\ufeff"):
        reason = "the file begins with a byte order mark, which stock wg-quick does not read"
        reader.add(Place(1, 1), Problem("warning", reason, "save it as UTF-8 without one"))
    for line in lines.read(text):
        reader.feed(line)
    for place, problem in relations.problems(reader.interface, reader.peers, reader.comments):
        reader.add(place, problem)
    return sorted(set(reader.findings))


def check_on_host(text: str, name: str, routed: Mapping[str, str]) -> list[Finding]:
    """What a file that is right by itself does wrong on this host, as interface `name`. `routed`
    has the networks of the main table, each with its device."""
    reader = _Reader()
    for line in lines.read(text):
        reader.feed(line)
    found = relations.on_host(reader.interface, reader.peers, name, routed)
    return sorted({Finding(*place, *problem) for place, problem in found})


class _Reader:
    """Judges line by line, and collects what only lines together tell."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.interface: Section | None = None
        self.peers: list[Section] = []
        self.comments = False
        self._open: Section | None = None
        self._spaced = False

    def error(self, line: Line, reason: str, remedy: str, column: int = 0) -> None:
        place = Place(line.number, column or line.key_column)
        self.add(place, Problem("error", reason, remedy))

    def warn(self, line: Line, reason: str, remedy: str) -> None:
        self.add(Place(line.number, line.key_column), Problem("warning", reason, remedy))

    def add(self, place: Place, problem: Problem) -> None:
        self.findings.append(Finding(*place, *problem))

    def feed(self, line: Line) -> None:
        self.comments |= bool(line.comment) and not _is_saved(line)
        if line.header:
            self._header(line)
        elif not line.equals:
            self._text(line)
        else:
            self._setting(line)

    def _header(self, line: Line) -> None:
        code = line.text.partition("#")[0].strip(lines.WHITESPACE)
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
        section = line.section if line.section in _KEYS else ""
        if line.key.startswith(";"):
            self.error(line, "';' does not begin a comment", "begin it with '#'")
        elif not line.key.isascii():
            reason = "a character in the key that is not ASCII"
            self.error(line, reason, "type the key anew: it came by copying")
        elif self._open is None:
            self._lost(line)
        elif line.name not in _NAMES[section]:
            self._unknown(line, section)
        else:
            self._known(self._open, line, section)

    def _lost(self, line: Line) -> None:
        if not line.section:
            key = _NAMES["interface"].get(line.name) or _NAMES["peer"].get(line.name)
            reason = f"{key or 'a line'} stands before any section"
            self.error(line, reason, "write [Interface] above it")
        # Below an unknown section its header is what is wrong.

    def _unknown(self, line: Line, section: str) -> None:
        here = f"[{section.title()}]"
        other = "peer" if section == "interface" else "interface"
        if line.name in _NAMES[other]:
            key = _NAMES[other][line.name]
            remedy = f"put it under [{other.title()}]"
            self.error(line, f"{key} does not belong under {here}", remedy)
        elif line.name in FOREIGN:
            reason = f"{line.key} is a key of {FOREIGN[line.name]}"
            self.error(line, reason, "read the file with `wiresnake import`")
        else:
            names = {**_NAMES[section], **_NAMES[other]}
            near = get_close_matches(line.name, names, 1, 0.7)
            # What is not like a key may be half of a secret that a line break has cut.
            key = f" '{line.key}'" if near or len(line.key) <= 12 else ""
            known = f"{here} has {', '.join(_KEYS[section])}"
            remedy = f"did you mean {names[near[0]]}?" if near else known
            self.error(line, f"unknown key{key} in {here}", remedy)

    def _known(self, opened: Section, line: Line, section: str) -> None:
        key = _NAMES[section][line.name]
        quick = line.name in _QUICK_NAMES[section]
        if quick and section == "interface" and (self._spaced or _inner_space(line)):
            reason = f"{key}, or the section above it, is written with spaces, which stock refuses"
            self.warn(line, reason, "write it without")
        before = opened.last(line.name)
        if before and line.name not in LISTS | HOOKS:
            reason = f"{key} comes again: this one wins over line {before.number}'s"
            remedy = "remove one of the two"
            if line.name == "publickey":
                remedy = "remove one of the two, or write [Peer] above it for another peer"
            self.warn(line, reason, remedy)
        opened.lines.setdefault(line.name, []).append(line)
        if not squeeze(line.value):
            self._empty(line, key, quick)
            return
        if not quick and not line.value.isascii():
            reason = f"a character in {key} that is not ASCII"
            self.error(line, reason, "type it anew: it came by copying", line.value_column)
            return
        for item, column in relations.items(line):
            for problem in values.problems(line.name, item):
                self.add(Place(line.number, column), problem)

    def _empty(self, line: Line, key: str, quick: bool) -> None:
        remedy = "give it a value or remove the line"
        if not quick or line.name == "saveconfig":
            self.error(line, f"{key} has no value", remedy)
        elif line.name in HOOKS:  # Generators of files write them.
            place = Place(line.number, line.key_column)
            self.add(place, Problem("note", f"{key} has no command and does nothing", remedy))
        else:
            self.warn(line, f"{key} has no value and does nothing", remedy)


def _inner_space(line: Line) -> bool:
    key = line.text.partition("=")[0].strip(lines.WHITESPACE)
    return squeeze(key) != key


def _is_saved(line: Line) -> bool:
    """Whether `save` keeps the comment."""
    if line.section == "peer":
        return line.comment.lower().startswith(("friendly_name", "friendly_json"))
    return bool(lines.told(f"#{line.comment}".encode("utf-8", "surrogateescape")))
