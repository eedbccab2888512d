"""The text of `get=1` (wireguard.com/xplatform, docs/uapi.md), both ways. The daemon's peers are
written by the plane, thousands of them at once (rust/plane/src/uapi.rs).

Without `model`, which takes 20 ms to import: `show` reads, it changes nothing.
"""

import errno
from typing import TYPE_CHECKING

from wiresnake._native import PrivateKey
from wiresnake.errors import HostError
from wiresnake.text import NO_KEY, base64_text, zone_text
from wiresnake.uapi.snapshot import InterfaceState, PeerState

if TYPE_CHECKING:
    from wiresnake.model import DeviceStatus


def write_device(device: "DeviceStatus") -> bytearray:
    """The head of a `get`: what is zero is left out, as by wireguard-go. The caller wipes it."""
    key = device.private_key
    fields = {
        "private_key": key and NO_KEY,
        "listen_port": device.listen_port,
        "fwmark": device.fwmark,
    }
    text = bytearray(
        "".join(f"{name}={value}\n" for name, value in fields.items() if value), "ascii"
    )
    if key is not None:
        key.write_hex(text, len("private_key="))
    return text


def parse_state(name: str, text: str, now: float) -> InterfaceState:
    """Reads the answer to a `get`; keys that are unknown here are ignored."""
    device: dict[str, str] = {}
    fields = device
    allowed: list[str] = []
    peers: list[tuple[dict[str, str], list[str]]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "allowed_ip":
            allowed.append(value)
            continue
        if key == "public_key":
            fields, allowed = {}, []
            peers.append((fields, allowed))
        fields[key] = value
    # boringtun and its kin give the public key instead of the private one, and times as ages.
    public = device.get("own_public_key")
    begin = now if public is not None else None
    try:
        private = device.get("private_key", NO_KEY)
        return InterfaceState(
            name,
            "user",
            _base64(private),
            _base64(public) if public is not None else _public(private),
            int(device.get("listen_port", 0)),
            int(device.get("fwmark", 0)),
            tuple([_peer(fields, allowed, begin) for fields, allowed in peers]),
        )
    except ValueError:
        raise HostError(errno.EPROTO, f"{name}'s daemon gave what is no WireGuard state") from None


def _peer(fields: dict[str, str], allowed: list[str], begin: float | None) -> PeerState:
    seconds = int(fields.get("last_handshake_time_sec", 0))
    nanoseconds = int(fields.get("last_handshake_time_nsec", 0))
    if begin is not None and "last_handshake_time_sec" in fields:
        age = seconds + nanoseconds / 1e9
        seconds, nanoseconds = int(begin - age), int((begin - age) % 1 * 1e9)
    return PeerState(
        base64_text(bytes.fromhex(fields["public_key"])),
        _base64(fields.get("preshared_key", NO_KEY)),
        _endpoint(fields.get("endpoint")),
        tuple(allowed),
        (seconds, nanoseconds),
        int(fields.get("rx_bytes", 0)),
        int(fields.get("tx_bytes", 0)),
        int(fields.get("persistent_keepalive_interval", 0)),
    )


def _endpoint(text: str | None) -> str | None:
    """With the name of a zone for its number, as in a kernel's state."""
    if text is None or "%" not in text:
        return text
    address, _, rest = text.partition("%")
    zone, bracket, port = rest.partition("]")
    return f"{address}%{zone_text(int(zone)) if zone.isdecimal() else zone}{bracket}{port}"


def _base64(digits: str) -> str | None:
    """Of a key in hex; None of the zero key."""
    if digits == NO_KEY:
        return None
    key = bytes.fromhex(digits)
    if len(key) != 32:
        raise ValueError
    return base64_text(key)


def _public(digits: str) -> str | None:
    private = PrivateKey.from_hex(digits.encode())
    return private and base64_text(private.public)
