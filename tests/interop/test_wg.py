"""Stock `wg` drives our daemon in every subcommand, and prints what it prints for the kernel."""

import base64
import os
import socket
from dataclasses import dataclass

import pytest
from interop.harness import Implementation, MakeHost

from lab import hosts
from lab.hosts import Host

PRIVATE = "iBDNaTKqCSVpZRkHZRJzpzIFmK8sgfcuTGMA4X7qmlg="
PSK = "OYzhGDKKnJRwaYlDvOpIX0GqOSHYJJ4VrQfVhqMkm8Y="
FIRST, SECOND, THIRD = (
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
)
PUBLIC = hosts.tool("wg pubkey", text=PRIVATE) if not hosts.missing_programs("wg") else ""

INTERFACE = f"""[Interface]
ListenPort = 51820
FwMark = 0x1234
PrivateKey = {PRIVATE}
"""
FIRST_PEER = f"""[Peer]
PublicKey = {FIRST}
PresharedKey = {PSK}
AllowedIPs = 10.1.0.0/16, fd01::/64
Endpoint = 192.0.2.9:1234
PersistentKeepalive = 25
"""
SECOND_PEER = f"""[Peer]
PublicKey = {SECOND}
"""
THIRD_PEER = f"""[Peer]
PublicKey = {THIRD}
AllowedIPs = 10.3.0.7/32
Endpoint = [2001:db8::9]:4321
"""
WHOLE = "\n".join([INTERFACE, FIRST_PEER, SECOND_PEER, THIRD_PEER])


@dataclass
class Device:
    """An interface that our daemon runs, and `wg` beside it."""

    host: Host
    name: str = "wg0"

    def wg(self, *words: str, text: str | None = None) -> str:
        return self.host.run("wg", *words, text=text).stdout

    def refused(self, *words: str, text: str | None = None) -> str:
        """What `wg` says when it fails, as it has to: exit code 1 and nothing else."""
        done = self.host.run("wg", *words, text=text, check=False)
        assert done.returncode == 1, done
        return done.stderr

    def show(self, what: str) -> list[str]:
        return sorted(self.wg("show", self.name, what).splitlines())

    def set(self, *words: str, text: str | None = None) -> None:
        self.wg("set", self.name, *words, text=text)

    def load(self, text: str, how: str = "setconf") -> None:
        self.wg(how, self.name, "/dev/stdin", text=text)


@pytest.fixture
def device(make_host: MakeHost, ours: Implementation) -> Device:
    host = make_host("device")
    ours.start(host)
    return Device(host)


@pytest.fixture
def full(device: Device) -> Device:
    device.load(WHOLE)
    return device


EMPTY_AND_FULL = {
    "public-key": ("(none)\n", f"{PUBLIC}\n"),
    "private-key": ("(none)\n", f"{PRIVATE}\n"),
    "fwmark": ("off\n", "0x1234\n"),
    "peers": ("", f"{FIRST}\n{SECOND}\n{THIRD}\n"),
    "preshared-keys": ("", f"{FIRST}\t{PSK}\n{SECOND}\t(none)\n{THIRD}\t(none)\n"),
    "endpoints": (
        "",
        f"{FIRST}\t192.0.2.9:1234\n{SECOND}\t(none)\n{THIRD}\t[2001:db8::9]:4321\n",
    ),
    "allowed-ips": (
        "",
        f"{FIRST}\t10.1.0.0/16 fd01::/64\n{SECOND}\t(none)\n{THIRD}\t10.3.0.7/32\n",
    ),
    "latest-handshakes": ("", f"{FIRST}\t0\n{SECOND}\t0\n{THIRD}\t0\n"),
    "transfer": ("", f"{FIRST}\t0\t0\n{SECOND}\t0\t0\n{THIRD}\t0\t0\n"),
    "persistent-keepalive": ("", f"{FIRST}\t25\n{SECOND}\toff\n{THIRD}\toff\n"),
}


@pytest.mark.parametrize("what", EMPTY_AND_FULL)
def test_show_one_thing(device: Device, what: str) -> None:
    """Byte for byte, before anything is configured and after; lines in any order."""
    empty, full = EMPTY_AND_FULL[what]
    assert device.wg("show", "wg0", what) == empty
    device.load(WHOLE)
    shown = device.wg("show", "wg0", what)
    assert sorted(shown.splitlines(True)) == sorted(full.splitlines(True))
    if what == "endpoints":
        return  # the `wg` of 2021 names the interface in the first line only
    shown = device.wg("show", "all", what)
    expected = [f"wg0\t{line}" for line in full.splitlines(True)]
    assert sorted(shown.splitlines(True)) == sorted(expected)


def test_the_listen_port_is_shown_of_one_and_of_all(device: Device) -> None:
    device.load(WHOLE)
    assert device.wg("show", "wg0", "listen-port") == "51820\n"
    assert device.wg("show", "all", "listen-port") == "wg0\t51820\n"


def test_dump(full: Device) -> None:
    lines = full.wg("show", "wg0", "dump").splitlines(True)
    assert lines[0] == f"{PRIVATE}\t{PUBLIC}\t51820\t0x1234\n"
    assert sorted(lines[1:]) == sorted(
        [
            f"{FIRST}\t{PSK}\t192.0.2.9:1234\t10.1.0.0/16,fd01::/64\t0\t0\t0\t25\n",
            f"{SECOND}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n",
            f"{THIRD}\t(none)\t[2001:db8::9]:4321\t10.3.0.7/32\t0\t0\t0\toff\n",
        ]
    )


def test_peers_keep_their_order(full: Device) -> None:
    """As in the kernel: what a person wrote first is listed first (wireguard-go shuffles)."""
    assert full.wg("show", "wg0", "peers").split() == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("words", [(), ("show",), ("show", "all"), ("show", "wg0")])
def test_show_for_people(device: Device, words: tuple[str, ...]) -> None:
    device.load(INTERFACE + FIRST_PEER)
    done = device.host.run("wg", *words, env={"WG_COLOR_MODE": "never"})
    assert done.stdout == (
        f"interface: wg0\n"
        f"  public key: {PUBLIC}\n"
        f"  private key: (hidden)\n"
        f"  listening port: 51820\n"
        f"  fwmark: 0x1234\n"
        f"\n"
        f"peer: {FIRST}\n"
        f"  preshared key: (hidden)\n"
        f"  endpoint: 192.0.2.9:1234\n"
        f"  allowed ips: 10.1.0.0/16, fd01::/64\n"
        f"  persistent keepalive: every 25 seconds\n"
    )


def test_interfaces(device: Device, ours: Implementation) -> None:
    assert device.wg("show", "interfaces") == "wg0\n"
    ours.start(device.host, "wg-second_1.x")
    assert sorted(device.wg("show", "interfaces").split()) == ["wg-second_1.x", "wg0"]
    device.host.run("ip link delete wg0")
    hosts.wait_for(
        "the deleted interface to vanish from the list",
        lambda: device.wg("show", "interfaces") == "wg-second_1.x\n",
    )


def test_showconf_reads_back(full: Device) -> None:
    shown = full.wg("showconf", "wg0")
    assert shown.startswith(INTERFACE + "\n")
    assert sorted(shown.split("\n\n")) == sorted(WHOLE.split("\n\n"))
    full.load(shown)
    assert sorted(full.wg("showconf", "wg0").split("\n\n")) == sorted(WHOLE.split("\n\n"))


def test_setconf_replaces_everything(full: Device) -> None:
    full.load(f"[Interface]\nListenPort = 51821\n{THIRD_PEER}")
    assert full.wg("showconf", "wg0") == f"[Interface]\nListenPort = 51821\n\n{THIRD_PEER}"


def test_addconf_adds(full: Device) -> None:
    full.load(f"[Peer]\nPublicKey = {SECOND}\nAllowedIPs = 10.2.0.0/24\n", "addconf")
    assert full.show("private-key") == [PRIVATE]
    assert full.show("allowed-ips") == sorted(
        [
            f"{FIRST}\t10.1.0.0/16 fd01::/64",
            f"{SECOND}\t10.2.0.0/24",
            f"{THIRD}\t10.3.0.7/32",
        ]
    )


@pytest.mark.item(104)
def test_syncconf_makes_it_so(full: Device) -> None:
    changed = FIRST_PEER.replace("10.1.0.0/16", "10.99.0.0/16")
    full.load("\n".join([INTERFACE, changed, SECOND_PEER]), "syncconf")
    assert full.show("peers") == sorted([FIRST, SECOND])
    assert f"{FIRST}\t10.99.0.0/16 fd01::/64" in full.show("allowed-ips")
    assert full.show("listen-port") == ["51820"]


def test_set_device(device: Device) -> None:
    device.set("private-key", "/dev/stdin", text=PRIVATE)
    device.set("listen-port", "51822", "fwmark", "0xca6c")
    assert device.show("public-key") == [PUBLIC]
    assert device.show("listen-port") == ["51822"]
    assert device.show("fwmark") == ["0xca6c"]
    device.set("private-key", "/dev/null", "fwmark", "off")
    assert device.show("public-key") == ["(none)"]
    assert device.show("fwmark") == ["off"]


def test_set_peer(device: Device) -> None:
    device.set("peer", FIRST, "preshared-key", "/dev/stdin", text=PSK)
    device.set("peer", FIRST, "endpoint", "192.0.2.1:1", "persistent-keepalive", "7")
    device.set("peer", FIRST, "allowed-ips", "10.0.0.9/8, fd00::/8,192.0.2.1")
    assert device.show("preshared-keys") == [f"{FIRST}\t{PSK}"]
    assert device.show("endpoints") == [f"{FIRST}\t192.0.2.1:1"]
    assert device.show("persistent-keepalive") == [f"{FIRST}\t7"]
    assert sorted(device.show("allowed-ips")[0].split()[1:]) == sorted(
        ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"]
    )
    device.set("peer", FIRST, "preshared-key", "/dev/null", "persistent-keepalive", "off")
    device.set("peer", FIRST, "allowed-ips", "")
    assert device.show("preshared-keys") == [f"{FIRST}\t(none)"]
    assert device.show("persistent-keepalive") == [f"{FIRST}\toff"]
    assert device.show("allowed-ips") == [f"{FIRST}\t(none)"]
    device.set("peer", FIRST, "remove", "peer", SECOND)
    assert device.show("peers") == [SECOND]
    device.set("peer", FIRST, "remove")
    assert device.show("peers") == [SECOND]


@pytest.mark.item(87)
def test_allowed_ips_move_to_the_newest_peer(full: Device) -> None:
    full.set("peer", SECOND, "allowed-ips", "10.1.0.0/16")
    assert f"{FIRST}\tfd01::/64" in full.show("allowed-ips")
    assert f"{SECOND}\t10.1.0.0/16" in full.show("allowed-ips")


@pytest.mark.item(103)
def test_own_key_as_peer_is_ignored(device: Device) -> None:
    device.load(f"{INTERFACE}[Peer]\nPublicKey = {PUBLIC}\n{SECOND_PEER}")
    assert device.show("peers") == [SECOND]


def test_busy_port_is_an_error_and_keeps_the_old(full: Device) -> None:
    """wireguard-go then has no socket at all (compat 2c): ours keeps the tunnel alive."""
    full.host.run("ip link set wg0 up")
    taken = hosts.udp_socket(full.host, socket.AF_INET, 51999)
    with taken:
        assert "Address already in use" in full.refused("set", "wg0", "listen-port", "51999")
    assert full.show("listen-port") == ["51820"]


@pytest.mark.item(103)
def test_a_thousand_peers_are_set_and_shown(device: Device) -> None:
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(1000)]
    peers = (
        f"[Peer]\nPublicKey = {key}\nAllowedIPs = 10.{n // 256}.{n % 256}.0/24\n"
        for n, key in enumerate(keys)
    )
    device.load("[Interface]\n" + "".join(peers))
    assert device.show("peers") == sorted(keys)
    assert len(device.wg("show", "wg0", "dump").splitlines()) == 1001
