"""A file's peers by their text, so that thousands of them are compared in a moment.

A secret is only known by its place.
"""

import ipaddress
import re
from collections.abc import Set
from dataclasses import dataclass, field

from wiresnake.errors import ConfigError
from wiresnake.model import Prefix

_SPACES = b" \t\n\v\f\r"
_KNOWN = frozenset(
    (b"publickey", b"presharedkey", b"allowedips", b"endpoint", b"persistentkeepalive")
)


@dataclass(slots=True)
class Stanza:
    """A part of the file that begins with a header, or the lines before the first."""

    begin: int
    end: int = 0
    peer: bool = False
    public_key: str = ""
    allowed_ips: list[str] = field(default_factory=list)
    """As in a device: `10.0.0.0/24`."""
    preshared_key: tuple[int, int] | None = None
    keepalive: str = "0"
    endpoint: str = ""
    odd: bool = False
    """Written in a way that text does not tell what it is: `config.conf` must read it."""


_LINE = re.compile(rb"(?m)^[ \t\v\f\r]*(?:(\[[^#\n]*)|([^=#\n]{1,60})=([^#\n]*)|([^#\s][^\n]*))")
"""A header, a key with its value, or what is neither. A key of more than 60 characters is none: it
may be a secret that lost its place."""


def read(wg: bytearray, known: Set[str] = frozenset()) -> list[Stanza]:
    """The whole file, cut at its headers. `known` are networks that need no second look."""
    keys: dict[bytes, bytes] = {}
    found = [Stanza(0)]
    for line in _LINE.finditer(wg):
        kind = line.lastindex
        if kind == 3:
            raw = line[2]
            key = keys.get(raw)
            if key is None:
                key = keys[raw] = raw.translate(None, _SPACES).lower()
            _feed(found[-1], key, wg, *line.span(3), known)
        elif kind == 1:
            found[-1].end = line.start()
            header = line[1].translate(None, _SPACES).lower()
            found.append(Stanza(line.start(), peer=header == b"[peer]"))
        else:
            found[-1].odd = True
    found[-1].end = len(wg)
    return found


def text(prefix: Prefix) -> str:
    """`10.0.0.0/24`, as a device says it."""
    return f"{ipaddress.ip_address(prefix.address)}/{prefix.length}"


def _feed(stanza: Stanza, key: bytes, wg: bytearray, begin: int, end: int, known: Set[str]) -> None:
    if not stanza.peer:
        return
    if key == b"presharedkey":
        while begin < end and wg[begin] in _SPACES:
            begin += 1
        while begin < end and wg[end - 1] in _SPACES:
            end -= 1
        stanza.odd = stanza.odd or stanza.preshared_key is not None
        stanza.preshared_key = begin, end
        return
    value = wg[begin:end].translate(None, _SPACES).decode("ascii", "replace")
    if not value or key not in _KNOWN:
        stanza.odd = True
    elif key == b"publickey":
        stanza.odd = stanza.odd or bool(stanza.public_key)
        stanza.public_key = value
    elif key == b"endpoint":
        stanza.endpoint = value
    elif key == b"persistentkeepalive":
        stanza.keepalive = "0" if value.lower() == "off" else value
    else:
        for one in value.split(","):
            if one in known:
                stanza.allowed_ips.append(one)
            else:
                stanza.odd = stanza.odd or one[:1] in ("+", "-")
                try:
                    if not one.startswith("-"):  # There is nothing yet that it could remove.
                        stanza.allowed_ips.append(text(Prefix.parse(one.removeprefix("+"))))
                except ConfigError:
                    stanza.odd = True
