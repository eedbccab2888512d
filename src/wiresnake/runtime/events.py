"""What happens to peers, for clients of the UAPI that subscribed to it (docs/uapi.md).

A client that does not read loses events, and is told how many; it delays nobody.
"""

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator

from wiresnake.config.uapi import write_event
from wiresnake.protocol.peer import Observer

_WAITING = 4096
"""Events that wait for one client. Clients share their text: 256 that never read hold 10 MB."""
_AT_ONCE = 64


class Subscription:
    """Events on their way to one client."""

    def __init__(self, public_key: bytes | None) -> None:
        self.public_key = public_key
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._ready = asyncio.Event()

    def put(self, event: bytes) -> None:
        self._ready.set()
        if len(self._waiting) >= _WAITING:
            self._lost += 1
            return
        self._tell_loss()
        self._waiting.append(event)

    async def feed(self, connection: socket.socket) -> None:
        """Writes what comes, for ever; ends with the connection."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                await self._ready.wait()
                count = min(len(self._waiting), _AT_ONCE)
                await loop.sock_sendall(
                    connection, b"".join(self._waiting.popleft() for _ in range(count))
                )
                if not self._waiting:
                    self._tell_loss()
                if not self._waiting:
                    self._ready.clear()
                await asyncio.sleep(0)

    def _tell_loss(self) -> None:
        """In the place of what was lost."""
        if self._lost:
            self._waiting.append(write_event("lost", time.time_ns(), {"count": self._lost}))
            self._lost = 0


class Events:
    """Passes each event to all who subscribed; `observe` is told whether there is anyone."""

    def __init__(self, observe: Callable[[Observer | None], None]) -> None:
        self._observe = observe
        self._subscriptions: set[Subscription] = set()

    @contextlib.contextmanager
    def subscribe(self, public_key: bytes | None) -> Iterator[Subscription]:
        """For as long as the context lasts; of one peer, or of all."""
        subscription = Subscription(public_key)
        self._subscriptions.add(subscription)
        self._observe(self._publish)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            if not self._subscriptions:
                self._observe(None)

    def _publish(self, kind: str, public_key: bytes, details: dict[str, object]) -> None:
        event = write_event(kind, time.time_ns(), {"public_key": public_key.hex(), **details})
        for one in self._subscriptions:
            if one.public_key in (None, public_key):
                one.put(event)
