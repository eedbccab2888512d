"""A progress line on the terminal for what takes longer than a second."""

import contextlib
import sys
import time
from collections.abc import Iterator

_PATIENCE = 1.0
_CLEAR = "\r\033[K"
_shown = False


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Shows what is being done and for how long, unless it is over soon. It writes only to a
    terminal on standard error, because the line does not last.
    """
    if not sys.stderr.isatty():
        yield
        return
    from threading import Event, Thread  # Imported only when a person waits.

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
    """Clears the progress line before a lasting line is written."""
    global _shown
    if _shown:
        _shown = False
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
