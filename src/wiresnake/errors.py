"""The errors that a user can cause. A hostile or broken peer causes none: its packets are dropped.

`DEFECTS` are bugs of this package.
"""

from typing import Final, TypeAlias

from wiresnake._native import PanicException

Defect: TypeAlias = Exception | PanicException
DEFECTS: Final = (Exception, PanicException)
"""For an `except` that survives any defect. A panic in Rust is not an Exception."""


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
