"""Watches a file (inotify)."""

import ctypes
import os

from wiresnake.errors import HostError

_IN_ATTRIB, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x4, 0x400, 0x800


def watch(path: str) -> int:
    """Returns a descriptor that becomes readable when the file may have gone; the caller closes it.
    HostError if it cannot be watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    # An open socket keeps its inode, so a deletion only shows as IN_ATTRIB.
    events = _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), events) < 0:
        number = ctypes.get_errno()
        raise HostError(number, f"cannot watch {path}: {os.strerror(number)}")
    return fd
