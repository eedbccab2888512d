"""Changes a host's network as one transaction, which is done or undone as a whole.

    with changes.begin("wg0", say) as change:       # lock; cleans up after a killed one
        change.do("ip link add dev wg0 type wireguard", create, undo=delete)
        ...keys and peers, hooks...
        change.to(wanted, file="/etc/wireguard/wg0.conf", backend="kernel")
        ...hooks...

An exception, SIGINT (KeyboardInterrupt), SIGTERM or SIGHUP (SystemExit) undoes everything that was
done in the block, in reverse. `down` is `change.to(None)`. Its last step deletes the interface,
which cannot be undone, so everything that may fail comes before it.
"""

import contextlib
import errno
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from wiresnake.errors import HostError
from wiresnake.linux import sysctl
from wiresnake.linux.rtnetlink import RouteNetlink
from wiresnake.model import Dns
from wiresnake.network import dns, journal, observe
from wiresnake.network.journal import DeviceBefore, JournalEntry
from wiresnake.network.model import Network
from wiresnake.network.plan import PLACEHOLDER, plan
from wiresnake.network.signals import Signals
from wiresnake.network.steps import (
    BlockStep,
    DeleteStep,
    FirewallStep,
    NetlinkStep,
    ProgramStep,
    RouteStep,
    RuleStep,
    Step,
    Toggle,
)

Say = Callable[[str], None]
"""Receives a line without `[#]` or `wiresnake:`."""

Restore = Callable[[DeviceBefore], None]
"""Restores what a killed change did to the device itself. It only warns about failures."""

_GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)


class Call(NamedTuple):
    """A step of the caller."""

    says: str
    undo: Callable[[], None]


class Change:
    """One transaction on one interface; made by `begin`."""

    def __init__(self, interface: str, say: Say, warn: Say) -> None:
        self.interface = interface
        self._say, self._warn = _unheard(say), _unheard(warn)
        self._found = journal.read(interface)
        if self._found and not observe.exists(interface):
            outlived, before = observe.remains(interface, self._found.marks), self._found.network
            if before and not outlived.dns.servers:  # Not every resolver reports its name servers.
                outlived = replace(outlived, dns=before.dns)
            self._found = replace(self._found, index=0, network=outlived)
        self._new = self._found
        # wg-quick brought it up and we have no record, so the present network is what to return to.
        self._at_first = observe.read(interface) if self._found is None else None
        self._done: list[Step | Call] = []
        self._decided = False
        self._unguarded: set[int] = set()
        self._signals = Signals()
        self.claimed: Network | None = None
        """The part of the existing network that is ours, besides what is wanted. None: what the
        record says, or everything without a record. Set it before `plan`."""
        self.device_before = DeviceBefore()
        """The device's state before the change, for recovery. Set it before the device is
        changed."""
        self.dns = Dns()
        """Name servers in the interface's file, used if we have no record of what was set: wg-quick
        removes those, too."""

    def do(self, says: str, action: Callable[[], None], undo: Callable[[], None]) -> None:
        """Carries out a step of the caller, which a signal may interrupt. `undo` is called even if
        `action` raised half-way, so it must accept that nothing was done."""
        if self._new is self._found:
            self._journal(None)
        self._done.append(Call(says, undo))
        if says:
            self._say(says)
        action()

    def to(self, wanted: Network | None, *, file: str = "", backend: str = "") -> None:
        """Changes the host's network to the wanted one. None removes everything including the
        interface, which cannot be undone any more. A HostError names the failed step."""
        wanted = self._without_block(wanted)
        if wanted:
            dns.require(wanted.dns)
        steps = self.plan(wanted)
        with self._signals.held():
            self._decided = True
            try:
                self._journal(wanted, file, backend)
            except HostError as error:
                if wanted:
                    raise
                # A full disk must not keep an interface up; another `down` finds what is left.
                self._warn(f"{error.strerror}: continuing without a record")
            self._carry_out(steps)

    @contextlib.contextmanager
    def opened(self, warn: Say) -> Iterator[None]:
        """While entered, traffic bypasses a tunnel whose daemon is dead, for names that are only
        known outside; `warn` is warned first. Afterwards the traffic is held back again, also if
        the whole change fails."""
        outlived = observe.remains(self.interface, self._marks)
        outlived = replace(outlived, dns=self._name_servers(outlived.dns, None))
        steps = plan(self.interface, outlived, None, mark_valid=True)
        if steps:
            warn(f"until that is done, traffic bypasses {self.interface}")
        at = len(self._done)
        with self._signals.held():
            self._carry_out(steps)
        yield
        with self._signals.held():
            self._carry_out([step.inverse() for step in reversed(steps)])
            del self._done[at:]

    def plan(self, wanted: Network | None) -> list[Step]:
        """Returns the steps that `to` would carry out."""
        wanted = self._without_block(wanted)
        present = self.present(wanted)
        if present is None:
            present = observe.remains(self.interface, self._marks)
            present = replace(present, dns=self._name_servers(present.dns, wanted))
        return plan(self.interface, present, wanted, sysctl.source_mark_is_valid())

    def lines(self, wanted: Network | None) -> list[str]:
        """Returns what `to` would change, as text, without a firewall that this host cannot
        have."""
        known = self._found.unguarded if self._found else ()
        return [
            line
            for step in self.plan(wanted)
            if (line := str(step))
            if not (isinstance(step, FirewallStep) and not step.before and step.version in known)
        ]

    def present(self, wanted: Network | None = None) -> Network | None:
        """Returns the existing network that is ours. If the state file or `claimed` says what is
        ours, addresses, routes and name servers added by hooks are not. What is wanted is always
        ours."""
        network = observe.read(self.interface, self._marks)
        if network is None:
            return None
        network = replace(network, dns=self._name_servers(network.dns, wanted))
        if self.claimed is None and not self.recorded:
            return network
        known = self._found.networks if self._found else ()
        mine = [
            *(known if self.claimed is None else (self.claimed,)),
            *([wanted] if wanted else []),
        ]
        if wanted and not any(one.dns.servers for one in mine):
            network = replace(network, dns=Dns())
        addresses = {PLACEHOLDER, *(address for one in mine for address in one.addresses)}
        routes = {route for one in mine for route in one.routes}
        return replace(
            network,
            addresses=tuple(one for one in network.addresses if one in addresses),
            routes=tuple(one for one in network.routes if one in routes),
        )

    def _without_block(self, wanted: Network | None) -> Network | None:
        """Returns whether only the block is missing, which is not a difference, because wg-quick
        does not make blocks."""
        before = self._found.network if self._found else self._at_first
        made = before.policy if before and before.mtu else None
        if wanted and wanted.policy and made and made.blocks == ():
            return replace(wanted, policy=wanted.policy._replace(blocks=()))
        return wanted

    def _name_servers(self, told: Dns, wanted: Network | None) -> Dns:
        """Returns the name servers that are set, or may be: what the resolver reports, or else what
        the record says. A killed change may have got to either end; the unwanted one counts, so
        that the wanted one is set."""
        if told.servers:
            return told
        known, index = self._found, observe.index(self.interface)
        if known and index and known.index not in (0, index):
            known = None  # The record is of another interface with this name.
        ends = [self.dns]
        if known:
            both = [known.network, known.to] if known.changing else [known.network]
            ends = [one.dns if one else Dns() for one in both]
        if not any(one.servers for one in ends) or dns.repeats():
            return told
        wish = wanted.dns if wanted else Dns()
        return next((one for one in ends if one != wish), wish)

    @property
    def recorded(self) -> bool:
        """Returns whether the state file says what we added to this very interface."""
        return self._found is not None and self._found.index == observe.index(self.interface)

    @property
    def _marks(self) -> frozenset[int]:
        return self._found.marks if self._found else frozenset()

    def _journal(self, wanted: Network | None, file: str = "", backend: str = "") -> None:
        old = self._found or JournalEntry(0, self._at_first, ours=self._at_first is None)
        new = JournalEntry(
            observe.index(self.interface),
            old.network,
            file or old.file,
            backend or old.backend,
            changing=True,
            to=wanted,
            ours=old.ours,
            device=self.device_before,
        )
        journal.write(self.interface, new)
        self._new = new

    def _carry_out(self, steps: Sequence[Step]) -> None:
        for group in _groups(steps):
            self._signals.check()
            for line in filter(None, map(str, group)):
                self._say(line)
            first = group[0]
            if isinstance(first, ProgramStep):
                self._done.append(first)  # Its inverse accepts that it was only half done.
                self._run(first)
                continue
            refused = _request(self.interface, group)
            self._done += (one for at, one in enumerate(group) if at not in refused)
            for at, error in sorted(refused.items()):
                raise observe.failure(str(group[at]), _explained(group[at], error))
            if isinstance(first, DeleteStep):
                self._done.clear()
                self._found = self._new = None
                journal.write(self.interface, None)

    def _run(self, step: ProgramStep) -> None:
        try:
            if warning := step.carry_out():
                self._warn(warning)
                if isinstance(step, FirewallStep):
                    self._unguarded.add(step.version)
        except OSError as error:
            raise observe.failure(str(step), error) from None

    def _finish(self) -> None:
        """Records that everything is done."""
        with self._signals.held():
            new = self._new
            if new is self._found or new is None:
                return
            if not self._decided:
                journal.write(self.interface, self._found)
                return
            now = replace(new, network=new.to, to=None, changing=False, ours=True)
            now = replace(now, index=observe.index(self.interface), device=DeviceBefore())
            now = replace(now, unguarded=tuple(sorted(self._unguarded)))
            journal.write(self.interface, now if now.network else None)

    def _roll_back(self) -> None:
        """Undoes everything in reverse. What cannot be undone is reported, on the same line as its
        reason, and the rest is undone."""
        whole = True
        if self._done:
            self._say("undoing what was done")
        for one in _runs(reversed(self._done)):
            try:
                if isinstance(one, Call):
                    one.undo()
                else:
                    self._undo(one)
            except Exception as error:  # The rest must be undone in any case.
                whole = False
                said = error.strerror if isinstance(error, OSError) else None
                self._warn(f"could not be undone: {said or error}")
        if whole and self._new is not self._found:
            try:
                journal.write(self.interface, self._found)
            except HostError as error:  # The next change repeats it, which does no harm.
                self._warn(f"{error.strerror}: the record could not be undone")

    def _undo(self, group: Sequence[Step]) -> None:
        first = group[0]
        if isinstance(first, ProgramStep):
            self._run(first)
        elif isinstance(first, (RuleStep, BlockStep)) or observe.exists(self.interface):
            for at, error in _request(self.interface, group).items():
                step = group[at]
                adds = isinstance(step, Toggle) and step.add
                if error.errno not in ((errno.EEXIST,) if adds else _GONE):
                    raise observe.failure(str(step), error)


@contextlib.contextmanager
def begin(interface: str, say: Say, warn: Say, restore: Restore) -> Iterator[Change]:
    """Takes the interface's lock (and warns if it has to wait), cleans up after a killed change,
    and rolls back if the block fails.

    What outlived an interface stays, and `to` makes it part of the next one: between the end of a
    daemon and the next `up` no traffic bypasses the tunnel.
    """
    with journal.lock(interface, warn):
        if observe.exists(interface) or leftovers(interface):
            _recover(interface, say, warn, restore)
        change = Change(interface, say, warn)
        with change._signals:
            try:
                yield change
                change._finish()
            except BaseException:
                change._signals.ignore()
                change._roll_back()
                raise


def held_back(interface: str) -> int:
    """Returns the mark that bypasses what outlived the interface and holds its traffic back; 0 if
    nothing does, or the interface exists."""
    found = journal.read(interface)
    return max(found.marks, default=0) if found and not observe.exists(interface) else 0


def leftovers(interface: str) -> Network | None:
    """Returns what a killed `up`, `down` or `reload` may have left, the union of before and after;
    None if none was killed."""
    found = journal.read(interface)
    if not found or not found.changing:
        return None
    first, *more = (*found.networks, Network(0))
    for one in more:
        first = replace(
            first,
            addresses=tuple(dict.fromkeys(first.addresses + one.addresses)),
            routes=tuple(dict.fromkeys(first.routes + one.routes)),
            policy=first.policy or one.policy,
            dns=first.dns if first.dns.servers else one.dns,
        )
    return first


def recover(interface: str, say: Say, warn: Say, restore: Restore) -> bool:
    """Restores the host to before the killed change, and removes whatever outlived an interface.
    Returns whether something was done. `begin` does the former by itself."""
    with journal.lock(interface, warn):
        return _recover(interface, say, warn, restore)


def _recover(interface: str, say: Say, warn: Say, restore: Restore) -> bool:
    found = journal.read(interface)
    if found is None:
        return False
    index = observe.index(interface)
    if index and not found.changing:
        return False
    if index and found.index and index != found.index:
        # Another interface has the name by now, so nothing existing is ours.
        journal.write(interface, None)
        return False
    wanted = found.network if index and found.network and found.network.mtu else None
    change = Change(interface, say, warn)
    with change._signals, change._signals.held():
        if wanted:
            restore(found.device)
        change._carry_out(change.plan(wanted))
        whole = replace(found, changing=False, to=None, device=DeviceBefore())
        journal.write(interface, whole if wanted and found.ours else None)
    return True


def _unheard(say: Say) -> Say:
    """Ignores write errors: a closed terminal or pipe must not stop the undoing."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):
            say(line)

    return tell


def _groups(steps: Iterable[Step]) -> list[list[Step]]:
    """Groups the steps for one call: many routes, whose order does not matter. Others go one by
    one, so that nothing follows a failed step."""

    def kind(numbered: tuple[int, Step]) -> tuple[object, ...]:
        at, step = numbered
        return (RouteStep, step.add) if isinstance(step, RouteStep) else (at,)

    return [[step for _, step in group] for _, group in groupby(enumerate(steps), kind)]


def _runs(done: Iterable[Step | Call]) -> Iterator[Call | list[Step]]:
    """Groups calls one by one, and between them the steps that undo."""
    for _, run in groupby(done, lambda one: isinstance(one, Call)):
        steps = []
        for one in run:
            if isinstance(one, Call):
                yield one
            else:
                steps.append(one.inverse())
        yield from _groups(steps)


def _request(interface: str, steps: Sequence[Step]) -> dict[int, OSError]:
    """Sends the requests; returns what the kernel refused, by position."""
    index = observe.index(interface)
    with RouteNetlink() as kernel:
        requests = [step.request(index) for step in steps if isinstance(step, NetlinkStep)]
        return dict(kernel.carry_out(requests))


def _explained(step: Step, error: OSError) -> OSError:
    """Returns the error of a step, with a remedy if the kernel's text does not suggest one."""
    if " -6 " in str(step) and error.errno in (errno.EACCES, errno.EAFNOSUPPORT):
        remedy = (
            f"IPv6 is off for {step.interface}. Switch it on"
            f" (sysctl -w net.ipv6.conf.{step.interface}.disable_ipv6=0, or"
            " net.ipv6.conf.default.disable_ipv6=0 for new interfaces), or remove the IPv6"
            " addresses from Address and AllowedIPs"
        )
        return OSError(error.errno, f"{error.strerror}: {remedy}")
    if isinstance(step, RouteStep) and step.add and error.errno == errno.EEXIST:
        network = ipaddress.ip_network(step.route.prefix)
        device = observe.routed_by(step.route.table).get(step.route.prefix, "another interface")
        remedy = f"{device} already leads to {network}. Remove that network from AllowedIPs"
        if network.prefixlen < network.max_prefixlen:
            halves = ", ".join(map(str, network.subnets()))
            remedy += f", or write its halves, {halves}, to send all of it into the tunnel"
        return OSError(error.errno, f"{error.strerror}: {remedy}")
    return error
