"""What a configuration file says about its peers and a device does not keep: names, hooks, host
names.

`# friendly_name = X` and `# friendly_json = {...}` are the comments of
prometheus_wireguard_exporter. They can be anywhere in the section, on their own line; the first one
with a name counts.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from wiresnake.conffile import lines, scanner, schema
from wiresnake.conffile.scanner import SPACE, Line, decoded, squeezed
from wiresnake.conffile.schema import WHITESPACE

_NAMES = re.compile(rb"(?i)#%b*friendly_(?:name|json)%b*=" % (SPACE, SPACE))
_REMEMBERED = re.compile(rb"(?i)#[ \t]*(endpoint|dns)[ \t]*=([^\n]*)")


class PeerLabels(NamedTuple):
    """The labels of one peer."""

    public_key: str
    name: str = ""
    """As `displayed`."""
    endpoint: str = ""
    """The endpoint as written, possibly with a host name."""
    on_up: tuple[str, ...] = ()
    on_down: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    """The comments that name the peer, as written, with their '#'."""


def read(text: bytes | bytearray) -> dict[str, PeerLabels]:
    """Returns the peers of a file by public key. Mistakes in the file are ignored."""
    found: dict[str, PeerLabels] = {}
    for peer in peers(text, scanner.scan(text)):
        # A repeated peer keeps what the repetition does not say.
        if peer.public_key and (before := found.get(peer.public_key)):
            peer = peer._replace(
                name=peer.name or before.name, endpoint=peer.endpoint or before.endpoint
            )
        if peer.public_key:
            found[peer.public_key] = peer
    return found


def peers(text: bytes | bytearray, scanned: Iterable[Line]) -> Iterator[PeerLabels]:
    """Yields the labels of each section in order, also without a key, and of repeated peers."""
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


def remembered(text: bytes | bytearray, scanned: Iterable[Line]) -> dict[str, str]:
    """Returns what comments outside peers remember for the next peer: `# endpoint = H:P`, `# dns =
    ...`."""
    found = {}
    for line in scanned:
        outside = line.kind == "comment" and line.section != "peer"
        if outside and (match := _REMEMBERED.match(text, line.comment, line.end)):
            key, value = (part.decode("utf-8", "surrogateescape") for part in match.groups())
            found[key.lower()] = value.strip(WHITESPACE)
    return found


def is_kept(line: lines.Line) -> bool:
    """Returns whether `save` keeps the comment of a line."""
    comment = f"#{line.comment}".encode("utf-8", "surrogateescape")
    return bool((_NAMES if line.section == "peer" else _REMEMBERED).match(comment))


def comment(name: str) -> str:
    """Returns the comment that gives a peer its name."""
    return f"# friendly_name = {name}"


def of_comment(comment: str) -> str:
    """Returns the name that a comment, without its '#', gives its peer, or an empty string. It is
    safe to print; bytes that are not UTF-8 stay, as `surrogateescape` represents them."""
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
    """Returns a name for display, with a replacement character for bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _name(tags: dict[str, object]) -> str:
    """Returns the name among arbitrary labels: `name`, `friendly_name` or `username`, or else the
    first label whose key ends with `name`, such as `peer_name`."""
    texts = {
        key.lower(): str(value)
        for key, value in tags.items()
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip()
    }
    keys = [*("name", "friendly_name", "username"), *(one for one in texts if one.endswith("name"))]
    return next((texts[key] for key in keys if key in texts), "")
