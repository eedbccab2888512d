"""Resolves host names of endpoints, as patiently as `wg`."""

import os
import re
import socket
import sys
import time
from collections.abc import Callable
from functools import cache

from wiresnake._native import Endpoint
from wiresnake.errors import ConfigError
from wiresnake.linux import udp
from wiresnake.text import is_address

_PERMANENT = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_FAIL", "EAI_NODATA", "EAI_SERVICE", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
}


def resolver(
    most: int = sys.maxsize, has_way: Callable[[str], bool] = lambda _: True
) -> Callable[[str, str], Endpoint]:
    """Returns a function that looks a host up, and retries while that may help:
    WG_ENDPOINT_RESOLUTION_RETRIES times, or `infinity`, but not more than `most`, with delays from
    1 s. Each name is looked up once. Of several addresses it takes the first for which `has_way`
    holds, because the resolver, which sorts them, sees a shut tunnel and not the way past it."""
    text = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", "15")
    if text != "infinity" and not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"WG_ENDPOINT_RESOLUTION_RETRIES={text}: it takes a number or infinity")
    retries = most if text == "infinity" else min(most, int(text))

    @cache
    def resolve(host: str, port: str) -> Endpoint:
        delay, left = 1.0, retries
        while True:
            try:
                return _look_up(host, port, has_way)
            except socket.gaierror as error:
                if error.errno in _PERMANENT or not left:
                    raise
                say = f"{error.strerror}: `{host}:{port}'. Trying again in {delay:.2f} seconds..."
                print(say, file=sys.stderr, flush=True)  # noqa: T201
            time.sleep(delay)
            delay, left = min(20.0, delay * 1.2), left - 1

    return resolve


def later(host: str, port: str) -> Endpoint:
    """Replaces `resolver()` while a PreUp may still make names known: it looks up only what hooks
    cannot change, ports and addresses, and returns a placeholder address for a name."""
    known = is_address(host) and "%" not in host
    return _look_up(host if known else "0.0.0.0", port)


def _look_up(host: str, port: str, has_way: Callable[[str], bool] = lambda _: True) -> Endpoint:
    """Returns the first address that has a way, or else the first; a number needs no resolver."""
    if port.isdecimal() and port.isascii():
        try:
            return Endpoint(host, int(port))
        except (ValueError, OverflowError):
            pass
    return udp.resolve(host, port, has_way)
