"""Makes namespaces, enters them, and runs calls in another network namespace."""

import ctypes
import errno
import os
from collections.abc import Callable
from enum import IntFlag
from threading import Thread
from typing import TypeVar

from wiresnake.errors import HostError

T = TypeVar("T")


class Kind(IntFlag):
    """The kinds of namespaces (CLONE_NEW*, <linux/sched.h>)."""

    MOUNT = 0x00020000
    USER = 0x10000000
    NETWORK = 0x40000000


_PR_SET_DUMPABLE = 4
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


def visit(namespace: int, action: Callable[[], T]) -> T:
    """Runs `action` inside the network namespace of that descriptor, in its own thread, because a
    namespace belongs to a thread. Raises what the action raises, or OSError."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            enter(namespace, Kind.NETWORK)
            answers.append(action())
        except BaseException as error:  # Passed on to the caller, whatever it is.
            errors.append(error)

    visitor = Thread(target=body)
    visitor.start()
    visitor.join()
    if errors:
        raise errors[0]
    return answers[0]


def enter(namespace: int, kind: Kind) -> None:
    """Moves the calling thread into the namespace of that descriptor. OSError if refused."""
    _call("setns", namespace, kind)


def unshare(kinds: Kind) -> None:
    """Moves the calling thread into new namespaces. OSError if refused."""
    _call("unshare", kinds)


def become_owner() -> None:
    """Lets this process, which has one thread and no secrets, make network namespaces.

    Root may do so already. Anybody else gets a user namespace, where user and group stay the same.
    HostError says what refuses it.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0 and _may_make_networks():
        return
    # The files in /proc of a process that hides its memory belong to root.
    _call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    try:
        unshare(Kind.USER)
        # Only who gives up setgroups may map a group.
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", _same(user)),
            ("gid_map", _same(group)),
        ):
            with open(f"/proc/self/{file}", "w") as setting:
                setting.write(text)
    except OSError as error:
        raise _refusal(error) from None


def bind(source: str, target: str) -> None:
    """Mounts the file or folder `source` over `target`. OSError if refused."""
    _call("mount", source.encode(), target.encode(), None, _MS_BIND, None)


def mount_empty(target: str) -> None:
    """Mounts an empty folder over `target`. OSError if refused."""
    _call("mount", b"tmpfs", target.encode(), b"tmpfs", 0, b"mode=755")


def keep_mounts_private() -> None:
    """Keeps mounts of this mount namespace from all others. OSError if refused."""
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _may_make_networks() -> bool:
    try:
        unshare(Kind.NETWORK)
    except OSError:
        return False
    return True


def _same(number: int) -> str:
    return f"{number} {number} 1"


def _refusal(error: OSError) -> HostError:
    match error.errno:
        case errno.ENOSPC | errno.EUSERS:
            what = "there are as many user namespaces as allowed: raise user.max_user_namespaces"
        case errno.ENOSYS | errno.EINVAL:
            what = "this kernel has no user namespaces (CONFIG_USER_NS)"
        case _:
            what = (
                "user namespaces are refused to ordinary users: allow them (sysctl"
                " kernel.apparmor_restrict_unprivileged_userns=0 or"
                " kernel.unprivileged_userns_clone=1; in a container, its seccomp profile)"
            )
    return HostError(error.errno, what)
