"""What happens to peers, for all who listen: one short list, which each reads at its own pace.

A reader that does not read delays nobody, takes no memory, and is told how much it has missed.
"""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice

from wiresnake.events import Event, EventsLost, PeerEvent
from wiresnake.protocol.peer import Observer

_KEPT = 4096
"""Events, of some 200 bytes each."""
_AT_ONCE = 64


Told = tuple[int, Event]
"""An event, and when it was, in ns since 1970."""


class Events:
    """The last events, while anybody listens; `observe` is told whether anybody does."""

    def __init__(self, observe: Callable[[Observer | None], None]) -> None:
        self._observe = observe
        self._subscribers = 0
        self._recent: deque[Told] = deque(maxlen=_KEPT)
        self._total = 0
        """How many there ever were."""
        self._ended = False
        self._news = asyncio.Event()

    def subscribe(self) -> "Subscription":
        """Events are made as long as it is open."""
        self._subscribers += 1
        self._observe(self._publish)
        return Subscription(self)

    def end(self) -> None:
        """There will be no more: readers come to their end."""
        self._ended = True
        self._news.set()

    async def after(self, place: int) -> tuple[list[Told], int]:
        """What comes behind `place`, some of it, and where that ends; nothing at the end."""
        await asyncio.sleep(0)
        while place == self._total and not self._ended:
            self._news.clear()
            await self._news.wait()
        first = self._total - len(self._recent)
        told: list[Told] = []
        if place < first:
            told.append((time.time_ns(), EventsLost(first - place)))
            place = first
        told += islice(self._recent, place - first, place - first + _AT_ONCE)
        return told, min(place + _AT_ONCE, self._total)

    def leave(self) -> None:
        self._subscribers -= 1
        if not self._subscribers:
            self._observe(None)
            self._recent.clear()

    def _publish(self, event: PeerEvent) -> None:
        self._recent.append((time.time_ns(), event))
        self._total += 1
        self._news.set()


class Subscription:
    """What happens from now on, to be iterated over by one reader. It ends with the tunnel; whoever
    leaves earlier closes it, or forgets it."""

    def __init__(self, events: Events) -> None:
        self._events, self._place = events, events._total
        self._taken: deque[Event] = deque()
        self._leave = weakref.finalize(self, events.leave)
        self._leave.atexit = False

    def close(self) -> None:
        """Safe to call twice."""
        self._leave()

    async def read(self) -> list[Told]:
        """What has come since, a few; waits for the first. Nothing once the tunnel has ended."""
        told, self._place = await self._events.after(self._place)
        return told

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        if not self._taken:
            self._taken += [event for _, event in await self.read()]
        if not self._taken:
            raise StopAsyncIteration
        return self._taken.popleft()
