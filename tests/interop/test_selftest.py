"""The cases of the selftest that the kernel's WireGuard comes with, by their numbers.

Where a userspace device shows something else than the kernel's, the case says what and why.
"""

import base64
import contextlib
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from interop.harness import (
    PORT,
    End,
    Implementation,
    MakeHost,
    Wiretap,
    assert_pings,
    assert_tcp,
    assert_udp,
    configuration,
    configure,
    ends,
    memory,
    move_interface,
    ping,
    tunnel,
)
from sim.forge import LOW_ORDER_POINTS

from lab import hosts
from lab.hosts import Host

outer = pytest.mark.parametrize("outer", [4, 6], ids=["over-v4", "over-v6"])
LENGTH = {4: 24, 6: 64}


def assert_ping(host: Host, target: str, *options: str) -> None:
    """One ping has its answer soon: nothing may wait for a handshake's repetition after 5 s."""
    host.run("ping -n -q -c 1 -W 3", *options, target)


def assert_floods(a: End, b: End) -> None:
    for end, other in ((a, b), (b, a)):
        for version in (4, 6):
            end.host.run("ping -n -q -c 10 -f -W 1", other.inner[version])


def assert_traffic(a: End, b: End) -> None:
    """Pings, TCP and UDP, both ways and in both IP versions; then TCP connections side by side."""
    assert_floods(a, b)
    for end, other, version in ((a, b, 4), (b, a, 6)):
        assert_tcp(end, other, version)
        assert_udp(other, end, version)
    for count in (4, 5, 50):
        with ThreadPoolExecutor(count) as pool:
            one = pool.submit
            for done in [one(assert_tcp, a, b, size=(8 << 20) // count) for _ in range(count)]:
                done.result()


def test_case_01_counters_are_exact(make_host: MakeHost, ours: Implementation) -> None:
    """Ten pings, a handshake, perhaps a keepalive: the same figures at both ends.

    The kernel's interface counts the same bytes. A TUN device's counters are written by the
    kernel alone, and hold the inner packets: ten of 84 bytes each way.
    """
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    a.host.run("ping -n -q -c 10 -f -W 1", b.inner[4])
    received, sent = a.transfer()
    assert received == 1372
    assert sent in (1428, 1460)
    assert b.transfer() == (sent, received)
    assert a.handshake() > 0
    for end in (a, b):
        [link] = json.loads(end.host.output("ip -s -j link show wg0"))
        assert [link["stats64"][way]["bytes"] for way in ("rx", "tx")] == [840, 840]


@outer
@pytest.mark.parametrize("mtu", [1420, 34736], ids=["mtu-1420", "jumbo"])
def test_case_02_traffic(make_host: MakeHost, ours: Implementation, outer: int, mtu: int) -> None:
    """Over a road that takes 64 KiB, as the kernel's loopback does, jumbo packets stay whole."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, outer=outer, mtu=65535)
    for end in (a, b):
        end.host.run(f"ip link set wg0 mtu {mtu}")
    assert_traffic(a, b)
    tap = Wiretap(a.host, a.device)
    assert_ping(a.host, b.inner[4], "-s", str(mtu - 28), "-M", "do")
    seen = [len(one.payload) for one in tap.packets() if one.protocol == 17]
    assert seen.count(mtu + 32) == 2, seen  # beside them, maybe, the end of a connection
    tap.close()


def test_case_03_padding_ends_at_the_mtu(make_host: MakeHost, ours: Implementation) -> None:
    """A packet of 1297 bytes is padded to 1299 where that is the interface's MTU, not to 1312.

    The kernel also stops at the MTU of the route that the packet took. A TUN device learns
    nothing of routes: there the padding goes on to the interface's MTU, by 15 bytes at the most.
    The packet arrives all the same, in fragments where the road is that narrow; a firewall that
    drops just that length, as the kernel's test sets up, shows the difference.
    """
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    tap = Wiretap(a.host, a.device)

    def lengths() -> list[int]:
        """Of the IPv4 packets with the ping and its answer, which has to come."""
        assert_ping(a.host, b.inner[4], "-s", "1269")
        return [20 + 8 + len(one.payload) for one in tap.packets()][-2:]

    for end in (a, b):
        end.host.run("ip link set wg0 mtu 1300")
    assert_pings(a, b)
    tap.packets()
    assert lengths() == [1360, 1360]
    for end, other in ((a, b), (b, a)):
        end.host.run(f"ip route add {other.inner[4]}/32 dev wg0 mtu 1299")
    assert lengths() == [1360, 1360], "1359 with the kernel's"

    for end, other in ((a, b), (b, a)):
        end.host.run(f"ip route add {other.outer[4]}/32 dev {end.device} mtu 1359")
    assert_ping(a.host, b.inner[4], "-s", "1269")
    assert [one.protocol for one in tap.packets()] == [17, 44] * 2, "whole no longer"

    b.host.run("nft add table ip road")
    b.host.run("nft add chain ip road in { type filter hook input priority 0 ; }")
    b.host.run(f"nft add rule ip road in iifname {b.device} meta length 1360 drop")
    assert ping(a.host, b.inner[4], "-s", "1269", count=1, wait=0.3).lost
    for end in (a, b):
        end.host.run("ip link set wg0 mtu 1299")
    tap.packets()
    assert lengths() == [1359, 1359]
    tap.close()


def test_case_04_roaming(make_host: MakeHost, ours: Implementation) -> None:
    """One packet from another address and port, or over the other IP version, moves the endpoint;
    test_roaming.py has the same under traffic, against every other implementation."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_ping(a.host, b.inner[4])
    for version, inner, port in ((4, 6, 9999), (6, 4, 9998), (6, 6, 9997), (4, 4, 9996)):
        moved = {4: "192.0.2.99", 6: "2001:db8::99"}[version]
        if moved != a.outer[version]:
            hosts.address(a.host, a.device, f"{moved}/{LENGTH[version]}")
            old = f"{a.outer[version]}/{LENGTH[version]}"
            a.host.run(f"ip address delete {old} dev {a.device}")
            a.outer[version] = moved
        a.port = port
        a.wg("set", "wg0", "listen-port", str(port))
        a.wg("set", "wg0", "peer", b.public, "endpoint", b.endpoint(version))
        assert_ping(a.host, b.inner[inner])
        assert b.peer_endpoint() == a.endpoint(version)


def test_case_05_a_foreign_source_is_dropped_yet_roams(
    make_host: MakeHost, ours: Implementation
) -> None:
    """A packet whose inner source belongs to a more specific peer; its datagram is authentic."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    a.wg("set", "wg0", "peer", b.public, "allowed-ips", "10.9.0.0/24")
    _, stranger = hosts.keypair()
    target = hosts.udp_socket(a.host, socket.AF_INET, 1111)
    sender = hosts.udp_socket(b.host, socket.AF_INET)
    with target, sender:

        def arrives(wait: float = 1) -> bool:
            target.settimeout(wait)
            sender.sendto(b"X", (a.inner[4], 1111))
            with contextlib.suppress(TimeoutError):
                return target.recv(9) == b"X"
            return False

        assert_ping(a.host, b.inner[4])
        assert arrives()
        a.wg("set", "wg0", "peer", stranger, "allowed-ips", f"{b.inner[4]}/32")
        b.port = 9997
        b.wg("set", "wg0", "listen-port", "9997")
        assert not arrives(0.5)
        assert a.peer_endpoint() == b.endpoint(4)
        a.wg("set", "wg0", "peer", stranger, "remove")
        assert arrives()


def test_case_06_another_private_key(make_host: MakeHost, ours: Implementation) -> None:
    """The handshake with it comes at once, although the last one was a moment ago."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, psk=True)
    assert_ping(a.host, b.inner[4])
    psk = b.show("preshared-keys")[0][1]
    private, public = hosts.keypair()
    a.wg("set", "wg0", "private-key", "/dev/stdin", text=private)
    words = f"preshared-key /dev/stdin allowed-ips {a.inner[4]}/32 peer".split()
    b.wg("set", "wg0", "peer", public, *words, a.public, "remove", text=psk)
    assert_ping(a.host, b.inner[4])
    assert b.show("peers") == [[public]]


def nested(a: End, b: End) -> tuple[End, End]:
    """The ends of another tunnel inside one, without their daemons."""
    return (
        End(a.host, "wg0", a.inner, {4: "10.10.0.1", 6: "fd10::1"}, interface="wg1", port=5),
        End(b.host, "wg0", b.inner, {4: "10.10.0.2", 6: "fd10::2"}, interface="wg1", port=5),
    )


def test_case_07_a_tunnel_in_a_tunnel(make_host: MakeHost, ours: Implementation) -> None:
    a, b = nested(*tunnel(make_host("a"), make_host("b"), ours, ours))
    for end in (a, b):
        ours.start(end.host, "wg1")
    configure(a, b, outer=6)
    for end in (a, b):
        end.host.run("ip link set wg1 mtu 1340")
    assert_traffic(a, b)


def test_case_07_a_routing_loop(make_host: MakeHost, ours: Implementation) -> None:
    """Two tunnels, each inside the other: what one has sealed the other seals, and so on.

    In the kernel that ends after eight rounds (Linux 6.1: 51 KB for ten pings, where 70,000 are
    allowed) by the way its buffers grow, and so not on every architecture: its test only complains.
    Here no daemon can know the other's messages, and the loop lasts as long as the sessions do. It
    takes time, but no memory, hinders no configuration, and ends with its cause.
    """
    middle, right = ends(make_host("middle"), make_host("right"))
    left = replace(middle, host=make_host("left"))
    for end, other, version in ((middle, right, 4), (right, middle, None)):
        ours.start(end.host)
        end.wg("setconf", "wg0", "/dev/stdin", text=configuration(end, other, outer=version))
    move_interface("wg0", middle.host, left.host)
    left.up()
    right.up()
    hosts.await_tunnel(middle.host, right.host)
    near, far = nested(left, right)
    for end in (near, far):
        ours.start(end.host, "wg1")
    configure(near, far, outer=6)
    assert_pings(near, far)
    move_interface("wg1", left.host, middle.host)
    hosts.address(middle.host, "wg1", f"{near.inner[4]}/24")
    middle.host.run("ip link set wg1 mtu 1340 up")
    hosts.await_tunnel(left.host, port=5)
    assert_ping(middle.host, far.inner[4])

    def sent() -> int:
        return int(left.host.output("wg show wg1 transfer").split()[2])

    def stands_still() -> bool:
        before = sent()
        time.sleep(0.1)
        return sent() == before

    program = Path(ours.program).name
    pids = [pid for end in (middle, left) for pid in end.host.processes(program)]
    used, before = [memory(pid) for pid in pids], sent()
    middle.wg("set", "wg0", "peer", right.public, "endpoint", f"{far.inner[4]}:7")
    assert ping(middle.host, far.inner[4], count=10, interval=0.002, wait=0.2).received == 0
    assert sent() - before > 70_000, "no loop"
    middle.wg("set", "wg0", "peer", right.public, "endpoint", right.endpoint(4))
    hosts.wait_for("pings", lambda: ping(middle.host, far.inner[4], count=1, wait=0.2).received)
    hosts.wait_for("the end of the loop", stands_still)
    assert all(memory(pid) < old + (16 << 10) for pid, old in zip(pids, used, strict=True))


@dataclass
class Behind:
    """A client behind a router that translates its address, and a server."""

    client: End
    router: Host
    server: End


def behind_nat(make_host: MakeHost, ours: Implementation) -> Behind:
    client, router, server = (make_host(name) for name in ("client", "router", "server"))
    near, inside = hosts.cable(client, router)
    outside, far = hosts.cable(router, server)
    a = End(client, near, {4: "192.168.1.100"}, {4: "10.9.0.1", 6: "fd09::1"})
    b = End(server, far, {4: "10.0.0.100"}, {4: "10.9.0.2", 6: "fd09::2"})
    hosts.address(client, near, f"{a.outer[4]}/24")
    hosts.address(router, inside, "192.168.1.1/24")
    hosts.address(router, outside, "10.0.0.1/24")
    hosts.address(server, far, f"{b.outer[4]}/24")
    client.run("ip route add default via 192.168.1.1")
    router.run("sysctl -q -w net.ipv4.ip_forward=1")
    translate(router, "192.168.1.0/24", "10.0.0.0/24", "10.0.0.1")
    for end in (a, b):
        ours.start(end.host)
    configure(a, b)
    return Behind(a, router, b)


def translate(host: Host, source: str, target: str, to: str) -> None:
    host.run("nft add table ip nat")
    host.run("nft add chain ip nat post { type nat hook postrouting priority 100 ; }")
    host.run(f"nft add rule ip nat post ip saddr {source} ip daddr {target} snat to {to}")


def test_case_08_a_keepalive_holds_the_way_through_nat(
    make_host: MakeHost, ours: Implementation
) -> None:
    """The router forgets a way after 2 s without a packet, and then nobody reaches the client."""
    site = behind_nat(make_host, ours)
    client, server = site.client, site.server
    for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
        site.router.run(f"sysctl -q -w net.netfilter.{name}=2")
    client.wg("set", "wg0", "peer", server.public, "persistent-keepalive", "1")
    assert_ping(client.host, server.inner[4])
    assert_ping(server.host, client.inner[4])
    assert server.peer_endpoint() == f"10.0.0.1:{PORT}"
    time.sleep(2.5)
    assert_ping(server.host, client.inner[4])
    client.wg("set", "wg0", "peer", server.public, "persistent-keepalive", "0")
    time.sleep(2.5)
    assert ping(server.host, client.inner[4], count=1, wait=0.3).lost, "the router forgets nothing"


def test_case_09_a_bound_socket_and_a_changed_mark(
    make_host: MakeHost, ours: Implementation
) -> None:
    """A socket that is bound to the interface; and a firewall's mark, for which the packet is
    routed again."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_ping(a.host, b.inner[4], "-I", "wg0")
    a.host.run("nft add table ip mangle")
    a.host.run("nft add chain ip mangle out { type route hook output priority -150 ; }")
    a.host.run("nft add rule ip mangle out meta mark set 1")
    assert_ping(a.host, b.inner[4])
    assert_ping(a.host, b.inner[4], "-I", "wg0")


def test_case_10_an_endpoint_inside_the_own_tunnel(
    make_host: MakeHost, ours: Implementation
) -> None:
    """Another peer is reached through the first: onion routing. Then through itself: a loop."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    onion = replace(b, private="", outer=b.inner, inner={4: "10.11.0.2"}, interface="wg1", port=5)
    ours.start(b.host, "wg1")
    words = f"private-key /dev/stdin listen-port 5 peer {a.public} allowed-ips 10.11.0.1/32"
    b.wg("set", "wg1", *words.split(), text=onion.private)
    hosts.address(b.host, "wg1", "10.11.0.2/24")
    b.host.run("ip link set wg1 up")
    hosts.await_tunnel(b.host, port=5)
    hosts.address(a.host, "wg0", "10.11.0.1/24")
    words = f"peer {onion.public} allowed-ips 10.11.0.2/32 endpoint"
    a.wg("set", "wg0", *words.split(), onion.endpoint(4))
    assert_ping(a.host, "10.11.0.2")

    def sent() -> int:
        [_, (_, _, count)] = a.show("transfer")
        return int(count)

    before = sent()
    a.wg("set", "wg0", "peer", onion.public, "endpoint", "10.11.0.2:5")
    assert ping(a.host, "10.11.0.2", count=1, wait=0.2).lost
    assert sent() - before == 128, "the ping, once; the kernel's goes round 18 times"
    assert ping(a.host, "10.11.0.2", "-s", "3000", wait=0.2).lost, "in fragments"
    assert sent() - before < 20_000
    a.wg("set", "wg0", "peer", onion.public, "remove")
    assert_pings(a, b)


def test_case_11_policy_routing(make_host: MakeHost, ours: Implementation) -> None:
    """As wg-quick does it for a default route (test_wg_quick.py has wg-quick itself), on a host
    whose way to the peer is IPv4 alone, though it has a default route for IPv6 too."""
    site = behind_nat(make_host, ours)
    client, server = site.client, site.server
    hosts.address(client.host, client.device, "fc00::9/96")
    client.host.run("ip -6 route add default via fc00::1")
    beyond = {4: "192.168.99.7", 6: "2001:db8:abab::1111"}
    hosts.address(server.host, "wg0", f"{beyond[4]}/32", f"{beyond[6]}/128")
    words = f"fwmark 51820 peer {server.public} allowed-ips {beyond[4]},{beyond[6]}"
    client.wg("set", "wg0", *words.split())
    for version in (4, 6):
        client.host.run(f"ip -{version} route add default dev wg0 table 51820")
        client.host.run(f"ip -{version} rule add not fwmark 51820 table 51820")
        client.host.run(f"ip -{version} rule add table main suppress_prefixlength 0")
    for version in (4, 6):
        client.host.run("ping -n -q -c 100 -f -W 1", beyond[version])


def test_case_12_a_removed_peer_is_unreachable(make_host: MakeHost, ours: Implementation) -> None:
    """The router's ping goes into the server's tunnel by a translated address; the refusal finds
    the way back to the router, whose strict filter lets it in.

    It comes from the address that could not be reached, where the kernel's comes from the
    server's own: a TUN device can only receive it, and from an own address that is a martian.
    """
    site = behind_nat(make_host, ours)
    client, router, server = site.client, site.router, site.server
    translate(server.host, "10.0.0.0/24", "10.9.0.0/24", server.inner[4])
    server.host.run("sysctl -q -w net.ipv4.ip_forward=1")
    router.run("sysctl -q -w net.ipv4.conf.all.rp_filter=1")
    router.run(f"ip route add {client.inner[4]} via {server.outer[4]}")
    assert_ping(client.host, server.inner[4])
    assert_ping(router, client.inner[4])
    server.wg("set", "wg0", "peer", client.public, "remove")
    said = router.run("ping -n -c 1 -W 1", client.inner[4], check=False).stdout
    assert f"From {client.inner[4]} icmp_seq=1 Destination Host Unreachable" in said


def test_case_13_a_source_that_is_gone_is_replaced(
    make_host: MakeHost, ours: Implementation
) -> None:
    """The very next packet leaves from the address that is left."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    for version, new in ((4, "192.0.2.10"), (6, "2001:db8::10")):
        a.wg("set", "wg0", "peer", b.public, "endpoint", b.endpoint(version))
        assert_ping(a.host, b.inner[4])
        old = f"{a.outer[version]}/{LENGTH[version]}"
        hosts.address(a.host, a.device, f"{new}/{LENGTH[version]}")
        a.host.run(f"ip address delete {old} dev {a.device}")
        a.outer[version] = new
        assert_ping(a.host, b.inner[4])
        assert b.peer_endpoint() == a.endpoint(version)


def test_case_14_answers_come_from_the_address_that_was_asked(
    make_host: MakeHost, ours: Implementation
) -> None:
    """Be it of another IP version, or of an interface to which no route leads."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    hosts.address(b.host, b.device, "192.0.2.202/24", "2001:db8::202/64")
    aside, _ = hosts.cable(b.host, b.host)
    hosts.address(b.host, aside, "10.50.0.1/24")
    a.host.run(f"ip route add 10.50.0.0/24 dev {a.device}")
    asked = [b.outer[4], b.outer[6], "192.0.2.202", "2001:db8::202", "10.50.0.1"]
    for one in [*asked, *asked[::-1]]:
        version = 6 if ":" in one else 4
        endpoint = replace(b, outer={version: one}).endpoint(version)
        a.wg("set", "wg0", "peer", b.public, "endpoint", endpoint)
        assert_ping(a.host, b.inner[4])
        assert a.peer_endpoint() == endpoint


def test_case_15_a_better_route_takes_over(make_host: MakeHost, ours: Implementation) -> None:
    """Another road has a smaller metric, and the first still stands: soon a packet changes.

    The kernel looks up the route for every packet; ours hears of a new one, a moment after `ip`.
    """
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    second, _ = hosts.cable(a.host, b.host)
    hosts.address(a.host, second, "192.0.2.3/24")
    for device in (a.device, second):
        a.host.run(f"ip -4 route flush dev {device}")
    road = "ip route add 192.0.2.0/24"
    a.host.run(f"{road} dev {a.device} src {a.outer[4]} metric 2")
    assert_ping(a.host, b.inner[4])
    assert b.peer_endpoint() == a.endpoint(4)
    a.host.run(f"{road} dev {second} src 192.0.2.3 metric 1")

    def moved() -> bool:
        assert_ping(a.host, b.inner[4])
        return b.peer_endpoint() == f"192.0.2.3:{PORT}"

    hosts.wait_for("the better route", moved)


@pytest.fixture
def lone(make_host: MakeHost, ours: Implementation) -> Host:
    """A host with a device that has nothing."""
    host = make_host("lone")
    ours.start(host)
    return host


def show(host: Host, what: str) -> list[list[str]]:
    return [line.split() for line in host.output("wg show wg0", what).splitlines()]


SIXTEEN = {
    "130560-on-one": [
        [net for a in range(1, 256) for b in range(256)
         for net in (f"{a}.{b}.0.0/16", f"{a}::{b or ''}/128")]
    ],
    "52-on-each-of-40": [[f"{a}.{b}.0.0/16" for b in range(1, 53)] for a in range(1, 41)],
    "two-on-the-last-of-30": [*[[]] * 29, ["255.2.3.4/32", "abcd::255/128"]],
    "197-on-the-last-of-2": [[], [f"abcd::{number}/128" for number in range(1, 198)]],
}  # fmt: skip


@pytest.mark.parametrize("name", SIXTEEN)
def test_case_16_large_configurations(lone: Host, name: str) -> None:
    """What the kernel has to split into several answers comes back whole."""
    given = [(base64.b64encode(os.urandom(32)).decode(), nets) for nets in SIXTEEN[name]]
    sections = (
        f"[Peer]\nPublicKey = {key}\n" + "".join(f"AllowedIPs = {net}\n" for net in nets)
        for key, nets in given
    )
    lone.run("wg setconf wg0 /dev/stdin", text="[Interface]\n" + "".join(sections))
    expected = [[key, *(sorted(nets) or ["(none)"])] for key, nets in given]
    assert [[key, *sorted(nets)] for key, *nets in show(lone, "allowed-ips")] == expected
    assert lone.output("wg showconf wg0").count("AllowedIPs") == sum(map(bool, SIXTEEN[name]))


def test_case_17_a_missing_interface(lone: Host) -> None:
    for words in ("show wg7", "showconf wg7", "set wg7 fwmark 1"):
        done = lone.run("wg", *words.split(), check=False)
        assert done.returncode == 1
        assert "Unable to" in done.stderr


def test_case_17_keys_are_set_read_back_and_cleared(lone: Host) -> None:
    private, _ = hosts.keypair()
    _, peer = hosts.keypair()
    psk = hosts.tool("wg genpsk")
    lone.run("wg set wg0 private-key /dev/stdin peer", peer, text=private)
    lone.run("wg set wg0 peer", peer, "preshared-key", "/dev/stdin", text=psk)
    assert show(lone, "private-key") == [[private]]
    assert show(lone, "preshared-keys") == [[peer, psk]]
    lone.run("wg set wg0 private-key /dev/null peer", peer, "preshared-key", "/dev/null")
    assert show(lone, "private-key") == [["(none)"]]
    assert show(lone, "preshared-keys") == [[peer, "(none)"]]


def test_case_17_the_own_key_is_no_peer(lone: Host) -> None:
    """Neither one that is there when the key becomes the own, nor one that is added later."""
    (first, _), (second, peer) = hosts.keypair(), hosts.keypair()
    lone.run("wg set wg0 peer", peer)
    assert show(lone, "peers") == [[peer]]
    lone.run("wg set wg0 private-key /dev/stdin", text=second)
    assert show(lone, "public-key") == [[peer]]
    assert show(lone, "peers") == []
    lone.run("wg set wg0 peer", peer)
    assert show(lone, "peers") == []
    lone.run("wg set wg0 private-key /dev/stdin", text=first)
    lone.run("wg set wg0 peer", peer)
    assert show(lone, "peers") == [[peer]]


def test_case_17_a_private_key_is_clamped(lone: Host) -> None:
    key = bytearray(b"\xff" * 32)
    lone.run("wg set wg0 private-key /dev/stdin", text=base64.b64encode(key).decode())
    key[0], key[31] = 0xF8, 0x7F
    assert show(lone, "private-key") == [[base64.b64encode(key).decode()]]


def test_case_18_overlapping_allowed_ips(lone: Host) -> None:
    """One peer is given networks inside each other, then one of these alone, then nothing."""
    _, peer = hosts.keypair()
    for nets in (
        "0.0.0.0/0,10.0.0.0/8,100.0.0.0/10,172.16.0.0/12,192.168.0.0/16",
        "0.0.0.0/0",
        "::/0,1700::/111,5000::/4,e000::/37,9000::/75",
        "::/0",
    ):
        lone.run("wg set wg0 peer", peer, "allowed-ips", nets)
        [(key, *shown)] = show(lone, "allowed-ips")
        assert (key, sorted(shown)) == (peer, sorted(nets.split(",")))
    lone.run("wg set wg0 peer", peer, "remove")
    assert show(lone, "allowed-ips") == []


def test_case_18_nothing_is_sent_to_keys_of_low_order(lone: Host) -> None:
    """With them every shared secret is zero. An honest peer beside them hears us at once."""
    low_order = [base64.b64encode(point).decode() for point in LOW_ORDER_POINTS]
    private, _ = hosts.keypair()
    _, honest = hosts.keypair()
    lone.run("wg set wg0 private-key /dev/stdin", text=private)
    sockets = [hosts.udp_socket(lone, socket.AF_INET) for _ in range(2)]
    for keys, one in (low_order, sockets[0]), ((honest,), sockets[1]):
        one.settimeout(2)
        endpoint = f"127.0.0.1:{one.getsockname()[1]}"
        for key in keys:
            lone.run("wg set wg0 peer", key, "persistent-keepalive", "1", "endpoint", endpoint)
    assert show(lone, "peers") == [[key] for key in (*low_order, honest)]
    lone.run("ip link set wg0 up")
    assert len(sockets[1].recv(200)) == 148
    with pytest.raises(TimeoutError):
        sockets[0].recv(200)
    for one in sockets:
        one.close()
