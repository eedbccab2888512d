"""Detaches processes, finds them, and waits for them."""

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Callable


def detach(action: Callable[[], None]) -> None:
    """Runs `action` in a process of its own, which is nobody's child and has no terminal.

    The caller must have one thread. Standard input and output are closed there. An exception is a
    defect, which is printed.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if not os.fork():
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in 0, 1:
                os.dup2(nothing, number)
            os.close(nothing)
            action()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def in_network(number: int) -> set[int]:
    """Returns the processes of this user in the network namespace with that inode number."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # It has ended, or belongs to somebody else.
            if os.stat(f"/proc/{name}/ns/net").st_ino == number:
                found.add(int(name))
    return found


async def ended(process: int) -> None:
    """Waits until a process has ended."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
