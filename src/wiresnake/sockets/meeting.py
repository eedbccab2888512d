"""Where commands that join a tunnel meet its keeper."""

import os
from pathlib import Path

from wiresnake.errors import HostError


def folder() -> Path:
    """Returns a folder that only this user may use, for as long as it runs."""
    user = os.geteuid()
    parent = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if user == 0 else "/tmp")
    made = Path(parent, f"wiresnake-{user}" if parent == "/tmp" else "wiresnake")
    try:
        made.mkdir(mode=0o700, exist_ok=True)
        if made.lstat().st_uid == user:
            return made
        what = "it belongs to somebody else: remove it"
    except OSError as error:
        what = str(error.strerror)
    raise HostError(f"cannot use {made}: {what}")


def meeting_point(file: Path) -> Path:
    """Returns the path of the keeper's socket for a configuration file, whatever its name."""
    try:
        whose = os.stat(file)
    except OSError as error:
        raise HostError(error.errno, f"cannot read {file}: {error.strerror}") from None
    return folder() / f"exec-{whose.st_dev:x}-{whose.st_ino:x}"
