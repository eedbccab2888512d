"""The steps by which a host's network changes: what each prints, how it is done and undone.

`str(step)` is the line that wg-quick echoes, without `[#]`, although no such program is started.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from wiresnake.linux import rtnetlink, sysctl
from wiresnake.linux.netlink import Request
from wiresnake.model import Dns
from wiresnake.network import dns, firewall
from wiresnake.network.model import MAIN_TABLE, Block, Guard, Route, Rule

BLOCK_METRIC = 4_000_051_820
"""A metric worse than that of any route that an administrator adds to a tunnel's table, and used by
nobody else."""


@dataclass(frozen=True, slots=True)
class Step:
    interface: str

    @abstractmethod
    def inverse(self) -> "Step":
        """Returns the step that undoes this one, even if it was not done or only half done."""


@dataclass(frozen=True, slots=True)
class NetlinkStep(Step):
    """A request to the kernel; consecutive ones are sent in one call."""

    @abstractmethod
    def request(self, index: int) -> Request:
        """Returns the request; `index` is the interface's."""


@dataclass(frozen=True, slots=True)
class Toggle(NetlinkStep):
    """A step that adds or removes something, which is the only difference between doing and
    undoing."""

    add: bool
    again: bool
    """An addition that undoes a removal, and so takes its old place before similar ones."""

    def inverse(self) -> Self:
        return replace(self, add=not self.add, again=not self.add)

    @property
    def verb(self) -> str:
        return "add" if self.add else "delete"

    def _flags(self) -> int:
        if not self.add:
            return rtnetlink.DELETE
        return rtnetlink.CREATE if self.again else rtnetlink.CREATE | rtnetlink.EXCLUSIVE


@dataclass(frozen=True, slots=True)
class AddressStep(Toggle):
    address: str

    def __str__(self) -> str:
        version = 6 if ":" in self.address else 4
        return f"ip -{version} address {self.verb} {self.address} dev {self.interface}"

    def request(self, index: int) -> Request:
        return rtnetlink.address_request(self._flags(), index, self.address)


@dataclass(frozen=True, slots=True)
class RouteStep(Toggle):
    route: Route

    def __str__(self) -> str:
        version = 6 if ":" in self.route.prefix else 4
        table = "" if self.route.table == MAIN_TABLE else f" table {self.route.table}"
        return f"ip -{version} route {self.verb} {self.route.prefix} dev {self.interface}{table}"

    def request(self, index: int) -> Request:
        return rtnetlink.route_request(self._flags(), index, self.route.prefix, self.route.table)


@dataclass(frozen=True, slots=True)
class BlockStep(Toggle):
    """Adds or removes a block. An existing block is accepted, because stock wg-quick leaves it when
    it takes a tunnel down."""

    block: Block

    def __str__(self) -> str:
        version, table = self.block
        what = f"unreachable default metric {BLOCK_METRIC} table {table}"
        return f"ip -{version} route {self.verb} {what}"

    def request(self, index: int) -> Request:
        flags = rtnetlink.CREATE | rtnetlink.REPLACE if self.add else rtnetlink.DELETE
        version, table = self.block
        return rtnetlink.unreachable_request(flags, version, table, BLOCK_METRIC)


@dataclass(frozen=True, slots=True)
class RuleStep(Toggle):
    rule: Rule

    def __str__(self) -> str:
        what = f"table {self.rule.table}"
        if self.rule.table == MAIN_TABLE:
            what = "table main suppress_prefixlength 0"
        elif self.add:
            what = f"not fwmark {self.rule.table} {what}"
        return f"ip -{self.rule.version} rule {self.verb} {what}"

    def request(self, index: int) -> Request:
        rule = self.rule
        mark = None if rule.table == MAIN_TABLE else rule.table
        return rtnetlink.rule_request(
            self._flags(), rule.version, rule.table, unless_mark=mark, priority=rule.priority
        )


@dataclass(frozen=True, slots=True)
class LinkStep(NetlinkStep):
    """Sets the MTU, and the link up or down."""

    mtu: int
    up: bool
    old_mtu: int
    old_up: bool

    def __str__(self) -> str:
        return f"ip link set mtu {self.mtu} {'up' if self.up else 'down'} dev {self.interface}"

    def inverse(self) -> "LinkStep":
        return LinkStep(self.interface, self.old_mtu, self.old_up, self.mtu, self.up)

    def request(self, index: int) -> Request:
        return rtnetlink.link_request(index, self.mtu, self.up)


@dataclass(frozen=True, slots=True)
class DeleteStep(NetlinkStep):
    """Deletes the interface with its addresses and routes. This cannot be undone, so it comes
    last."""

    def __str__(self) -> str:
        return f"ip link delete dev {self.interface}"

    def inverse(self) -> Step:
        raise AssertionError("a deleted interface cannot come back")

    def request(self, index: int) -> Request:
        return rtnetlink.delete_link_request(index)


@dataclass(frozen=True, slots=True)
class ProgramStep(Step):
    """A step that another program carries out, or a file in /proc."""

    @abstractmethod
    def carry_out(self) -> str | None:
        """Carries the step out. Returns a warning if it failed, but is not essential."""


@dataclass(frozen=True, slots=True)
class FirewallStep(ProgramStep):
    """Replaces wg-quick's anti-spoofing rules for one IP version at once."""

    version: int
    before: Guard | None
    after: Guard | None

    def __str__(self) -> str:
        return firewall.command(self.version)

    def inverse(self) -> "FirewallStep":
        return replace(self, before=self.after, after=self.before)

    def carry_out(self) -> str | None:
        return firewall.replace(self.interface, self.version, self.before, self.after)


@dataclass(frozen=True, slots=True)
class DnsStep(ProgramStep):
    before: Dns
    after: Dns

    def __str__(self) -> str:
        return dns.command(self.interface, self.after)

    def inverse(self) -> "DnsStep":
        return DnsStep(self.interface, self.after, self.before)

    def carry_out(self) -> str | None:
        return dns.replace(self.interface, self.after)


@dataclass(frozen=True, slots=True)
class SourceMarkStep(ProgramStep):
    """Sets src_valid_mark, so that the reverse path filter takes the mark into account.

    It belongs to the whole host: `down` leaves it, as wg-quick does, and only a failure resets it.
    """

    value: int = 1

    def __str__(self) -> str:
        return f"sysctl -q {sysctl.SOURCE_MARK}={self.value}"

    def inverse(self) -> "SourceMarkStep":
        return SourceMarkStep(self.interface, 1 - self.value)

    def carry_out(self) -> str | None:
        return sysctl.write_source_mark(self.value)
