"""`up --foreground`: an interface as a service of systemd (Type=notify or notify-reload)."""

import os
import signal
import socket
import time
from collections.abc import Callable

from wiresnake.network import journal, observe

_SIGNALS = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
_LOOK_SECONDS = 1.0
"""How often to see whether the interface is still there."""


def notify(*lines: str) -> None:
    """Tells the service manager, if there is one (sd_notify's protocol)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.connect("\0" + path[1:] if path.startswith("@") else path)
            one.send("\n".join(lines).encode())


def stay(interface: str, reload: Callable[[], None], down: Callable[[], None]) -> bool:
    """Says that it is ready, reloads at SIGHUP, and takes the interface down at SIGTERM or SIGINT.

    Ends by itself once somebody else took it down: False if it is gone without that, as when its
    daemon died. What outlived it stays, so that nothing that was for the tunnel goes around it
    until the next `up`, or `down`.
    """
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _interrupt)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    notify("READY=1", f"STATUS={interface} is up")
    while True:
        caught = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS)
        if caught is None:
            if not observe.exists(interface):
                return journal.read(interface) is None
            continue
        number = caught.si_signo
        while number == signal.SIGHUP:
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            number = _interrupted(reload)
            notify("READY=1")
        if number:
            notify("STOPPING=1")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            down()
            return True


def _interrupted(reload: Callable[[], None]) -> int:
    """The signal that came meanwhile, and undid it; 0 if none did."""
    number = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        reload()
    except KeyboardInterrupt:
        number = signal.SIGINT
    except SystemExit as end:
        number = int(end.code or 0) - 128
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    return number


def _interrupt(number: int, _: object) -> None:
    """As `network.signals` does."""
    raise SystemExit(128 + number)
