"""Reads and writes files of sections and `key=value`, as used by systemd and NetworkManager."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wiresnake.conffile import labels
from wiresnake.conffile.schema import Key
from wiresnake.errors import ConfigError


class Entry(NamedTuple):
    line: int
    key: str
    value: str


@dataclass(slots=True)
class Section:
    """A section, which can appear several times for different things."""

    line: int
    title: str
    entries: list[Entry] = field(default_factory=list, repr=False)
    name: str = ""
    """The name in a comment."""

    def entry(self, key: str) -> Entry:
        """Returns the entry that counts, or an empty one at the header."""
        found = [entry for entry in self.entries if entry.key == key]
        return found[-1] if found else Entry(self.line, key, "")

    def last(self, key: str) -> str:
        return self.entry(key).value

    @property
    def header(self) -> Entry:
        """Returns an entry for messages about the whole section."""
        return Entry(self.line, f"[{self.title}]", "")


def read(text: str, name: str) -> list[Section]:
    """Parses a file. ConfigError with `name`:line:column for a line that is neither a header nor a
    setting."""
    found: list[Section] = []
    for number, line in _joined(text):
        bare = line.strip()
        if bare.startswith(("#", ";")):
            if found and not found[-1].name:
                found[-1].name = labels.of_comment(bare[1:])
        elif bare.startswith("[") and bare.endswith("]"):
            found.append(Section(number, bare[1:-1]))
        elif "=" in bare and found:
            key, _, value = bare.partition("=")
            found[-1].entries.append(Entry(number, key.strip(), value.strip()))
        elif bare:
            column = len(line) - len(line.lstrip()) + 1
            what = "neither [Section] nor key=value, or before any section"
            raise ConfigError(f"{name}:{number}:{column}: {what}; correct or remove the line")
    return found


def written(names: Mapping[str, Key], values: object, comma: str = ",") -> Iterator[str]:
    """Yields lines for the keys that have a value in `values`, with their names in this dialect.
    `comma` separates the items of a list."""
    for name, key in names.items():
        if value := getattr(values, key.field):
            yield f"{name}={comma.join(value) if isinstance(value, tuple) else value}"


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Yields lines with their numbers; a backslash at the end continues a line, as with systemd."""
    pending, begin = "", 0
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        begin = begin or number
        if line.endswith("\\") and not line.lstrip().startswith(("#", ";")):
            pending += line[:-1] + " "
            continue
        yield begin, pending + line
        pending, begin = "", 0
    if pending:
        yield begin, pending
