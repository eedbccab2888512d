"""By which name the command was called, and where it looks for others."""

import os
import sys

STOCK = {"wg": "as wg", "wg-quick": "as wg-quick"}
"""Called by one of these names, by a symbolic link, it is that tool: the words of this group."""


def program() -> str:
    """The name that errors begin with, as scripts expect it."""
    name = os.path.basename(sys.argv[0])
    return name if name in STOCK else "wiresnake"


def keep_to_absolute_folders() -> None:
    """Takes out of PATH what means the present folder or one below it: '.', an empty entry.

    As root that would be anybody's; what is missing elsewhere would be found there.
    """
    folders = os.environ.get("PATH", "").split(os.pathsep)
    kept = os.pathsep.join(one for one in folders if one.startswith("/"))
    os.environ["PATH"] = kept or os.defpath
