"""`wiresnake` as `wg`: beside stock `wg` on the same devices, of every implementation."""

import base64
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from interop.harness import ROOT, Implementation, MakeHost
from interop.side_by_side import (
    BAD_FILES,
    BAD_SET,
    CHANGED,
    FIRST,
    FULL,
    OURS,
    PRIVATE,
    PSK,
    SECOND,
    SET,
    THIRD,
    SideBySide,
    assert_refuses_alike,
    assert_shows_alike,
    write_key_files,
)

from lab import hosts
from lab.hosts import Host

TUNNEL = f"""[Interface]
PrivateKey = {PRIVATE}
ListenPort = 5000
FwMark = 0x1ff
[Peer]
PublicKey = {{other}}
PresharedKey = {PSK}
AllowedIPs = 10.9.0.0/24, fd09::/64
Endpoint = [::1]:5001
PersistentKeepalive = 25
[Peer]
PublicKey = {FIRST}
[Peer]
PublicKey = {SECOND}
AllowedIPs = 0.0.0.0/0
Endpoint = 127.0.0.1:9
PersistentKeepalive = 65535
"""
BORINGTUN = Implementation("boringtun", str(ROOT / ".tools/boringtun-cli"), "tools/setup boringtun")
GOTATUN = Implementation("gotatun", str(ROOT / ".tools/gotatun"), "tools/setup gotatun")


@pytest.fixture
def sides(make_host: MakeHost, ours: Implementation) -> SideBySide:
    host = make_host()
    for name in ("wg0", "wg1"):
        ours.start(host, name)
    return SideBySide(host)


def shake_hands(host: Host, program: str | Path = "wg", config: str = TUNNEL) -> str:
    """A tunnel from wg0 to wg1 within one host; both have had a handshake. wg1's public key."""
    private, other = hosts.keypair()
    own = hosts.tool("wg pubkey", text=PRIVATE)
    text = f"""[Interface]
PrivateKey = {private}
ListenPort = 5001
[Peer]
PublicKey = {own}
PresharedKey = {PSK}
AllowedIPs = 10.9.1.0/24
"""
    host.run("wg setconf wg1 /dev/stdin", text=text)
    host.run(program, "setconf", "wg0", "/dev/stdin", text=config.format(other=other))
    for name in ("wg1", "wg0"):
        host.run(f"ip link set {name} up")
    host.run("ip address add 10.9.0.9/24 dev wg0")
    host.run("ping -c 1 -W 0.1 10.9.0.1", check=False)  # boringtun begins with a packet
    hosts.wait_for(
        "a handshake of wg1",
        lambda: not host.output("wg show wg1 latest-handshakes").endswith("\t0\n"),
        10,
    )
    return other


def test_show_to_the_byte(sides: SideBySide) -> None:
    shake_hands(sides.host)
    assert_shows_alike(sides, "wg0", "wg1")
    time.sleep(1)
    text = sides.assert_same("show", "wg0")
    assert " ago\n" in text
    assert "persistent keepalive: every 18 hours, 12 minutes, 15 seconds" in text
    assert " B received, " in text
    assert_refuses_alike(sides, "wg0")


def test_no_interface_at_all(make_host: MakeHost) -> None:
    sides = SideBySide(make_host())
    for words in ([], ["show"], ["show", "all", "dump"], ["show", "interfaces"]):
        assert sides.assert_same(*words) == ""
    code = f"import pty, sys; sys.exit(pty.spawn(['{OURS}']))"
    on_terminal = sides.host.run("python3 -c", code, check=False).stdout
    assert "wiresnake --help" in on_terminal


def test_a_dead_daemon_and_a_foreign_file(sides: SideBySide) -> None:
    """Either removes the socket that nobody listens at, and nothing else."""
    make = "import socket; socket.socket(1).bind('/run/wireguard/{}.sock')"
    for name in ("dead", "gone"):
        sides.host.run("python3 -c", make.format(name))
    sides.host.run("touch /run/wireguard/file.sock")
    sides.host.run("wg show dead", check=False)
    sides.host.run(OURS, "show", "gone", check=False)
    files = sides.host.output("ls /run/wireguard").split()
    assert sorted(files) == ["file.sock", "wg0.sock", "wg1.sock"]
    sides.assert_same("show", "file")
    sides.assert_same("show", "interfaces")


def test_set_to_the_byte(sides: SideBySide, tmp_path: Path) -> None:
    sides.host.run(
        "sh -c", "echo 127.0.0.1 localhost >/run/hosts; mount --bind /run/hosts /etc/hosts"
    )
    for words in write_key_files(tmp_path, *SET):
        sides.assert_changes("set", *words)
    for words in write_key_files(tmp_path, *BAD_SET):
        sides.assert_refused("set", *words)
    sides.assert_refused("set", "private-key", "/dev/stdin", text="")
    sides.assert_changes("set", "private-key", "/dev/stdin", text=PRIVATE)


def test_a_sign_changes_the_list(sides: SideBySide) -> None:
    """wg of 2025: stock here is of 2021."""

    def allowed(value: str) -> str:
        sides.host.run(OURS, "set", "wg1", "peer", FIRST, "allowed-ips", value)
        return sides.host.output("wg show wg1 allowed-ips").partition("\t")[2].strip()

    assert allowed("10.0.0.0/8,10.1.0.0/16") == "10.0.0.0/8 10.1.0.0/16"
    assert allowed("+10.2.0.0/16") == "10.0.0.0/8 10.1.0.0/16 10.2.0.0/16"
    assert allowed("-10.0.0.0/8,10.3.0.0/16") == "10.1.0.0/16 10.2.0.0/16 10.3.0.0/16"
    assert allowed("10.4.0.0/16") == "10.4.0.0/16"


def test_files_to_the_byte(sides: SideBySide) -> None:
    for command in ("setconf", "addconf", "syncconf"):
        for text in (FULL, CHANGED.replace("FwMark", "ListenPort = 0\nFwMark"), FULL):
            sides.assert_changes(command, "/dev/stdin", text=text)
        for text in BAD_FILES if command == "setconf" else BAD_FILES[:3]:
            told = sides.assert_refused(command, "/dev/stdin", text=text)
            assert told.startswith("wiresnake: /dev/stdin:")
        one, other = sides.states()
        assert one == other
    sides.assert_changes("setconf", "/dev/stdin", text=FULL.replace("\n", "\r\n"))
    told = sides.assert_refused("setconf", "/dev/stdin", text=BAD_FILES[10])
    assert told.startswith("wiresnake: /dev/stdin:3:3: unknown key 'ListenPrt'")
    sides.assert_changes("setconf", "/dev/stdin", text="")


def test_what_stock_accepts_and_does_otherwise(sides: SideBySide) -> None:
    """It is accepted, with a warning."""
    text = f"{FULL}ListenPort = 99999\n[Peer]\nPublicKey = {THIRD}\nAllowedIPs = 10.5.0.1/24\n"
    theirs, ours = (
        sides.host.run(program, "setconf", name, "/dev/stdin", text=text).stderr
        for program, name in [("wg", sides.stock), (str(OURS), sides.ours)]
    )
    one, other = sides.states()
    assert one == other
    assert one[0][2] == "34463"
    warning = "Warning: AllowedIP has nonzero host part: 10.5.0.1/24\n"
    assert theirs == warning
    assert ours == f"Warning: ListenPort 99999 is taken as 34463\n{warning}"


def test_no_error_shows_a_secret(sides: SideBySide, tmp_path: Path) -> None:
    secret = PRIVATE[:20] + "!" + PRIVATE[21:]
    (tmp_path / "key").write_text(secret)
    errors = [sides.host.run(OURS, "set", "wg1", "private-key", tmp_path / "key", check=False)]
    for line in (f"PrivateKey={secret}", f"PrivatKey={PRIVATE}", PRIVATE, f"Private{PRIVATE}"):
        text = f"[Interface]\n{line}\n"
        errors.append(sides.host.run(OURS, "setconf", "wg1", "/dev/stdin", text=text, check=False))
    for done in errors:
        assert done.returncode == 1
        assert PRIVATE[5:15] not in done.stderr
        assert PRIVATE[-15:-5] not in done.stderr


def test_syncconf_keeps_what_the_file_does_not_say(sides: SideBySide) -> None:
    """Stock takes another port and drops the mark: compare both on the same file."""
    peer = f"[Peer]\nPublicKey={FIRST}\n"
    programs: list[tuple[str | Path, str]] = [("wg", "wg0"), (OURS, "wg1")]
    for port, (program, name) in enumerate(programs, 6000):
        text = f"[Interface]\nPrivateKey={PRIVATE}\nListenPort={port}\nFwMark=5\n{peer}"
        sides.host.run(program, "setconf", name, "/dev/stdin", text=text)
        text = f"[Interface]\n{peer}AllowedIPs=10.0.0.0/8\n"
        sides.host.run(program, "syncconf", name, "/dev/stdin", text=text)
    (theirs, *_), (ours, kept) = sides.states()
    assert [theirs[0], theirs[3]] == ["(none)", "off"]
    assert [ours[0], *ours[2:]] == [PRIVATE, "6001", "0x5"]
    assert kept[3] == "10.0.0.0/8"
    sides.host.run(OURS, "syncconf", "wg1", "/dev/stdin", text="")
    assert [*map(len, sides.states()[1])] == [4], "of an empty file only the peers are gone"


def test_syncconf_sends_only_what_differs(sides: SideBySide) -> None:
    """Sessions and counters live on."""
    other = shake_hands(sides.host)

    def peers() -> dict[str, list[str]]:
        lines = sides.host.output("wg show wg0 dump").splitlines()[1:]
        return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}

    before = peers()
    file = TUNNEL.format(other=other).replace("AllowedIPs = 0.0.0.0/0", "AllowedIPs = 10.8.0.0/16")
    sides.host.run(OURS, "syncconf", "wg0", "/dev/stdin", text=file)
    after = peers()
    assert [after[SECOND].pop(2), before[SECOND].pop(2)] == ["10.8.0.0/16", "0.0.0.0/0"]
    for key, fields in before.items():
        sent, now_sent = (int(one.pop(-2)) for one in (fields, after[key]))
        assert now_sent >= sent
        assert after[key] == fields


def test_keys(sides: SideBySide, tmp_path: Path) -> None:
    run = sides.host.run
    texts = [
        "",
        "abc",
        "A" * 43 + "=",
        f"{PRIVATE}\n\0 \t\n",
        f"{PRIVATE}x",
        "A" * 42 + "==",
        "é" * 30,
    ]
    for text in [*texts, f"{PRIVATE[:-1]}!", PRIVATE[:-2] + "h="]:
        theirs, ours = sides.both("pubkey", text=text)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
        assert ours.stderr == theirs.stderr.replace("wg: ", "wiresnake: ")
    for command in ("genkey", "genpsk"):
        key = run(OURS, command).stdout
        assert run("wg pubkey", text=key).stdout == run(OURS, "pubkey", text=key).stdout
        for mode in (0o600, 0o640, 0o602):
            path = tmp_path / "out"
            path.touch()
            path.chmod(mode)
            theirs, ours = (
                run("sh -c", f"{program} {command} >{path}") for program in ("wg", OURS)
            )
            assert ours.stderr == theirs.stderr
            assert bool(ours.stderr) == (mode == 0o602)
    assert run(OURS, "genkey").stdout != run(OURS, "genkey").stdout
    for words in (["genkey", "x"], ["genpsk", "x"], ["pubkey", "x"]):
        sides.assert_same(*words)
    (tmp_path / "wg").symlink_to(OURS)
    for words in (["pubkey"], ["genkey", "x"], ["showconf"]):
        theirs, ours = (run(wg, *words, text="", check=False) for wg in ("wg", tmp_path / "wg"))
        assert ours.stderr == theirs.stderr, "under its name"


def test_show_json_has_what_wg_show_has_but_no_secret(sides: SideBySide) -> None:
    other = shake_hands(sides.host)

    def show(*words: str, env: dict[str, str] | None = None) -> dict[str, dict[str, object]]:
        found = json.loads(sides.host.run(OURS, "show", *words, "--json", env=env or {}).stdout)
        assert isinstance(found, dict)
        return found

    assert json.loads(sides.host.output(OURS, "show", "interfaces", "--json")) == (
        sides.host.output("wg show interfaces").split()
    )
    own = hosts.tool("wg pubkey", text=PRIVATE)
    whole = show("wg0")["wg0"]
    peers = whole.pop("peers")
    assert whole == {
        "privateKey": "(hidden)",
        "publicKey": own,
        "listenPort": 5000,
        "fwmark": 0x1FF,
    }
    assert isinstance(peers, dict)
    peer = peers[other]
    assert time.time() - 60 < peer.pop("latestHandshake") <= time.time()
    assert peer.pop("transferRx") > 0
    assert peer.pop("transferTx") > 0
    assert peer == {
        "presharedKey": "(hidden)",
        "endpoint": "[::1]:5001",
        "persistentKeepalive": 25,
        "allowedIps": ["10.9.0.0/24", "fd09::/64"],
    }
    assert peers[FIRST] == {"allowedIps": []}
    assert show("wg0", env={"WG_HIDE_KEYS": "never"})["wg0"]["privateKey"] == PRIVATE
    assert show("wg0", "private-key") == {"wg0": {"privateKey": PRIVATE}}
    assert show("wg0", "dump")["wg0"]["privateKey"] == PRIVATE
    assert show("all", "endpoints")["wg0"]["peers"] == {
        other: {"endpoint": "[::1]:5001"},
        FIRST: {},
        SECOND: {"endpoint": "127.0.0.1:9"},
    }
    assert set(show("all")) == {"wg0", "wg1"}


def test_show_imports_little(sides: SideBySide) -> None:
    """What takes 10 ms and more is imported only when it is needed."""
    code = (
        "import sys; from wiresnake.cli.main import main; main(['show', 'wg0']);"
        "print(*{'argparse','asyncio','dataclasses','ipaddress','json','pyroute2','subprocess',"
        "'logging'} & set(sys.modules))"
    )
    assert sides.host.output(OURS.parent / "python", "-c", code).splitlines()[-1] == ""


def test_other_daemons(peer: Implementation, make_host: MakeHost) -> None:
    sides = SideBySide(make_host())
    for name in ("wg0", "wg1"):
        peer.start(sides.host, name)
    for command in ("setconf", "addconf", "syncconf"):
        for text in (FULL, CHANGED, FULL):
            # A port of its own for each: wireguard-go refuses one that is taken late.
            sides.host.run("wg set wg0 listen-port 0")
            for program, name, port in (("wg", "wg0", 7000), (str(OURS), "wg1", 7001)):
                file = text.replace("FwMark", f"ListenPort = {port}\nFwMark", 1)
                sides.host.run(program, command, name, "/dev/stdin", text=file)
            (one, *peers), (other, *same) = sides.states()
            # wireguard-go sends a keepalive to each peer that stands behind one with a new
            # interval in the same set, so what was sent depends on their order.
            for fields in (*peers, *same):
                fields[6] = "sent"
            assert peers == same
            assert one[:2] == other[:2]
    for name in ("wg0", "wg1"):
        for field in ("public-key", "private-key", "listen-port", "fwmark"):
            sides.assert_same("show", name, field)
    sides.host.run(OURS, "set", "wg1", "peer", FIRST, "allowed-ips", "-10.0.0.0/24,+10.6.0.0/16")
    assert "10.6.0.0/16" in sides.host.output("wg show wg1 allowed-ips")
    assert "10.0.0.0/24" not in sides.host.output("wg show wg1 allowed-ips")


@pytest.mark.others
@pytest.mark.parametrize("other", [BORINGTUN, GOTATUN], ids=lambda one: one.name)
def test_those_who_do_not_speak_as_wg_hears(
    other: Implementation, ours: Implementation, make_host: MakeHost
) -> None:
    """Peers that change, times that are ages, a private key that is not shown."""
    other.need()
    host = make_host()
    host.run(Path(other.program), "--disable-drop-privileges", "wg0")
    ours.start(host, "wg1")
    hosts.wait_for(
        "its socket",
        lambda: host.run("test -S /run/wireguard/wg0.sock", check=False).returncode == 0,
    )
    public = shake_hands(host, OURS, TUNNEL.replace("FwMark = 0x1ff\n", ""))
    state = json.loads(host.output(OURS, "show", "wg0", "--json"))["wg0"]
    assert state["publicKey"] == hosts.tool("wg pubkey", text=PRIVATE)
    assert abs(time.time() - state["peers"][public]["latestHandshake"]) < 30
    peers = state["peers"]
    assert "endpoint" not in peers[FIRST], "that of the peer before it is not its own"
    host.run(OURS, "set", "wg0", "peer", FIRST, "allowed-ips", "10.1.0.0/16,10.2.0.0/16")
    host.run(OURS, "set", "wg0", "peer", FIRST, "allowed-ips", "-10.1.0.0/16")
    host.run(OURS, "set", "wg0", "peer", SECOND, "remove", "peer", THIRD, "remove")
    after = json.loads(host.output(OURS, "show", "wg0", "--json"))["wg0"]["peers"]
    assert after[FIRST]["allowedIps"] == ["10.2.0.0/16"]
    assert set(after) == {public, FIRST}


def test_a_small_set_is_one_connection_whatever_the_device_holds(
    ours: Implementation, make_host: MakeHost
) -> None:
    """And a short answer: no `get` of all peers."""
    host = make_host()
    ours.start(host, "wg0")
    peers = "".join(
        f"[Peer]\nPublicKey={base64.b64encode(n.to_bytes(32, 'big')).decode()}\n"
        for n in range(2, 1002)
    )
    host.run("wg setconf wg0 /dev/stdin", text=f"[Interface]\n{peers}")
    folder = Path(f"/proc/{host.pid}/root/run/wireguard")
    answers: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):  # It is shut down at the end.
            while True:
                client, _ = listener.accept()
                with client, socket.socket(socket.AF_UNIX) as daemon:
                    daemon.connect(str(folder / "wg0.sock"))
                    daemon.sendall(client.recv(1 << 16))
                    answers.append(daemon.recv(1 << 16))
                    client.sendall(answers[-1])

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "counted.sock"))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            host.run(OURS, "set", "counted", "peer", FIRST, "allowed-ips", "10.1.0.0/16")
            host.run(OURS, "set", "counted", "peer", FIRST, "persistent-keepalive", "7")
        finally:
            (folder / "counted.sock").unlink()
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
    assert answers == [b"errno=0\n\n"] * 2
    assert host.output("wg show wg0 persistent-keepalive").count("\t7\n") == 1
