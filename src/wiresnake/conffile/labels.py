"""What a configuration file says of its peers and no device keeps: names, hooks, host names.

`# friendly_name = X` and `# friendly_json = {...}` are those of prometheus_wireguard_exporter. They
may stand anywhere in the section, as a line of their own; the first that has a name counts.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from wiresnake.conffile import lines, scanner, schema
from wiresnake.conffile.scanner import SPACE, Line, decoded, squeezed
from wiresnake.conffile.schema import WHITESPACE

_NAMES = re.compile(rb"(?i)#%b*friendly_(?:name|json)%b*=" % (SPACE, SPACE))
_TOLD = re.compile(rb"(?i)#[ \t]*(endpoint|dns)[ \t]*=([^\n]*)")


class PeerLabels(NamedTuple):
    """What a file says of one peer."""

    public_key: str
    name: str = ""
    """As `displayed`."""
    endpoint: str = ""
    """As written: its host may be a name."""
    on_up: tuple[str, ...] = ()
    on_down: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    """Those that name it, as they stand, with their '#'."""


def read(text: bytes | bytearray) -> dict[str, PeerLabels]:
    """The peers of a file by public key. What is wrong in it is not judged here."""
    found: dict[str, PeerLabels] = {}
    for peer in peers(text, scanner.scan(text)):
        # A peer that comes again keeps what is not said.
        if peer.public_key and (before := found.get(peer.public_key)):
            peer = peer._replace(
                name=peer.name or before.name, endpoint=peer.endpoint or before.endpoint
            )
        if peer.public_key:
            found[peer.public_key] = peer
    return found


def peers(text: bytes | bytearray, scanned: Iterable[Line]) -> Iterator[PeerLabels]:
    """The same of each section in order, also of one without a key or one that comes again."""
    peer: dict[str, Any] | None = None
    for line in scanned:
        key = line.key
        if line.kind == "header":
            if peer is not None:
                yield PeerLabels(**peer)
            peer = {"public_key": ""} if line.section == "peer" else None
        elif peer is None:
            continue
        elif line.kind == "comment":
            if _NAMES.match(text, line.comment, line.end):
                comment = decoded(text, line.comment, line.end).rstrip(WHITESPACE)
                peer["name"] = peer.get("name") or displayed(of_comment(comment[1:]))
                peer["comments"] = (*peer.get("comments", ()), comment)
        elif key is schema.PUBLIC_KEY or key is schema.ENDPOINT:
            name = squeezed(text[line.value : line.value_end])
            peer[key.field] = name.decode("utf-8", "replace")
        elif key is not None and key.kind == "command" and key.section == "peer":
            value = decoded(text, line.value, line.value_end)
            peer[key.field] = (*peer.get(key.field, ()), value)
    if peer is not None:
        yield PeerLabels(**peer)


def told(text: bytes | bytearray, scanned: Iterable[Line]) -> dict[str, str]:
    """What comments outside of peers say for the next one: `# endpoint = H:P`, `# dns = ...`."""
    found = {}
    for line in scanned:
        outside = line.kind == "comment" and line.section != "peer"
        if outside and (match := _TOLD.match(text, line.comment, line.end)):
            key, value = (part.decode("utf-8", "surrogateescape") for part in match.groups())
            found[key.lower()] = value.strip(WHITESPACE)
    return found


def is_kept(line: lines.Line) -> bool:
    """Whether `save` keeps the comment of a line."""
    comment = f"#{line.comment}".encode("utf-8", "surrogateescape")
    return bool((_NAMES if line.section == "peer" else _TOLD).match(comment))


def comment(name: str) -> str:
    """The comment that gives a peer its name."""
    return f"# friendly_name = {name}"


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
            return lines.printable(_name(tags)) if isinstance(tags, dict) else ""
    return ""


def displayed(name: str) -> str:
    """With a sign in the place of what is not UTF-8, as everything that shows names shows them."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _name(tags: dict[str, object]) -> str:
    """Of labels, which may be any, the one that is a name: `name`, `friendly_name` or `username`,
    else the first whose key ends with the word, as `peer_name` does."""
    texts = {
        key.lower(): str(value)
        for key, value in tags.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip()
    }
    keys = [*("name", "friendly_name", "username"), *(one for one in texts if one.endswith("name"))]
    return next((texts[key] for key in keys if key in texts), "")
