"""Writes and parses the text of `state=1` (docs/uapi.md). The plane writes its own part.

Only wiresnake answers this question. Keys that are zero, or never happened, are left out.
"""

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from wiresnake.model import Note, Stranger
from wiresnake.text import base64_text, hex_key, word
from wiresnake.uapi.vocabulary import DeviceReport, PeerReport

_NOTES = {
    "initiation": ("initiations", "first_initiation_age_ms", "last_initiation_age_ms"),
    "bad_response": ("bad_responses", None, "bad_response_age_ms"),
    "unconfirmed_response": ("unconfirmed_responses", None, "unconfirmed_response_age_ms"),
    "stale_initiation": ("stale_initiations", None, "stale_initiation_age_ms"),
    "cookie_reply": ("cookie_replies", None, "cookie_reply_age_ms"),
}
"""The keys of each note of a peer: its number, the age of the first, the age of the last."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole answer to `state=1`."""

    device: DeviceReport
    peers: dict[str, PeerReport]


class Question:
    """Parses the lines after `state=1` or `events=1`, which choose one peer or all."""

    def __init__(self) -> None:
        self.public_key: bytes | None = None
        self.errno = 0
        """Not 0 if a line was wrong."""

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        """Parses the line buffer[start:end], without its newline."""
        try:
            key, _, value = buffer[start:end].decode("ascii").partition("=")
            if key != "public_key" or self.public_key is not None:
                raise ValueError
            self.public_key = hex_key(value)
        except ValueError:
            self.errno = errno.EINVAL


def write_device_state(
    up: bool, bound: bool, bind_error: int, stranger: Stranger | None, notes: str, now: int
) -> bytes:
    """Writes the device's part of a `state`. `notes` is the text of the plane and the machine."""
    text = f"up={word(up)}\nbound={word(bound)}\n"
    if bind_error:
        text += f"bind_error={bind_error}\n"
    if stranger is not None:
        text += (
            f"unknown_initiations={stranger.number}\n"
            f"unknown_initiator={stranger.public_key.hex()}\n"
            f"unknown_initiator_endpoint={stranger.endpoint}\n"
            f"unknown_initiator_age_ms={_age(stranger.last, now)}\n"
        )
    return (text + notes).encode()


def write_machine_state(cipher: str, own_fails: bool, offloads: Iterable[str]) -> str:
    """Writes the cipher and the offloads in use, for the notes of `write_device_state`."""
    text = f"cipher={cipher}\n"
    if own_fails:
        text += "own_cipher_failed=true\n"
    if used := ",".join(offloads):
        text += f"offloads={used}\n"
    return text


def write_peer_state(
    public_key: bytes, plane: bytes, last_handshake: int, notes: Mapping[str, Note], now: int
) -> bytes:
    """Writes one peer's part of a `state`. `plane` is the text of the plane."""
    text = ""
    if last_handshake:
        seconds, rest = divmod(last_handshake, 1_000_000_000)
        text += f"last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={rest}\n"
    for what, note in notes.items():
        number, first, last = _NOTES[what]
        text += f"{number}={note.number}\n"
        if first is not None:
            text += f"{first}={_age(note.first, now)}\n"
        text += f"{last}={_age(note.last, now)}\n"
    return b"public_key=%s\n%s%s" % (public_key.hex().encode(), plane, text.encode())


def parse_report(answer: Iterable[str]) -> Report | None:
    """Parses the lines of an answer.

    None if it is incomplete or reports an error; ValueError if a value is not valid.
    """
    sections: list[dict[str, str]] = [{}]
    done = False
    for line in answer:
        key, _, value = line.partition("=")
        if key == "errno":
            done = int(value) in (0, errno.ENOENT)
        elif key == "public_key":
            sections.append({key: base64_text(hex_key(value))})
        else:
            sections[-1][key] = value
    if not done:
        return None
    device, *peers = sections
    return Report(
        DeviceReport(**_typed(device, _DEVICE)),
        {peer["public_key"]: PeerReport(**_typed(peer, _PEER)) for peer in peers},
    )


def _typed(said: dict[str, str], readers: dict[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Converts the values to the types of a report's fields. Unknown keys are left out."""
    return {key: readers[key](value) for key, value in said.items() if key in readers}


def _age(moment: int, now: int) -> int:
    return max(now - moment, 0) // 1_000_000


_READERS: dict[object, Callable[[str], str | int | bool]] = {
    bool: lambda value: value == "true",
    int: int,
    int | None: int,
    str: str,
    str | None: str,
}
_DEVICE, _PEER = (
    {field.name: _READERS[field.type] for field in fields(report)}
    for report in (DeviceReport, PeerReport)
)
_DEVICE["unknown_initiator"] = lambda value: base64_text(hex_key(value))
