"""Values as text, both ways: keys, addresses, endpoints."""

import binascii
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiresnake._native import Endpoint

NO_KEY = "0" * 64
"""How the UAPI writes a key that is not set, in hexadecimal."""


def base64_text(key: bytes) -> str:
    return binascii.b2a_base64(key, newline=False).decode()


def ip_text(address: bytes) -> str:
    """Of 4 or 16 bytes."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def is_address(text: str) -> bool:
    """Whether it is an IP address, of either version."""
    import ipaddress  # `show` has no use for it.

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def zone_text(scope: int) -> str:
    """The name of a scope's interface, as getnameinfo gives it."""
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return str(scope)


def write_endpoint(endpoint: "Endpoint") -> str:
    host = endpoint.host
    if ":" not in host:
        return f"{host}:{endpoint.port}"
    zone = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"[{host}{zone}]:{endpoint.port}"


def split_endpoint(text: str) -> tuple[str, str]:
    """The host of `host:port` or `[host]:port`, with its zone if it has one, and the port."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def host_of(endpoint: str) -> str:
    """The host of `host:port` or `[host]:port`, without a zone."""
    return split_endpoint(endpoint)[0].partition("%")[0]


def read_endpoint(text: str) -> "Endpoint":
    """Of what `write_endpoint` gives, or a state; ValueError or OSError otherwise."""
    from wiresnake._native import Endpoint

    host, port = split_endpoint(text)
    host, _, zone = host.partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    return Endpoint(host, int(port), scope)


def unsigned(text: str, bits: int) -> int:
    """Reads a decimal number of ASCII digits below 2**bits; ValueError otherwise."""
    if not (text.isascii() and text.isdecimal()) or int(text) >> bits:
        raise ValueError(f"not a number from 0 to {(1 << bits) - 1}")
    return int(text)


def wipe(buffer: bytearray) -> None:
    """Overwrites a buffer that held secrets, in place."""
    buffer[:] = bytes(len(buffer))


def word(value: object) -> str:
    """A value as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def hex_key(digits: str) -> bytes:
    """The 32 bytes of a key in 64 hexadecimal digits; ValueError otherwise."""
    public = bytes.fromhex(digits)
    if len(public) != 32 or len(digits) != 64:
        raise ValueError
    return public
