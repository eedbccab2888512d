"""The latest events, in one short list that every subscriber reads at its own pace.

A slow reader delays nobody and takes no memory. It gets the number of events that it missed.
"""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice

from wiresnake.events import Event, EventsLost, HandshakeStep, PeerEvent
from wiresnake.protocol.peer import Observer

_KEPT = 4096
"""Events, about 200 bytes each."""
_AT_ONCE = 64


Timed = tuple[int, Event]
"""The time of an event, in ns since 1970, and the event."""


class Events:
    """Keeps the latest events while there are subscribers.

    `observe` gets the observer that the device must call, or None while nobody listens.
    """

    def __init__(self, observe: Callable[[Observer | None], None]) -> None:
        self._observe = observe
        self._subscribers = 0
        self._recent: deque[Timed] = deque(maxlen=_KEPT)
        self._total = 0
        """How many events were kept since the start."""
        self._ended = False
        self._log: Callable[[PeerEvent], None] | None = None
        self._news = asyncio.Event()

    def subscribe(self) -> "Subscription":
        """Opens a subscription. Events are made while one is open."""
        self._subscribers += 1
        self._observe(self._publish)
        return Subscription(self)

    def log(self, log: Callable[[PeerEvent], None]) -> None:
        """Passes all events to `log` from now on, each `HandshakeStep` too."""
        self._log = log
        self._observe(self._publish)

    def end(self) -> None:
        """Ends all subscriptions once their readers have read the rest."""
        self._ended = True
        self._news.set()

    async def after(self, place: int) -> tuple[list[Timed], int]:
        """Waits for events after `place`; returns some of them and the place where they end.

        Returns an empty list after `end`.
        """
        await asyncio.sleep(0)
        while place == self._total and not self._ended:
            self._news.clear()
            await self._news.wait()
        first = self._total - len(self._recent)
        events: list[Timed] = []
        if place < first:
            events.append((time.time_ns(), EventsLost(first - place)))
            place = first
        events += islice(self._recent, place - first, place - first + _AT_ONCE)
        return events, min(place + _AT_ONCE, self._total)

    def leave(self) -> None:
        self._subscribers -= 1
        if not self._subscribers:
            self._observe(self._publish if self._log else None)
            self._recent.clear()

    def _publish(self, event: PeerEvent) -> None:
        if self._log is not None:
            self._log(event)
        if isinstance(event, HandshakeStep) or not self._subscribers:
            return
        self._recent.append((time.time_ns(), event))
        self._total += 1
        self._news.set()


class Subscription:
    """The events from now on, for one reader, which iterates with `async for`.

    It ends with the tunnel. A reader that leaves earlier closes it, or just drops it.
    """

    def __init__(self, events: Events) -> None:
        self._events, self._place = events, events._total
        self._taken: deque[Event] = deque()
        self._leave = weakref.finalize(self, events.leave)
        self._leave.atexit = False

    def close(self) -> None:
        """Ends the subscription. It is safe to call twice."""
        self._leave()

    async def read(self) -> list[Timed]:
        """Waits for the next events and returns a few; an empty list once the tunnel has ended."""
        events, self._place = await self._events.after(self._place)
        return events

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        if not self._taken:
            self._taken += [event for _, event in await self.read()]
        if not self._taken:
            raise StopAsyncIteration
        return self._taken.popleft()
