"""The texts of `wg` about invalid values, because scripts may look for them."""

import re
import socket

from wiresnake.conffile.lines import shown
from wiresnake.conffile.schema import PUBLIC_KEY, Key
from wiresnake.errors import ConfigError
from wiresnake.model import Prefix
from wiresnake.text import split_endpoint

_SECRET = re.compile("[A-Za-z0-9+/]{20,}=?")


def bad_value(key: Key, value: str, cause: BaseException | None) -> str:
    """Returns the text for a key's invalid value. `cause` is the parser's error."""
    if key.kind != "public key":
        value = shown(value)
    if key.kind == "endpoint" and (what := _endpoint(value)):
        return what
    if isinstance(cause, socket.gaierror):
        return f"{cause.strerror}: `{value}'"
    match key.kind:
        case "port":
            return "Unable to parse empty port"
        case "mark":
            return f"Fwmark is neither 0/off nor 0-0xffffffff: `{value}'"
        case "seconds":
            return f"Persistent keepalive interval is neither 0/off nor 1-65535: `{value}'"
        case "networks":
            return _allowed_ips(value)
        case "endpoint":
            return f"Name or service not known: `{value}'"
    value = "(hidden)" if key.secret else value
    return f"Key is not the correct length or format: `{value}'"


def unrecognized(line: str) -> str:
    """Returns the text for any other line, without whitespace. A secret in it is hidden."""
    public = line.lower().startswith(f"{PUBLIC_KEY.name.lower()}=")
    return f"Line unrecognized: `{line if public else _SECRET.sub('(hidden)', line)}'"


def host_bits(value: str) -> list[str]:
    """Returns warnings about a valid list of allowed IPs."""
    found = []
    for part in value.split(","):
        network = part.removeprefix("+").removeprefix("-")
        host = network.partition("/")[0]
        if Prefix.parse(network).address != Prefix.parse(host).address:
            found.append(f"Warning: AllowedIP has nonzero host part: {network}")
    return found


def _allowed_ips(value: str) -> str:
    for part in value.split(","):
        network = part[part.startswith(("+", "-")) :]
        host = network.partition("/")[0]
        try:
            Prefix.parse(host)
        except ConfigError:
            return f"Unable to parse IP address: `{host}'"
        try:
            Prefix.parse(network)
        except ConfigError:
            return f"AllowedIP is not in the correct format: `{network}'"
    return f"AllowedIP is not in the correct format: `{value}'"


def _endpoint(value: str) -> str:
    """Returns what is wrong with the format of an endpoint, or nothing."""
    if not value:
        return "Unable to parse empty endpoint"
    if value.startswith("["):
        if "]" not in value:
            return f"Unable to find matching brace of endpoint: `{value}'"
        value_port = value.partition("]")[2]
    else:
        value_port = f":{split_endpoint(value)[1]}" if ":" in value else ""
    if value_port[:1] == ":" and value_port[1:]:
        return ""
    return f"Unable to find port of endpoint: `{value}'"
