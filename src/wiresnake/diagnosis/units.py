"""Numbers, times, sizes and errors as words."""

import errno
import os

_ERRORS = {
    errno.EPERM: "a firewall on this host refused it",
    errno.EACCES: "a rule on this host prohibits it",
    errno.ENETUNREACH: "there is no route to it",
    errno.EHOSTUNREACH: "its host cannot be reached",
    errno.ENETDOWN: "the network device is down",
    errno.EINVAL: "the address cannot be used from here",
    errno.EADDRNOTAVAIL: "this host no longer has the source address",
    errno.EMSGSIZE: "the datagram is too long for the path",
    errno.ECONNREFUSED: "nothing listens at that port",
}


def error(number: int) -> str:
    """Returns an errno's name and what it means here."""
    name = errno.errorcode.get(number, str(number))
    return f"{name}: {_ERRORS.get(number) or os.strerror(number)}"


def duration(seconds: float) -> str:
    """`0.4 s`, `35 s`, `2 min 5 s`, `3 h 10 min`, `12 d 4 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for size, name, smaller, small_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = int(seconds % size) // smaller
            return f"{int(seconds) // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{int(seconds)} s"


def ago(milliseconds: int | None) -> str:
    return "never" if milliseconds is None else f"{duration(milliseconds / 1000)} ago"


def size(count: float) -> str:
    """Returns a number of bytes in the format of `wg show`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.2f} {unit}"
    return f"{count / 1024:.2f} TiB"


def counted(count: int, what: str, done: str, last_ms: int | None) -> str:
    """`7 packets dropped, the last 3.0 s ago.`"""
    return f"{times(count, what)} {done}, the last {ago(last_ms)}."


def times(count: int, what: str) -> str:
    """`1 initiation`, `7 initiations`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
