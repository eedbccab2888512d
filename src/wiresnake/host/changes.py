"""Changes a host's network as one transaction: done whole, or undone whole.

    with changes.begin("wg0", say) as change:       # lock; mends what a killed one left
        change.do("ip link add dev wg0 type wireguard", create, undo=delete)
        ...keys and peers, hooks...
        change.to(wanted, file="/etc/wireguard/wg0.conf", backend="kernel")
        ...hooks...

Leaving the block by an exception, SIGINT (KeyboardInterrupt) or SIGTERM (SystemExit 143) undoes all
that was done in it, in reverse. `down` is `change.to(None)`: its last step deletes the interface,
which cannot be undone, so everything that may fail stands before it.
"""

import contextlib
from collections.abc import Callable, Iterator

from wiresnake.host.model import Network
from wiresnake.host.steps import Step

Say = Callable[[str], None]
"""Takes `ip -4 route add ...` without `[#]`."""


class Change:
    """One transaction on one interface; made by `begin`."""

    interface: str

    def do(self, says: str, action: Callable[[], None], undo: Callable[[], None]) -> None:
        """A step of the caller's own, which a signal may interrupt: `undo` is called even when
        `action` raised half-way, so it must bear that nothing was done."""
        raise NotImplementedError

    def to(self, wanted: Network | None, *, file: str = "", backend: str = "") -> None:
        """Makes the host's network what is wanted for the interface, from whatever is there; None
        removes everything and the interface too. A HostError names the very step."""
        raise NotImplementedError

    def present(self) -> Network | None:
        """What is there now and is ours: routes and addresses that hooks added are not, when the
        state file says what `up` had added."""
        raise NotImplementedError

    def plan(self, wanted: Network | None) -> list[Step]:
        """What `to` would do: for `reload --diff`."""
        raise NotImplementedError


@contextlib.contextmanager
def begin(interface: str, say: Say = lambda _: None) -> Iterator[Change]:
    """Takes the interface's lock (waits, and says that it waits), mends what a killed change left,
    and rolls back if the block fails."""
    raise NotImplementedError
    yield


def leftovers(interface: str) -> Network | None:
    """What a killed `up`, `down` or `reload` may have left: the union of before and after; None
    if none was killed."""
    raise NotImplementedError


def mend(interface: str, say: Say = lambda _: None) -> bool:
    """Puts the host back to before the killed change, and whatever belongs to an interface that is
    gone away. True if something was done. `begin` does it by itself."""
    raise NotImplementedError
