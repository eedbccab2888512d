"""`wiresnake reload`: everything becomes what the file says, and nobody notices."""

import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from interop import harness
from interop.harness import (
    GO_DEBIAN,
    NEW_OUTER,
    NEW_PORT,
    OURS,
    RESOLVCONF,
    WIRESNAKE,
    End,
    MakeHost,
    assert_pings,
    configuration,
    ends,
    move,
)

from lab import hosts

EXTRA = hosts.keypair()[1]


@dataclass
class Site:
    """Us, by `wiresnake up`, and a peer that is up already."""

    us: End
    peer: End
    file: Path

    def quick(self, *words: str, check: bool = True) -> CompletedProcess[str]:
        backend = ("--backend", "user") if words[0] == "up" else ()
        return self.us.host.run(WIRESNAKE, *words, *backend, self.file, check=check)

    def text(self, *, allowed: str, settings: str = "", more: str = "", key: bool = True) -> None:
        lines = configuration(self.us, self.peer, outer=4, allowed=allowed).splitlines()
        lines = [one for one in lines if not one.startswith("ListenPort")]
        if not key:
            lines = [one for one in lines if not one.startswith("PrivateKey")]
        address = f"Address = {self.us.inner[4]}/24, {self.us.inner[6]}/64"
        lines[1:1] = [address, *settings.splitlines()]
        self.file.touch(mode=0o600)
        self.file.write_text("\n".join([*lines, more, ""]))

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def network(self) -> list[str]:
        return harness.network(self.us.host)

    def device(self) -> str:
        """All but times and counters."""
        dump = self.us.wg("show", "wg0", "dump")
        return re.sub(r"(?m)\t\d+\t\d+\t\d+\t(\w+)$", r"\t\1", dump)


@pytest.fixture
def make_site(make_host: MakeHost, tmp_path: Path) -> Callable[..., Site]:
    def make(*, allowed: str) -> Site:
        us, peer = ends(make_host("us", kernel_wireguard=False), make_host("peer"))
        OURS.start(peer.host)
        peer.wg("setconf", "wg0", "/dev/stdin", text=configuration(peer, us))
        peer.up()
        hosts.await_tunnel(peer.host)
        site = Site(us, peer, tmp_path / "wg0.conf")
        site.text(allowed=allowed)
        site.quick("up")
        return site

    return make


def test_a_full_tunnel_keeps_its_mark_and_port(make_site: Callable[..., Site]) -> None:
    """compat 2c.1 and 2c.2: `wg syncconf` takes a new port each time and drops the mark, so that
    the endpoint is looked for in the tunnel and `down` leaves two rules behind. Pings go on."""
    site = make_site(allowed="0.0.0.0/0, ::/0")
    us, host = site.us, site.us.host
    assert_pings(site.us, site.peer)
    port, mark = us.wg("show", "wg0", "listen-port"), us.wg("show", "wg0", "fwmark")
    assert mark == "0xca6c\n"
    handshake = us.handshake()
    pings = host.start("ping -n -q -c 150 -i 0.01 -W 2", site.peer.inner[4])
    for number in range(3):
        more = f"[Peer]\nPublicKey = {EXTRA}\nAllowedIPs = 10.50.{number}.0/24"
        site.text(allowed="0.0.0.0/0, ::/0", settings=f"MTU = {1400 + number}", more=more)
        site.quick("reload")
    assert "mtu 1402" in host.output("ip link show wg0")
    assert " 0% packet loss" in pings.wait(10)[1]
    assert us.wg("show", "wg0", "listen-port") == port
    assert us.wg("show", "wg0", "fwmark") == mark
    assert us.handshake() == handshake, "the session is still the first"
    way = host.output(f"ip route get {site.peer.outer[4]} mark {int(mark, 16)}")
    assert f"dev {us.device} " in way
    assert "10.50.2.0/24 dev wg0" in host.output("ip -4 route")
    site.quick("down")
    assert "lookup 51820" not in host.output("ip -4 rule")
    assert "suppress" not in host.output("ip -4 rule") + host.output("ip -6 rule")


def test_the_difference_can_be_read(make_site: Callable[..., Site]) -> None:
    site = make_site(allowed="10.9.0.0/24, fd09::/64")
    before, device = site.network(), site.device()
    done = site.quick("reload", "--diff")
    assert (done.returncode, done.stdout) == (0, "")
    site.text(
        allowed="10.9.0.0/24, fd09::/64, 10.8.0.0/16",
        settings="FwMark = 0x99\nMTU = 1380\nListenPort = 4500\nAddress = 10.99.0.1/32",
        more=f"PersistentKeepalive = 25\n[Peer]\n# friendly_name = phone\nPublicKey = {EXTRA}\n"
        f"PresharedKey = {site.us.private}\nAllowedIPs = fd77::2/128",
    )
    done = site.quick("reload", "--diff", check=False)
    assert done.returncode == 2
    port = site.us.wg("show", "wg0", "listen-port").strip()
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            f"~ listen port {port} -> 4500",
            "~ fwmark off -> 0x99",
            f"~ peer {site.peer.public}: persistent keepalive off -> 25, allowed ips +10.8.0.0/16",
            f"+ peer phone ({EXTRA}): preshared key added, allowed ips +fd77::2/128",
            "+ ip -4 address add 10.99.0.1/32 dev wg0",
            "~ ip link set mtu 1380 up dev wg0",
            "+ ip -6 route add fd77::2/128 dev wg0",
            "+ ip -4 route add 10.8.0.0/16 dev wg0",
        ]
    )
    assert site.us.private not in done.stdout
    assert (site.network(), site.device()) == (before, device), "nothing was changed"
    assert site.quick("reload").returncode == 0
    assert site.quick("reload", "--diff").returncode == 0
    reloaded, device = site.network(), site.device()
    site.quick("down")
    hosts.wait_for("the daemon's end", lambda: not site.us.host.processes("wiresnaked"))
    site.quick("up")
    site_local = re.compile("fe80::[0-9a-f:]+|[0-9]+: wg0|link/none.*")
    assert [site_local.sub("", one) for one in site.network()] == [
        site_local.sub("", one) for one in reloaded
    ]
    assert site.device() == device


def test_all_or_nothing(make_site: Callable[..., Site]) -> None:
    """What fails late brings back what was done before; so does a loop, and a mistake in the file
    touches nothing at all. A file without a private key keeps it."""
    site = make_site(allowed="10.9.0.0/24, fd09::/64")
    assert_pings(site.us, site.peer)
    before, device = site.network(), site.device()
    more = f"[Peer]\nPublicKey = {EXTRA}\nAllowedIPs = 10.77.0.0/16"
    outer = site.peer.outer[4]
    taken = hosts.udp_socket(site.us.host, socket.AF_INET, 4600)
    for allowed, settings, said in (
        ("10.9.0.0/24, fd09::/64", "MTU = 20\nListenPort = 4500", "mtu 20"),
        (
            "10.9.0.0/24, fd09::/64, 192.0.2.0/25",
            "ListenPort = 4500",
            f"{outer}, the endpoint of peer",
        ),
        ("10.9.0.0/24, fd09::/64, 192.0.2.0/33", "", ":6:1: bad value of 'AllowedIPs'"),
        ("10.9.0.0/24, fd09::/64", "ListenPort = 4600", "Address already in use"),
        ("10.9.0.0/24, fd09::/64", "DNS = 192.0.2.53", "neither resolvconf nor systemd-resolved"),
    ):
        site.text(allowed=allowed, settings=settings, more=more)
        done = site.quick("reload", check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert site.network() == before
        assert site.device() == device
    taken.close()
    # A new peer takes the networks of one that goes: these come back to it, and its session lives.
    site.text(allowed="10.9.0.0/24, fd09::/64", settings="DNS = 192.0.2.53")
    site.edit(f"PublicKey = {site.peer.public}", f"PublicKey = {EXTRA}")
    assert site.quick("reload", check=False).returncode == 1
    assert (site.network(), site.device()) == (before, device)
    assert_pings(site.us, site.peer)
    site.text(allowed="10.9.0.0/24, fd09::/64", key=False)
    assert "has no PrivateKey, so wg0 keeps its key" in site.quick("reload").stderr
    assert site.device() == device


def test_an_interrupted_reload(make_site: Callable[..., Site], tmp_path: Path) -> None:
    """Is undone; after a kill by whatever comes next, and the device's mark and port with it: with
    others than the rules', its datagrams would go into its own tunnel."""
    full = "0.0.0.0/0, ::/0"
    site = make_site(allowed=full)
    host = site.us.host
    tools = tmp_path / "tools"
    tools.mkdir()
    slow = "-a) test ! -e /run/slow || sleep 20; "
    (tools / "resolvconf").write_text(RESOLVCONF.replace("-a) ", slow))
    (tools / "resolvconf").chmod(0o755)
    env = {"PATH": f"{tools}:{hosts.program_path()}"}

    def reload(*words: str) -> CompletedProcess[str]:
        return host.run(WIRESNAKE, "reload", *words, site.file, env=env, check=False)

    def now() -> tuple[str, str]:
        """The numbers of rules run downwards with each new pair."""
        network = re.sub(r"(?m)^\d+:", "", "".join(site.network()))
        return network, site.device()

    def old() -> None:
        site.text(allowed=full, settings="FwMark = 0x77\nListenPort = 4400")

    def new() -> None:
        site.text(
            allowed=full,
            settings="FwMark = 0x99\nListenPort = 4500\nDNS = 192.0.2.53\nMTU = 1390",
            more=f"[Peer]\nPublicKey = {EXTRA}\nAllowedIPs = 10.77.0.0/16",
        )

    states = []
    for write in (old, new, old):
        write()
        assert reload().returncode == 0
        states.append(now())
    before, after, again = states
    assert again == before != after
    new()
    for number in (signal.SIGINT, signal.SIGKILL):
        host.run("touch /run/slow")
        running = host.start(WIRESNAKE, "reload", site.file, env=env)
        hosts.wait_for("resolvconf", lambda: host.processes("sleep"))
        os.kill(running.pid, number)
        host.run("rm /run/slow")
        for pid in host.processes("sleep"):
            os.kill(pid, signal.SIGKILL)
        code, _ = running.wait(10)
        if number == signal.SIGINT:
            assert (code, now()) == (130, before)
    assert site.us.wg("show", "wg0", "fwmark") == "0x99\n"
    done = reload("--diff")
    assert done.returncode == 2
    assert {"~ listen port 4400 -> 4500", "~ fwmark 0x77 -> 0x99"} <= {*done.stdout.splitlines()}
    assert "[!] a change of wg0 was killed: undoing what it left behind" in done.stderr
    assert "[#] wg set wg0 fwmark 119" in done.stderr
    assert now()[0] == before[0]
    assert site.us.wg("show", "wg0", "listen-port") == "4400\n"
    assert_pings(site.us, site.peer)
    done = reload("--diff")
    assert (done.returncode, done.stderr) == (2, "")
    assert reload().returncode == 0
    assert now() == after
    assert_pings(site.us, site.peer)
    host.run(WIRESNAKE, "down", site.file, env=env)
    assert "suppress" not in host.output("ip -4 rule")


def test_an_mtu_that_is_too_small_for_ipv6(make_site: Callable[..., Site]) -> None:
    """The kernel then takes IPv6's addresses and routes away by itself: nothing may be forgotten,
    neither when it fails nor on the way back. wg-quick fails in the midst, or says nothing."""
    wide = "10.9.0.0/24, fd09::/64, fd77::/48"
    site = make_site(allowed=wide)
    host = site.us.host

    def ipv6() -> list[str]:
        """Without the kernel's own link-local address, which comes with IPv6."""
        found = host.output("ip -o -6 address show wg0") + host.output("ip -6 route show dev wg0")
        return re.findall(r"(?<!\S)fd\S+", found)

    before = ipv6()
    assert len(before) == 3
    site.text(allowed=wide, settings="MTU = 1000")
    done = site.quick("reload", check=False)
    assert "IPv6 needs an MTU of 1280, but this is 1000" in done.stderr
    assert done.returncode == 1
    assert ipv6() == before
    site.text(allowed="10.9.0.0/24, 192.0.2.0/25", settings="MTU = 1000")  # with a loop
    assert site.quick("reload", check=False).returncode == 1
    assert ipv6() == before
    site.text(allowed="10.9.0.0/24", settings="MTU = 1000")
    assert f"without Address {site.us.inner[6]}/64" in site.quick("reload").stderr
    assert ipv6() == []
    assert site.quick("reload", "--diff").returncode == 0
    site.text(allowed=wide, settings="MTU = 1420")
    site.quick("reload")
    assert ipv6() == before


def test_a_peer_that_roamed_stays_where_it_is(make_site: Callable[..., Site]) -> None:
    """Until its endpoint is edited. Of a peer that is not reached a name is looked up again."""
    site = make_site(allowed="10.9.0.0/24, fd09::/64")
    assert_pings(site.us, site.peer)
    move(site.peer, 4)
    hosts.wait_for("the peer's new port", lambda: hosts.listens(site.peer.host, NEW_PORT, "udp"))
    site.peer.host.run("ping -c 1 -W 3", site.us.inner[4])
    moved = site.us.peer_endpoint()
    assert moved == f"{NEW_OUTER[4]}:{NEW_PORT}"
    assert site.quick("reload", "--diff").returncode == 0
    site.edit("fd09::/64\n", "fd09::/64, 10.6.0.0/16\n")
    site.quick("reload")
    assert site.us.peer_endpoint() == moved
    site.edit("192.0.2.2:51820", "192.0.2.101:51820")
    site.quick("reload")
    assert site.us.peer_endpoint() == "192.0.2.101:51820"


def test_what_wg_quick_brought_up(make_site: Callable[..., Site]) -> None:
    """Is reloaded, too; a second reload finds nothing to do, and wg-quick takes it down."""
    site = make_site(allowed="10.9.0.0/24, fd09::/64")
    host = site.us.host
    site.quick("down")
    hosts.wait_for("the daemon's end", lambda: not host.processes("wiresnaked"))
    before = site.network()
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
    site.text(allowed="0.0.0.0/0")
    host.run("wg-quick up", site.file, env=env)
    assert site.quick("reload", "--diff").returncode == 0
    site.text(allowed="0.0.0.0/0, ::/0", settings="MTU = 1333")
    site.quick("reload")
    assert "lookup 51820" in host.output("ip -6 rule")
    assert "mtu 1333" in host.output("ip link show wg0")
    assert site.quick("reload", "--diff").returncode == 0
    host.run("wg-quick down", site.file, env=env)
    assert site.network() == before


PRIVATE = hosts.keypair()[0]
PHONE, TABLET, SECRET = hosts.keypair()[1], hosts.keypair()[1], hosts.tool("wg genpsk")


@dataclass
class Alone:
    """One host whose file names a peer, and which hears nobody."""

    host: hosts.Host
    file: Path

    def write(self, *head: str, more: str = "") -> None:
        lines = ["[Interface]", f"PrivateKey = {PRIVATE}", "Address = 10.9.0.1/24", *head]
        lines += ["ListenPort = 51820", "[Peer]", f"PublicKey = {EXTRA}"]
        self.file.touch(mode=0o600)
        self.file.write_text("\n".join([*lines, "AllowedIPs = 10.9.0.2/32", more, ""]))

    @property
    def env(self) -> dict[str, str]:
        """With a resolvconf."""
        return {"PATH": f"{self.file.parent}:{hosts.program_path()}"}

    def __call__(self, *words: str | Path, check: bool = True) -> CompletedProcess[str]:
        words = (*words, self.file) if words[0] != "new" else (*words, "--server", self.file)
        return self.host.run(WIRESNAKE, *words, check=check, env=self.env)

    def add(self) -> CompletedProcess[str]:
        output = ("-o", self.file.with_name("new-one.conf"))
        return self("new", "peer", "new-one", "--endpoint", "h", "--no-qr", "--reload", *output)

    def peers(self) -> dict[str, str]:
        """Allowed IPs by public key."""
        found = self.host.output("wg show wg0 allowed-ips").splitlines()
        return {key: ips for key, _, ips in (line.partition("\t") for line in found)}

    def look(self) -> list[str]:
        """All that a reload could change."""
        dump = sorted(self.host.output("wg show wg0 dump").splitlines())
        records = self.host.run("sh -c 'cat /run/records/*'", check=False).stdout
        return [*harness.network(self.host), records, "\n".join(dump)]

    def assert_unchanged(self) -> str:
        """A reload has nothing to do, and does nothing; what it says."""
        before = self.look()
        done = self("reload", "--diff")
        assert (done.returncode, done.stdout) == (0, "")
        assert self("reload").stderr == done.stderr
        assert self.look() == before
        return done.stderr


@pytest.fixture
def alone(make_host: MakeHost, tmp_path: Path) -> Alone:
    (tmp_path / "resolvconf").write_text(RESOLVCONF)
    (tmp_path / "resolvconf").chmod(0o755)
    return Alone(make_host("alone", kernel_wireguard=False), tmp_path / "wg0.conf")


HOOKS = (
    f"PostUp = wg set %%i peer {EXTRA} preshared-key %s/psk persistent-keepalive 25",
    "PostUp = wg addconf %%i %s/peers.conf",
    "PostUp = ip route add 10.60.0.0/16 dev %%i; ip route add default dev %%i table 42",
    "PostUp = ip address add 10.9.9.9/32 dev %%i",
    "PostUp = echo nameserver 10.9.0.53 | resolvconf -a %%i",
)


@pytest.mark.parametrize("daemon", [OURS, GO_DEBIAN], ids=lambda one: one.name)
def test_what_hooks_added_stays(alone: Alone, daemon: harness.Implementation) -> None:
    """Peers, keys, networks, routes and addresses; who is taken out of the file goes all the same,
    also when nothing tells any more that it was there."""
    daemon.need()
    folder = alone.file.parent
    (folder / "psk").write_text(SECRET)
    (folder / "peers.conf").write_text(
        f"[Peer]\nPublicKey = {PHONE}\nAllowedIPs = 10.9.0.3/32, 10.60.0.0/16\n"
    )
    hooks = [one.replace("%s", str(folder)).replace("%%", "%") for one in HOOKS]
    tablet = f"[Peer]\n# friendly_name = tablet\nPublicKey = {TABLET}\nAllowedIPs = 10.9.0.4"
    alone.write(*hooks, more=tablet)
    env = {**alone.env, "WG_QUICK_USERSPACE_IMPLEMENTATION": daemon.program}
    alone.host.run(WIRESNAKE, "up", "--backend", "user", alone.file, env=env)
    said = alone.assert_unchanged()
    assert f"does not name: peer {PHONE}" in said
    assert f"peer {EXTRA} keeps its preshared key" in said
    assert SECRET not in said + alone.host.output("cat /run/wiresnake/wg0.applied")
    alone.add()
    found = alone.peers()
    assert sorted(found.values())[:2] == ["10.9.0.2/32", "10.9.0.3/32 10.60.0.0/16"]
    assert sorted(found.values())[2:] == ["10.9.0.4/32", "10.9.0.5/32"], "the next that is free"
    alone.assert_unchanged()
    # Taken out: by an editor, and by the command.
    text = alone.file.read_text()
    alone.file.write_text(text.replace(tablet, ""))
    done = alone("reload", "--diff", check=False)
    assert (done.returncode, done.stdout) == (2, f"- peer {TABLET}\n")
    alone("reload")
    alone.host.run(WIRESNAKE, "remove", "new-one", "--server", alone.file, "--reload")
    assert set(alone.peers()) == {EXTRA, PHONE}
    alone.assert_unchanged()
    # Without a record nobody knows who was taken out.
    alone.file.write_text(text)
    alone("reload")
    alone.file.write_text(text.replace(tablet, ""))
    alone.host.run("rm /run/wiresnake/wg0.applied")
    done = alone("reload", "--diff", check=False)
    assert f"- peer {TABLET}\n" in done.stdout
    assert "preshared" not in done.stdout
    assert "--keep keeps it" in done.stderr
    assert alone("reload", "--keep", "--diff").stdout == ""
    alone("reload")
    assert TABLET not in alone.peers()
    assert alone.host.output("wg show wg0 preshared-keys").count(SECRET) == 1
    alone("down")


def test_with_save_config_the_interface_is_the_truth(alone: Alone) -> None:
    """Peers that came by `wg set`, keys and addresses that changed: nothing is lost by a new peer,
    by a reload, or by `down`."""
    host = alone.host
    alone.write("SaveConfig = true")
    alone("up", "--backend", "user")
    host.run(f"wg set wg0 peer {PHONE} allowed-ips 10.9.0.3/32,10.60.0.0/16")
    host.run(f"wg set wg0 peer {EXTRA} persistent-keepalive 25 allowed-ips 10.9.0.22/32")
    host.run("wg set wg0 listen-port 4444")
    host.run("ip address add 10.9.0.4/24 dev wg0")
    assert "interface: wg0" not in alone.assert_unchanged()
    alone.add()
    found = alone.peers()
    assert found.pop(PHONE) == "10.9.0.3/32 10.60.0.0/16"
    assert found.pop(EXTRA) == "10.9.0.22/32"
    assert list(found.values()) == ["10.9.0.5/32"], "no address of a peer, nor of the interface"
    alone.assert_unchanged()
    # Who was taken off the interface does not come back.
    host.run(f"wg set wg0 peer {EXTRA} remove")
    assert "stays removed" in alone.assert_unchanged()
    alone("down")
    text = alone.file.read_text()
    assert {PHONE, *found} == set(re.findall("PublicKey = (.*)", text))
    assert "# friendly_name = new-one" in text
    assert "ListenPort = 4444" in text
    assert "Address = 10.9.0.4/24" in text


def test_routes_of_hooks_that_wg_quick_ran(alone: Alone) -> None:
    """No record says what they are: only routes of networks that go are removed."""
    host = alone.host
    hooks = [one.replace("%%", "%") for one in HOOKS[2:]]
    phone = f"[Peer]\nPublicKey = {PHONE}\nAllowedIPs = 10.70.0.0/16"
    env = {**alone.env, "WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
    for table, gone in (
        (["Table = off"], set()),
        ([], {"- ip -4 route delete 10.70.0.0/16 dev wg0"}),
    ):
        alone.write(*table, *hooks, more=phone)
        host.run("wg-quick up", alone.file, env=env)
        before = alone.look()
        done = alone("reload", "--diff")
        assert (done.returncode, done.stdout) == (0, "")
        alone.write(*table, *hooks)
        done = alone("reload", "--diff", check=False)
        assert {*done.stdout.splitlines()} == {f"- peer {PHONE}", *gone}
        alone("new", "peer", "x", "--endpoint", "h", "--no-qr", "-o", "/run/x", "--reload")
        assert alone.look()[:-1] == before[:-1], "a new peer changes nothing else"
        alone("reload")
        found = "\n".join(alone.look())
        assert all(one in found for one in ("10.60.0.0/16", "10.9.9.9/32", "nameserver 10.9.0.53"))
        assert "default" in host.output("ip route show table 42")
        assert "10.70.0.0/16" not in found
        alone("reload")
        assert "10.9.9.9/32" in "\n".join(alone.look())
        alone("down")
        host.run("rm -f /run/x /run/records/wg0")
        hosts.wait_for("the daemon's end", lambda: not host.processes("wiresnaked"))


def test_what_was_saved_is_the_files_from_then_on(alone: Alone) -> None:
    """Who is taken out of it goes; and `new` finds what it had noted."""
    folder = alone.file.parent
    (folder / "peers.conf").write_text(f"[Peer]\nPublicKey = {PHONE}\nAllowedIPs = 10.9.0.3/32\n")
    alone.write("# endpoint = vpn.example", "# dns = 10.9.0.1, lan", HOOKS[1] % folder)
    alone("up", "--backend", "user")
    assert "does not name" in alone.assert_unchanged()
    alone("save")
    done = alone("reload", "--diff")
    assert (done.stdout, done.stderr) == ("", ""), "it names all of them by now"
    text = alone.file.read_text()
    assert text.startswith("# endpoint = vpn.example\n# dns = 10.9.0.1, lan\n[Interface]\n")
    alone.host.run(WIRESNAKE, "remove", PHONE, "--server", alone.file)
    assert alone("reload", "--diff", check=False).stdout == f"- peer {PHONE}\n"
    alone("reload")
    assert alone.peers() == {EXTRA: "10.9.0.2/32"}
    made = folder / "phone.conf"
    alone("new", "peer", "phone", "--no-qr", "-o", made)
    assert "Endpoint = vpn.example:51820\n" in made.read_text()
    assert "DNS = 10.9.0.1, lan\n" in made.read_text()
    alone("down")
