"""Runs OnUp and OnDown, the hooks of single peers: our own addition to configuration files."""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock, Thread

from wiresnake.control.events import Event
from wiresnake.quick.names import Notes

SECONDS = 60
"""A hook that takes longer hangs, and is ended."""


class PeerHooks:
    """Turns events into hooks: those of one peer one after the other, in the events' order.

    A hook knows states, not changes: OnUp runs for who is connected at the beginning too, and
    OnDown for all that are when the interface ends. So it does no harm if this process starts anew.
    """

    def __init__(
        self,
        interface: str,
        notes: Callable[[str], Notes],
        report: Callable[[str], None],
        seconds: float = SECONDS,
    ) -> None:
        self._interface = interface
        self._notes = notes
        self._report = report
        self._seconds = seconds
        self._connected: dict[str, str] = {}
        self._lock = Lock()
        self._waiting: dict[str, deque[tuple[str, dict[str, str]]]] = {}
        self._threads: dict[str, Thread] = {}

    def begin(self, connected: Mapping[str, str]) -> None:
        """Takes the peers that are connected already, each with its endpoint."""
        for public_key, endpoint in connected.items():
            self._up(public_key, endpoint)

    def take(self, event: Event) -> None:
        endpoint = str(event.details.get("endpoint", ""))
        # Of a peer whose session had expired when we began a rekey is the first that is heard.
        if event.kind in ("connected", "rekey"):
            self._up(event.public_key, endpoint)
        elif event.kind == "roamed" and event.public_key in self._connected:
            self._connected[event.public_key] = endpoint
        elif event.kind == "disconnected":
            self._down(event.public_key)

    def end(self) -> None:
        """Takes it that nobody is connected any more, and waits for all hooks."""
        for public_key in list(self._connected):
            self._down(public_key)
        while self._threads:
            for thread in list(self._threads.values()):
                thread.join()

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
        hooks = notes.on_up if event == "connected" else notes.on_down
        jobs = [(hook.replace("%i", self._interface), about) for hook in hooks]
        if not jobs:
            return
        with self._lock:
            self._waiting.setdefault(public_key, deque()).extend(jobs)
            if public_key not in self._threads:
                thread = Thread(target=self._work, args=(public_key,), daemon=True)
                self._threads[public_key] = thread
                thread.start()

    def _work(self, public_key: str) -> None:
        """Runs what waits for a peer, until nothing does."""
        while True:
            with self._lock:
                waiting = self._waiting[public_key]
                if not waiting:
                    del self._waiting[public_key], self._threads[public_key]
                    return
                command, about = waiting.popleft()
            if wrong := self._execute(command, about):
                who = about["WIRESNAKE_NAME"] or public_key
                hook = "OnUp" if about["WIRESNAKE_EVENT"] == "connected" else "OnDown"
                self._report(f"{self._interface}: {hook} of {who} {wrong}: {command}")

    def _execute(self, command: str, about: dict[str, str]) -> str:
        """What went wrong, if anything did."""
        try:
            process = subprocess.Popen(
                ["bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=2,  # Ours may be a stream of events.
                env=os.environ | about,
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
