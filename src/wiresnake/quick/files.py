"""Where configuration files are, and how files with secrets are read and written."""

import os
import re
import tempfile
from pathlib import Path

from wiresnake.errors import HostError

FOLDER = Path("/etc/wireguard")
_NAME = re.compile("[a-zA-Z0-9_=+.-]{1,15}")
_LARGEST = 64 << 20


def is_name(text: str) -> bool:
    """Whether an interface may have it as its name."""
    return _NAME.fullmatch(text) is not None and text not in (".", "..")


def find(argument: str) -> Path:
    """As wg-quick: an interface's name means its file in /etc/wireguard; else it is a path."""
    return FOLDER / f"{argument}.conf" if is_name(argument) else Path(argument)


def load(path: Path) -> str:
    """A file's text; what is not UTF-8 in it survives. HostError says what to do."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise HostError(f"{path} is too large for a configuration: over {_LARGEST >> 20} MiB")
    return data.decode("utf-8", "surrogateescape")


def save(files: dict[Path, str], *, overwrite: bool) -> None:
    """Writes all of the files or none, readable by their owner alone; a file that exists keeps
    its owner and mode, and is never seen half written.

    Each is written beside its place first. Only renaming is left then, and what was renamed is
    put back if another one fails.
    """
    written: list[tuple[Path, Path]] = []
    done: list[tuple[Path, bytes | None]] = []
    try:
        for path, text in files.items():
            if not overwrite and os.path.lexists(path):
                raise HostError(f"{path} exists already; --force overwrites it")
            written.append((_beside(path, text.encode("utf-8", "surrogateescape")), path))
        for temporary, path in written:
            before = path.read_bytes() if path.exists() else None
            if overwrite:
                temporary.replace(path.resolve())
            else:
                os.link(temporary, path)  # Unlike a rename it never replaces another's new file.
                temporary.unlink()
            done.append((path, before))
    except BaseException as error:
        for path, before in reversed(done):
            if before is None:
                path.unlink()
            else:
                _beside(path, before).replace(path.resolve())
        if isinstance(error, OSError) and not isinstance(error, HostError):
            where = error.filename2 or error.filename
            raise HostError(
                error.errno, f"cannot write {where}: {error.strerror}; nothing was changed"
            ) from None
        raise
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _beside(path: Path, data: bytes) -> Path:
    """A new file in the same folder with these bytes, safe on the disk."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if target.exists():
                status = target.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink()
        raise
    return temporary
