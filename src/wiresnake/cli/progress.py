"""A line on the terminal while something takes longer than a second."""

import contextlib
import sys
import time
from collections.abc import Iterator

_PATIENCE = 1.0
_CLEAR = "\r\033[K"
_shown = False


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what is being done and for how long by now; nothing if it is soon over.

    Only to a terminal's standard error: a file or a pipe gets what lasts, and this does not.
    """
    if not sys.stderr.isatty():
        yield
        return
    from threading import Event, Thread  # Only a person pays for it.

    over, begin = Event(), time.monotonic()

    def tell() -> None:
        global _shown
        while not over.wait(_PATIENCE):
            _shown = True
            sys.stderr.write(f"{_CLEAR}{what} ... {time.monotonic() - begin:.0f} s")
            sys.stderr.flush()

    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        clear()


def clear() -> None:
    """Makes room for a line that lasts."""
    global _shown
    if _shown:
        _shown = False
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
