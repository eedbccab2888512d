"""The events of any interface: those that the device reports, or those found by polling."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from wiresnake.devices.interface import read_state
from wiresnake.devices.poller import Watcher
from wiresnake.devices.reports import read_report, subscribe
from wiresnake.errors import HostError
from wiresnake.linux.link import is_up
from wiresnake.uapi.events import Reported

LOOK_SECONDS = 1.0
_CALM = 6
"""After polling many peers it rests for so many times as long."""


class Following(NamedTuple):
    """The events of an interface from now on."""

    watching: bool
    """Whether the device reports no events and is polled: once a second, or with thousands of peers
    as often as a seventh of a CPU allows."""
    connected: dict[str, str]
    """The peers that already have a session: public key and endpoint."""
    events: Iterator[Reported]
    """Yields events until the interface ends."""


def follow(name: str) -> Following:
    """Begins at once: everything after the call is among the events. HostError if it cannot."""
    if (events := subscribe(name)) is not None:
        report = read_report(name)
        peers = report.peers.values() if report else ()
        live = {peer.public_key: peer.endpoint or "" for peer in peers if peer.session == "live"}
        return Following(False, live, events)
    watcher = Watcher(name)
    _look(watcher, name)
    live = {peer.public_key: peer.endpoint or "" for peer in watcher.connected()}
    return Following(True, live, _watch(watcher, name))


def _watch(watcher: Watcher, interface: str) -> Iterator[Reported]:
    cost = 0.0
    while True:
        time.sleep(max(LOOK_SECONDS, _CALM * cost))
        begun = time.process_time()
        try:
            events = _look(watcher, interface)
            cost = time.process_time() - begun
            yield from events
        except HostError:
            yield from watcher.look(None, False, time.time_ns(), _boot())
            return


def _look(watcher: Watcher, interface: str) -> list[Reported]:
    state = read_state(interface)
    return watcher.look(state, is_up(interface), time.time_ns(), _boot())


def _boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
