"""Files of sections and `key=value`, as systemd and NetworkManager have them."""

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
    """A section may come several times, each time for another thing."""

    line: int
    title: str
    entries: list[Entry] = field(default_factory=list, repr=False)
    name: str = ""
    """From a comment."""

    def entry(self, key: str) -> Entry:
        """The one that counts; if there is none, an empty one at the header."""
        found = [entry for entry in self.entries if entry.key == key]
        return found[-1] if found else Entry(self.line, key, "")

    def last(self, key: str) -> str:
        return self.entry(key).value

    @property
    def header(self) -> Entry:
        """For what is said of the whole of it."""
        return Entry(self.line, f"[{self.title}]", "")


def read(text: str, name: str) -> list[Section]:
    """ConfigError with `name`:line:column where a line is neither."""
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
    """The lines of those keys, by what they are called here, whose attribute of `values` says
    something; `comma` stands between the items of a list."""
    for name, key in names.items():
        if value := getattr(values, key.field):
            yield f"{name}={comma.join(value) if isinstance(value, tuple) else value}"


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; a backslash at the end takes the next one in, as for systemd."""
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
