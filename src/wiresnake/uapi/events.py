"""Writes and parses the text of `events=1`. docs/uapi.md describes each key.

The keys of a block are the names of the event's fields.
"""

from binascii import a2b_base64
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NamedTuple

from wiresnake import events
from wiresnake.events import Event, PeerEvent
from wiresnake.text import base64_text, hex_key, word

KINDS: dict[str, type[Event]] = {
    "handshake": events.HandshakeCompleted,
    "rekey": events.Rekeyed,
    "connected": events.Connected,
    "disconnected": events.Disconnected,
    "roamed": events.Roamed,
    "unreachable": events.Unreachable,
    "rejected_source": events.SourceRejected,
    "lost": events.EventsLost,
}
_KIND = {event: kind for kind, event in KINDS.items()}
Detail = str | int | bool
_READERS: dict[object, Callable[[str], Detail]] = {
    bool | None: lambda value: value == "true",
    int: int,
    int | None: int,
}


class Reported(NamedTuple):
    """An event of a running interface, with its time."""

    time_ns: int
    """In ns since 1970."""
    interface: str
    event: Event

    @property
    def public_key(self) -> str:
        """The peer's public key in base64; empty for an event without a peer."""
        return self.event.public_key if isinstance(self.event, PeerEvent) else ""


def kind_of(event: Event) -> str:
    """Returns the name of the event in `events=1`."""
    return _KIND[type(event)]


def details(event: Event) -> dict[str, Detail]:
    """Returns the fields of the event without the public key. Values of None are left out."""
    said = ((field.name, getattr(event, field.name)) for field in fields(event))
    return {name: value for name, value in said if name != "public_key" and value is not None}


def write_event(event: Event, wall: int) -> bytes:
    """Writes one block. `wall` is the time of the event in ns since 1970."""
    seconds, rest = divmod(wall, 1_000_000_000)
    text = f"event={kind_of(event)}\ntime_sec={seconds}\ntime_nsec={rest}\n"
    if isinstance(event, PeerEvent):
        text += f"public_key={a2b_base64(event.public_key).hex()}\n"
    text += "".join(f"{name}={word(value)}\n" for name, value in details(event).items())
    return (text + "\n").encode()


def parse_event(block: Iterable[str]) -> tuple[int, Event] | None:
    """Parses the lines of a block into its time, in ns since 1970, and its event.

    None if the kind is unknown or a field is missing; ValueError if a value is not valid.
    """
    said = dict(line.partition("=")[::2] for line in block)
    event = KINDS.get(said.get("event", ""))
    if event is None:
        return None
    values: dict[str, Any] = {"endpoint": None} if issubclass(event, PeerEvent) else {}
    for field in fields(event):
        if field.name in said:
            values[field.name] = _READERS.get(field.type, str)(said[field.name])
    if "public_key" in values:
        values["public_key"] = base64_text(hex_key(values["public_key"]))
    try:
        made = event(**values)
    except TypeError:
        return None
    return int(said.get("time_sec", 0)) * 10**9 + int(said.get("time_nsec", 0)), made
