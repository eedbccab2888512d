"""What our own devices report beyond `get`: `state=1` and `events=1` of the UAPI socket.

Other implementations close the connection, and the kernel's devices have no socket. Neither is an
error: the answer is None. docs/uapi.md describes each key.
"""

import errno
import socket
from binascii import a2b_base64
from collections.abc import Iterator
from typing import IO

from wiresnake.devices.uapi_client import connect
from wiresnake.errors import HostError
from wiresnake.uapi.events import Reported, parse_event
from wiresnake.uapi.state import Report, parse_report


def read_report(interface: str, public_key: str | None = None) -> Report | None:
    """Returns the reports of the device and of all its peers or one. None if the device has
    none."""
    only = "" if public_key is None else f"public_key={a2b_base64(public_key).hex()}\n"
    connection = _ask(interface, f"state=1\n{only}\n")
    if connection is None:
        return None
    with connection, connection.makefile("r", encoding="ascii", newline="\n") as stream:
        try:
            return parse_report(_answer(stream))
        except OSError as error:
            raise _gone(interface, error) from None
        except ValueError:
            raise HostError(
                errno.EPROTO, f"{interface}: its daemon's answer is not a state"
            ) from None


def subscribe(interface: str) -> Iterator[Reported] | None:
    """Returns the device's events from now on, until it ends. None if it reports none."""
    connection = _ask(interface, "events=1\n\n")
    if connection is None:
        return None
    stream = connection.makefile("r", encoding="ascii", newline="\n")
    try:
        known = list(_answer(stream)) == ["errno=0"]
    except OSError as error:
        raise _gone(interface, error) from None
    finally:
        connection.settimeout(None)
        connection.close()  # The stream keeps it open.
    if known:
        return _events(interface, stream)
    stream.close()
    return None


def _ask(interface: str, question: str) -> socket.socket | None:
    connection = connect(interface)
    if connection is None:
        return None
    try:
        connection.sendall(question.encode("ascii"))
    except OSError as error:
        connection.close()
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            return None
        raise _gone(interface, error) from None
    return connection


def _answer(stream: IO[str]) -> Iterator[str]:
    """Returns the lines up to the empty one; an answer without it is incomplete."""
    try:
        for line in stream:
            if line == "\n":
                return
            yield line.removesuffix("\n")
    except ConnectionResetError:
        return


def _events(interface: str, stream: IO[str]) -> Iterator[Reported]:
    with stream:
        while block := list(_answer(stream)):
            if said := parse_event(block):
                yield Reported(said[0], interface, said[1])


def _gone(interface: str, error: OSError) -> HostError:
    what = f"{interface}: its daemon does not answer: {error.strerror or 'time is up'}"
    return HostError(error.errno or errno.ETIMEDOUT, what)
