"""Finds configuration files, and reads and writes files with secrets."""

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from wiresnake.conffile import wg, wg_quick
from wiresnake.errors import HostError
from wiresnake.linux.files import beside

FOLDER = Path(wg_quick.FOLDER)
_LARGEST = 64 << 20


def is_name(text: str) -> bool:
    """Returns whether this is a valid interface name."""
    return wg_quick.NAME.fullmatch(text) is not None and text not in (".", "..")


def find(argument: str) -> Path:
    """Returns the path for an argument: an interface's name means its file in /etc/wireguard, as
    for wg-quick. Anything else is a path, also `wg0.conf` if that file is here and there is no
    interface of that name."""
    named = FOLDER / f"{argument}.conf"
    here = Path(argument)
    return named if is_name(argument) and (exists(named) or not here.is_file()) else here


def exists(path: Path) -> bool:
    """Returns whether the file exists, or may exist."""
    try:
        return path.exists()
    except PermissionError:
        return True  # Reading it will report the missing permission.


def load(path: Path) -> str:
    """Returns a file's text; bytes that are not UTF-8 survive. HostError or ConfigError say what to
    do."""
    try:
        with path.open("rb") as file:
            data = bytearray(file.read(_LARGEST + 1))
    except OSError as error:
        remedy = "; run it as root" if error.errno == errno.EACCES else ""
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}{remedy}") from None
    if len(data) > _LARGEST:
        raise HostError(f"{path} is too large for a configuration: over {_LARGEST >> 20} MiB")
    wg.settle(data, str(path))
    return data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class New:
    """A file to write: its path and content."""

    path: Path
    content: str | bytes = field(repr=False)
    replace: bool = False
    """Whether an existing file is replaced."""


def save(*files: New) -> None:
    """Writes all of the files or none, readable only by their owner. A replaced file keeps its
    owner and is never seen half written. After a HostError everything is unchanged.

    Each file is first written under another name, where most failures happen. If a later file
    cannot be moved into place, the earlier ones are moved back.
    """
    written: list[tuple[Path, New]] = []
    done: list[tuple[Path, bytes | None]] = []
    try:
        for file in files:
            if not file.replace and os.path.lexists(file.path):
                raise HostError(f"{file.path} exists already; --force replaces it")
            written.append((_beside(file.path, _bytes(file.content)), file))
        for temporary, file in written:
            target = Path(os.path.realpath(file.path))
            before = target.read_bytes() if file.replace and target.exists() else None
            if file.replace:
                temporary.replace(target)
            else:
                # Unlike rename, link never replaces a file that another program has just made.
                os.link(temporary, target)
            done.append((target, before))
    except BaseException as error:
        for target, before in reversed(done):
            if before is None:
                target.unlink()
            else:
                _beside(target, before).replace(target)
        if isinstance(error, OSError) and not isinstance(error, HostError):
            what = f"cannot write {file.path}: {error.strerror}; nothing was changed"
            raise HostError(error.errno, what) from None
        raise
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")


def _beside(path: Path, data: bytes) -> Path:
    """Writes a new file in the same folder, safely on disk."""
    target = Path(os.path.realpath(path))  # Path.resolve() raises no OSError for a loop of links.
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # This raises it.
    return beside(target, data, kept=0o770)
