"""The kernel stack: Linux's own sockets, in a network namespace that nobody else uses.

It needs no privileges where ordinary users may make user namespaces and open /dev/net/tun. Its
sockets are the kernel's, so everything that takes a socket takes them, at the kernel's speed.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from wiresnake.errors import HostError
from wiresnake.linux import programs
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.sockets.helper import REQUEST_BYTES
from wiresnake.tunnel.host import Plane, attach_tun

_PATIENCE = 20.0
"""Seconds after which a helper that does not answer is given up."""
_MSG_CMSG_CLOEXEC = 0x40000000


class KernelStack:
    """A network namespace with a TUN device. See `stack.Stack`."""

    name: Literal["kernel"] = "kernel"

    def __init__(self, helper: "Helper | None" = None) -> None:
        """Uses that helper, which then has no other tunnel, or the one of this process."""
        self._given = helper
        self._helper: Helper | None = None
        self._place = -1

    def open(self, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]) -> Tun:
        """See `Stack.open`. It waits about 60 ms for the helper, unless that runs already."""
        helper = self._given or Helper.share()
        try:
            request = {"addresses": list(addresses), "mtu": mtu, "offloads": list(offloads)}
            answer, descriptor = helper.ask("open", **request)
        except BaseException:
            helper.release()
            raise
        assert descriptor is not None
        self._helper, self._place = helper, answer["place"]
        name, mtu, vnet_header, used = answer["device"]
        return Tun(descriptor, name, mtu, vnet_header, frozenset(map(Offload, used)))

    def attach(self, plane: Plane, device: Tun) -> None:
        attach_tun(plane, device)

    def socket(self, family: int, type: int, proto: int) -> socket.socket:
        if self._helper is None:
            raise HostError(errno.ESHUTDOWN, "the tunnel is not open")
        request = {"place": self._place, "family": family, "type": type, "proto": proto}
        _, descriptor = self._helper.ask("socket", **request)
        opened = socket.socket(fileno=descriptor)
        opened.settimeout(socket.getdefaulttimeout())
        return opened

    def namespaces(self) -> list[int]:
        """Opens the user namespace and the network namespace; the caller closes them."""
        assert self._helper is not None
        kinds = ("user", "net")
        opened = [self._helper.ask("namespace", place=self._place, kind=kind)[1] for kind in kinds]
        return [each for each in opened if each is not None]

    def inhabitants(self) -> list[int]:
        """Returns the processes in the network namespace, except its helper."""
        assert self._helper is not None
        answer, _ = self._helper.ask("inhabitants", place=self._place)
        found: list[int] = answer["processes"]
        return found

    def close(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close(self._place)


class Helper:
    """The one helper of this process, while any tunnel needs it."""

    _lock = threading.Lock()
    _shared: ClassVar["Helper | None"] = None

    def __init__(
        self, connection: socket.socket, process: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        """Waits for the helper at the other end. HostError if the host refuses it a user
        namespace. `process` is the helper if it is a child of this one, which waits for its end."""
        self._users, self._owner = 1, os.getpid()
        self._socket, self._process = connection, process
        connection.settimeout(_PATIENCE)
        try:
            self._read()
        except BaseException:
            self._end()
            raise

    @classmethod
    def share(cls) -> "Helper":
        """Returns the helper of this process, started if there is none. Each user releases it."""
        with cls._lock:
            helper = cls._shared
            if helper is None or not helper._runs():
                helper = cls._shared = Helper(*_start())
            else:
                helper._users += 1
            return helper

    def release(self) -> None:
        """Ends the helper after its last user."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and os.getpid() == self._owner:
                if Helper._shared is self:
                    Helper._shared = None
                self._end()

    def ask(self, what: str, **arguments: object) -> tuple[dict[str, Any], int | None]:
        """Returns the answer to a request, and the descriptor that came with it.

        HostError if the helper is refused something, or does not run any more.
        """
        with self._lock:
            try:
                self._socket.send(json.dumps({"do": what, **arguments}).encode())
            except OSError:
                raise _gone() from None
            return self._read()

    def close(self, place: int) -> None:
        """Ends the namespace `place`, and the helper after the last one."""
        if os.getpid() == self._owner:
            with contextlib.suppress(HostError):  # It may have ended with the helper.
                self.ask("close", place=place)
        self.release()

    def _read(self) -> tuple[dict[str, Any], int | None]:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, REQUEST_BYTES, 1, _MSG_CMSG_CLOEXEC
            )
        except OSError:  # Among others, a time-out.
            raise _gone() from None
        if not data:
            raise _gone()
        answer = json.loads(data)
        if "error" in answer:
            raise HostError(answer["errno"] or errno.EIO, answer["error"])
        return answer, descriptors[0] if descriptors else None

    def _runs(self) -> bool:
        process = self._process
        return self._owner == os.getpid() and process is not None and process.poll() is None

    def _end(self) -> None:
        self._socket.close()
        if self._process is not None:
            self._process.wait()


def _start() -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """Starts a helper as a new program, because this process may have threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = programs.function("wiresnake.sockets.helper", str(theirs.fileno()))
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            what = f"cannot start the helper of the kernel stack: {error.strerror}"
            raise HostError(error.errno, what) from None
    return ours, process


def _gone() -> HostError:
    return HostError(errno.ESHUTDOWN, "the helper of the kernel stack has ended")
