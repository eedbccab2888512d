"""Raises SIGINT, SIGTERM and SIGHUP as exceptions, but never during a step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signals:
    """While entered, the first signal raises KeyboardInterrupt or SystemExit(143, 129): at once, or
    at the next `check` while it is held. A second signal does not interrupt undoing."""

    def __init__(self) -> None:
        self._pending = 0
        self._held = 0
        self._raised = False
        self._old: dict[int, object] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(one) != signal.SIG_IGN:  # as under nohup
                    self._old[one] = signal.signal(one, self._came)

    def __exit__(self, *_: object) -> None:
        for one, handler in self._old.items():
            signal.signal(one, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raises the signal that has arrived, if any."""
        if self._pending and not self._raised:
            self._raised = True
            number = self._pending
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def ignore(self) -> None:
        """Ignores signals from now on, so that undoing completes."""
        self._raised = True

    def _came(self, number: int, _: FrameType | None) -> None:
        self._pending = number
        if not self._held:
            self.check()
