"""`wiresnake up`, `reload` and `down` with the kernel's WireGuard, in an inner kernel."""

import re

from interop.harness import (
    WIRESNAKE,
    Implementation,
    MakeHost,
    assert_pings,
    configuration,
    on_cable,
)
from kernel.uml import Uml

from lab import hosts

FILE = "/run/quick/wg0.conf"
EXTRA = hosts.keypair()[1]
NETWORK = """ip -4 rule; ip -6 rule; ip -o address; ip -o link
ip -4 route show table all; ip -6 route show table all"""


def test_up_reload_and_down(kernel: Uml, make_host: MakeHost, ours: Implementation) -> None:
    """A reload loses no ping, and `down` removes every trace of the tunnel."""
    host = make_host("ours")
    theirs, our = on_cable(kernel, host, kernel.cable(0, host))
    ours.start(host)
    our.wg("setconf", "wg0", "/dev/stdin", text=configuration(our, theirs))
    our.up()
    hosts.await_tunnel(host)

    def write(allowed: str, settings: str = "", more: str = "") -> None:
        text = configuration(theirs, our, outer=4, allowed=allowed, extra=more)
        text = text.replace(f"ListenPort = {theirs.port}\n", "")
        address = f"Address = {theirs.inner[4]}/24, {theirs.inner[6]}/64"
        text = text.replace("[Interface]", f"[Interface]\n{address}\n{settings}", 1)
        kernel.run(f"sh -c 'umask 077; mkdir -p /run/quick; cat >{FILE}'", text=text)

    def quick(*words: str) -> str:
        return kernel.run(WIRESNAKE, *words, FILE).stderr

    def network() -> str:
        return re.sub(r"expires \d+sec", "", kernel.output("sh -c", NETWORK))

    addresses = "ip -6 address show tentative"
    hosts.wait_for("link-local addresses", lambda: not kernel.output(addresses))
    before = network()
    write("10.9.0.0/24, fd09::/64")
    said = quick("up", "--backend", "auto")
    assert "[#] ip link add dev wg0 type wireguard" in said
    assert "user backend" not in said
    assert "wireguard" in kernel.output("ip -d link show wg0")
    assert_pings(theirs, our)
    port, handshake = theirs.wg("show", "wg0", "listen-port"), theirs.handshake()
    pings = kernel.start("ping -n -q -c 100 -i 0.02 -W 3", our.inner[4])
    more = f"PersistentKeepalive = 25\n[Peer]\nPublicKey = {EXTRA}\nAllowedIPs = 10.66.0.0/16"
    write("10.9.0.0/24, fd09::/64, 10.7.0.0/16, 10.6.0.0/16", "MTU = 1380", more)
    quick("reload")
    write("10.9.0.0/24, fd09::/64, 10.7.0.0/16", "MTU = 1380\nFwMark = 0x77")
    said = quick("reload")
    assert f"- peer {EXTRA}" in said
    assert " 0% packet loss" in pings.wait(20)[1]
    assert theirs.wg("show", "wg0", "listen-port") == port
    assert theirs.wg("show", "wg0", "fwmark") == "0x77\n"
    assert theirs.handshake() == handshake, "the session is still the first"
    assert "10.7.0.0/16 dev wg0" in kernel.output("ip route")
    assert "mtu 1380" in kernel.output("ip link show wg0")
    assert quick("reload") == "", "all is so already"
    quick("down")
    assert network() == before
    # Nothing of a hook that fails is left, either.
    write("10.9.0.0/24", "PostUp = false")
    done = kernel.run(WIRESNAKE, "up", FILE, check=False)
    assert done.returncode == 1
    assert network() == before
