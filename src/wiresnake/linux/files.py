"""Reads private files, replaces files at once, and locks them."""

import errno
import fcntl
import os
import stat
from pathlib import Path


def read(path: str) -> bytearray:
    """Returns a regular file in one buffer, without any other copy, for the caller to wipe.
    OSError."""
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        text = bytearray(status.st_size)
        file.readinto(text)
    return text


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # A FIFO would wait for a writer.


def beside(path: Path, data: bytes, *, mode: int = 0o600, kept: int = 0) -> Path:
    """Writes a new file in the same folder, safely on disk, which can then replace the path. It has
    this mode and belongs to us. With `kept` it gets the existing file's owner and those bits of its
    mode.
    """
    import tempfile  # The import takes as long as the rest of some commands.

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if kept and path.exists():
                before = path.stat()
                os.fchown(descriptor, before.st_uid, before.st_gid)
                mode = before.st_mode & kept
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new


def replace(path: Path, data: bytes, *, mode: int = 0o600, kept: int = 0) -> None:
    """Replaces the file's content at once or not at all; arguments as for `beside`."""
    new = beside(path, data, mode=mode, kept=kept)
    try:
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Locks an open file or folder until it is closed. BlockingIOError if it is locked and `wait`
    is false."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def duplicate(descriptor: int, least: int) -> int:
    """Duplicates a descriptor to a number of at least `least`, which programs started later do not
    inherit."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
