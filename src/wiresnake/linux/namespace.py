"""Runs a call in another network namespace."""

import ctypes
import os
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def visit(namespace: int, action: Callable[[], T]) -> T:
    """Runs `action` inside the network namespace of that descriptor, in its own thread, because a
    namespace belongs to a thread. Raises what the action raises, or OSError."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, f"setns: {os.strerror(number)}")
            answers.append(action())
        except BaseException as error:  # Passed on to the caller, whatever it is.
            errors.append(error)

    visitor = Thread(target=body)
    visitor.start()
    visitor.join()
    if errors:
        raise errors[0]
    return answers[0]
