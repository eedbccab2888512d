"""Notices that this virtual machine was copied or restored from a snapshot.

Another machine may then have the same keys and counters, and would encrypt other packets with the
same nonces. The kernel's drivers/virt/vmgenid.c announces it (a uevent with NEW_VMGENID=1), as it
does to its own WireGuard.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import socket
import struct
from collections.abc import Callable

from wiresnake.errors import reason

_KOBJECT_UEVENT, _OF_THE_KERNEL = 15, 1
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_QUEUE_BYTES = 4 << 20
"""The buffer's size: `udevadm trigger` makes thousands of events at once."""
_EVENT_BYTES = 8192
_BEGINNING, _MARK = b"change@", b"\0NEW_VMGENID=1\0"
_LOAD, _UNLESS, _RETURN = 0x20, 0x15, 0x6
"""Classic BPF: load a word at an offset, compare, return the number of bytes to keep."""

_log = logging.getLogger(__name__)


class GenerationWatch:
    """Calls `on_change()` for each new generation. Needs a running loop. On a host without such
    events, or without access to them, it does nothing."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._events: socket.socket | None = None
        try:
            self._events = _subscribe()
        except OSError as error:
            _log.debug("cannot notice whether this machine is copied: %s", reason(error))
            return
        self._loop.add_reader(self._events, self._heard)

    def close(self) -> None:
        if self._events is not None:
            self._loop.remove_reader(self._events)
            self._events.close()

    def _heard(self) -> None:
        assert self._events is not None
        try:
            event, sender = self._events.recvfrom(_EVENT_BYTES)
        except OSError as error:
            # ENOBUFS: some events were lost, perhaps this one.
            if error.errno == errno.ENOBUFS:
                self._on_change()
            return
        if tells_of_a_new_generation(event, sender):
            self._on_change()


def tells_of_a_new_generation(event: bytes, sender: tuple[int, int]) -> bool:
    """Returns whether a uevent is a new generation and comes from the kernel, whose netlink port is
    0."""
    return sender[0] == 0 and event.startswith(_BEGINNING) and _MARK in event


def _subscribe() -> socket.socket:
    one = socket.socket(
        socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _KOBJECT_UEVENT
    )
    try:
        keep_changes(one)
        with contextlib.suppress(PermissionError):
            one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
        one.bind((0, _OF_THE_KERNEL))
    except OSError:
        one.close()
        raise
    return one


def keep_changes(one: socket.socket) -> None:
    """Lets the kernel drop all uevents except changes, so that devices that come and go cost
    nothing."""
    (word,) = struct.unpack_from("!I", _BEGINNING)
    code = [
        (_LOAD, 0, 0, 0),
        (_UNLESS, 0, 1, word),
        (_RETURN, 0, 0, _EVENT_BYTES),
        (_RETURN, 0, 0, 0),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    described = struct.pack("HP", len(code), ctypes.addressof(program))
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
