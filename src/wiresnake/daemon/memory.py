"""The daemon's way with Python's collector of garbage."""

import gc


def freeze() -> None:
    """What was made since the last time and is in use stays: a collector that looks at 100,000
    peers would hold the loop for longer than any slice of work."""
    gc.collect()
    gc.freeze()
