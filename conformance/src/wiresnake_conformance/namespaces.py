"""Linux namespaces: the device and the world around it each have their own network."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWNET, NEWPID = 0x00020000, 0x40000000, 0x20000000
_PR_SET_PDEATHSIG = 1


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int) -> None:
    _check(_libc.setns(fd, 0), "setns")


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signum), "prctl")


def network() -> int:
    """Opens a descriptor of the present network namespace."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def inside(fd: int) -> Iterator[None]:
    """Enters that network. Sockets opened in this block stay in it."""
    back = network()
    setns(fd)
    try:
        yield
    finally:
        setns(back)
        os.close(back)


def _check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
