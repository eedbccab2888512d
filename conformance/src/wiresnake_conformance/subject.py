"""An implementation to test, and how to start it."""

import os
import subprocess
from dataclasses import dataclass
from typing import Literal

from .verdict import printable


@dataclass(frozen=True)
class Subject:
    """An implementation to test."""

    label: str
    kind: Literal["daemon", "kernel", "interface"]
    command: tuple[str, ...] = ()
    """A daemon's command line, without the interface's name at the end."""
    interface: str = "wg0"

    def version(self, patience: float = 5) -> str:
        """Returns the version that it prints within `patience` seconds.

        It runs in its own namespaces, as it may take `--version` for the name of an interface.
        """
        if self.kind == "kernel":
            return f"Linux {os.uname().release}"
        if self.kind == "interface":
            return ""
        alone = "unshare --net --mount --pid --fork --kill-child sh -c"
        script = 'mount -t tmpfs tmpfs /run && exec "$@"'
        try:
            done = subprocess.run(
                [*alone.split(), script, "sh", *self.command, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "unknown"
        said = (done.stdout or done.stderr).strip().splitlines()
        return printable(said[0]) if said and not done.returncode else "unknown"
