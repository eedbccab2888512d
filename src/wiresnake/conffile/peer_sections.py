"""The peers of a file as text, so that thousands are compared quickly. Secrets are only known by
their position.
"""

import ipaddress
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from wiresnake.conffile import schema
from wiresnake.conffile.scanner import Line, squeezed
from wiresnake.errors import ConfigError
from wiresnake.model import Prefix


@dataclass(slots=True)
class PeerSection:
    """A part of the file that begins with a header, or the lines before the first."""

    lines: list[Line] = field(default_factory=list)
    peer: bool = False
    public_key: str = ""
    allowed_ips: list[str] = field(default_factory=list)
    """Networks in a device's format: `10.0.0.0/24`."""
    preshared_key: tuple[int, int] | None = None
    keepalive: str = "0"
    endpoint: str = ""
    odd: bool = False
    """The section is written in a way that only the full parser of `wg` understands."""


def read(
    text: bytearray, scanned: Sequence[Line], known: Set[str] = frozenset()
) -> list[PeerSection]:
    """Returns the whole file, cut at its headers. `known` are networks that were parsed before."""
    found = [PeerSection()]
    for line in scanned:
        if line.kind == "header":
            header = squeezed(text[line.value : line.value_end]).lower()
            found.append(PeerSection([line], header == b"[peer]"))
            continue
        found[-1].lines.append(line)
        if found[-1].peer and line.kind != "comment":
            _feed(found[-1], line, text, known)
    return found


def text(prefix: Prefix) -> str:
    """Returns a network in a device's format, such as `10.0.0.0/24`."""
    return f"{ipaddress.ip_address(prefix.address)}/{prefix.length}"


def _feed(section: PeerSection, line: Line, wg: bytearray, known: Set[str]) -> None:
    if line.key is schema.PRESHARED_KEY:
        section.odd = section.odd or section.preshared_key is not None
        section.preshared_key = line.value, line.value_end
        return
    if line.key not in _PLAIN or line.value == line.value_end:
        section.odd = True
        return
    value = squeezed(wg[line.value : line.value_end]).decode("ascii", "replace")
    if line.key is schema.PUBLIC_KEY:
        section.odd = section.odd or bool(section.public_key)
        section.public_key = value
    elif line.key is schema.ENDPOINT:
        section.endpoint = value
    elif line.key is schema.PERSISTENT_KEEPALIVE:
        section.keepalive = "0" if value.lower() == "off" else value
    else:
        for one in value.split(","):
            if one in known:
                section.allowed_ips.append(one)
            else:
                section.odd = section.odd or one[:1] in ("+", "-")
                try:
                    if not one.startswith("-"):  # There is nothing to remove yet.
                        section.allowed_ips.append(text(Prefix.parse(one.removeprefix("+"))))
                except ConfigError:
                    section.odd = True


_PLAIN = (schema.PUBLIC_KEY, schema.ALLOWED_IPS, schema.ENDPOINT, schema.PERSISTENT_KEEPALIVE)
