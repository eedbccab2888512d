"""Standard input, output and error: always open, and in one encoding, the only one there is here.

Text goes out as it stands in configuration files, whatever the locale says: in UTF-8, and what is
none byte for byte. So it is with `wg` and `cat`, so that files which are made by `>` are right, and
no name of a peer can end a command. Names and paths on the command line are read alike.
"""

import contextlib
import io
import locale
import os
import sys
from collections.abc import Iterator

_UTF8 = "utf-8"
_UNSAID = frozenset(("ascii", "us-ascii", "ansi_x3.4-1968", "646"))
"""What the C library says where no locale is chosen: nothing of the terminal."""


def prepare() -> None:
    """Opens what was closed when we began, and sets the encoding."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Else it is somebody's own, as a test's.
            stream.reconfigure(encoding=_UTF8, errors="surrogateescape")


def start_anew_in_utf8() -> None:
    """Where the locale has another encoding, replaces this process by one that reads its arguments
    and the names of files as UTF-8: Python decides that once, before any of our code runs."""
    if sys.getfilesystemencoding() != _UTF8 and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def terminal_shows_blocks() -> bool:
    """Whether the locale says nothing against a terminal for UTF-8, with its block elements."""
    found = locale.getencoding().lower()
    return found in ("utf-8", "utf8") or found in _UNSAID


def give_output_up() -> None:
    """Whoever read it went away, or the disk is full: Python would flush again as it ends, and
    complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """For what ends by Ctrl-C, or once nobody reads it any more: neither is a failure."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        give_output_up()


def _open_closed() -> None:
    """The next file that is opened would take the place of one, and get what is meant for a reader;
    a program that we start gets them too. To write to one that is closed is an error still, except
    for stderr, where nobody could be told."""
    for number, (name, flags) in enumerate(
        (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    ):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # Or it is closed again in every child.
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
