"""What a configuration file says of its peers and no device keeps: names, hooks, host names.

`# friendly_name = X` and `# friendly_json = {...}` are those of prometheus_wireguard_exporter. They
may stand anywhere in the section, as a line of their own; the first that has a name counts.
"""

import json
from typing import NamedTuple

from wiresnake.conffile import lines


class Notes(NamedTuple):
    """What a file says of one peer."""

    public_key: str
    name: str = ""
    """As `displayed`."""
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


def of_comment(comment: str) -> str:
    """The name that a comment, without its '#', gives its peer; empty if none. Nothing in it steers
    a terminal; what is not UTF-8 is kept, as `surrogateescape` has it."""
    key, _, value = comment.partition("=")
    match key.strip().lower():
        case "friendly_name":
            return lines.printable(value)
        case "friendly_json":
            try:
                tags = json.loads(value)
            except (ValueError, RecursionError):
                return ""
            return lines.printable(_named(tags)) if isinstance(tags, dict) else ""
    return ""


def displayed(name: str) -> str:
    """With a sign in the place of what is not UTF-8, as everything that shows names shows them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _named(tags: dict[str, object]) -> str:
    """Of labels, which may be any, the one that is a name: `name`, `friendly_name` or `username`,
    else the first whose key ends with the word, as `peer_name` does."""
    texts = {
        key.lower(): str(value)
        for key, value in tags.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip()
    }
    keys = [*("name", "friendly_name", "username"), *(one for one in texts if one.endswith("name"))]
    return next((texts[key] for key in keys if key in texts), "")


def _keep(found: dict[str, Notes], notes: Notes) -> None:
    if not notes.public_key:
        return
    if before := found.get(notes.public_key):  # A peer that comes again keeps what is not said.
        notes = notes._replace(
            name=notes.name or before.name, endpoint=notes.endpoint or before.endpoint
        )
    found[notes.public_key] = notes


def _with(notes: Notes, line: lines.Line) -> Notes:
    if line.comment and not line.key and not line.value:
        return notes if notes.name else notes._replace(name=displayed(of_comment(line.comment)))
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
