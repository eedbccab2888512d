"""The client of a UAPI socket: ours, and those of wireguard-go, boringtun and their forks.

It does not import `model`, which takes 20 ms: `show` only reads.
"""

import contextlib
import errno
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from wiresnake.errors import HostError
from wiresnake.text import wipe
from wiresnake.uapi import DIRECTORY
from wiresnake.uapi.get import parse_state
from wiresnake.uapi.snapshot import Backend, InterfaceState

if TYPE_CHECKING:
    from wiresnake.model import DeviceChange

_TIMEOUT = 60
"""Seconds to wait for an answer; changing 100,000 peers takes several."""


def connect(name: str) -> socket.socket | None:
    """Connects to the interface's daemon; None if no daemon answers. A socket file that refuses
    connections was left by a dead daemon and is deleted, as `wg` does.
    """
    path = f"{DIRECTORY}/{name}.sock"
    if "/" in name or not _is_socket(path):
        return None
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(_TIMEOUT)
    try:
        one.connect(path)
    except ConnectionRefusedError:
        one.close()
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
    except OSError as error:
        one.close()
        if error.errno == errno.ENOENT:
            return None
        raise HostError(error.errno, f"cannot reach {path}: {error.strerror}") from None
    return one


def names() -> list[str]:
    """Returns the interfaces whose daemon answers, in the directory's order."""
    try:
        files = os.listdir(DIRECTORY)
    except OSError:
        return []
    found = []
    for file in files:
        name = file.removesuffix(".sock")
        if name != file and name:
            try:
                one = connect(name)
            except HostError:
                continue
            if one is not None:
                one.close()
                found.append(name)
    return found


class UapiInterface:
    """An interface that a daemon runs. Each call makes its own connection, because some daemons
    serve only one operation per connection. The first call uses the given connection."""

    backend: Backend = "user"

    def __init__(self, name: str, connection: socket.socket | None = None) -> None:
        self.name = name
        self._connection = connection

    def read(self) -> InterfaceState:
        """Reads the state; HostError if the daemon has gone or refuses."""
        return parse_state(self.name, self.ask(b"get=1\n\n"), time.time())

    def change(self, change: "DeviceChange") -> None:
        """Applies a change. HostError with the daemon's errno; lines before the refused one may be
        applied. The daemon is not identified first: boringtun refuses the first unknown key of a
        peer, before it has changed any.
        """
        from wiresnake.devices import compatibility

        try:
            self._set(compatibility.but_for_boringtun(change))
        except HostError as error:
            if error.errno not in compatibility.UNKNOWN_WORDS or not change.peers:
                raise
            if self._first_key() == "own_public_key":
                for step in compatibility.recreated(change, self.read()):
                    self._set(step)
            else:
                compatibility.apply(change, self._set, self.read)

    def _first_key(self) -> str:
        """Returns the first key of a `get`, without waiting for the rest: boringtun's begins with
        its own key."""
        one = connect(self.name)
        if one is None:
            return ""
        with one, contextlib.suppress(OSError):
            one.sendall(b"get=1\n\n")
            return one.recv(64).partition(b"=")[0].decode("ascii", "replace")
        return ""

    def _set(self, change: "DeviceChange") -> None:
        from wiresnake.uapi.set import write_change

        request = write_change(change)
        try:
            self.ask(request)
        finally:
            wipe(request)

    def ask(self, request: bytes | bytearray) -> str:
        """Sends one operation; returns its answer without the errno line. HostError if that is not
        0. The sign of an errno differs between operations and implementations, and is ignored.
        """
        one, self._connection = self._connection or connect(self.name), None
        if one is None:
            raise HostError(errno.ENODEV, f"{self.name} has no daemon")
        try:
            with one:
                answer = _exchange(one, request)
        except OSError as error:
            number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
            raise HostError(number, f"{self.name}'s daemon: {error.strerror or error}") from None
        text, _, number_text = answer.removesuffix("\n\n").rpartition("errno=")
        try:
            number = abs(int(number_text))
        except ValueError:
            raise HostError(errno.EPROTO, f"{self.name}'s daemon gave no errno") from None
        if number:
            what = f"{self.name}'s daemon refused: {os.strerror(number)}"
            raise HostError(number, what)
        return text


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _exchange(one: socket.socket, request: bytes | bytearray) -> str:
    one.sendall(request)
    parts = []
    tail = b""
    while not tail.endswith(b"\n\n"):
        part = one.recv(1 << 18)
        if not part:
            break
        parts.append(part)
        tail = tail[-1:] + part[-2:]
    return b"".join(parts).decode("ascii", "replace")
