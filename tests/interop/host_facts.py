"""Single facts about a host's network, in a host of its own where much is missing or refused.

All run in order: what a later one takes away, an earlier one still has.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from interop.host_cases import (
    OTHER,
    RICH,
    Link,
    assert_as,
    begin,
    change,
    complain,
    in_a_child,
    output,
    recover,
    refuse,
    snapshot,
    tell,
)

from wiresnake.errors import HostError
from wiresnake.linux import programs
from wiresnake.model import Dns
from wiresnake.network import dns, journal, observe
from wiresnake.network.model import Network, Policy, Route

MAKES_ITS_OWN = ("test_a_read_only_proc_sys",)
DEFAULT = Network(1400, ("10.9.0.1/24",), (Route("0.0.0.0/0", 51820),), Policy(51820, (4,)))


def ip(line: str) -> str:
    return output("ip", *line.split())


def refused(wanted: Network) -> str:
    """What the error says; nothing is left of it."""
    before = snapshot("nft")
    try:
        change(wanted)
    except HostError as error:
        assert_as(before, "nft", str(error))
        assert error.errno or wanted.dns.servers
        return error.strerror or str(error)
    raise AssertionError("not refused")


def warnings(wanted: Network) -> list[str]:
    found: list[str] = []
    with begin("wg0", tell, found.append) as one:
        one.to(wanted)
    change(None)
    return found


def test_the_kernels_refusal_names_its_step() -> None:
    ip("route add 10.3.0.0/16 dev eth0")
    routes = tuple(Route(f"10.{number}.0.0/16") for number in range(1, 6))
    said = refused(Network(1400, (), routes))
    assert said.startswith(
        "ip -4 route add 10.3.0.0/16 dev wg0: File exists: eth0 already leads to"
    ), said
    assert "from AllowedIPs, or write its halves, 10.3.0.0/17, 10.3.128.0/17" in said
    assert observe.routed_by()["10.3.0.0/16"] == "eth0"
    ip("route delete 10.3.0.0/16 dev eth0")


def test_the_undoing_does_not_bury_the_reason() -> None:
    """The failed step is the last one echoed, except for one line."""
    ip("route add 10.3.0.0/16 dev eth0")
    said: list[str] = []
    routes = tuple(Route(f"10.{number}.0.0/16") for number in range(1, 4))
    with suppress(HostError), begin("wg0", said.append, complain) as one:
        one.to(Network(1400, ("10.9.0.1/24",), routes))
    assert said[-2:] == ["ip -4 route add 10.3.0.0/16 dev wg0", "undoing what was done"], said
    ip("route delete 10.3.0.0/16 dev eth0")


def test_ipv6_that_is_off() -> None:
    Path("/proc/sys/net/ipv6/conf/wg0/disable_ipv6").write_text("1")
    said = refused(Network(1400, ("10.9.0.1/24", "fd09::1/64")))
    assert said.startswith("ip -6 address add fd09::1/64 dev wg0: Permission denied"), said
    assert "net.ipv6.conf.wg0.disable_ipv6=0" in said
    Path("/proc/sys/net/ipv6/conf/wg0/disable_ipv6").write_text("0")


def test_an_interface_that_went_away() -> None:
    """Its daemon died: the next change removes what outlived it."""
    nothing = snapshot("nft").partition("wg0:")[0]
    change(RICH)
    observe.delete("wg0")
    assert recover("wg0", tell, complain)
    assert snapshot("nft").partition("wg0:")[0].splitlines()[:2] == nothing.splitlines()[:2]
    for line in ("rule", "-6 rule"):
        assert "51820" not in ip(line)
    assert "wg-quick" not in output("nft", "list", "ruleset")
    assert not list(journal.DIRECTORY.iterdir())
    assert dns.read("wg0") == Dns()


def test_what_wg_quick_had_made_is_what_a_killed_reload_comes_back_to() -> None:
    change(RICH)
    for file in journal.DIRECTORY.iterdir():
        file.unlink()
    before = snapshot("nft")
    for call in (1, 12):
        assert in_a_child(call, OTHER)
        assert recover("wg0", tell, complain)
        assert_as(before, "nft", f"killed before call {call}")
    change(None)


def test_nobody_reads_what_is_said() -> None:
    """`wiresnake up wg0 2>&1 | head -1`: neither doing nor undoing needs a reader."""

    def broken(line: str) -> None:
        raise BrokenPipeError

    before = snapshot("nft")
    with suppress(HostError), refuse(30), begin("wg0", broken, broken) as one:
        one.to(RICH)
    assert_as(before, "nft", "nobody reads")


def test_what_hooks_added_stays() -> None:
    change(Network(1400, ("10.9.0.1/24",), (Route("10.1.0.0/16"),)))
    ip("route add 10.77.0.0/16 dev wg0")
    ip("address add 10.78.0.1/32 dev wg0")
    change(Network(1400, ("10.9.0.1/24",), (Route("10.2.0.0/16"),)))
    left = ip("route show dev wg0")
    assert "10.77.0.0/16" in left and "10.2.0.0/16" in left and "10.1.0.0/16" not in left, left
    assert "10.78.0.1" in ip("address show dev wg0")
    change(None)


def test_another_tunnel_keeps_its_rules() -> None:
    """Either of two goes first: the other's pair of rules stands, in its order."""
    before = ip("rule")
    second = Link("wg1")
    other = Network(1400, (), (Route("0.0.0.0/0", 51821),), Policy(51821, (4,)))
    change(DEFAULT)
    with begin("wg1") as one:
        one.to(other)
    both = ip("rule").splitlines()
    assert [line.split(":")[1].split()[-1] for line in both[1:5]] == ["0", "51821", "0", "51820"]
    change(None)
    left = ip("rule").splitlines()
    assert left == [*both[:3], *both[5:]], left
    with begin("wg1") as one:
        one.to(None)
    assert ip("rule") == before
    second.close()


def test_the_second_change_waits() -> None:
    child = os.fork()
    if not child:
        with begin("wg0"):
            Path("/run/holds").touch()
            time.sleep(0.2)
        os._exit(0)
    while not Path("/run/holds").exists():
        time.sleep(0.005)
    said: list[str] = []
    started = time.monotonic()
    with begin("wg0", warn=said.append):
        assert time.monotonic() - started > 0.05
    assert said == [f"process {child} is changing wg0: waiting for it"]
    os.waitpid(child, 0)
    assert not list(journal.DIRECTORY.iterdir())


def test_tables_and_ways() -> None:
    assert observe.free_table("wg0") == 51820
    ip("route add 10.1.0.0/16 dev eth0 table 51820")
    ip("-6 route add fd01::/64 dev eth0 table 51821")
    assert observe.free_table("wg0") == 51822
    ip("route add 198.51.100.0/24 dev eth0 mtu 1300")
    assert observe.route_mtu(["192.0.2.9"]) == 1500
    assert observe.route_mtu(["192.0.2.9", "198.51.100.9"]) == 1300
    ip("link set eth0 mtu 1480")
    assert observe.route_mtu(["192.0.2.9"]) == 1480
    assert observe.route_mtu([]) == 1480, "the default route's device"
    assert observe.route_device("198.51.100.1") == "eth0"
    assert observe.route_device("2001:db8::1") is None


def test_networks_in_use() -> None:
    assert {"192.0.2.0/24", "198.51.100.0/24", "10.1.0.0/16", "fd01::/64"} <= {*observe.routed()}
    assert not {"0.0.0.0/0", "::/0"} & {*observe.routed()}


def test_a_thousand_routes_are_few_calls() -> None:
    counts: Counter[str] = Counter()
    sys.addaudithook(lambda event, _: counts.update([event]))
    many = tuple(Route(f"10.{number >> 8}.{number & 255}.0/24") for number in range(1000))
    change(Network(1400, ("172.16.0.1/24",), many))
    assert counts["socket.sendto"] < 20, counts
    assert ip("route show dev wg0").count("\n") == 1001
    counts.clear()
    change(None)
    assert counts["socket.sendto"] < 15, counts
    assert not counts["os.fork"] + counts["os.posix_spawn"]


def test_systemd_resolved() -> None:
    """Debian's resolvconf may be a symlink to resolvectl."""
    script = "#!/bin/sh\n[ $# = 2 ] && echo 'Link 9 (wg0): 10.9.0.53' || echo $* >>/run/orders\n"
    Path("/run/bin/resolvconf").unlink()
    Path("/run/bin/resolvectl").write_text(script)
    Path("/run/bin/resolvectl").chmod(0o755)
    Path("/run/bin/resolvconf").symlink_to("/run/bin/resolvectl")
    Path("/run/systemd/resolve").mkdir(parents=True)
    dns.replace("wg0", Dns(("10.9.0.53", "fd09::53"), ("example.net",)))
    assert dns.read("wg0").servers == ("10.9.0.53",)
    dns.replace("wg0", Dns())
    assert Path("/run/orders").read_text() == (
        "dns wg0 10.9.0.53 fd09::53\ndomain wg0 example.net ~.\ndefault-route wg0 yes\n"
    )


def test_nobody_takes_name_servers() -> None:
    for name in ("resolvconf", "resolvectl"):
        while program := programs.find(name):
            subprocess.run(["mount", "--bind", "/dev/null", os.path.realpath(program)], check=True)
    said = refused(Network(1400, ("10.9.0.1/24",), (), None, Dns(("10.9.0.53",))))
    assert "apt-get install openresolv" in said, said


def test_a_read_only_proc_sys() -> None:
    file = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
    said = []
    for value in ("1", "0"):
        file.write_text(value)
        link = Link()
        output("mount", "--bind", "/proc/sys", "/proc/sys")
        output("mount", "-o", "remount,ro,bind", "/proc/sys")
        said += warnings(DEFAULT)
        output("umount", "/proc/sys")
        link.close()
    (one,) = said
    assert one.startswith("cannot set net.ipv4.conf.all.src_valid_mark=1 (Read-only"), one


def test_no_firewall_at_all() -> None:
    for name in ("nft", "iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save"):
        while program := programs.find(name):
            subprocess.run(["mount", "--bind", "/dev/null", os.path.realpath(program)], check=True)
    (said,) = warnings(DEFAULT)
    assert said.startswith("neither nft nor iptables"), said


def main() -> None:
    for name, fact in list(globals().items()):
        if name.startswith("test_"):
            link = None if name in MAKES_ITS_OWN else Link()
            try:
                fact()
            except BaseException:
                print(f"{name} failed", file=sys.stderr)
                raise
            if link:
                link.close()


if __name__ == "__main__":
    main()
