"""A line on the terminal while something takes longer than a second."""

import contextlib
import sys
import time
from collections.abc import Iterator

_PATIENCE = 1.0
_CLEAR = "\r\033[K"


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what is being done and for how long by now; nothing if it is soon over.

    Only to a terminal's standard error: a file or a pipe gets what lasts, and this does not.
    """
    if not sys.stderr.isatty():
        yield
        return
    from threading import Event, Thread  # Only a person pays for it.

    over, told, begin = Event(), Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(_PATIENCE):
            told.set()
            sys.stderr.write(f"{_CLEAR}{what} ... {time.monotonic() - begin:.0f} s")
            sys.stderr.flush()

    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if told.is_set():
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
