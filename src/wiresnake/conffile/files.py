"""Where configuration files are, and how files with secrets are read and written."""

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
    """Whether an interface may have it as its name."""
    return wg_quick.NAME.fullmatch(text) is not None and text not in (".", "..")


def find(argument: str) -> Path:
    """An interface's name means its file in /etc/wireguard, as for wg-quick; anything else is a
    path, and so is `wg0.conf` if it is here and no interface of that name is there."""
    named = FOLDER / f"{argument}.conf"
    here = Path(argument)
    return named if is_name(argument) and (exists(named) or not here.is_file()) else here


def exists(path: Path) -> bool:
    """Whether it may be there."""
    try:
        return path.exists()
    except PermissionError:
        return True  # Who may not look gets told so when it is read.


def load(path: Path) -> str:
    """A file's text; what is not UTF-8 in it survives. HostError or ConfigError say what to do."""
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
    """What a file is to become."""

    path: Path
    content: str | bytes = field(repr=False)
    replace: bool = False
    """Whether there may be, and then is replaced, a file already."""


def save(*files: New) -> None:
    """Writes all of the files or none, readable by nobody else; one that is replaced keeps its
    owner, and is never seen half written. HostError leaves everything as it was.

    Each is written beside its place first, which is where most can fail. What has been put in
    its place by then is taken back if another one fails.
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
                os.link(temporary, target)  # Unlike a rename it never replaces another's new file.
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
    """A new file in the same folder with these bytes, safe on the disk."""
    target = Path(os.path.realpath(path))  # Path.resolve() makes no OSError of a loop of links.
    with contextlib.suppress(FileNotFoundError):
        path.stat()  # Which does.
    return beside(target, data, kept=0o770)
