"""Starts programs: nft, iptables, resolvconf, resolvectl, and wiresnake itself."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

from wiresnake.errors import HostError

_PATIENCE = 30
"""Seconds to wait for a program. Signals wait as long, so that nothing is half done."""
_PATH = os.defpath + ":/usr/local/sbin:/usr/sbin:/sbin"
_ROOT = str(Path(__file__).parents[2])
"""The folder that contains this package."""
_START = (
    "import sys; root, *sys.argv = sys.argv[1:]; sys.path.insert(0, root); import wiresnake;"
    " del sys.path[0]; from wiresnake.__main__ import main; sys.exit(main())"
)
_CALL = (
    "import sys; from importlib import import_module;"
    " module, argument, *sys.path[:] = sys.argv[1:]; import_module(module).main(argument)"
)


def ourselves() -> list[str]:
    """Returns the command that starts wiresnake again, to be followed by its name and arguments.

    Root may run it in anybody's folder. So nothing is imported from the current folder, from
    PYTHONPATH or from a user's site-packages (`-I`), only from Python's own folders, and this
    package from where it is now, however it was installed.
    """
    return [sys.executable, "-I", "-c", _START, _ROOT]


def function(module: str, argument: str) -> list[str]:
    """Returns the command that calls `main` of a module with one argument, in a new process.

    It finds modules where this process does, and starts without site-packages of its own, which is
    faster.
    """
    return [sys.executable, "-I", "-S", "-c", _CALL, module, argument, *sys.path]


def find(name: str) -> str | None:
    """Returns a program's path, also from the administrator's folders, which a user's PATH often
    lacks."""
    return shutil.which(name, path=f"{os.environ.get('PATH') or _PATH}:{_PATH}")


class Refused(HostError):
    """A program ended with an error; the text is its output."""


def output(*command: str) -> str | None:
    """Returns a program's output; None if it is missing or fails."""
    try:
        done = _run(command, "")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def run(*command: str, text: str = "") -> None:
    """Runs a program; Refused with its output if it fails. `text` is its input."""
    done = _run(command, text)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exited with {done.returncode}"
        raise Refused(said)


def _run(command: tuple[str, ...], text: str) -> subprocess.CompletedProcess[str]:
    try:
        # In its own process group: Ctrl-C is for us, and we then undo what the program has done.
        return subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # The output contains other programs' rules and comments.
            check=False,
            env={**os.environ, "LC_ALL": "C"},
            process_group=0,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise HostError(errno.ETIMEDOUT, f"it did not end within {_PATIENCE} s") from None
