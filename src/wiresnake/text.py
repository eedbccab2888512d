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
    """Writes an address of 4 or 16 bytes as text."""
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
    """Returns the name of a scope's interface, or its number without one, as getnameinfo does."""
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return str(scope)


def write_address(host: str, port: int) -> str:
    """Writes `host:port`, or `[host]:port` for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def write_endpoint(endpoint: "Endpoint") -> str:
    host = endpoint.host
    if ":" not in host:
        return f"{host}:{endpoint.port}"
    zone = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"[{host}{zone}]:{endpoint.port}"


def split_endpoint(text: str) -> tuple[str, str]:
    """Splits `host:port` or `[host]:port`. The host keeps its zone."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), port


def host_of(endpoint: str) -> str:
    """Returns the host of `host:port` or `[host]:port`, without a zone."""
    return split_endpoint(endpoint)[0].partition("%")[0]


def read_endpoint(text: str) -> "Endpoint":
    """Parses the text of `write_endpoint`, or of a `state`; else ValueError or OSError."""
    from wiresnake._native import Endpoint

    host, port = split_endpoint(text)
    host, _, zone = host.partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    return Endpoint(host, int(port), scope)


def unsigned(text: str, bits: int) -> int:
    """Parses a decimal number of ASCII digits below 2**bits; else ValueError."""
    if not (text.isascii() and text.isdecimal()) or int(text) >> bits:
        raise ValueError(f"not a number from 0 to {(1 << bits) - 1}")
    return int(text)


def wipe(buffer: bytearray) -> None:
    """Overwrites a buffer of secrets with zeros, in place."""
    buffer[:] = bytes(len(buffer))


def word(value: object) -> str:
    """Writes a value as text, a bool as `true` or `false`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def hex_key(digits: str) -> bytes:
    """Parses 64 hexadecimal digits as a key of 32 bytes; else ValueError."""
    public = bytes.fromhex(digits)
    if len(public) != 32 or len(digits) != 64:
        raise ValueError
    return public
