"""Records in /run/wiresnake what was done to the host for an interface, without secrets.

Before its first step a change writes its beginning and its end, so that the next run after a kill
knows everything that may exist. wg-quick needs no such folder, so a folder that cannot be made does
not keep an interface down: then the record is in the folder of the sockets, or there is none.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from wiresnake.errors import HostError
from wiresnake.linux import files
from wiresnake.model import Dns
from wiresnake.network.model import Block, Guard, Network, Policy, Route, Rule

DIRECTORY = Path("/run/wiresnake")
SECOND = Path("/run/wireguard/wiresnake")
"""In a container with a read-only root, /run/wireguard may be the only folder that can be
written."""
PATIENCE = 60.0
"""Seconds to wait for another change of the same interface."""


class DeviceBefore(NamedTuple):
    """The device before a change; None: unchanged."""

    mark: int | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    index: int
    """The interface's index when this was written, 0 if there was none. An interface made by
    another program since has another index."""
    network: Network | None
    """The network after the last complete change; None: nothing."""
    file: str = ""
    """The path of the configuration."""
    backend: str = ""
    """`kernel` or `user`."""
    changing: bool = False
    """A change from `network` to `to` has begun."""
    to: Network | None = None
    ours: bool = True
    """Whether we made `network`; otherwise it was found, as wg-quick made it."""
    device: DeviceBefore = DeviceBefore()  # noqa: RUF009  # a tuple
    unguarded: tuple[int, ...] = ()
    """The IP versions whose firewall this host cannot have."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Returns everything that may exist."""
        return tuple(one for one in (self.network, self.to) if one)

    @property
    def marks(self) -> frozenset[int]:
        return frozenset(one.policy.mark for one in self.networks if one.policy)


def read(interface: str) -> JournalEntry | None:
    """Returns None if the file is missing or malformed."""
    try:
        if (path := find(f"{interface}.json")) is None:
            return None
        found = frozen(json.loads(path.read_text()))
        return JournalEntry(
            found["index"],
            _network(found["network"]),
            found["file"],
            found["backend"],
            found["changing"],
            _network(found["to"]),
            found["ours"],
            DeviceBefore(*found.get("device", ())),
            found.get("unguarded", ()),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise _failure(error) from None


def marks_of_others(interface: str) -> dict[int, str]:
    """Returns the marks, which are also tables, in the records of other interfaces, each with one
    interface."""
    names = {
        file.stem
        for folder in (DIRECTORY, SECOND)
        for file in folder.glob("*.json")
        if file.stem != interface
    }
    return {mark: name for name in sorted(names) if (found := read(name)) for mark in found.marks}


def write(interface: str, state: JournalEntry | None) -> None:
    """Replaces the file at once; None removes it. Without any folder there is no record."""
    if state is None:
        if found := find(f"{interface}.json"):
            found.unlink(missing_ok=True)
        return
    if (path := place(f"{interface}.json")) is None:
        return
    try:
        files.replace(path, json.dumps(_plain(state), default=_plain).encode())
    except OSError as error:
        raise HostError(error.errno, f"{path.parent}: {error.strerror}") from None


@contextlib.contextmanager
def lock(interface: str, say: Callable[[str], None]) -> Iterator[None]:
    """Allows only one change of an interface at a time. A killed process releases its lock."""
    if (path := place(f"{interface}.lock")) is None:
        say(
            f"neither {DIRECTORY} nor {SECOND} can be written: continuing without a record, so"
            " nothing can clean up after a kill. In a container, add --tmpfs /run/wiresnake"
        )
        yield
        return
    try:
        held = _locked(path, interface, say)
    except OSError as error:
        if isinstance(error, HostError):
            raise
        raise _failure(error) from None
    try:
        yield
    finally:
        if find(f"{interface}.json") is None:
            path.unlink(missing_ok=True)
        os.close(held)


def find(name: str) -> Path | None:
    """Returns the path of an existing file, or None. OSError without permission."""
    return next((one / name for one in (DIRECTORY, SECOND) if (one / name).exists()), None)


def place(name: str) -> Path | None:
    """Returns the path for a new file, in a folder that only root can read; None if there is
    none."""
    for folder in (DIRECTORY, SECOND):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder / name
    return None


def _locked(path: Path, interface: str, say: Callable[[str], None]) -> int:
    deadline = time.monotonic() + PATIENCE
    waits = False
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            files.lock(held, wait=False)
            if path.exists() and path.stat().st_ino == os.fstat(held).st_ino:
                # The disk is full; the number only informs others.
                with contextlib.suppress(OSError):
                    os.ftruncate(held, 0)
                    os.write(held, b"%d\n" % os.getpid())
                return held
        except BlockingIOError:
            holder = os.pread(held, 16, 0).decode().strip()
            if holder in _ancestors():
                os.close(held)
                what = (
                    f"process {holder} is changing {interface} and runs this as its hook, which"
                    " cannot change it meanwhile. In a hook use `wiresnake set'"
                )
                raise HostError(errno.EDEADLK, what) from None
            if time.monotonic() > deadline:
                what = f"process {holder} is still changing {interface}: end it or wait for it"
                raise HostError(what) from None
            if not waits:
                say(f"process {holder} is changing {interface}: waiting for it")
            waits = True
            time.sleep(0.02)
        os.close(held)


def _ancestors() -> Iterator[str]:
    """Returns the processes that wait for us, directly or indirectly."""
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


def _plain(value: Any) -> dict[str, object]:  # one of two dataclasses
    return {field.name: getattr(value, field.name) for field in fields(value)}


def frozen(value: Any) -> Any:
    """What was read from JSON, with tuples for its lists."""
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def _network(found: Any) -> Network | None:  # from JSON
    if found is None:
        return None
    policy = found["policy"]
    return Network(
        found["mtu"],
        found["addresses"],
        tuple(Route(*one) for one in found["routes"]),
        policy and _policy(*policy),
        Dns(*found["dns"]),
        found["up"],
    )


def _policy(mark: int, versions: tuple[int, ...], *found: Any) -> Policy:
    """`found`: rules, guards and, in records of today, blocks; None of what is not known."""
    kinds = zip((Rule, Guard, Block), found, strict=False)
    parts = (None if own is None else tuple(kind(*one) for one in own) for kind, own in kinds)
    return Policy(mark, versions, *parts)
