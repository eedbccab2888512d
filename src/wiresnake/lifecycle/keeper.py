"""The keeper: the process that lives on after `up`, one per interface that needs it.

It runs OnUp and OnDown, and ends with the interface. Its command line is `wiresnake events --hooks
FILE IF`, by which every version recognises it. The record of `up` has its process number.
"""

import contextlib
import os
import signal
import subprocess
import sys
import syslog
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wiresnake.lifecycle.applied import Applied
from wiresnake.linux.programs import ourselves

if TYPE_CHECKING:
    from wiresnake.devices.event_stream import Following

_COMMAND = ("events", "--hooks")


def restart(record: Applied, path: str, interface: str) -> Applied:
    """Starts the keeper, if it has anything to do, as an independent process. A running keeper
    reads the changed file by itself; a second one would run OnUp while the first still runs OnDown.
    Returns the record with its number."""
    if record.hooks and _runs(record.events, interface):
        return record
    stop(record, interface)
    if not record.hooks:
        return replace(record, events=0)
    process = subprocess.Popen(
        [*ourselves(), "wiresnake", *_COMMAND, path, interface],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    process.returncode = 0  # Nobody waits for it.
    return replace(record, events=process.pid)


def stop(record: Applied | None, interface: str) -> None:
    """Ends the interface's keeper, if it still runs."""
    if record and _runs(record.events, interface):
        with contextlib.suppress(OSError):
            os.kill(record.events, signal.SIGTERM)


def _runs(pid: int, interface: str) -> bool:
    """Returns whether the process is this interface's keeper, because the number may belong to
    another process by now."""
    if not pid:
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            said = file.read()
    except OSError:
        return False
    command = "".join(f"\0{word}" for word in (*_COMMAND, "")).encode()
    return command in said and said.endswith(b"\0%b\0" % interface.encode())


def run(interface: str, path: Path, follow: Callable[[str], "Following"]) -> None:
    """Runs the keeper until the interface ends, or SIGTERM or Ctrl-C."""
    from wiresnake.lifecycle.labels_file import of_interface
    from wiresnake.lifecycle.peer_hooks import PeerHooks

    hooks = PeerHooks(interface, of_interface(interface, path).of, _report)
    following = follow(interface)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        hooks.begin(following.connected)
        for event in following.events:
            hooks.take(event.event)
    except KeyboardInterrupt:
        pass
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        hooks.end()


def _report(what: str) -> None:
    """Reports to stderr, and to syslog unless stderr is the journal."""
    with contextlib.suppress(OSError):
        print(f"wiresnake: {what}", file=sys.stderr, flush=True)  # noqa: T201
    status = os.fstat(2)
    if os.environ.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        syslog.openlog("wiresnake", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_WARNING, what)
