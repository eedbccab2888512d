"""What the user can get wrong. A hostile or broken peer never raises: its packets are nothing."""

from typing import Final, TypeAlias

from wiresnake._native import PanicException

Defect: TypeAlias = Exception | PanicException
DEFECTS: Final = (Exception, PanicException)
"""For an `except` that survives a defect, in Rust too: a panic there is no Exception."""


class WiresnakeError(Exception):
    """Base of all errors of this package: says what, where, and what to do."""

    @property
    def message(self) -> str:
        """What it says, in one line; `str` of a HostError begins with the number of the error."""
        return str(getattr(self, "strerror", None) or self)


class ConfigError(WiresnakeError, ValueError):
    """A configuration, a key or a UAPI line that cannot be meant."""


class HostError(WiresnakeError, OSError):
    """The operating system refused what a tunnel needs: a TUN device, a port, a socket file."""


def reason(error: BaseException) -> str:
    """What an error says, in one line: ours, the system's own words, or a defect's kind."""
    if isinstance(error, WiresnakeError):
        return error.message
    said = isinstance(error, OSError) and (error.strerror or str(error))
    return said or f"{type(error).__name__}: {error}"
