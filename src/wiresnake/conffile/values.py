"""Checks of single values in a wg-quick file, key by key."""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, NamedTuple

from wiresnake.conffile import wg
from wiresnake.conffile.schema import Key, Kind
from wiresnake.errors import ConfigError
from wiresnake.linux import rt_tables
from wiresnake.model import CLEAR, Prefix
from wiresnake.text import is_address


class Problem(NamedTuple):
    level: Literal["error", "warning", "note"]
    """A note points out something correct that is easily overlooked."""
    reason: str
    remedy: str


Problems = Iterator[Problem]


def problems(key: Key, value: str) -> Problems:
    """Finds the problems of one value, or of one item of a list. An error is accepted by no tool; a
    warning is accepted, but means something else.
    """
    yield from _RULES[key.kind](key, value)


def port_number(text: str) -> int:
    """Reads a port as `wg` does: a number modulo 65536, or the name of a UDP service.
    ValueError."""
    try:
        found = socket.getaddrinfo(None, text, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ValueError("not a port") from None
    return int(found[0][4][1])


def numeric_host(host: str) -> str | None:
    """Returns the address that a host means without a name lookup, as getaddrinfo reads it."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0])


def endpoint(text: str) -> tuple[str, str]:
    """Splits host and port as `wg` does: at the bracket, or else at the last colon. ValueError."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":"):
            raise ValueError("no closing bracket, or no port after it")
        port = port[1:]
    else:
        host, _, port = text.rpartition(":")
    if not host or not port:
        raise ValueError("no host, or no port")
    return host, port


def shown(text: str) -> str:
    """Returns a value for messages, but only if it looks like an address or a number, never a
    secret."""
    return f" '{text}'" if re.fullmatch(r"(0x)?[0-9a-fA-F.:/+-]{1,43}", text) else ""


def _key(command: str, key: Key, value: str) -> Problems:
    try:
        found = wg.plain(key, value)
    except ValueError:
        yield Problem("error", *_key_shape(key.name, command, value))
        return
    if found in (CLEAR, bytes(32)):
        yield Problem(
            "warning", f"{key.name} is all zeros, which means no key", f"make one: {command}"
        )


def _key_shape(name: str, command: str, value: str) -> tuple[str, str]:
    if value[:1] in "\"'\u201c\u2018\u201e":
        return f"{name} in quotes", "write it without quotes"
    if re.fullmatch("[0-9a-fA-F]{64}", value):
        return f"{name} is hexadecimal", "write it in base64: xxd -r -p | base64"
    if len(value) == 43 and "=" not in value:
        return f"{name} misses its last character, '='", "copy all 44 characters"
    if len(value) != 44:
        return f"{name} has {len(value)} characters", f"copy all 44 characters of {command}"
    return f"{name} is not the base64 of 32 bytes", f"copy it from {command}"


def _number(what: str, remedy: str, key: Key, value: str) -> Problems:
    try:
        wg.plain(key, value)
    except ValueError:
        yield Problem("error", f"{key.name}{shown(value)} is not {what}", remedy)


def _port(what: str, value: str) -> Problems:
    remedy = "write a port from 1 to 65535"
    try:
        number = port_number(value)
    except ValueError:
        yield Problem("error", f"{what}{shown(value)} is not a port", remedy)
        return
    digits = value.isascii() and value.isdecimal()
    if digits and int(value) != number:
        yield Problem("warning", f"{what} {value} wraps around to {number}", remedy)


def _allowed_ip(key: Key, value: str) -> Problems:
    if not value:
        yield Problem("error", f"an empty item in {key.name}", "remove the extra comma")
        return
    if value.startswith(("+", "-")):
        reason = "a network with a sign changes what the peer has, and wg before 2025 rejects it"
        yield Problem("warning", reason, "write all of the peer's networks, without signs")
        value = value[1:]
    try:
        Prefix.parse(value)
    except ConfigError:
        yield Problem(
            "error",
            f"not an IP network{shown(value)}",
            "write address/length, such as 10.0.0.0/24; no dotted masks, no names",
        )
        return
    interface = ipaddress.ip_interface(value)
    if interface.ip != interface.network.network_address:
        yield Problem(
            "warning",
            f"{key.name} {value} has bits set after its prefix",
            f"it means {interface.network}; for the single address write {interface.ip}",
        )


def _endpoint(key: Key, value: str) -> Problems:
    remedy = "write host:port, or [IPv6 address]:port"
    try:
        host, port = endpoint(value)
    except ValueError as error:
        yield Problem("error", f"{key.name} has {error}", remedy)
        return
    yield from _port(f"{key.name}'s port", port)
    zone = host.partition("%")
    numeric = numeric_host(zone[0])
    if numeric is None:
        if strange := next((one for one in "/[]" if one in host), None):
            reason = f"{key.name} has a '{strange}' in its host"
            yield Problem("error", reason, f"{remedy}; no URL")
        elif ":" in host or re.fullmatch("[0-9.]+", host):
            yield Problem("error", f"{key.name}'s host{shown(host)} is not an address", remedy)
    elif ":" in zone[0] and not value.startswith("["):
        reason = f"an IPv6 endpoint without brackets, so its last part, {port}, is the port"
        yield Problem("warning", reason, f"write [{host}]:{port} if that is intended")
    elif ":" not in numeric and numeric != host:
        yield Problem("warning", f"{key.name}'s host '{host}' means {numeric}", f"write {numeric}")


def _address(key: Key, value: str) -> Problems:
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        if meant := abbreviated(value):
            reason = f"{key.name} {value} is short for {meant}"
            yield Problem("warning", reason, f"write {meant}")
            return
        remedy = "write address/length, such as 10.0.0.1/24"
        yield Problem("error", f"{key.name}{shown(value)} is not an IP address", remedy)
        return
    if "/" not in value:
        bits = interface.ip.max_prefixlen
        yield Problem(
            "note",
            f"{key.name} {value} has no prefix length, which means /{bits}",
            f"nothing to do if that is intended; otherwise write {value}/24, or its real length",
        )
    elif interface.network.num_addresses > 2 and interface.ip == interface.network.network_address:
        yield Problem(
            "warning",
            f"{key.name} {value} is the network's own address, which other systems reject for a"
            " host",
            f"write an address in that network, such as"
            f" {interface.ip + 1}/{interface.network.prefixlen}",
        )


def abbreviated(value: str) -> str | None:
    """Completes a short IPv4 address with zeros, as iproute2 does."""
    host, slash, length = value.partition("/")
    parts = host.split(".")
    if not all(part.isascii() and part.isdecimal() for part in parts) or len(parts) > 3:
        return None
    try:
        return str(ipaddress.ip_interface(".".join([*parts, *"000"][:4]) + slash + length))
    except ValueError:
        return None


def _mtu(key: Key, value: str) -> Problems:
    if not re.fullmatch("[0-9]{1,9}|0x[0-9a-fA-F]{1,7}", value):
        yield Problem(
            "error", f"{key.name}{shown(value)} is not a number", "write one, such as 1420"
        )
        return
    mtu = int(value, 0 if value.startswith("0x") else 10)
    if mtu < 576:
        yield Problem(
            "warning",
            f"{key.name} {mtu} is below 576, the minimum for IPv4",
            "1280 to 1420 is usual",
        )
    elif mtu > 1440:
        reason = (
            f"{key.name} {mtu} plus the tunnel's 60 or 80 bytes exceeds 1500, the usual path MTU"
        )
        yield Problem(
            "warning", reason, "write 1420, or remove the line, unless the path allows more"
        )


def _table(key: Key, value: str) -> Problems:
    if value.lower() in ("off", "auto", "main", "local", "default"):
        return
    if re.fullmatch("[0-9]+", value):
        if int(value) >> 32:
            yield Problem("error", f"{key.name} {value} is too big", "write off, auto or a number")
        return
    if value not in rt_tables.numbers():
        reason = (
            f"{key.name} names a routing table that /etc/iproute2/rt_tables on this host does"
            " not have"
        )
        yield Problem("warning", reason, "write off, auto or the table's number")


def _switch(key: Key, value: str) -> Problems:
    if value.lower() not in ("true", "false"):
        yield Problem("error", f"{key.name} is neither true nor false", "write one of them")


def is_server(word: str) -> bool:
    """Returns whether wg-quick takes an item of DNS for a server, or else for a search domain."""
    return ":" in word or re.fullmatch("[0-9.]+", word) is not None


def _dns(key: Key, value: str) -> Problems:
    if is_server(value) and not is_address(value):
        reason = f"{key.name}{shown(value)} is taken for a server, but is not an address"
        yield Problem("warning", reason, "write an IP address")


def _hook(key: Key, value: str) -> Problems:
    if key.section == "peer":
        return  # Only we read our own keys.
    if "#" in value:
        yield Problem(
            "warning",
            "a '#' in a command, which wg-quick before 2025 reads as a comment",
            "keep it only if no older wg-quick reads the file, or call a script",
        )
    if any(quote in value for quote in "\u201c\u201d\u2018\u2019\u201e"):
        reason = "typographic quotes in a command, which a shell does not treat as quotes"
        yield Problem("warning", reason, "type \" or '")


_RULES: dict[Kind, Callable[[Key, str], Problems]] = {
    "private key": partial(_key, "wg genkey"),
    "public key": partial(_key, "wg pubkey"),
    "preshared key": partial(_key, "wg genpsk"),
    "port": lambda key, value: _port(key.name, value),
    "mark": partial(_number, "a mark", "off, or up to 0xffffffff"),
    "seconds": partial(
        _number, "a number of seconds", "write off, or 1 to 65535; 25 suits most NATs"
    ),
    "networks": _allowed_ip,
    "endpoint": _endpoint,
    "addresses": _address,
    "mtu": _mtu,
    "table": _table,
    "switch": _switch,
    "dns": _dns,
    "command": _hook,
}
