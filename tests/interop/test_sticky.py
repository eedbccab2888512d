"""What is sent to a peer leaves as the peer asked, from that address and by that uplink, as long as
there is a way. Where the host's own way changes, it goes along."""

import time

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    assert_answered,
    configure,
    count_pings,
    ends,
    ping,
)

from lab import hosts
from lab.hosts import Host

version = pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])

LENGTH = {4: 24, 6: 64}
FAR = {4: "203.0.113.9", 6: "2001:db8:9::9"}
UPLINKS = {4: ("10.1.0.{}", "10.2.0.{}"), 6: ("2001:db8:1::{}", "2001:db8:2::{}")}


def refuse(host: Host, hook: str, rule: str) -> None:
    host.run(f"nft add table inet f-{hook}")
    host.run(f"nft add chain inet f-{hook} c {{ type filter hook {hook} priority -300 ; }}")
    host.run(f"nft add rule inet f-{hook} c meta l4proto udp {rule} drop")


@version
@pytest.mark.item(78)
def test_changes_elsewhere_forget_nothing(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    """The client's firewall lets in what answers, and it asked the second of two addresses."""
    client, server = ends(make_host("client"), make_host("server"))
    asked = {4: "192.0.2.77", 6: "2001:db8::77"}[version]
    hosts.address(server.host, server.device, f"{asked}/{LENGTH[version]}")
    for end in (client, server):
        ours.start(end.host)
    server.outer[version] = asked
    configure(client, server, outer=version)
    client.host.run("nft add table inet f")
    client.host.run("nft add chain inet f i { type filter hook input priority 0 ; }")
    client.host.run("nft add rule inet f i meta l4proto udp ct state established accept")
    client.host.run("nft add rule inet f i meta l4proto udp drop")
    assert_answered(client.host, server.inner[4])
    changes = server.host.start(
        "sh -c",
        "for n in $(seq 30); do"
        " ip route add 198.51.100.0/24 dev lo; ip -6 route add 2001:db8:5::/64 dev lo;"
        " ip link add dummy$n type veth peer name other$n; ip address add 10.66.0.1/32 dev lo;"
        " ip rule add to 198.51.100.1 lookup main; sleep 0.03;"
        " ip route del 198.51.100.0/24 dev lo; ip -6 route del 2001:db8:5::/64 dev lo;"
        " ip link del dummy$n; ip address del 10.66.0.1/32 dev lo;"
        " ip rule del to 198.51.100.1 lookup main; sleep 0.03; done",
    )
    pings = ping(server.host, client.inner[4], count=100, interval=0.02)
    assert changes.wait(30)[0] == 0
    assert pings.lost == 0
    assert client.peer_endpoint() == server.endpoint(version)


def two_uplinks(make_host: MakeHost, ours: Implementation, version: int) -> tuple[End, End]:
    """A host with two uplinks, the second with the worse default route, and one that both reach."""
    near, far = make_host("near"), make_host("far")
    for host in (near, far):
        host.run("sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")
    cables = [hosts.cable(near, far) for _ in range(2)]
    ip = f"ip -{version}"
    for number, ((up, down), pattern) in enumerate(zip(cables, UPLINKS[version], strict=True), 1):
        hosts.address(near, up, f"{pattern.format(2)}/{LENGTH[version]}")
        hosts.address(far, down, f"{pattern.format(1)}/{LENGTH[version]}")
        gateway = f"via {pattern.format(1)} dev {up}"
        near.run(f"{ip} route add default {gateway} metric {number}00")
        near.run(f"{ip} route add default {gateway} table {number}")
    hosts.address(far, "lo", f"{FAR[version]}/{32 if version == 4 else 128}")
    for end in (near, far):
        ours.start(end)
    a = End(
        near, cables[0][0], {version: UPLINKS[version][0].format(2)}, {4: "10.9.0.1", 6: "fd09::1"}
    )
    b = End(far, cables[0][1], {version: FAR[version]}, {4: "10.9.0.2", 6: "fd09::2"})
    return a, b


def from_far(client: End, version: int, cable: int) -> None:
    """What it sends to that uplink comes from beyond, not from the link."""
    network = f"{UPLINKS[version][cable].format(0)}/{LENGTH[version]}"
    best = "metric 1" if version == 6 else ""
    route = f"{network} dev eth{cable} src {FAR[version]} {best}"
    client.host.run(f"ip -{version} route replace {route}")


@version
@pytest.mark.parametrize("strict", [False, True], ids=["open", "nat"])
@pytest.mark.item(78)
def test_the_uplink_that_was_asked_answers(
    make_host: MakeHost, ours: Implementation, version: int, strict: bool
) -> None:
    """Each provider lets out its own addresses only, and the host has no rules for that. Behind a
    NAT only the address that was asked may answer. Then that uplink goes away."""
    server, client = two_uplinks(make_host, ours, version)
    first, asked = (pattern.format(2) for pattern in UPLINKS[version])
    family = "ip" if version == 4 else "ip6"
    for number, pattern in enumerate(UPLINKS[version]):
        network = f"{pattern.format(0)}/{LENGTH[version]}"
        rule = f"iifname eth{number} {family} saddr != {network}"
        from_far(client, version, number)
        if number == 0:
            refuse(client.host, "prerouting", rule)
        else:
            client.host.run(f"nft add rule inet f-prerouting c meta l4proto udp {rule} drop")
    if strict:
        refuse(client.host, "input", f"udp sport {server.port} {family} saddr != {asked}")
    server.outer[version] = asked
    configure(client, server, outer=version)
    assert_answered(client.host, server.inner[4])
    server.host.run("ip route add blackhole 198.51.100.0/24")
    time.sleep(0.1)
    assert_answered(server.host, client.inner[4])
    assert client.peer_endpoint() == server.endpoint(version)
    if not strict:
        server.host.run("ip link delete eth1")
        assert_answered(server.host, client.inner[4])
        server.outer[version] = first
        assert client.peer_endpoint() == server.endpoint(version)


@version
@pytest.mark.item(78)
def test_an_interface_without_a_route_is_not_pinned(
    make_host: MakeHost, ours: Implementation, version: int
) -> None:
    """In by the second uplink, out by the first, which alone has a route: the address sticks. Who
    lives beyond the second is nobody's neighbour there."""
    server, client = two_uplinks(make_host, ours, version)
    arp = "net.ipv4.conf.all.arp"
    client.host.run(f"sysctl -q -w {arp}_ignore=1 {arp}_announce=2")
    server.host.run(f"ip -{version} route del default dev eth1 metric 200")
    server.outer[version] = UPLINKS[version][1].format(2)
    from_far(client, version, 1)
    configure(client, server, outer=version)
    assert_answered(client.host, server.inner[4])
    assert_answered(server.host, client.inner[4])
    assert client.peer_endpoint() == server.endpoint(version)


@version
@pytest.mark.parametrize("way", ["rule", "mark"])
@pytest.mark.item(78)
def test_a_rule_or_a_mark_leads_elsewhere(
    make_host: MakeHost, ours: Implementation, version: int, way: str
) -> None:
    """At once, for good, and though the peer goes on to send by the old way for a while."""
    client, server = two_uplinks(make_host, ours, version)
    configure(client, server, outer=version)
    if way == "mark":
        client.host.run(f"ip -{version} rule add fwmark 7 lookup 2")
    assert_answered(client.host, server.inner[4])
    assert server.peer_endpoint() == client.endpoint(version)
    running = server.host.start(f"ping -n -q -i 0.01 -c 150 {client.inner[4]}")
    time.sleep(0.2)
    if way == "mark":
        client.wg("set", "wg0", "fwmark", "7")
    else:
        client.host.run(f"ip -{version} rule add to {FAR[version]} lookup 2")
    client.outer[version] = UPLINKS[version][1].format(2)
    hosts.wait_for("the other way", lambda: server.peer_endpoint() == client.endpoint(version), 1)
    time.sleep(0.3)
    assert server.peer_endpoint() == client.endpoint(version)
    assert count_pings(running.wait(20)[1]).lost == 0
    assert server.peer_endpoint() == client.endpoint(version)
