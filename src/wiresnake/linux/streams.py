"""Keeps standard input, output and error open, and in UTF-8.

Text is written as it is in configuration files, whatever the locale says: in UTF-8, and bytes that
are not UTF-8 unchanged. `wg` and `cat` do the same, so files made with `>` are right, and no name
of a peer can make a command fail. Names and paths on the command line are read in the same way.
"""

import contextlib
import io
import locale
import os
import sys
from collections.abc import Iterator

_UTF8 = "utf-8"
_UNSAID = frozenset(("ascii", "us-ascii", "ansi_x3.4-1968", "646"))
"""The C library's encoding without a locale, which says nothing about the terminal."""


def prepare() -> None:
    """Opens streams that were closed at the start, and sets the encoding."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_closed()
    for stream in (sys.stdout, sys.stderr):
        # Otherwise it is a replacement, for example a test's.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_UTF8, errors="surrogateescape")


def start_anew_in_utf8() -> None:
    """If the locale has another encoding, replaces this process with one that reads its arguments
    and file names as UTF-8, which Python decides before any of our code runs."""
    if sys.getfilesystemencoding() != _UTF8 and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def terminal_shows_blocks() -> bool:
    """Returns whether the terminal may show UTF-8, with its block elements, according to the
    locale."""
    found = locale.getencoding().lower()
    return found in ("utf-8", "utf8") or found in _UNSAID


def give_output_up() -> None:
    """Silences a stream whose reader has gone or whose disk is full, because Python would flush it
    again at exit, and fail."""
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
    """Opens closed descriptors 0 to 2, because the next opened file would take their place and
    receive the output, also of programs that we start. Writing to a closed one is still an error,
    except for stderr."""
    for number, (name, flags) in enumerate(
        (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    ):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # Otherwise it would be closed again in every child.
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
