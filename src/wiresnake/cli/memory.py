"""What a process with secrets owes them, before it reads the first."""

import ctypes

_PR_SET_DUMPABLE = 4


def protect_memory() -> None:
    """No core dump, and no other process of the same user may read the memory.

    A program that we start begins anew: it can be dumped, so hooks are as they always were.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
