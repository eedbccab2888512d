"""Plans the steps from the existing network to the wanted one.

The order keeps traffic in the tunnel: new things are added before old ones are removed, and a rule
that leads into a table is added after its routes and firewall, and removed before them.
"""

import ipaddress
from collections.abc import Iterator, Sequence

from wiresnake.model import Dns
from wiresnake.network.model import IPV6_MTU, MAIN_TABLE, Block, Guard, Network, Policy, Route, Rule
from wiresnake.network.steps import (
    AddressStep,
    BlockStep,
    DeleteStep,
    DnsStep,
    FirewallStep,
    LinkStep,
    RouteStep,
    RuleStep,
    SourceMarkStep,
    Step,
)

PLACEHOLDER = "192.0.0.8/32"
"""IPv4's dummy address (RFC 7600), added while all others change: together with an interface's last
IPv4 address the kernel removes all its IPv4 routes."""


def plan(interface: str, present: Network, wanted: Network | None, mark_valid: bool) -> list[Step]:
    """Returns the steps; none if both are equal. `mark_valid` says that src_valid_mark is already
    1.

    Without an interface (`present.mtu` 0) only what outlives it is removed.
    """
    return list(_plan(interface, present, wanted, mark_valid))


def _plan(
    interface: str, present: Network, wanted: Network | None, mark_valid: bool
) -> Iterator[Step]:
    gone = wanted is None
    wanted = wanted or Network(0)
    there = set(present.routes)
    if not gone:
        flushed = list(_flushed(present, wanted))
        yield from (_route(interface, False, one) for one in flushed)
        there.difference_update(flushed)
        link = []
        if (present.mtu, present.up) != (wanted.mtu, wanted.up):
            link = [LinkStep(interface, wanted.mtu, wanted.up, present.mtu, present.up)]
        if present.mtu < IPV6_MTU <= wanted.mtu:  # Before that the link accepts no IPv6 address.
            yield link.pop()
        yield from _addresses(interface, present.addresses, wanted.addresses)
        yield from link
        # In one call with their removal, before a program for DNS takes its time.
        yield from (_route(interface, True, one) for one in flushed if one in wanted.routes)
        there.update(set(flushed).intersection(wanted.routes))
        if wanted.dns.servers and wanted.dns != present.dns:
            yield DnsStep(interface, present.dns, wanted.dns)
        yield from (_route(interface, True, one) for one in wanted.routes if one not in there)
    if wanted.policy and 4 in wanted.policy.versions and not mark_valid:
        yield SourceMarkStep(interface)
    old_blocks, new_blocks = blocks(present.policy), blocks(wanted.policy)
    yield from (BlockStep(interface, True, False, x) for x in new_blocks if x not in old_blocks)
    had, wants = guards(present), guards(wanted)
    for version, guard in wants.items():
        if had.get(version) != guard:
            yield FirewallStep(interface, version, had.get(version), guard)
    yield from _rules(interface, rules(present.policy), rules(wanted.policy))
    yield from (BlockStep(interface, False, False, x) for x in old_blocks if x not in new_blocks)
    for version, guard in reversed(had.items()):
        if version not in wants:
            yield FirewallStep(interface, version, guard, None)
    if not gone:
        there.difference_update(wanted.routes)
        yield from (_route(interface, False, one) for one in present.routes if one in there)
    if present.dns.servers and not wanted.dns.servers:
        yield DnsStep(interface, present.dns, Dns())
    if gone and present.mtu:
        yield DeleteStep(interface)


def rules(policy: Policy | None) -> tuple[Rule, ...]:
    """Returns the existing rules, or the needed ones in the order in which they are added."""
    if policy is None:
        return ()
    if policy.rules is not None:
        return policy.rules
    return tuple(Rule(v, table) for v in policy.versions for table in (policy.mark, MAIN_TABLE))


def blocks(policy: Policy | None) -> tuple[Block, ...]:
    """Returns the existing blocks, or the needed ones."""
    if policy is None:
        return ()
    if policy.blocks is not None:
        return policy.blocks
    return tuple(Block(version, policy.mark) for version in policy.versions)


def guards(network: Network) -> dict[int, Guard]:
    """Returns the existing firewall by IP version, or the needed one."""
    policy = network.policy
    if policy is None:
        return {}
    if policy.guards is not None:
        return {guard.version: guard for guard in policy.guards}
    found = {}
    for version in policy.versions:
        own = (one for one in map(ipaddress.ip_interface, network.addresses))
        found[version] = Guard(
            version, policy.mark, tuple(str(one.ip) for one in own if one.version == version)
        )
    return found


def _flushed(present: Network, wanted: Network) -> Iterator[Route]:
    """Yields routes that the kernel would remove by itself, now or when this is undone: those of
    IPv4 with the last IPv4 address, those of IPv6 with an MTU that is too small."""
    ipv4 = _has_ipv4(present) != _has_ipv4(wanted)
    ipv6 = wanted.mtu < IPV6_MTU <= present.mtu
    return (one for one in present.routes if (ipv6 if ":" in one.prefix else ipv4))


def _has_ipv4(network: Network) -> bool:
    return any(":" not in address for address in network.addresses)


def _route(interface: str, add: bool, route: Route) -> Step:
    return RouteStep(interface, add, False, route)


def _rules(interface: str, had: Sequence[Rule], wants: Sequence[Rule]) -> Iterator[Step]:
    """Plans rules. A tunnel's copy of the main table's rule only works before its other rule, so it
    is added after it and removed before it."""
    old, new = _whose(had), _whose(wants)
    for key, rule in new.items():
        if key not in old:
            yield RuleStep(interface, True, False, rule)
    for key, rule in reversed(old.items()):
        if key not in new:
            yield RuleStep(interface, False, False, rule)


def _whose(found: Sequence[Rule]) -> dict[tuple[int, int, int], Rule]:
    """Identifies a rule by version, table, and the table of the rule after it."""
    keyed = {}
    owner = 0
    for rule in found:
        owner = owner if rule.table == MAIN_TABLE else rule.table
        keyed[rule.version, rule.table, owner] = rule
    return keyed


def _addresses(interface: str, had: Sequence[str], wants: Sequence[str]) -> Iterator[Step]:
    """Plans addresses. The common beginning stays, the rest is removed from its end, and wanted
    addresses are added. Undone in reverse, this restores the kernel's order exactly."""
    for version in (4, 6):
        old, new = in_kernels_order(had, version), in_kernels_order(wants, version)
        left_over = PLACEHOLDER in old and PLACEHOLDER not in new
        if left_over:  # of a change that was killed
            old.remove(PLACEHOLDER)
        same = 0
        while same < min(len(old), len(new)) and old[same] == new[same]:
            same += 1
        hold = version == 4 and not same and old and new and PLACEHOLDER not in [*old, *new]
        if hold and not left_over:
            yield _address(interface, True, PLACEHOLDER)
        yield from (_address(interface, False, one) for one in reversed(old[same:]))
        yield from (_address(interface, True, one) for one in new[same:])
        if hold or left_over:
            yield _address(interface, False, PLACEHOLDER)


def _address(interface: str, add: bool, address: str) -> Step:
    return AddressStep(interface, add, False, address)


def in_kernels_order(addresses: Sequence[str], version: int) -> list[str]:
    """Sorts addresses as the kernel does: IPv4 secondary addresses (in a network that already has
    one) after all others; IPv6 link-local before global ones."""
    own = [one for one in map(ipaddress.ip_interface, addresses) if one.version == version]
    if version == 6:
        own.sort(key=lambda one: not one.is_link_local)
        return list(map(str, own))
    first: dict[object, object] = {}
    for one in own:
        first.setdefault(one.network, one)
    return list(map(str, sorted(own, key=lambda one: first[one.network] != one)))
