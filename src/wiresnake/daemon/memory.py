"""How the daemon uses Python's garbage collector."""

import gc


def freeze() -> None:
    """Collects garbage, then moves all present objects out of the collector's reach.

    Scanning 100,000 peers would block the loop for longer than any slice of work.
    """
    gc.collect()
    gc.freeze()
