"""Files that others see whole, the old one or the new one, and that only some may read."""

import errno
import fcntl
import os
import stat
from pathlib import Path


def read(path: str) -> bytearray:
    """A regular file in one buffer, for the caller to wipe: no copy of it is elsewhere. OSError."""
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "only a regular file will do")
        text = bytearray(status.st_size)
        file.readinto(text)
    return text


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # A FIFO would wait for a writer.


def beside(path: Path, data: bytes, *, mode: int = 0o600, kept: int = 0) -> Path:
    """A new file in the same folder with these bytes, safe on the disk: to take the path's place.

    It has this mode, and belongs to us. With `kept` it has the owner of the file that is there, and
    those bits of its mode.
    """
    import tempfile  # Which takes as long as all the rest of some commands.

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
    """Makes the bytes the file's content, at once or not at all; the rest as in `beside`."""
    new = beside(path, data, mode=mode, kept=kept)
    try:
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Locks an open file or folder against others who lock it, until it is closed; BlockingIOError
    if somebody has it and `wait` is false."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def duplicate(descriptor: int, least: int) -> int:
    """A second number of an open file, at least this one, that no program started later gets."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)
