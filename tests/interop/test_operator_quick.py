"""`wiresnake up`, `down`, `save`, `strip` beside stock wg-quick, in two hosts that are the same."""

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from interop.harness import OURS, RESOLVCONF, WIRESNAKE, unavailable

from lab import hosts
from lab.hosts import Host

PRIVATE, PUBLIC = hosts.keypair()
_, OTHER = hosts.keypair()
THIRD = hosts.keypair()[1]

FORGETFUL = RESOLVCONF.replace("-l)", "-l) exit ;; -L)")
"""Many a container's or router's takes -a and -d alone."""

TOOLS = (
    "ip iptables ip6tables iptables-save ip6tables-save iptables-restore ip6tables-restore sysctl"
)

PEER = f"""
[Peer]
PublicKey = {OTHER}
AllowedIPs = 10.9.0.2/32, 10.7.0.0/16, fd07::/48, 192.168.3.4
Endpoint = 192.0.2.9:51820
"""
FULL = PEER.replace("AllowedIPs = ", "AllowedIPs = 0.0.0.0/0, ::/0, ")
KEY = f"[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\n"
ONE = "Address = 10.9.0.1/24\n"

CONFIGURATIONS = {
    "addresses": f"{KEY}{ONE[:-1]},fd09::1/64 10.10.0.1/32\nAddress=fd0a::1/128\n{PEER}",
    "no address": f"{KEY}DNS = search.is.ignored.without.server\n{PEER}",
    "MTU of a route": f"{KEY}{ONE}{PEER.replace('192.0.2.9', '203.0.113.9')}",
    "Table off": f"{KEY}MTU = 1300\nTable = off\n{ONE}{FULL}",
    "Table N": f"{KEY}Table = 1234\n{ONE}{FULL}",
    "Table name": f"{KEY}Table = main\n{ONE}{PEER}",
    "default route": f"{KEY}{ONE}Address = fd09::1/64\n{FULL}",
    "default route, own mark": f"{KEY}FwMark = 0x1234\n{ONE}{FULL.replace('::/0, ', '')}",
    "default route, greatest mark": f"{KEY}FwMark = 0xffffffff\n{ONE}{FULL}",
    "greatest table": f"{KEY}FwMark = 0x80000000\nTable = 4294967295\n{ONE}{FULL}",
    "DNS": f"{KEY}DNS = 192.0.2.53, 2001:db8::53, corp.example lan\n{ONE}{PEER}",
    "hooks": f"{KEY}{ONE}PreUp = echo pre %i >>/run/said\n"
    "PostUp = ip -4 route add 10.77.0.0/16 dev %i; echo post >>/run/said\n"
    "PreDown = ip link show %i >/dev/null; echo down %i >>/run/said\n"
    f"PostDown = echo gone; echo $(( 1 + 2 )) >>/run/said\n{PEER}",
    "spaces, CRLF": f"{KEY}{ONE}{PEER}".replace("AllowedIPs", "Allowed IPs")
    .replace("Address", "address")
    .replace("51820", "51 8 20")
    .replace("\n", "\r\n"),
    "sections again": f"{PEER}[Interface]\n{ONE}{KEY}{PEER.replace(OTHER, THIRD)}",
}


@dataclass
class Machine:
    """A host with a network, and a wg-quick: theirs or ours."""

    host: Host
    program: tuple[str | Path, ...]
    file: Path
    tools: Path
    """Goes first in PATH."""
    hidden: bool = False
    """No nft."""

    def __call__(
        self, command: str, *more: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        theirs = "wg-quick" in self.program
        rest = "/usr/bin:/bin" if theirs and self.hidden else hosts.program_path()
        variables = {"WG_QUICK_USERSPACE_IMPLEMENTATION": OURS.program}
        variables |= {"PATH": f"{self.tools}:{rest}", **(env or {})}
        if command == "up" and not theirs:
            more = ("--backend", "user", *more)
        return self.host.run(*self.program, command, *more, self.file, env=variables, check=check)

    def write(self, text: str) -> None:
        self.file.touch(mode=0o600)
        self.file.write_bytes(text.encode())

    def network(self) -> dict[str, str]:
        """All that a wg-quick may change."""
        commands = {**_COMMANDS, **(_IPTABLES if self.hidden else _NFT)}
        script = "\n".join(f"echo '@@ {what}'; {one}" for what, one in commands.items())
        parts = self.host.output("sh -c", script).split("@@ ")[1:]
        found = {what: _still(text) for what, _, text in (one.partition("\n") for one in parts)}
        return found

    def gone(self) -> None:
        hosts.wait_for("the daemon's end", lambda: not self.host.processes("wiresnaked"))


def without_block(network: dict[str, str]) -> dict[str, str]:
    """What a wg-quick would have made. Our full tunnel has an unreachable default, too, the
    last of its table, so that nothing goes around it once its daemon has died."""
    found = dict(network)
    for version in (4, 6):
        lines = network[f"IPv{version} routes"].splitlines()
        rest = [line for line in lines if "metric 4000051820" not in line]
        full = "fwmark" in network[f"IPv{version} rules"]
        assert len(lines) - len(rest) == full, lines
        found[f"IPv{version} routes"] = "\n".join(rest)
    return found


_COMMANDS = {
    "addresses": "ip -brief address",
    "links": "ip -oneline link",
    "IPv4 routes": "ip -4 route show table all",
    "IPv6 routes": "ip -6 route show table all",
    "IPv4 rules": "ip -4 rule",
    "IPv6 rules": "ip -6 rule",
    "wg": "wg show all dump",
    "DNS": "tail -n +1 /run/records/* 2>/dev/null",
    "said": "cat /run/said 2>/dev/null",
}
_NFT = {"firewall": "nft list ruleset"}
_IPTABLES = {
    # Without the names of tables, which come up when one is only looked at.
    f"firewall, {save}": f"{save} | sed '/^[#:*]\\|COMMIT/d'"
    for save in ("iptables-save", "ip6tables-save")
}


def _still(text: str) -> str:
    """Without what chance decides: link-local and hardware addresses, and the order they bring."""
    text = re.sub(r"fe80::[0-9a-f:]+", "fe80::", text)
    text = re.sub(r"(link/\w+) [0-9a-f:]+", r"\1", text)
    text = re.sub(r"(?m)^\d+: ", "", text)
    return "\n".join(sorted(text.splitlines()))


def echoes(text: str) -> list[str]:
    """wg-quick's lines of what it does. Ours differ in order, as routes are made at once and rules
    come last, and follow wg-quick of 2026: `addconf`, and no sysctl where it is so already. How the
    interface is made differs by backend, and wg-quick has no block."""
    lines = []
    for line in text.splitlines():
        if line.startswith("[#] ") and not re.search("type wireguard|sysctl|unreachable", line):
            line = re.sub("(route add .*) table main", r"\1", line)
            line = line.replace("wg setconf", "wg addconf")
            line = re.sub("(nft -f|resolvconf .*) .*", r"\1", line)
            lines.append(line)
    return sorted(lines)


@pytest.fixture(scope="module")
def pair(
    machine: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Machine]]:
    """Stock wg-quick and ours, in two hosts that are the same."""
    if missing := hosts.missing_programs("iptables", "wg-quick", "nft"):
        unavailable(f"missing programs: {', '.join(missing)}")
    tools = tmp_path_factory.mktemp("tools")
    (tools / "resolvconf").write_text(RESOLVCONF)
    (tools / "resolvconf").chmod(0o755)
    for name in TOOLS.split():
        found = shutil.which(name, path=hosts.program_path())
        assert found
        (tools / name).symlink_to(found)
    with Host("stock", kernel_wireguard=False) as a, Host("ours", kernel_wireguard=False) as b:
        machines = []
        for host, program in ((a, ("wg-quick",)), (b, (WIRESNAKE,))):
            folder = tmp_path_factory.mktemp("etc")
            folder.chmod(0o700)
            machines.append(Machine(host, program, folder / "wg0.conf", tools))
            host.run("ip link add eth0 type veth peer name eth1")
            hosts.address(host, "eth0", "192.0.2.1/24", "2001:db8::1/64")
            for device in ("eth0", "eth1"):
                host.run(f"ip link set {device} up")
            host.run("ip route add default via 192.0.2.254")
            host.run("ip route add 203.0.113.0/24 via 192.0.2.253 mtu 1400")
        hosts.wait_for(
            "link-local addresses",
            lambda: all(m.host.output("ip -6 address show tentative") == "" for m in machines),
        )
        yield machines[0], machines[1]


def assert_same(stock: Machine, ours: Machine, text: str) -> None:
    """Both do the same to their hosts, say the same, and undo it."""
    before = stock.network(), ours.network()
    assert before[0] == before[1]
    for machine in (stock, ours):
        machine.write(text)
    said = [machine("up").stderr for machine in (stock, ours)]
    try:
        assert without_block(ours.network()) == stock.network()
        assert echoes(said[1]) == echoes(said[0])
    finally:
        for machine in (stock, ours):
            machine("down")
            machine.gone()
    said_at_hooks = stock.network()["said"]
    after = ours.network()
    assert after["said"] == said_at_hooks
    for machine in (stock, ours):
        machine.host.run("rm -f /run/said")
    assert ours.network() == before[1]
    assert ours.host.output("ls /run/wiresnake") == ""


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_same_as_wg_quick(pair: tuple[Machine, Machine], name: str) -> None:
    assert_same(*pair, CONFIGURATIONS[name])


def test_a_reload_leads_where_an_up_would(pair: tuple[Machine, Machine]) -> None:
    """From each of these to the next; only the mark stays, as it may be somebody's."""
    stock, ours = pair
    before = ours.network()
    try:
        for number, name in enumerate(("addresses", "default route", "Table off", "DNS")):
            for machine in pair:
                machine.write(CONFIGURATIONS[name])
            ours("reload" if number else "up")
            stock("up")
            wanted, found = stock.network(), without_block(ours.network())
            stock("down")
            stock.gone()
            for network in (wanted, found):
                text = re.sub("\t(0x[0-9a-f]+|off)$", "", network["wg"], flags=re.M)
                network["wg"] = " ".join(sorted(re.split("[,\t\n]", text)))
            assert found == wanted, name
    finally:
        ours("down")
    ours.gone()
    assert ours.network() == before


@pytest.fixture
def without_nft(pair: tuple[Machine, Machine]) -> Iterator[tuple[Machine, Machine]]:
    """Hosts where wg-quick has to take iptables."""
    nft = shutil.which("nft", path=hosts.program_path())
    assert nft
    for machine in pair:
        machine.host.run("mount --bind /dev/null", nft)
        machine.hidden = True
    yield pair
    for machine in pair:
        machine.host.run("umount", nft)
        machine.hidden = False


def test_iptables_as_wg_quick(without_nft: tuple[Machine, Machine]) -> None:
    assert_same(*without_nft, CONFIGURATIONS["default route"])


def test_each_takes_down_what_the_other_brought_up(pair: tuple[Machine, Machine]) -> None:
    stock, ours = pair
    text = f"{KEY}{ONE}DNS = 192.0.2.53\nPostDown = echo %i >>/run/said\n{FULL}"
    before = ours.network()
    for first, second in ((stock, ours), (ours, stock)):
        host = first.host
        first.write(text)
        moved = replace(second, host=host, file=first.file)
        first("up")
        moved("down")
        moved.gone()
        assert host.output("cat /run/said") == "wg0\n"
        host.run("rm /run/said")
        after = first.network()
        if first is ours:  # wg-quick knows of no block; without a rule none leads there.
            for version in ("IPv4 routes", "IPv6 routes"):
                lines = after[version].splitlines()
                rest = [line for line in lines if "table 51820 metric 4000051820" not in line]
                assert len(lines) - len(rest) == 1
                after[version] = "\n".join(rest)
        assert after == before
    # Ours finds nothing to clean up after stock took it down, and brings it up again.
    ours("up")
    ours("down")
    ours.gone()
    ours.host.run("rm /run/said")
    assert ours.network() == before


def test_a_resolvconf_that_knows_no_list(pair: tuple[Machine, Machine]) -> None:
    """It takes name servers and says nothing of them: they are taken back all the same, those of
    wg-quick too, and a reload of the same file is none."""
    stock, ours = pair
    resolvconf = ours.tools / "resolvconf"
    resolvconf.write_text(FORGETFUL)
    ours.write(f"{KEY}{ONE}DNS = 192.0.2.53, corp.example\n{PEER}")
    before = ours.network()
    try:
        for first in (ours, replace(stock, host=ours.host, file=ours.file)):
            first("up")
            assert "192.0.2.53" in ours.network()["DNS"]
            if first is ours:
                same = ours("reload", "--diff")
                assert (same.stdout, same.returncode) == ("", 0)
            assert "[#] resolvconf -d wg0 -f\n" in ours("down").stderr
            ours.gone()
            assert ours.network() == before
        # Nobody is left to take them back.
        ours("up")
        resolvconf.chmod(0)
        said = ours("down").stderr
        assert "neither resolvconf nor systemd-resolved is left to remove the name" in said
        assert ours.host.output("ls /run/wiresnake") == ""
    finally:
        resolvconf.chmod(0o755)
        ours.host.run("resolvconf -d wg0", env={"PATH": f"{ours.tools}:{hosts.program_path()}"})
        resolvconf.write_text(RESOLVCONF)
    ours.gone()
    assert ours.network() == before


@pytest.mark.parametrize("hook", ["PreUp", "PostUp", "PreDown", "PostDown"])
def test_a_hook_that_fails(pair: tuple[Machine, Machine], hook: str) -> None:
    """Both stop there with its exit code; an `up` is undone, a `down` before it began."""
    before = pair[1].network()
    text = f"{KEY}{ONE}DNS = 192.0.2.53\n{hook} = false; true\n{hook} = touch /run/never\n{FULL}"
    text = text.replace("false; true", "exit 3") if hook.endswith("Up") else text
    codes = []
    for machine in pair:
        machine.write(text)
        codes.append(machine("up", check=False).returncode)
        if hook.endswith("Down"):
            assert codes[-1] == 0
            up = machine.network()
            codes[-1] = machine("down", check=False).returncode
            if hook == "PreDown":
                assert machine.network() == up
                machine.write(text.replace(hook, "PostUp"))
                machine("down")
        machine.gone()
        assert machine.host.run("test -e /run/never", check=False).returncode == 1
        assert machine.network() == before
    assert codes[1] == (3 if hook.endswith("Up") else 1)
    if hook != "PreUp":  # That of 2021 comes before the interface, whose removal then fails.
        assert codes[0] == codes[1]


def test_pre_up_comes_before_names_are_resolved(
    pair: tuple[Machine, Machine], tmp_path: Path
) -> None:
    """As with wg-quick: it may be what makes them known. One that stays unknown is an error then,
    and undone; what no hook can make right is one before anything is touched."""
    _, ours = pair
    (tmp_path / "nsswitch.conf").write_text("hosts: files\n")
    (tmp_path / "hosts").write_text("192.0.2.7 vpn.preup.test\n")
    ours.host.run("mount --bind", tmp_path / "nsswitch.conf", "/etc/nsswitch.conf")
    before = ours.network()
    known = f"PreUp = mount --bind {tmp_path / 'hosts'} /etc/hosts; echo pre >>/run/said\n"
    named = PEER.replace("192.0.2.9", "vpn.preup.test")
    without = {"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
    try:
        ours.write(f"{KEY}{ONE}{known}PostDown = umount /etc/hosts\n{named}")
        ours("up", env=without)
        assert f"{OTHER}\t192.0.2.7:51820\n" == ours.host.output("wg show wg0 endpoints")
        ours("down")
        ours.gone()
        for text, hook_ran, reason in (
            (named.replace("vpn", "other"), True, ":10:1: cannot resolve 'other.preup.test:51820'"),
            (named.replace("fd07::/48", "fd07::/480"), False, ":9:1: bad value of 'AllowedIPs'"),
            (
                named.replace(":51820", ":no-service"),
                False,
                ":10:1: cannot resolve 'vpn.preup.test:no-service'",
            ),
        ):
            ours.host.run("rm -f /run/said")
            ours.write(f"{KEY}{ONE}PreUp = echo pre >>/run/said\n{text}")
            failed = ours("up", check=False, env=without)
            assert failed.returncode == 1
            assert f"wg0.conf{reason}" in failed.stderr
            assert (ours.host.run("test -e /run/said", check=False).returncode == 0) == hook_ran
            ours.gone()
            ours.host.run("rm -f /run/said")
            assert ours.network() == before
            assert ours.host.output("ls /run/wiresnake") == ""
    finally:
        ours.host.run("umount /etc/nsswitch.conf; rm -f /run/said", check=False)


def test_a_hook_keeps_its_number_sign(pair: tuple[Machine, Machine]) -> None:
    """As wg-quick since 2025; that of 2021 cuts the line there."""
    _, ours = pair
    ours.write(f"{KEY}PostUp = echo 'a # b' >/run/said # and a comment\n{PEER}")
    ours("up")
    assert ours.host.output("cat /run/said") == "a # b\n"
    ours("down")
    ours.host.run("rm /run/said")
    ours.gone()


def test_an_endpoint_within_the_tunnel(pair: tuple[Machine, Machine]) -> None:
    """wg-quick brings up a loop in silence. A route that a hook adds is the way out, and so is the
    mark of a default route; and hooks find our programs beside us."""
    _, ours = pair
    looped = PEER.replace("AllowedIPs = ", "AllowedIPs = 192.0.2.0/28, ")
    route = "PostUp = ip route add 192.0.2.9 dev eth0; command -v wiresnaked\n"
    for text, warned in (
        (f"{KEY}{ONE}{looped}", True),
        (f"{KEY}{ONE}{route}PreDown = ip route delete 192.0.2.9 dev eth0\n{looped}", False),
        (f"{KEY}{ONE}{FULL}", False),
    ):
        ours.write(text)
        said = ours("up").stderr
        ours("down")
        ours.gone()
        loop = f"[!] 192.0.2.9, the endpoint of peer {OTHER}, would be reached through wg0 itself"
        assert (loop in said) == warned


def test_strip_and_save(pair: tuple[Machine, Machine]) -> None:
    """Byte for byte, except for three things that wg-quick loses or adds: see `quick.save`."""
    stock, ours = pair
    text = (
        f"# a comment\n{KEY}  {ONE}MTU = 1400\nDNS = 192.0.2.53 , corp.example\nTable = auto\n"
        f"PostUp = echo %i\nPreDown = true\nPostDown = true\nPreUp=true\n\tFwMark = 7 # mark\n"
        f"SaveConfig = TRUE\n{PEER}PersistentKeepalive = 25"
    )
    for machine in pair:
        machine.write(text)
    assert ours("strip").stdout == stock("strip").stdout
    saved = []
    for machine in pair:
        machine("up")
        machine.host.run(f"wg set wg0 peer {THIRD} allowed-ips 10.99.0.0/16")
        machine("save")
        saved.append(machine.file.read_text())
        machine.host.run("ip address add 10.9.0.5/24 dev wg0")
        machine("down")
        machine.gone()
        assert "Address = 10.9.0.5/24" in machine.file.read_text(), "SaveConfig"
        assert machine.file.stat().st_mode & 0o777 == 0o600
    theirs = re.sub("Address = fe80::.*\n", "", saved[0])
    assert saved[1].replace("DNS = corp.example\n", "") == theirs
    assert "corp.example" in saved[1]


def test_save_keeps_names_and_hooks_of_peers(pair: tuple[Machine, Machine]) -> None:
    """And writes no mark that only `up` chose."""
    _, ours = pair
    named = FULL.replace("[Peer]\n", "[Peer]\n# friendly_name = office\nOnUp = true # x\n")
    ours.write(f"{KEY}{ONE}{named}")
    ours("up")
    ours("save")
    ours("down")
    ours.gone()
    text = ours.file.read_text()
    assert f"[Peer]\n# friendly_name = office\nPublicKey = {OTHER}\nOnUp = true # x\n" in text
    assert "FwMark" not in text


@pytest.mark.parametrize("closed", ["/run/wiresnake", "/run/wiresnake /run/wireguard/wiresnake"])
def test_a_root_that_is_read_only(pair: tuple[Machine, Machine], closed: str) -> None:
    """wg-quick needs no folder for records: up, reload and down do without, and take down what
    wg-quick made."""
    stock, ours = pair
    before = ours.network()
    ours.write(f"{KEY}{ONE}DNS = 192.0.2.53\nPostDown = echo gone >>/run/said\n{FULL}")
    for folder in closed.split():
        ours.host.run("mkdir -p", folder)
        ours.host.run("mount -t tmpfs -o ro none", folder)
    try:
        for first in (ours, replace(stock, host=ours.host, file=ours.file)):
            said = [first("up").stderr]
            if first is ours:
                same = ours("reload", "--diff")
                assert (same.stdout, same.returncode) == ("", 0)
                said.append(same.stderr)
            said.append(ours("down").stderr)
            ours.gone()
            assert ours.host.output("cat /run/said") == "gone\n"
            ours.host.run("rm /run/said")
            assert ours.network() == before
            remedy = [text for text in said if "--tmpfs /run/wiresnake" in text]
            assert len(remedy) == (0 if " " not in closed else 3 if first is ours else 1)
    finally:
        for folder in closed.split():
            ours.host.run("umount", folder)


@pytest.mark.parametrize("refusing", ["nft", "nft iptables-restore ip6tables-restore"])
def test_a_firewall_without_a_kernel(pair: tuple[Machine, Machine], refusing: str) -> None:
    """The program is there, and the kernel has no such table: wg-quick gives up. Ours asks the
    other one, else goes without, as where there is no program, and says so."""
    _, ours = pair
    for machine in pair:
        machine.host.run("nft flush ruleset")  # The empty tables in which iptables has its rules.
    before = ours.network()
    held: dict[Path, Path] = {}
    for name in refusing.split():
        fake = ours.tools / name
        if fake.is_symlink():
            held[fake] = fake.readlink()
            fake.unlink()
        fake.write_text("#!/bin/sh\necho 'Error: Operation not supported' >&2\nexit 1\n")
        fake.chmod(0o755)
    none = " " in refusing
    try:
        ours.write(f"{KEY}{ONE}{FULL}")
        said = ours("up").stderr
        assert ("are not dropped" in said and "nft: Error: Operation not supp" in said) == none
        assert ("wg-quick(8) rule" in ours.host.output("iptables-save")) != none
        same = ours("reload", "--diff")
        assert (same.stdout, same.returncode) == ("", 0)
        said = ours("down").stderr
        assert "[!]" not in said
        ours.gone()
        ours.write(f"{KEY}{ONE}PostUp = false\n{FULL}")
        failed = ours("up", check=False)
        assert failed.returncode == 1 and "could not be undone" not in failed.stderr
        ours.gone()
        assert ours.host.output("ls /run/wiresnake") == ""
    finally:
        for name in refusing.split():
            (ours.tools / name).unlink()
        for fake, target in held.items():
            fake.symlink_to(target)
    assert "wg-quick" not in ours.host.output("nft list ruleset")
    ours.host.run("nft flush ruleset")
    assert ours.network() == before


MISTAKES = {
    "nothing there": (None, "does not exist"),
    "bool": ("SaveConfig = yes\n", "`yes' is neither true nor false"),
    "exists": ("", "`wg0' already exists"),
    "not there": ("", "`wg0' is not a WireGuard interface"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_errors_that_scripts_may_look_for(pair: tuple[Machine, Machine], name: str) -> None:
    settings, message = MISTAKES[name]
    for machine in pair:
        if settings is None:
            machine.file.unlink(missing_ok=True)
        else:
            machine.write(KEY + settings)
        if name == "exists":
            machine.host.run("ip link add wg0 type veth peer name wg1")
        done = machine("down" if name == "not there" else "up", check=False)
        assert done.returncode == 1
        assert message in done.stderr
        if name == "exists":
            machine.host.run("ip link delete wg0")


def test_nothing_is_applied_of_a_file_with_a_mistake(pair: tuple[Machine, Machine]) -> None:
    _, ours = pair
    before = ours.network()
    for line, said in (
        ("MTU = big", ":4:7: not an MTU: 'big'"),
        ("Address = 10.9.0.1/24, 10.9.0.300", ":4:24: not an address: '10.9.0.300'"),
        ("Table = nowhere", "there is no routing table 'nowhere'"),
        ("[Peer]\nAddress = 10.9.0.1/24", ":5:1: 'Address' belongs in [Interface]"),
        ("[Peer]\nAllowedIPs = 10.0.0.0/8", ":4:1: this [Peer] has no PublicKey"),
        ("Colour = blue", ":4:1: unknown key 'Colour'"),
        ("PrivateKey = abc", ":4:1: bad value of 'PrivateKey'"),
    ):
        ours.write(f"{KEY}{line}\n")
        done = ours("up", check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert ours.network() == before


def test_a_port_that_is_taken(pair: tuple[Machine, Machine]) -> None:
    """A kernel's device refuses to come up; so does ours, and all is undone."""
    _, ours = pair
    before = ours.network()
    ours.write(f"{KEY}{ONE}PostUp = touch /run/never\n{FULL}")
    taken = hosts.udp_socket(ours.host, socket.AF_INET, 51820)
    done = ours("up", check=False)
    taken.close()
    assert done.returncode == 1
    assert "UDP port 51820 is in use: choose another ListenPort" in done.stderr
    ours.gone()
    assert ours.network() == before
    assert ours.host.run("test -e /run/never", check=False).returncode == 1


def test_down_whatever_became_of_the_file(pair: tuple[Machine, Machine], tmp_path: Path) -> None:
    """It is gone, elsewhere, or has got a mistake: what `up` recorded is enough."""
    _, ours = pair
    before = ours.network()
    good = f"{KEY}{ONE}PostDown = echo down %i >>/run/said\n{FULL}"

    def after(*, file: Path | str, text: str | None) -> str:
        ours.write(good)
        ours("up")
        if text is None:
            ours.file.unlink()
        else:
            ours.write(text)
        said = ours.host.run(*ours.program, "down", file, check=False)
        assert said.returncode == 0, said.stderr
        ours.gone()
        assert ours.host.output("cat /run/said") == "down wg0\n"
        ours.host.run("rm /run/said")
        assert ours.network() == before
        return said.stderr

    assert "using what `up` recorded" in after(file=ours.file, text=None)
    assert "using what `up` recorded" in after(file="wg0", text=None)
    assert "recorded" not in after(file="wg0", text=good)
    assert "not an MTU" in after(file=ours.file, text=f"{good}[Interface]\nMTU = big\n")
    # What only the device knows is not thrown away.
    ours.write(good.replace("[Peer]", "SaveConfig = true\n[Peer]"))
    ours("up")
    ours.write(f"{KEY}MTU = big\n")
    assert ours("down", check=False).returncode == 1
    ours.write(good)
    ours("down")
    ours.gone()
    ours.host.run("rm /run/said")
    # Of another file with that name nothing is known.
    assert (
        "does not exist"
        in ours.host.run(*ours.program, "down", tmp_path / "wg0.conf", check=False).stderr
    )


@pytest.mark.parametrize(
    ("number", "repairs"),
    [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "up"), (signal.SIGKILL, "down")],
)
def test_an_interrupted_up(
    pair: tuple[Machine, Machine], number: signal.Signals, repairs: str
) -> None:
    """Is undone, or the next call finds and repairs it."""
    _, ours = pair
    before = ours.network()
    ours.write(f"{KEY}{ONE}DNS = 192.0.2.53\nPostUp = touch /run/there; sleep 20\n{FULL}")
    tools = {"PATH": f"{ours.tools}:{hosts.program_path()}"}
    running = ours.host.start(WIRESNAKE, "up", "--backend", "user", ours.file, env=tools)
    there = "test -e /run/there"
    hosts.wait_for("PostUp", lambda: not ours.host.run(there, check=False).returncode)
    ours.host.run("rm /run/there")
    os.kill(running.pid, number)
    if number == signal.SIGKILL:
        for pid in ours.host.processes("sleep"):
            os.kill(pid, signal.SIGKILL)
    code, _ = running.wait(10)
    if number == signal.SIGKILL:
        assert ours.network() != before
        if repairs == "up":
            ours.write(f"{KEY}{ONE}DNS = 192.0.2.53\n{PEER}")
            ours("up")
            assert "lookup 51820" not in ours.host.output("ip rule")
        ours("down")
    else:
        assert code == 128 + number
        assert ours.host.processes("sleep") == []
    ours.gone()
    assert ours.network() == before


def test_as_a_service(pair: tuple[Machine, Machine], tmp_path: Path) -> None:
    """In the foreground: tells when it is up, reloads at SIGHUP, goes down at SIGTERM; and if its
    daemon dies it fails, with nothing left behind."""
    _, ours = pair
    before = ours.network()
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(20)
    manager.bind(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    credential = tmp_path / "wg0.conf"
    credential.touch(mode=0o600)

    def start() -> hosts.Process:
        credential.write_text(f"{KEY}{ONE}{FULL}")
        command = "up --foreground --backend user wg0"
        running = ours.host.start(WIRESNAKE, *command.split(), env=env)
        assert manager.recv(200) == b"READY=1\nSTATUS=wg0 is up"
        return running

    credential.write_text(f"{KEY}{ONE}SaveConfig = true\n{FULL}")
    refused = ours.host.run(WIRESNAKE, "up", "wg0", env=env, check=False)
    assert (refused.returncode, ours.network()) == (1, before)
    assert "wg0.conf: SaveConfig cannot be kept in a credential" in refused.stderr
    running = start()
    credential.unlink()
    os.kill(running.pid, signal.SIGHUP)
    assert manager.recv(200).startswith(b"RELOADING=1\n")
    assert manager.recv(200) == b"READY=1"
    credential.touch(mode=0o600)
    credential.write_text(f"{KEY}{ONE}MTU = 1300\n{FULL}")
    os.kill(running.pid, signal.SIGHUP)
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(200))
    assert manager.recv(200) == b"READY=1"
    assert "mtu 1300" in ours.host.output("ip link show wg0")
    # It is stopped during a reload, which waits here for somebody.
    other = ours.host.start("flock /run/wiresnake/wg0.lock sleep 30")
    hosts.wait_for("flock and its child", lambda: len(ours.host.processes("sleep")) == 2)
    os.kill(running.pid, signal.SIGHUP)
    assert manager.recv(200).startswith(b"RELOADING=1\n")
    os.kill(running.pid, signal.SIGTERM)
    assert [manager.recv(200), manager.recv(200)] == [b"READY=1", b"STOPPING=1"]
    for pid in ours.host.processes("sleep"):
        os.kill(pid, signal.SIGKILL)
    other.wait(5)
    code, said = running.wait(20)
    assert code == 0, said
    assert "\nwiresnake: `/etc/wireguard/wg0.conf' does not exist\n" in said
    ours.gone()
    assert ours.network() == before
    running = start()
    for pid in ours.host.processes("wiresnaked"):
        os.kill(pid, signal.SIGKILL)
    code, said = running.wait(20)
    assert code == 1
    assert "wg0 is gone" in said
    ours.gone()
    # Its traffic waits for the next start, or for this.
    assert "No route" in ours.host.run("ip route get 198.51.100.1", check=False).stderr
    ours.host.run(*ours.program, "down", "wg0", env=env)
    assert ours.network() == before
    manager.close()
