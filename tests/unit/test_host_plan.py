"""Any network into any other, on a model of the kernel: what is done, and what undoes it."""

import ipaddress
from dataclasses import dataclass, field, replace

from hypothesis import example, given
from hypothesis import strategies as st

from wiresnake.model import Dns
from wiresnake.network.model import MAIN_TABLE, Block, Guard, Network, Policy, Route, Rule
from wiresnake.network.observe import covered, own_rules
from wiresnake.network.plan import blocks, guards, in_kernels_order, plan, rules
from wiresnake.network.steps import (
    AddressStep,
    BlockStep,
    DeleteStep,
    DnsStep,
    FirewallStep,
    LinkStep,
    ProgramStep,
    RouteStep,
    RuleStep,
    SourceMarkStep,
    Step,
)

MARKS = (51820, 51821)
OTHERS_MARK = 51999
ADDRESSES = (
    *("10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/32", "10.1.0.1/16", "10.1.0.2/16"),
    *("fd09::1/64", "fd09::2/64", "fe80::7/64", "2001:db8::1/128"),
)
PREFIXES = ("10.2.0.0/16", "10.3.0.0/24", "192.0.2.0/24", "fd77::/64", "2001:db8:1::/48")
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass
class Kernel:
    """As far as one interface goes, and another tunnel's rules."""

    mtu: int = 1420
    up: bool = False
    addresses: dict[int, list[str]] = field(default_factory=lambda: {4: [], 6: []})
    routes: set[Route] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    guards: dict[int, Guard] = field(default_factory=dict)
    blocks: set[Block] = field(default_factory=set)
    dns: Dns = field(default_factory=Dns)
    source_mark: int = 0
    exists: bool = True

    def carry_out(self, step: Step) -> None:
        match step:
            case AddressStep():
                self._address(step.add, step.address)
            case RouteStep():
                assert (step.route in self.routes) != step.add
                (self.routes.add if step.add else self.routes.remove)(step.route)
            case BlockStep():
                assert (step.block in self.blocks) != step.add
                (self.blocks.add if step.add else self.blocks.remove)(step.block)
            case RuleStep():
                self._rule(step.add, step.rule)
            case LinkStep():
                assert (self.mtu, self.up) == (step.old_mtu, step.old_up)
                self.mtu, self.up = step.mtu, step.up
            case FirewallStep():
                assert self.guards.get(step.version) == step.before
                if step.after:
                    self.guards[step.version] = step.after
                else:
                    del self.guards[step.version]
            case DnsStep():
                assert self.dns == step.before
                self.dns = step.after
            case SourceMarkStep():
                assert self.source_mark != step.value
                self.source_mark = step.value
            case DeleteStep():
                self.exists = False
                self.addresses, self.routes = {4: [], 6: []}, set()

    def _address(self, add: bool, text: str) -> None:
        one = ipaddress.ip_interface(text)
        own = self.addresses[one.version]
        assert (text in own) != add
        if not add:
            own.remove(text)
            alike = [other for other in own if ipaddress.ip_interface(other).network == one.network]
            assert one.version == 6 or not alike or self._is_secondary(text, alike), (
                "the kernel would remove or promote the secondaries"
            )
            ipv4_routes = [route for route in self.routes if ":" not in route.prefix]
            assert one.version == 6 or own or not ipv4_routes, "the kernel would remove the routes"
            return
        own.append(text)
        self.addresses[one.version] = in_kernels_order(own, one.version)

    @staticmethod
    def _is_secondary(text: str, alike: list[str]) -> bool:
        return in_kernels_order([*alike, text], 4)[-1] == text

    def _rule(self, add: bool, rule: Rule) -> None:
        if add:
            lowest = min((one.priority for one in self.rules), default=32766)
            self.rules.append(rule._replace(priority=rule.priority or lowest - 1))
            self.rules.sort(key=lambda one: one.priority)
            return
        for one in self.rules:
            if one[:2] == rule[:2] and rule.priority in (0, one.priority):
                self.rules.remove(one)
                return
        raise AssertionError(f"no such rule: {rule}")

    def read(self) -> Network:
        tables = {*MARKS, *(route.table for route in self.routes if route.table != MAIN_TABLE)}
        found = [
            rule
            for version in (4, 6)
            for rule in own_rules((one for one in self.rules if one.version == version), tables)
        ]
        policy = None
        if found or self.guards or self.blocks:
            versions = {one.version for one in found} | self.guards.keys()
            guarded, blocked = tuple(self.guards.values()), tuple(sorted(self.blocks))
            policy = Policy(0, tuple(versions), tuple(found), guarded, blocked)
        addresses = (*self.addresses[4], *self.addresses[6])
        return Network(self.mtu, addresses, tuple(self.routes), policy, self.dns, self.up)

    def copy(self) -> "Kernel":
        addresses = {version: list(own) for version, own in self.addresses.items()}
        return replace(
            self,
            addresses=addresses,
            routes=set(self.routes),
            rules=list(self.rules),
            guards=dict(self.guards),
            blocks=set(self.blocks),
        )

    def add_another_tunnel(self) -> None:
        for version in (4, 6):
            self._rule(True, Rule(version, OTHERS_MARK))
            self._rule(True, Rule(version, MAIN_TABLE))

    def another_tunnels(self) -> list[Rule]:
        return [
            rule
            for version in (4, 6)
            for rule in own_rules(
                (one for one in self.rules if one.version == version), {OTHERS_MARK}
            )
        ]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    addresses = tuple(draw(st.lists(st.sampled_from(ADDRESSES), unique=True)))
    tables = st.sampled_from((MAIN_TABLE, 77, 1000))
    routes = draw(st.lists(st.builds(Route, st.sampled_from(PREFIXES), tables), unique=True))
    versions = draw(st.sampled_from(((), (4,), (6,), (4, 6))))
    mark = draw(st.sampled_from(MARKS))
    routes += (Route(DEFAULT[version], mark) for version in versions)
    return Network(
        draw(st.sampled_from((1280, 1420))),
        addresses,
        tuple(routes),
        Policy(mark, versions) if versions else None,
        draw(st.sampled_from((Dns(), Dns(("10.0.0.53",)), Dns(("fd09::53",), ("example.net",))))),
    )


def change(kernel: Kernel, wanted: Network | None) -> list[Step]:
    steps = plan("wg0", kernel.read(), wanted, bool(kernel.source_mark))
    for step in steps:
        assert str(step)
        kernel.carry_out(step)
    return steps


def has_ipv4(network: Network) -> bool:
    """If that changes, the IPv4 routes have to go for a moment, as the kernel would take them."""
    return any(":" not in one for one in network.addresses)


def assert_is(kernel: Kernel, wanted: Network) -> None:
    found = kernel.read()
    assert set(found.routes) == set(wanted.routes)
    for version in (4, 6):
        assert kernel.addresses[version] == in_kernels_order(wanted.addresses, version)
    assert (found.mtu, found.up, found.dns) == (wanted.mtu, wanted.up, wanted.dns)
    assert [rule[:2] for rule in rules(found.policy)] == [rule[:2] for rule in rules(wanted.policy)]
    assert guards(found) == guards(wanted)
    assert set(blocks(found.policy)) == set(blocks(wanted.policy))


@given(networks(), networks(), st.booleans())
def test_a_plan_makes_what_is_wanted(first: Network, second: Network, other: bool) -> None:
    kernel = Kernel()
    change(kernel, first)
    assert_is(kernel, first)
    if other:
        kernel.add_another_tunnel()
    others = kernel.another_tunnels()
    change(kernel, second)
    assert_is(kernel, second)
    assert kernel.another_tunnels() == others
    assert change(kernel, second) == []


@given(networks(), networks(), st.booleans())
def test_what_undoes_a_plan_leaves_everything_as_it_was(
    first: Network, second: Network, other: bool
) -> None:
    kernel = Kernel()
    change(kernel, first)
    if other:
        kernel.add_another_tunnel()
    before = kernel.copy()
    for step in reversed(change(kernel, second)):
        kernel.carry_out(step.inverse())
    assert kernel == before


@given(networks(), networks())
def test_what_both_networks_have_is_always_there(first: Network, second: Network) -> None:
    kernel = Kernel()
    change(kernel, first)
    flushed = has_ipv4(first) != has_ipv4(second)
    routes = {
        one for one in set(first.routes) & set(second.routes) if not flushed or ":" in one.prefix
    }
    kept: set[tuple[int, int]] = set()
    if first.policy and second.policy and first.policy.mark == second.policy.mark:
        kept = {one[:2] for one in {*rules(first.policy)} & {*rules(second.policy)}}
    guarded = kernel.guards.keys() & guards(second).keys()
    for step in plan("wg0", kernel.read(), second, True):
        kernel.carry_out(step)
        assert routes <= kernel.routes
        assert kept <= {rule[:2] for rule in kernel.rules}
        assert guarded <= kernel.guards.keys()


@example(
    Network(1280, (), (Route("10.2.0.0/16"),)),
    Network(1280, ("10.0.0.1/24",), (Route("10.2.0.0/16"),), dns=Dns(("10.0.0.53",))),
)
@given(networks(), networks())
def test_what_both_networks_have_is_there_whenever_a_program_runs(
    first: Network, second: Network
) -> None:
    """A resolvconf may take a second; what goes and comes is one call to the kernel."""
    kernel = Kernel()
    change(kernel, first)
    routes = set(first.routes) & set(second.routes)
    addresses = set(first.addresses) & set(second.addresses)
    for step in plan("wg0", kernel.read(), second, bool(kernel.source_mark)):
        if isinstance(step, ProgramStep):
            assert routes <= kernel.routes
            assert addresses <= {*kernel.addresses[4], *kernel.addresses[6]}
        kernel.carry_out(step)


@given(networks(), networks())
def test_a_rule_leads_into_a_table_only_while_its_route_and_firewall_stand(
    first: Network, second: Network
) -> None:
    kernel = Kernel()
    flushed = has_ipv4(first) != has_ipv4(second)
    for network in (first, second):
        for step in plan("wg0", kernel.read(), network, bool(kernel.source_mark)):
            kernel.carry_out(step)
            for rule in kernel.rules:
                if rule.table != MAIN_TABLE and (rule.version == 6 or not flushed):
                    assert Route(DEFAULT[rule.version], rule.table) in kernel.routes
                    assert rule.version in kernel.guards
                    assert Block(rule.version, rule.table) in kernel.blocks


@given(networks())
def test_down_leaves_nothing_and_ends_with_the_interface(network: Network) -> None:
    kernel = Kernel()
    change(kernel, network)
    steps = change(kernel, None)
    assert isinstance(steps[-1], DeleteStep)
    assert not any(isinstance(step, RouteStep | AddressStep) for step in steps), "it takes them"
    assert (kernel.rules, kernel.guards, kernel.dns, kernel.exists) == ([], {}, Dns(), False)
    assert not kernel.blocks


@given(networks())
def test_what_outlived_its_interface_goes_without_it(network: Network) -> None:
    kernel = Kernel()
    change(kernel, network)
    kernel.addresses, kernel.routes = {4: [], 6: []}, set()
    steps = plan("wg0", replace(kernel.read(), mtu=0), None, True)
    for step in steps:
        kernel.carry_out(step)
    assert not any(isinstance(step, DeleteStep) for step in steps)
    assert (kernel.rules, kernel.guards, kernel.blocks, kernel.dns) == ([], {}, set(), Dns())


@given(networks(), networks())
def test_from_the_end_of_a_daemon_to_the_next_up_nothing_goes_around_a_tunnel(
    first: Network, second: Network
) -> None:
    """Of those versions of which both are full tunnels, by whatever mark."""
    kernel = Kernel()
    change(kernel, first)
    nothing = Policy(0, ())
    full = {*(first.policy or nothing).versions} & {*(second.policy or nothing).versions}

    def assert_held() -> None:
        for version in full:
            led = [one for one in kernel.rules if (one.version, one.table > 256) == (version, True)]
            assert any(Block(version, one.table) in kernel.blocks for one in led)

    assert_held()
    # It died, and there is another one.
    kernel.addresses, kernel.routes, kernel.up = {4: [], 6: []}, set(), False
    assert_held()
    for step in plan("wg0", kernel.read(), second, bool(kernel.source_mark)):
        kernel.carry_out(step)
        assert_held()
    assert_is(kernel, second)


def test_the_lines_are_those_of_wg_quick() -> None:
    wanted = Network(
        1420,
        ("10.0.0.1/24", "fd09::1/64"),
        (Route("10.1.0.0/16"), Route("10.2.0.0/16", 123), Route("0.0.0.0/0", 51820)),
        Policy(51820, (4,)),
    )
    kernel = Kernel()
    lines = [str(step) for step in change(kernel, wanted) if not isinstance(step, FirewallStep)]
    assert lines == [
        "ip -4 address add 10.0.0.1/24 dev wg0",
        "ip -6 address add fd09::1/64 dev wg0",
        "ip link set mtu 1420 up dev wg0",
        "ip -4 route add 10.1.0.0/16 dev wg0",
        "ip -4 route add 10.2.0.0/16 dev wg0 table 123",
        "ip -4 route add 0.0.0.0/0 dev wg0 table 51820",
        "sysctl -q net.ipv4.conf.all.src_valid_mark=1",
        "ip -4 route add unreachable default metric 4000051820 table 51820",
        "ip -4 rule add not fwmark 51820 table 51820",
        "ip -4 rule add table main suppress_prefixlength 0",
    ]
    lines = [str(step) for step in change(kernel, None) if not isinstance(step, FirewallStep)]
    assert lines == [
        "ip -4 rule delete table main suppress_prefixlength 0",
        "ip -4 rule delete table 51820",
        "ip -4 route delete unreachable default metric 4000051820 table 51820",
        "ip link delete dev wg0",
    ]


def test_a_tunnel_without_its_copy_of_a_rule_takes_no_other_ones() -> None:
    """As after a `wg-quick down`, which takes all copies away, and an `up` of another tunnel."""
    others = Rule(4, MAIN_TABLE, 100), Rule(4, OTHERS_MARK, 101)
    mine = Rule(4, MARKS[0], 102)
    assert list(own_rules((*others, mine), MARKS)) == [mine]
    assert list(own_rules((*others, mine), {OTHERS_MARK})) == list(reversed(others))


def test_no_route_where_an_address_leads_already() -> None:
    prefixes = ("10.0.0.0/24", "10.0.0.7/32", "10.0.0.0/16", "10.9.0.1/32", "fd09::1/128", "::/0")
    addresses = ("10.0.0.1/24", "10.9.0.1/32", "fd09::1/128")
    assert covered(prefixes, addresses) == {"10.0.0.0/24", "10.0.0.7/32", "fd09::1/128"}
