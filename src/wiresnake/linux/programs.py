"""Programs that are started: nft, iptables, resolvconf, resolvectl, and wiresnake itself anew."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

from wiresnake.errors import HostError

_PATIENCE = 30
"""Seconds; a signal waits as long, so that nothing is half done."""
_PATH = os.defpath + ":/usr/local/sbin:/usr/sbin:/sbin"
_ROOT = str(Path(__file__).parents[2])
"""The folder that this package is in."""
_START = (
    "import sys; root, *sys.argv = sys.argv[1:]; sys.path.insert(0, root); import wiresnake;"
    " del sys.path[0]; from wiresnake.__main__ import main; sys.exit(main())"
)


def ourselves() -> list[str]:
    """The command that starts wiresnake anew, to be followed by its name and its words.

    Root may be who runs it, and the present folder anybody's. So nothing is imported from there,
    from PYTHONPATH or from a user's site-packages (`-I`), but from Python's own folders, and this
    very package from where it is now, however it was installed.
    """
    return [sys.executable, "-I", "-c", _START, _ROOT]


def find(name: str) -> str | None:
    """Its path; the administrator's folders count too, which a user's PATH often lacks."""
    return shutil.which(name, path=f"{os.environ.get('PATH') or _PATH}:{_PATH}")


class Refused(HostError):
    """A program that ended with an error; its text is what it said."""


def output(*command: str) -> str | None:
    """What it prints; None if it is missing or fails."""
    try:
        done = _run(command, "")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def run(*command: str, text: str = "") -> None:
    """Refused with what it said if it fails; `text` is its input."""
    done = _run(command, text)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exited with {done.returncode}"
        raise Refused(said)


def _run(command: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
    try:
        # In a group of its own: Ctrl-C is for us, who then undo what it has done.
        return subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # Others' rules and comments are in it.
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            process_group=0,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise HostError(errno.ETIMEDOUT, f"no end of it in {_PATIENCE} s") from None
