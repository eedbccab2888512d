"""Stock wg-quick, with WG_QUICK_USERSPACE_IMPLEMENTATION naming our daemon."""

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from interop.harness import (
    PORT,
    End,
    Implementation,
    MakeHost,
    Wiretap,
    assert_answered,
    assert_pings,
    assert_tcp,
    configuration,
    ends,
    network,
)

from lab import hosts
from lab.hosts import Host

# Addresses that only the far end has, and only the tunnel leads to.
BEYOND = {4: "203.0.113.9", 6: "2001:db8:ffff::9"}


@dataclass
class Quick:
    """wg-quick in a host, with a configuration file of our own."""

    host: Host
    file: Path
    implementation: Implementation

    def __call__(
        self, command: str, *, env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        ours = {"WG_QUICK_USERSPACE_IMPLEMENTATION": self.implementation.program}
        return self.host.run(
            "wg-quick", command, self.file, env={**ours, **(env or {})}, check=check
        )

    def write(self, text: str) -> None:
        self.file.touch(mode=0o600)
        self.file.write_text(text)


@dataclass
class Site:
    """Us, behind wg-quick, and a peer that is up already."""

    us: End
    peer: End
    quick: Quick


MakeSite = Callable[[str, str], Site]


@pytest.fixture
def make_site(make_host: MakeHost, ours: Implementation, tmp_path: Path) -> MakeSite:
    def make(allowed: str, settings: str = "") -> Site:
        us, peer = ends(make_host("us", kernel_wireguard=False), make_host("peer"))
        ours.start(peer.host)
        text = configuration(peer, us)
        peer.wg("setconf", "wg0", "/dev/stdin", text=text)
        peer.up()
        hosts.address(peer.host, "lo", f"{BEYOND[4]}/32", f"{BEYOND[6]}/128")
        quick = Quick(us.host, tmp_path / "wg0.conf", ours)
        section = f"[Interface]\nAddress = {us.inner[4]}/24, {us.inner[6]}/64\n{settings}"
        whole = configuration(us, peer, outer=4, allowed=allowed, extra="PersistentKeepalive = 25")
        quick.write(whole.replace("[Interface]\n", section, 1))
        return Site(us, peer, quick)

    return make


def assert_gone(site: Site, before: list[str]) -> None:
    host = site.us.host
    hosts.wait_for(
        "the daemon to end",
        lambda: not host.processes(Path(site.quick.implementation.program).name),
    )
    assert network(host) == before
    assert host.run("ip link show wg0", check=False).returncode == 1
    assert host.output("wg show interfaces") == ""
    assert host.output("ls /run/wireguard") == ""


def test_up_connects_and_down_leaves_nothing(make_site: MakeSite) -> None:
    site = make_site("10.9.0.0/24, fd09::/64, 203.0.113.0/24, 2001:db8:ffff::/64", "")
    before = network(site.us.host)
    for _ in range(2):
        said = site.quick("up").stderr
        assert "Falling back" in said
        assert f"[#] {site.quick.implementation.program} wg0" in said
        assert_pings(site.us, site.peer)
        for version in (4, 6):
            assert_answered(site.us.host, BEYOND[version])
        assert_tcp(site.us, site.peer)
        assert "mtu 1420" in site.us.host.output("ip link show wg0")
        site.quick("down")
        assert_gone(site, before)


def test_full_tunnel(make_site: MakeSite) -> None:
    """0.0.0.0/0 and ::/0: by policy routing everything goes through, the tunnel itself does not."""
    site = make_site("0.0.0.0/0, ::/0", "")
    host = site.us.host
    for version, via in ((4, site.peer.outer[4]), (6, site.peer.outer[6])):
        host.run(f"ip -{version} route add default via {via}")
    before = network(host)
    site.quick("up")
    assert host.output("wg show wg0 fwmark") == "0xca6c\n"
    tap = Wiretap(host, site.us.device)
    for version in (4, 6):
        assert_answered(host, BEYOND[version])
        assert "dev wg0" in host.output("ip route get", BEYOND[version])
    site.peer.inner.update(BEYOND)
    assert_tcp(site.us, site.peer, 4)
    assert_tcp(site.us, site.peer, 6)
    seen = tap.packets()
    tap.close()
    assert len(seen) > 100
    assert {packet.protocol for packet in seen} == {17}, "something went past the tunnel"
    assert {packet.source_port for packet in seen} == {PORT}
    site.quick("down")
    assert_gone(site, before)


def test_save_and_strip(make_site: MakeSite) -> None:
    site = make_site("10.9.0.0/24", "PostUp = true %i\nMTU = 1380\n")
    stripped = site.quick("strip").stdout
    assert "Address" not in stripped
    assert "PostUp" not in stripped
    assert f"PrivateKey = {site.us.private}" in stripped
    site.quick("up")
    site.us.wg("set", "wg0", "peer", site.peer.public, "allowed-ips", "10.9.0.2/32,10.77.0.0/16")
    site.quick("save")
    saved = site.quick.file.read_text()
    for line in (
        f"Address = {site.us.inner[4]}/24",
        f"Address = {site.us.inner[6]}/64",
        "MTU = 1380",
        "PostUp = true %i",
        f"ListenPort = {PORT}",
        "AllowedIPs = 10.9.0.2/32, 10.77.0.0/16",
        f"Endpoint = {site.peer.endpoint(4)}",
    ):
        assert f"{line}\n" in saved
    assert "fe80" not in saved, "a link-local address was saved (compat 2c.7)"
    site.quick("down")
    site.quick("up")
    assert_answered(site.us.host, site.peer.inner[4])
    site.quick("down")


def test_save_config_at_down(make_site: MakeSite) -> None:
    site = make_site("10.9.0.0/24", "SaveConfig = true\n")
    site.quick("up")
    site.us.wg("set", "wg0", "peer", site.peer.public, "persistent-keepalive", "21")
    site.quick("down")
    assert "PersistentKeepalive = 21\n" in site.quick.file.read_text()


def test_hooks_and_own_table(make_site: MakeSite, tmp_path: Path) -> None:
    log = tmp_path / "hooks"
    hooks = "".join(
        f"{name} = echo {name} %i >>{log}\n" for name in ("PreUp", "PostUp", "PreDown", "PostDown")
    )
    site = make_site("0.0.0.0/0", f"Table = 123\n{hooks}")
    before = network(site.us.host)
    site.quick("up")
    assert "default dev wg0" in site.us.host.output("ip route show table 123")
    assert site.us.host.output("wg show wg0 fwmark") == "off\n"
    site.quick("down")
    assert_gone(site, before)
    assert log.read_text() == "PreUp wg0\nPostUp wg0\nPreDown wg0\nPostDown wg0\n"


def test_name_servers_go_to_resolvconf(make_site: MakeSite, tmp_path: Path) -> None:
    """wg-quick hands the servers to resolvconf: here to one that only writes down its orders."""
    log, stub = tmp_path / "orders", tmp_path / "resolvconf"
    stub.write_text(f'#!/bin/sh\necho "$@" >>{log}\n[ "$1" = -d ] || cat >>{log}\n')
    stub.chmod(0o755)
    site = make_site("10.9.0.0/24", "DNS = 10.9.0.53, fd09::53, example.net\n")
    host = site.us.host
    host.run("sh -c", f"real=$(command -v resolvconf) || exit 0; mount --bind {stub} $real")
    path = {"PATH": f"{hosts.program_path()}:{tmp_path}"}
    site.quick("up", env=path)
    site.quick("down", env=path)
    assert log.read_text() == (
        "-a wg0 -m 0 -x\nnameserver 10.9.0.53\nnameserver fd09::53\nsearch example.net\n-d wg0 -f\n"
    )


@pytest.mark.item(104)
def test_failed_up_leaves_nothing(make_site: MakeSite) -> None:
    site = make_site("10.9.0.0/24", "PostUp = false\n")
    before = network(site.us.host)
    assert site.quick("up", check=False).returncode == 1
    assert_gone(site, before)


def test_up_twice_is_refused(make_site: MakeSite) -> None:
    site = make_site("10.9.0.0/24, fd09::/64", "")
    site.quick("up")
    again = site.quick("up", check=False)
    assert (again.returncode, again.stderr) == (1, "wg-quick: `wg0' already exists\n")
    assert_pings(site.us, site.peer)
    site.quick("down")


@pytest.mark.item(104)
def test_syncconf_of_a_stripped_file_keeps_the_session(make_site: MakeSite) -> None:
    """`wg syncconf IF <(wg-quick strip IF)` keeps the session that is in use."""
    site = make_site("10.9.0.0/24, fd09::/64", "")
    site.quick("up")
    assert_pings(site.us, site.peer)
    first = site.us.handshake()
    port = site.us.show("listen-port")
    text = site.quick("strip").stdout
    site.us.wg("syncconf", "wg0", "/dev/stdin", text=text)
    assert_pings(site.us, site.peer)
    assert site.us.handshake() == first
    assert site.us.show("listen-port") == port
