"""Runs OnUp and OnDown, the hooks of single peers, which are our own addition to configuration
files."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import NamedTuple

from wiresnake.conffile.labels import PeerLabels
from wiresnake.events import Connected, Disconnected, Event, PeerEvent, Rekeyed, Roamed
from wiresnake.lifecycle.hooks import environment, shell

SECONDS = 60
"""Seconds after which a hook is considered hanging, and ended."""
_AT_ONCE = 32
"""The most hooks that run at a time: after a restart all peers of a server may connect within a
second."""


class _Job(NamedTuple):
    name: str
    command: str
    about: dict[str, str]


class PeerHooks:
    """Turns events into hooks. Those of one peer run one after the other, in the order of the
    events.

    Hooks follow states, not changes: OnUp also runs for peers that are connected at the beginning,
    and OnDown for all connected peers when the interface ends. So this process can be restarted.
    """

    def __init__(
        self,
        interface: str,
        notes: Callable[[str], PeerLabels],
        report: Callable[[str], None],
        seconds: float = SECONDS,
    ) -> None:
        self._interface = interface
        self._notes = notes
        self._report = report
        self._seconds = seconds
        self._connected: dict[str, str] = {}
        self._lock = Lock()
        self._waiting: dict[str, deque[_Job]] = {}
        """Jobs by peer. A peer in here has a worker or waits for one."""
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def begin(self, connected: Mapping[str, str]) -> None:
        """Starts with the peers that are already connected, each with its endpoint."""
        for public_key, endpoint in connected.items():
            self._up(public_key, endpoint)

    def take(self, event: Event) -> None:
        if not isinstance(event, PeerEvent):
            return
        endpoint = event.endpoint or ""
        # For a peer whose session had expired when we began, a rekey is the first event.
        if isinstance(event, Connected | Rekeyed):
            self._up(event.public_key, endpoint)
        elif isinstance(event, Roamed) and event.public_key in self._connected:
            self._connected[event.public_key] = endpoint
        elif isinstance(event, Disconnected):
            self._down(event.public_key)

    def end(self) -> None:
        """Treats all peers as disconnected, and waits for all hooks."""
        for public_key in list(self._connected):
            self._down(public_key)
        self._pool.shutdown()

    def _up(self, public_key: str, endpoint: str) -> None:
        if public_key not in self._connected:
            self._connected[public_key] = endpoint
            self._run("connected", public_key, endpoint)

    def _down(self, public_key: str) -> None:
        endpoint = self._connected.pop(public_key, None)
        if endpoint is not None:
            self._run("disconnected", public_key, endpoint)

    def _run(self, event: str, public_key: str, endpoint: str) -> None:
        notes = self._notes(public_key)
        about = {
            "WIRESNAKE_INTERFACE": self._interface,
            "WIRESNAKE_PEER": public_key,
            "WIRESNAKE_NAME": notes.name,
            "WIRESNAKE_ENDPOINT": endpoint,
            "WIRESNAKE_EVENT": event,
        }
        key, hooks = ("OnUp", notes.on_up) if event == "connected" else ("OnDown", notes.on_down)
        # Logs have other readers and a command may hold a secret, so the report has its number.
        jobs = [
            _Job(f"{key} {number} of {notes.name or public_key}", hook, about)
            for number, hook in enumerate(hooks, 1)
        ]
        if not jobs:
            return
        with self._lock:
            if public_key in self._waiting:
                self._waiting[public_key].extend(jobs)
                return
            self._waiting[public_key] = deque(jobs)
        self._pool.submit(self._work, public_key)

    def _work(self, public_key: str) -> None:
        """Runs a peer's waiting hooks until none are left."""
        while True:
            with self._lock:
                waiting = self._waiting[public_key]
                if not waiting:
                    del self._waiting[public_key]
                    return
                job = waiting.popleft()
            if wrong := self._execute(job):
                self._report(f"{self._interface}: {job.name} {wrong}")

    def _execute(self, job: _Job) -> str:
        """Runs one hook; returns what went wrong, or an empty string."""
        try:
            process = subprocess.Popen(
                shell(job.command.replace("%i", self._interface)),
                stdin=subprocess.DEVNULL,
                stdout=2,  # Our own standard output may be a stream of events.
                env=environment(job.about),
                start_new_session=True,
            )
        except OSError as error:
            return f"could not be started ({error.strerror})"
        try:
            code = process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"was ended after {self._seconds:g} s"
        if code:
            return f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
        return ""
