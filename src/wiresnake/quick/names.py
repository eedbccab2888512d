"""What a configuration file says of its peers and no device keeps: names, hooks, host names.

`# friendly_name = X` and `# friendly_json = {...}` are those of prometheus_wireguard_exporter.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from wiresnake.host import state
from wiresnake.quick import lines

DIRECTORY = Path("/etc/wireguard")


class Notes(NamedTuple):
    """What a file says of one peer."""

    public_key: str
    name: str = ""
    endpoint: str = ""
    """As written: its host may be a name."""
    on_up: tuple[str, ...] = ()
    on_down: tuple[str, ...] = ()


def read(text: str) -> dict[str, Notes]:
    """The peers of a file by public key. What is wrong in it is not judged here."""
    found: dict[str, Notes] = {}
    notes = Notes("")
    for line in lines.read(text):
        if line.header:
            _keep(found, notes)
            notes = Notes("")
        elif line.section == "peer":
            notes = _with(notes, line)
    _keep(found, notes)
    return found


class NotesFile:
    """The notes of a file that may change while we run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._notes: dict[str, Notes] = {}

    def of(self, public_key: str) -> Notes:
        """What it says of a peer by now."""
        return self.all().get(public_key) or Notes(public_key)

    def all(self) -> dict[str, Notes]:
        """What it says by now; what it said before if it cannot be read any more."""
        with suppress(OSError):
            self.read()
        return self._notes

    def read(self) -> dict[str, Notes]:
        """All of it. OSError if it cannot be read."""
        status = self._path.stat()
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        if stamp != self._stamp:
            self._notes = read(self._path.read_text(errors="replace"))
            self._stamp = stamp
        return self._notes


def of_interface(interface: str, path: Path | None = None) -> NotesFile:
    """The file that `up` took for the interface, else the one in /etc/wireguard; or another, which
    then must be there: OSError."""
    file = NotesFile(path or _taken(interface) or DIRECTORY / f"{interface}.conf")
    if path is not None:
        file.read()
    return file


def _taken(interface: str) -> Path | None:
    try:
        found = state.read(interface)
    except OSError:  # Only root may look.
        return None
    return Path(found.file) if found and found.file else None


def _keep(found: dict[str, Notes], notes: Notes) -> None:
    if notes.public_key:
        found[notes.public_key] = notes


def _with(notes: Notes, line: lines.Line) -> Notes:
    if line.comment and not line.key and not line.value:
        return notes if notes.name else notes._replace(name=_name(line.comment))
    match line.name:
        case "publickey":
            return notes._replace(public_key="".join(line.value.split()))
        case "endpoint":
            return notes._replace(endpoint="".join(line.value.split()))
        case "onup":
            return notes._replace(on_up=(*notes.on_up, line.value))
        case "ondown":
            return notes._replace(on_down=(*notes.on_down, line.value))
    return notes


def _name(comment: str) -> str:
    key, _, value = comment.partition("=")
    match key.strip().lower():
        case "friendly_name":
            return lines.printable(value)
        case "friendly_json":
            try:
                tags = json.loads(value)
            except ValueError:
                return ""
            if isinstance(tags, dict):
                return lines.printable(str(tags.get("name") or tags.get("username") or ""))
    return ""
