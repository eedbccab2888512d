"""What was done to the host for an interface, kept in /run/wiresnake: no secrets.

A change writes before its first step where it comes from and where it goes, so that whoever finds
the file after a kill knows all that may be there.
"""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from wiresnake.errors import HostError
from wiresnake.host.model import Block, Dns, Guard, Network, Policy, Route, Rule

DIRECTORY = Path("/run/wiresnake")
PATIENCE = 60.0
"""Seconds to wait for another change of the interface."""


class Former(NamedTuple):
    """Of the device itself, before a change; None: it does not change."""

    mark: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    index: int
    """The interface's number when this was written, 0 if there was none: one made by somebody else
    since has another."""
    network: Network | None
    """As the last whole change left it; None: nothing."""
    file: str = ""
    """The configuration it comes from."""
    backend: str = ""
    """`kernel` or `user`."""
    changing: bool = False
    """A change from `network` to `to` has begun."""
    to: Network | None = None
    ours: bool = True
    """Whether a change of ours made `network`; else it is what was found, as wg-quick made it."""
    device: Former = Former()  # noqa: RUF009  # a tuple

    @property
    def networks(self) -> tuple[Network, ...]:
        """Everything that may be there."""
        return tuple(one for one in (self.network, self.to) if one)

    @property
    def marks(self) -> frozenset[int]:
        return frozenset(one.policy.mark for one in self.networks if one.policy)


def read(interface: str) -> State | None:
    """None without a file, or with one that nobody could have written."""
    try:
        found = json.loads(_path(interface).read_text())
        return State(
            found["index"],
            _network(found["network"]),
            found["file"],
            found["backend"],
            found["changing"],
            _network(found["to"]),
            found["ours"],
            Former(*found.get("device", ())),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise _failure(error) from None


def write(interface: str, state: State | None) -> None:
    """Replaces the file as one; None removes it."""
    path = _path(interface)
    if state is None:
        path.unlink(missing_ok=True)
        return
    new = path.with_suffix(".new")
    text = json.dumps(_plain(state), default=_plain)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise _failure(error) from None


@contextlib.contextmanager
def lock(interface: str, say: Callable[[str], None]) -> Iterator[None]:
    """Only one change of an interface at a time; a killed one holds nothing."""
    try:
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = _locked(interface, say)
    except OSError as error:
        if isinstance(error, HostError):
            raise
        raise _failure(error) from None
    try:
        yield
    finally:
        if not _path(interface).exists():
            _lock_path(interface).unlink(missing_ok=True)
        os.close(held)


def _locked(interface: str, say: Callable[[str], None]) -> int:
    path = _lock_path(interface)
    deadline = time.monotonic() + PATIENCE
    waits = False
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(held).st_ino:
                with contextlib.suppress(OSError):  # A full disk; it is only to tell others.
                    os.ftruncate(held, 0)
                    os.write(held, b"%d\n" % os.getpid())
                return held
        except BlockingIOError:
            holder = os.pread(held, 16, 0).decode().strip()
            if holder in _ancestors():
                os.close(held)
                what = (
                    f"process {holder} is changing {interface} and runs this as its hook, which"
                    " cannot change it meanwhile. In a hook take `wiresnake set'"
                )
                raise HostError(errno.EDEADLK, what) from None
            if time.monotonic() > deadline:
                what = f"process {holder} is still changing {interface}: end it, or wait for it"
                raise HostError(what) from None
            if not waits:
                say(f"process {holder} is changing {interface}: waiting for it")
            waits = True
            time.sleep(0.02)
        os.close(held)


def _ancestors() -> Iterator[str]:
    """The processes that wait for us, or for one that does."""
    pid = os.getppid()
    while pid:
        yield str(pid)
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return
        pid = int(text.rpartition(")")[2].split()[1])


def _failure(error: OSError) -> HostError:
    return HostError(error.errno, f"{error.filename or DIRECTORY}: {error.strerror}")


def _path(interface: str) -> Path:
    return DIRECTORY / f"{interface}.json"


def _lock_path(interface: str) -> Path:
    return DIRECTORY / f"{interface}.lock"


def _plain(value: Any) -> dict[str, object]:  # one of two dataclasses
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _network(found: Any) -> Network | None:  # from JSON
    if found is None:
        return None
    policy = found["policy"]
    return Network(
        found["mtu"],
        tuple(found["addresses"]),
        tuple(Route(*one) for one in found["routes"]),
        policy and _policy(*policy),
        Dns(*map(tuple, found["dns"])),
        found["up"],
    )


def _policy(mark: int, versions: list[int], rules: Any, guards: Any, blocks: Any = None) -> Policy:
    return Policy(
        mark,
        tuple(versions),
        None if rules is None else tuple(Rule(*one) for one in rules),
        None if guards is None else tuple(Guard(v, m, tuple(own)) for v, m, own in guards),
        None if blocks is None else tuple(Block(*one) for one in blocks),
    )
