"""The errors that a user can cause. A hostile or broken peer causes none: its packets are dropped.

`DEFECTS` are bugs of this package.
"""

import os
from typing import Final, TypeAlias

from wiresnake._native import PanicException

Defect: TypeAlias = Exception | PanicException
DEFECTS: Final = (Exception, PanicException)
"""For an `except` that survives any defect. A panic in Rust is not an Exception."""
_PACKAGE = os.path.dirname(__file__)


class WiresnakeError(Exception):
    """The base class of all errors of this package."""

    @property
    def message(self) -> str:
        """The error in one line. Unlike `str`, it does not show the errno of a HostError."""
        return str(getattr(self, "strerror", None) or self)


class ConfigError(WiresnakeError, ValueError):
    """A configuration, a key, an address or another value is not valid."""


class HostError(WiresnakeError, OSError):
    """The operating system refused something, such as a TUN device, a port or a socket file.

    `errno` is its error number, and `strerror` says what failed.
    """


class TimedOut(HostError, TimeoutError):
    """Somebody in the tunnel did not answer in time; `strerror` says what is known about it."""


def reason(error: BaseException) -> str:
    """Returns an error in one line, in the words of this package, the system or Python."""
    if isinstance(error, WiresnakeError):
        return error.message
    said = isinstance(error, OSError) and (error.strerror or str(error))
    return said or f"{type(error).__name__}: {error}"


def in_one_line(error: BaseException) -> str:
    """Returns what is printed about an error. A defect's own text may hold a secret, so only its
    place is shown."""
    if isinstance(error, WiresnakeError | OSError):
        what = reason(error)
        file = getattr(error, "filename", None)
        return f"{file}: {what}" if file else what
    trace, at = error.__traceback__, ""
    while trace:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            at = f" at {os.path.basename(code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    what = f"internal error, please report it: {type(error).__name__}{at}"
    return f"{what} (WIRESNAKE_DEBUG=1 shows everything)"
