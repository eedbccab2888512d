"""By which name the command was called."""

import os
import sys

STOCK = {"wg": "as wg", "wg-quick": "as wg-quick"}
"""Called by one of these names, by a symbolic link, it is that tool: the words of this group."""


def program() -> str:
    """The name that errors begin with, as scripts expect it."""
    name = os.path.basename(sys.argv[0])
    return name if name in STOCK else "wiresnake"
