"""What happens to peers, for clients of the UAPI that subscribed to it (docs/uapi.md).

All read one short list, each at its own pace: a client that does not read delays nobody, takes no
memory, and is told how much it has missed.
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from wiresnake.events import EventsLost, PeerEvent
from wiresnake.protocol.peer import Observer
from wiresnake.text import base64_text
from wiresnake.uapi.events import write_event

_KEPT = 4096
"""Events, of some 200 bytes each."""
_AT_ONCE = 64


class Events:
    """The last events, while anybody listens; `observe` is told whether anybody does."""

    def __init__(self, observe: Callable[[Observer | None], None]) -> None:
        self._observe = observe
        self._subscribers = 0
        self._recent: deque[tuple[str, bytes]] = deque(maxlen=_KEPT)
        """Public key and text."""
        self._total = 0
        """How many there ever were."""
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[int]:
        """Events are made as long as the context lasts; gives the place where they begin."""
        self._subscribers += 1
        self._observe(self._publish)
        try:
            yield self._total
        finally:
            self._subscribers -= 1
            if not self._subscribers:
                self._observe(None)
                self._recent.clear()

    async def feed(self, connection: socket.socket, public_key: bytes | None, place: int) -> None:
        """Writes what comes behind `place`, of one peer or of all; OSError ends it."""
        loop = asyncio.get_running_loop()
        only = None if public_key is None else base64_text(public_key)
        while True:
            if place == self._total:
                self._news.clear()
                await self._news.wait()
            first = self._total - len(self._recent)
            text = b""
            if place < first:
                text = write_event(EventsLost(first - place), time.time_ns())
                place = first
            for key, event in islice(self._recent, place - first, place - first + _AT_ONCE):
                place += 1
                if only in (None, key):
                    text += event
            await loop.sock_sendall(connection, text)
            await asyncio.sleep(0)

    def _publish(self, event: PeerEvent) -> None:
        self._recent.append((event.public_key, write_event(event, time.time_ns())))
        self._total += 1
        self._news.set()
