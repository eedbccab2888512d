"""`wiresnake` as `wg` with kernel devices, compared with stock `wg`."""

import base64
import os
from pathlib import Path

from interop.side_by_side import (
    BAD_FILES,
    CHANGED,
    FIRST,
    FULL,
    OURS,
    PRIVATE,
    SET,
    SideBySide,
    assert_refuses_alike,
    assert_shows_alike,
    write_key_files,
)
from kernel.harness import LINUX, PYTHON
from kernel.uml import Uml

from lab import hosts

PEERS = 2_000
ALLOWED_IPS = 1_000


def test_beside_stock_wg(inner_kernel: None, tmp_path: Path) -> None:
    """Runs the comparisons that tests/interop/test_operator_wg.py makes for daemons."""
    words_of_set = write_key_files(tmp_path, *SET)
    with Uml() as kernel:
        sides = SideBySide(kernel)
        for name in ("wg0", "wg1"):
            LINUX.start(kernel, name)
        for words in words_of_set:
            sides.assert_changes("set", *words)
        sides.assert_changes("set", "private-key", "/dev/stdin", text=PRIVATE)
        for command in ("setconf", "addconf", "syncconf"):
            for text in (FULL, CHANGED, FULL):
                sides.assert_changes(command, "/dev/stdin", text=text)
        for text in BAD_FILES[:2]:
            sides.assert_refused("setconf", "/dev/stdin", text=text)
        _shake_hands(sides)
        assert_shows_alike(sides, "wg0", "wg1")
        assert_refuses_alike(sides, "wg0")


def test_many_peers_and_many_allowed_ips(kernel: Uml) -> None:
    """Uses more than fits into a netlink message, in both directions."""
    sides = SideBySide(kernel)
    for name in ("wg0", "wg1"):
        LINUX.start(kernel, name)
    keys = [base64.b64encode(os.urandom(32)).decode() for _ in range(PEERS)]
    many = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(ALLOWED_IPS)]
    wide = {keys[0]: many, keys[1]: [f"fd{number:02x}::/16" for number in range(256)]}
    text = f"[Interface]\nPrivateKey = {PRIVATE}\n" + "".join(
        f"[Peer]\nPublicKey = {key}\nAllowedIPs = "
        f"{', '.join(wide.get(key, [f'192.168.{number >> 8}.{number & 255}']))}\n"
        f"Endpoint = 192.0.2.1:{number + 1}\n"
        for number, key in enumerate(keys)
    )
    sides.assert_changes("setconf", "/dev/stdin", text=text)
    one, other = sides.states()
    assert len(one) == len(other) == PEERS + 1
    for field in ("dump", "allowed-ips"):
        sides.assert_same("show", "wg1", field)
    sides.assert_same("showconf", "wg1")
    less = text.replace("10.0.7.0/24, ", "").replace(
        f"PublicKey = {keys[-1]}\n", f"PublicKey = {FIRST}\n"
    )
    sides.assert_changes("syncconf", "/dev/stdin", text=less)
    assert sides.states()[1] != other
    change = ",".join(f"-{one}" for one in many[100:])
    kernel.run(OURS, "set", "wg1", "peer", keys[0], "allowed-ips", f"{change},+10.200.0.0/16")
    left = kernel.output("wg show wg1 allowed-ips")
    [line] = [line for line in left.splitlines() if line.startswith(keys[0])]
    assert set(line.partition("\t")[2].split()) == {*many[:100], "10.200.0.0/16"} - {"10.0.7.0/24"}


def test_a_daemon_goes_before_the_kernel(kernel: Uml) -> None:
    """A daemon is used while it listens. The socket of a dead one is removed, and the kernel's
    interface is used."""
    sides = SideBySide(kernel)
    LINUX.start(kernel)
    listen = """
import os, socket, time
os.makedirs("/run/wireguard", exist_ok=True)
for name in ("wg0", "user"):
    one = socket.socket(socket.AF_UNIX)
    one.bind(f"/run/wireguard/{name}.sock")
    one.listen()
    globals()[name] = one
while True:
    one, _ = wg0.accept()
    if one.recv(9):
        one.sendall(b"listen_port=77\\nerrno=0\\n\\n")
"""
    daemon = kernel.start(*PYTHON, "-c", listen)
    hosts.wait_for(
        "its sockets",
        lambda: not kernel.run("test -S /run/wireguard/user.sock", check=False).returncode,
    )
    theirs, ours = sides.both("show", "interfaces")
    assert sorted(theirs.stdout.split()) == ["user", "wg0", "wg0"]
    assert ours.stdout == "wg0 user\n", "each once"
    assert sides.assert_same("show", "wg0", "listen-port") == "77\n"
    daemon.stop()
    assert sides.assert_same("show", "wg0", "listen-port") == "0\n"
    assert kernel.output("ls /run/wireguard") == "user.sock\n"
    assert sides.assert_same("show", "interfaces") == "wg0\n"


def _shake_hands(sides: SideBySide) -> None:
    """Makes wg0 and wg1 peers of each other, over the loopback."""
    private, public = hosts.keypair()
    own = hosts.tool("wg pubkey", text=PRIVATE)
    for number, key, other in ((0, private, own), (1, PRIVATE, public)):
        text = f"""[Interface]
PrivateKey = {key}
ListenPort = {5000 + number}
[Peer]
PublicKey = {other}
Endpoint = 127.0.0.1:{5001 - number}
AllowedIPs = 10.9.{number}.0/24
PersistentKeepalive = 25
"""
        sides.host.run(OURS, "addconf", f"wg{number}", "/dev/stdin", text=text)
        sides.host.run(f"ip link set wg{number} up")
    hosts.wait_for(
        "a handshake",
        lambda: f"{own}\t0" not in sides.host.output("wg show wg0 latest-handshakes"),
        20,
    )
