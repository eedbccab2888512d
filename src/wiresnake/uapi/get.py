"""Writes and parses the text of `get=1` (wireguard.com/xplatform, docs/uapi.md).

The plane writes the daemon's peers, thousands at a time (rust/plane/src/uapi.rs). `model` is not
imported here, as that takes 20 ms and `show` does not need it.
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
    """Writes the device's part of a `get`, which the caller wipes. As in wireguard-go, values of
    zero are left out."""
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
    """Parses the answer to a `get`. Unknown keys are ignored.

    HostError (EPROTO) if it is not one. `now`, in seconds since 1970, is when it was asked for.
    """
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
    # boringtun and its forks give the public key instead of the private one, and times as ages.
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
        raise HostError(errno.EPROTO, f"{name}'s daemon sent an invalid answer") from None


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
    """Replaces the number of a zone by its name, as the kernel's state has it."""
    if text is None or "%" not in text:
        return text
    address, _, rest = text.partition("%")
    zone, bracket, port = rest.partition("]")
    return f"{address}%{zone_text(int(zone)) if zone.isdecimal() else zone}{bracket}{port}"


def _base64(digits: str) -> str | None:
    """Converts a key from hexadecimal to base64; None for the all-zero key."""
    if digits == NO_KEY:
        return None
    key = bytes.fromhex(digits)
    if len(key) != 32:
        raise ValueError
    return base64_text(key)


def _public(digits: str) -> str | None:
    private = PrivateKey.from_hex(digits.encode())
    return private and base64_text(private.public)
