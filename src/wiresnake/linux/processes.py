"""Detaches processes, finds them, and waits for them."""

import asyncio
import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from wiresnake.errors import in_one_line


def detach(action: Callable[[], None]) -> None:
    """Runs `action` in a process of its own, which is nobody's child and has no terminal.

    The caller must have one thread. Standard input and output are closed there. An exception is a
    defect, which is printed, in full if WIRESNAKE_DEBUG=1.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if not os.fork():
            let_go(0, 1)
            action()
    except KeyboardInterrupt:
        pass
    except BaseException as error:
        if os.environ.get("WIRESNAKE_DEBUG") == "1":
            traceback.print_exc()
        else:
            sys.stderr.write(f"wiresnake: {in_one_line(error)}\n")
    finally:
        sys.stderr.flush()
        os._exit(0)


def let_go(*descriptors: int) -> None:
    """Closes standard streams, in whose place nothing is read and written."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for each in descriptors:
        os.dup2(nothing, each)
    os.close(nothing)


def in_network(number: int) -> set[int]:
    """Returns the processes in the network namespace with that inode number.

    Those of other users, and those that hide their memory, are found only with privileges over
    them, as the owner of a user namespace has within it.
    """
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
