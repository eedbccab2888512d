"""The client of a UAPI socket: ours, wireguard-go's, boringtun's and those made from them.

Without `model`, which takes 20 ms to import: `show` reads, it changes nothing.
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
"""Seconds without a sign of life; changing 100,000 peers takes some."""


def connect(name: str) -> socket.socket | None:
    """A connection to the interface's daemon; None if nobody answers there.

    A socket file that refuses is what a dead daemon left: it goes, as with `wg`.
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
    """The interfaces whose daemon answers, in the directory's order."""
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
    """An interface that a daemon runs. Each call is a connection of its own: some serve but one
    operation on each. The first call takes the one that is given."""

    backend: Backend = "user"

    def __init__(self, name: str, connection: socket.socket | None = None) -> None:
        self.name = name
        self._connection = connection

    def read(self) -> InterfaceState:
        """HostError if the daemon is gone, or says no."""
        return parse_state(self.name, self.ask(b"get=1\n\n"), time.time())

    def change(self, change: "DeviceChange") -> None:
        """HostError with the daemon's errno; what stood before the refused line may be applied.

        Nobody is asked first who it is: boringtun refuses the first of the words about peers, and
        that before it does anything to a peer.
        """
        from wiresnake.devices import compatibility

        try:
            self._set(compatibility.but_for_boringtun(change))
        except HostError as error:
            if error.errno not in compatibility.UNKNOWN_WORDS or not change.peers:
                raise
            if self._first_key() == "own_public_key":
                for step in compatibility.anew(change, self.read()):
                    self._set(step)
            else:
                compatibility.apply(change, self._set, self.read)

    def _first_key(self) -> str:
        """Of a `get`, whose rest need not come: boringtun's begins with a key of its own."""
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
        """Sends one operation; its answer without the errno line. HostError if that is not 0.

        The sign of an errno differs between operations and implementations, and tells nothing.
        """
        one, self._connection = self._connection or connect(self.name), None
        if one is None:
            raise HostError(errno.ENODEV, f"no daemon runs {self.name}")
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
