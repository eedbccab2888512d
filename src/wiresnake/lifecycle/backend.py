"""Makes an interface, of the kernel or of a daemon."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from wiresnake.errors import HostError
from wiresnake.network import observe
from wiresnake.network.transaction import Change, Say
from wiresnake.uapi.snapshot import Backend

Choice = Literal["auto", "kernel", "user"]


def create(change: Change, choice: Choice, say: Say, warn: Say) -> Backend:
    """Makes the interface as a step of `change`. `auto` is the kernel's WireGuard if there is one;
    otherwise `warn` says so."""
    name = change.interface
    if choice != "user":
        try:
            change.do(
                f"ip link add dev {name} type wireguard",
                lambda: observe.create(name),
                lambda: delete(name, say),
            )
            return "kernel"
        except HostError as error:
            if choice == "kernel" or error.errno != errno.EOPNOTSUPP:
                raise
            warn("This kernel has no WireGuard. Using the user backend.")
    program = daemon()
    change.do(f"{program} {name}", lambda: _start(program, name), lambda: delete(name, say))
    return "user"


def delete(name: str, say: Say) -> None:
    """Undoes `create`, however far it got. A daemon ends with its interface."""
    if observe.exists(name):
        say(f"ip link delete dev {name}")
        observe.delete(name)


def daemon() -> str:
    """Returns the daemon's program: wg-quick's variable names another one; ours is next to the
    running Python, or in PATH."""
    if named := os.environ.get("WG_QUICK_USERSPACE_IMPLEMENTATION"):
        return named
    beside = Path(sys.executable).parent / "wiresnaked"
    return str(beside) if beside.exists() else "wiresnaked"


def _start(program: str, interface: str) -> None:
    if shutil.which(program) is None:
        raise HostError(errno.ENOENT, f"the program {program!r} is missing")
    code = subprocess.run([program, interface], stdin=subprocess.DEVNULL).returncode
    if code:
        raise HostError(errno.EIO, f"`{program} {interface}' exited with {code}")
