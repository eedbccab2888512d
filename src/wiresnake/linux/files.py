"""Files that others see whole, the old one or the new one, and that only some may read."""

import os
from pathlib import Path


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
