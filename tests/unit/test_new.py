"""`wiresnake new server|peer`: what it makes works, and what fails changes nothing."""

import base64
import ipaddress
import json
import os
import re
import stat
import subprocess
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wiresnake._native import PrivateKey
from wiresnake.cli import main as cli_main
from wiresnake.cli import new as cli_new
from wiresnake.cli import qr
from wiresnake.cli.main import main
from wiresnake.conffile import files, forwarding, generate, labels, wg_quick
from wiresnake.conffile.check import check
from wiresnake.conffile.files import New, save
from wiresnake.conffile.scanner import scan
from wiresnake.devices import interface
from wiresnake.errors import ConfigError, HostError
from wiresnake.uapi.snapshot import InterfaceState, PeerState

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`wiresnake new`, with /etc/wireguard and the present folder elsewhere."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.setattr(files, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> int:
        words = line.split()
        if words[0] == "server" and "--dir" not in words:
            words += ["--dir", str(folder)]
        if words[0] == "peer":
            words.append("--no-qr")
        return main(["new", *words])

    return call


def values(path: Path) -> dict[str, str]:
    """Every key of a file with its last value."""
    pairs = (line.partition("#")[0].partition("=") for line in path.read_text().splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def public(private: str) -> str:
    key = PrivateKey.from_base64(private.encode())
    assert key is not None
    return base64.b64encode(key.public).decode()


def test_a_server_and_two_peers(run: Run, tmp_path: Path) -> None:
    assert run("server --endpoint vpn.example --dns 9.9.9.9") == 0
    path = tmp_path / "etc/wg0.conf"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    four, six = map(ipaddress.ip_interface, values(path)["Address"].split(", "))
    assert four in ipaddress.ip_network("10.0.0.0/8")
    assert (four.network.prefixlen, six.network.prefixlen) == (24, 64)
    assert six.ip in ipaddress.ip_network("fd00::/8")
    assert six.network.network_address.packed[6:8] == bytes(2)
    before = path.read_text()
    assert run("peer phone --full-tunnel --keepalive 25") == 0
    assert run("peer laptop --no-psk --allowed 192.168.7.0/24,10.9.0.0/16") == 0
    after = path.read_text()
    assert after.startswith(before)
    assert re.findall("# friendly_name = (.*)", after) == ["phone", "laptop"]
    phone, laptop = (values(tmp_path / f"{name}.conf") for name in ("phone", "laptop"))
    assert phone["Address"] == f"{four.ip + 1}/32, {six.ip + 1}/128"
    assert laptop["Address"] == f"{four.ip + 2}/32, {six.ip + 2}/128"
    assert phone["PublicKey"] == laptop["PublicKey"] == public(values(path)["PrivateKey"])
    assert phone["Endpoint"] == "vpn.example:51820"
    assert (phone["AllowedIPs"], phone["PersistentKeepalive"]) == ("0.0.0.0/0, ::/0", "25")
    assert laptop["AllowedIPs"] == "192.168.7.0/24, 10.9.0.0/16"
    assert phone["DNS"] == "9.9.9.9"
    assert "PresharedKey" not in laptop
    assert f"PublicKey = {public(phone['PrivateKey'])}\n" in after
    assert f"PresharedKey = {phone['PresharedKey']}\n" in after
    for one in (path, tmp_path / "phone.conf", tmp_path / "laptop.conf"):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
        assert check(one.read_text()) == []


def test_servers_do_not_meet(run: Run, tmp_path: Path) -> None:
    for number in range(5):
        assert run(f"server --name wg{number}") == 0
    paths = sorted((tmp_path / "etc").iterdir())
    assert [values(path)["ListenPort"] for path in paths] == [str(51820 + n) for n in range(5)]
    claimed = [network for path in paths for network in generate.networks(path.read_text())]
    assert len(claimed) == 10
    assert len(set(claimed)) == 10


def test_free_networks_avoid_what_is_taken() -> None:
    """All of 10.0.0.0/8 is taken except one /24, which is hardly ever found; or for half."""
    half = [ipaddress.ip_network("10.0.0.0/9"), ipaddress.ip_network("fd00::/9")]
    for _ in range(50):
        four, six = generate.free_networks(half)
        assert four.ip in ipaddress.ip_network("10.128.0.0/9")
        assert six.ip in ipaddress.ip_network("fd80::/9")
    with pytest.raises(ConfigError, match="--address"):
        generate.free_networks([ipaddress.ip_network("10.0.0.0/8")])


def test_nat_is_undone_as_a_whole(run: Run, tmp_path: Path) -> None:
    assert run("server --nat --address 10.5.0.1/24") == 0
    text = (tmp_path / "etc/wg0.conf").read_text()
    assert "ip saddr 10.5.0.0/24" in text
    assert "ipv6" not in text
    assert "PostDown = nft 'delete table inet nat-%i'" in text
    assert text.count("-I FORWARD") == text.count("-D FORWARD") == 2
    assert text.count("insert rule") == 2
    assert "ip6tables" not in text
    assert check(text) == []
    assert run("server --nat --name a=b") == 1


CHAINS = """\
table inet mine {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain onward {
		type filter hook forward priority filter; policy accept;
	}
}
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
"""
RULES = """\
table inet mine {
	chain FORWARD {
		iifname "wg.1" accept comment "forwarded for wg.1" # handle 7
		iifname "wg01" accept comment "forwarded for wg01" # handle 8
	}
}
"""


@pytest.mark.parametrize(
    ("versions", "into"),
    [
        ({"iptables": "nf_tables", "ip6tables": "nf_tables"}, ["inet mine"]),
        ({"iptables": "nf_tables", "ip6tables": "legacy"}, ["inet mine", "ip6 filter"]),
        ({}, ["inet mine", "ip filter", "ip6 filter"]),
    ],
)
def test_chains_of_others_are_those_that_iptables_does_not_keep(
    versions: dict[str, str], into: list[str], tmp_path: Path
) -> None:
    """Whatever they are called; and `down` takes what `up` made, of this interface alone."""
    for name in ("nft", "iptables", "ip6tables"):
        said = f"echo 'v1 ({versions[name]})'" if name in versions else "exit 127"
        if name == "nft":
            (tmp_path / "chains").write_text(CHAINS)
            (tmp_path / "rules").write_text(RULES)
            said = (
                f"cd {tmp_path}; case $1 in list) cat chains;; -a) cat rules;; *) cat >done; esac"
            )
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    both = (ipaddress.ip_interface("10.0.0.1/24"), ipaddress.ip_interface("fd00::1/64"))
    file = forwarding.nat("wg.1", both)

    def done(start: str, name: str) -> list[str]:
        [line] = [one for one in file if one.startswith(start)]
        command = line.partition(" = ")[2].replace("%i", name)
        path = f"{tmp_path}:{os.environ['PATH']}"
        subprocess.run(["bash", "-ec", command], env={"PATH": path}, check=True)
        return (tmp_path / "done").read_text().splitlines()

    made = done("PostUp = nft list chains", "wg.1")
    assert [one for one in made if 'iifname "wg.1"' in one] == [
        f'insert rule {table} FORWARD iifname "wg.1" accept comment "forwarded for wg.1"'
        for table in into
    ]
    assert done("PostDown = nft -a", "wg.1") == ["delete rule inet mine FORWARD handle 7"]
    own = '-m comment --comment "forwarded for %i" -j ACCEPT'
    [add] = [one for one in file if "-I FORWARD" in one]
    [remove] = [one for one in file if "-D FORWARD" in one]
    assert add.count(own) == remove.count(own) == 2


def test_a_chain_that_refuses_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As firewalld's, which lets through by policy and ends with a rule that does not."""

    def ruleset(name: str, policy: str, *rules: dict[str, object]) -> str:
        where = {"family": "inet", "table": "firewalld"}
        hook = {"name": name, "hook": "forward", "policy": policy}
        found: list[object] = [{"chain": where | hook}]
        found += ({"rule": where | {"chain": name, "expr": [one]}} for one in rules)
        return json.dumps({"nftables": found})

    reject: dict[str, object] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
    said = "a rule of filter_FORWARD in nft's table inet firewalld drops"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for text, refused in (
        (ruleset("filter_FORWARD", "accept", reject), True),
        (ruleset("filter_FORWARD", "accept"), False),
        (ruleset("filter_FORWARD", "drop", reject), False),
        (ruleset("FORWARD", "accept", reject), False),
    ):
        monkeypatch.setattr("wiresnake.linux.programs.output", lambda *_, text=text: text)
        assert run("server --address 10.5.0.1/24 --force") == 0
        out = capsys.readouterr().out
        assert (said in out) == ("--zone=trusted --add-interface=wg0" in out) == refused


def test_peers_reach_each_other_and_nothing_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    monkeypatch.setattr("wiresnake.linux.programs.output", lambda *_: None)
    assert run("server --address 10.5.0.1/24,fd05::1/64") == 0
    assert "Peers reach this host and each other; with --nat" in capsys.readouterr().out
    text = (tmp_path / "etc/wg0.conf").read_text()
    assert check(text) == []
    assert 'iifname "%i" oifname != "%i" drop' in text
    assert "PostDown = nft 'delete table inet peers-%i' || true" in text
    assert "/proc/sys/net/ipv4/conf/%i/forwarding" in text
    assert "ip_forward" not in text, "of this interface alone, where Linux can"
    assert "masquerade" not in text
    assert run("server --address 10.5.0.1/24 --force") == 0
    text = (tmp_path / "etc/wg0.conf").read_text()
    assert "ipv6" not in text
    # A name that nft cannot take, and a host without nft.
    assert run("server --name a=b") == 0
    assert "only, and not each other" in capsys.readouterr().out
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert run("server --name wg1") == 0
    assert "PostUp" not in (tmp_path / "etc/wg1.conf").read_text()


def test_a_server_that_cannot_be(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("server --address 10.5.0.0/24 --dir etc/none") == 1
    assert "give an address in it: 10.5.0.1/24" in capsys.readouterr().err
    assert run("server --dir etc/none/none") == 1
    assert "cannot make etc/none/none" in capsys.readouterr().err
    for wrong in ("a\nPostUp=x:5", "a/b", "a:0", "a:70000", "a#b:5"):
        assert main(["new", "server", "--dir", "etc", "--endpoint", wrong]) == 1
        assert "is not an endpoint" in capsys.readouterr().err
    assert main(["new", "server", "--dir", "etc", "--dns", "9.9.9.9\nPostUp=x"]) == 1
    assert run("server --port 70000") == 1
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("server --nat") == 1
    assert "install nftables" in capsys.readouterr().err
    assert not list((tmp_path / "etc").iterdir())
    assert run("server --dir etc/made") == 0
    assert stat.S_IMODE((tmp_path / "etc/made").stat().st_mode) == 0o700


def server_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "etc/wg0.conf"
    path.write_text(text)
    path.chmod(0o600)
    return path


KEY = base64.b64encode(b"\x40" * 32).decode()
START = f"# endpoint = 192.0.2.1\n[Interface]\nPrivateKey = {KEY}\nListenPort = 7\n"
OTHER = f"[Peer]\nPublicKey = {base64.b64encode(bytes(31) + b'1').decode()}\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (START + "Address = 10.0.0.1/32\n", "", "no Address with a network"),
        (START + "Address = 10.0.0.1/31\n" + OTHER + "AllowedIPs=10.0.0.0", "", "no free address"),
        (START + "Address = 10.0.0.1/30\n" + OTHER + "AllowedIPs=10.0.0.2", "", "no free address"),
        (START.replace("# endpoint", "# other") + "Address = 10.0.0.1/24\n", "", "--endpoint"),
        (START.replace("ListenPort", "#") + "Address = 10.0.0.1/24\n", "", "ListenPort"),
        (START.replace("Private", "# P") + "Address = 10.0.0.1/24\n", "", "no PrivateKey"),
        (START + "Address = 10.0.0.1/24\n[Peer]\n", "", "wg0.conf:6:1: this [Peer] has no"),
        ("\x7fELF\x00\x01binary", "", "wg0.conf:1:1"),
        (START + "Address = 10.0.0.1/24\n", "--address 10.0.0.1", "10.0.0.1 is taken"),
        (
            START + "Address = 10.0.0.1/24\n",
            "--address 10.0.0.0/24",
            "not an address of a single host",
        ),
        (START + "Address = 10.0.0.1/24\n", "--endpoint a:b:c", "is not an endpoint"),
        (START + "Address = 10.0.0.1/24\n", "--allowed 10.0.0.1/24", "is not an IP address"),
        (START + "Address = 10.0.0.1/24\n", "-o etc/wg0.conf --force", "the server's own file"),
        (START + "Address = 10.0.0.1/24\n", "-o none/x.conf", "cannot write none/x.conf"),
        (START + "Address = 10.0.0.1/24\n", "--server none/x.conf", "cannot read none"),
        (START + "Address = 10.0.0.1/24\n", "--server wg7", "make it with `wiresnake new server`"),
    ],
)
def test_what_fails_changes_nothing(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    options: str,
    message: str,
) -> None:
    path = server_file(tmp_path, text)
    before = sorted(tmp_path.rglob("*"))
    assert run(f"peer phone {options}") == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("wiresnake: ")
    assert path.read_text() == text
    assert sorted(tmp_path.rglob("*")) == before


def test_names_are_taken_once(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = server_file(tmp_path, START + "Address = 10.0.0.1/24\n# mine\r\n")
    assert run("peer phone") == 0
    text = path.read_text()
    assert "# mine" in text
    (tmp_path / "phone.conf").unlink()
    assert run("peer phone") == 1
    assert "already has a peer 'phone'" in capsys.readouterr().err
    (tmp_path / "laptop.conf").write_text("precious")
    assert run("peer laptop") == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "laptop.conf").read_text() == "precious"
    assert path.read_text() == text
    for name in ("a/b", ".hidden", "-o", "a\x1b[31m", "x" * 65, "a\nb", "\udcff"):
        assert main(["new", "peer", "--no-qr", "--", name]) == 1
        assert "is not a valid peer name" in capsys.readouterr().err
    assert run("server --name wg0") == 1
    assert run("server --name wg1 --address 10.0.0.9/16") == 1
    assert "overlaps another" in capsys.readouterr().err


def test_holes_are_filled_and_wide_peers_respected() -> None:
    text = START + "Address = 10.0.0.1/24\nAddress = fd00::5/120\n"
    text += OTHER + "AllowedIPs = 10.0.0.2, 10.0.0.4/30, 0.0.0.0/0, fd00::/122\n"
    pair = generate.peer("a", text, file="x")
    assert pair.addresses == ("10.0.0.64/32", "fd00::40/128"), "the same number in both"
    again = generate.peer("b", pair.server, file="x")
    assert again.addresses == ("10.0.0.65/32", "fd00::41/128")
    text = text.replace("/120", "/126").replace("fd00::/122", "fd00::6")
    pair = generate.peer("a", text, file="x")
    assert pair.addresses == ("10.0.0.3/32", "fd00::7/128"), "except for a network that is full"
    only = START + "Address = 10.0.0.1/24\n" + OTHER + "AllowedIPs = 10.0.0.2, 10.0.0.4/30\n"
    found = []
    for name in "ab":
        pair = generate.peer(name, only, file="x")
        only = pair.server
        found.append(pair.addresses)
    assert found == [("10.0.0.3/32",), ("10.0.0.8/32",)], "holes are filled"


def test_a_full_network_ends_with_an_error() -> None:
    text = START + "Address = 10.0.0.1/29\n"
    for name in "abcde":
        text = generate.peer(name, text, file="x").server
    with pytest.raises(ConfigError, match=r"10\.0\.0\.0/29 of x has no free address"):
        generate.peer("f", text, file="x")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("a.example", "a.example:7"),
        ("a.example:8", "a.example:8"),
        ("192.0.2.1", "192.0.2.1:7"),
        ("2001:db8::1", "[2001:db8::1]:7"),
        ("[2001:db8::1]", "[2001:db8::1]:7"),
        ("[2001:db8::1]:8", "[2001:db8::1]:8"),
    ],
)
def test_endpoints(endpoint: str, expected: str) -> None:
    assert generate.with_port(endpoint, "7") == expected


def test_two_commands_at_once(run: Run, tmp_path: Path) -> None:
    path = server_file(tmp_path, START + "Address = 10.0.0.1/24\n")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, (f"peer p{number}" for number in range(8)))) == {0}
    given = re.findall("AllowedIPs = (.*)", path.read_text())
    assert sorted(given) == [f"10.0.0.{number}/32" for number in range(2, 10)]
    assert len(list(tmp_path.glob("p*.conf"))) == 8


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
@pytest.mark.parametrize("fails", [1, 2])
def test_both_files_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fails: int
) -> None:
    """Every step of `save` fails in its turn."""
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    old.write_text("before")
    real = getattr(Path if call == "replace" else os, call)
    calls = 0

    def broken(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == fails:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(Path if call == "replace" else os, call, broken)
    both = (New(fresh, "new"), New(old, "after", replace=True))
    if calls_of(call) < fails:
        save(*both)
        assert (fresh.read_text(), old.read_text()) == ("new", "after")
        return
    with pytest.raises(HostError, match="nothing was changed"):
        save(*both)
    assert old.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def calls_of(call: str) -> int:
    return 2 if call == "fsync" else 1


def test_a_replaced_file_stays_where_its_link_points(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("before")
    target.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(target)
    save(New(link, "after", replace=True))
    assert link.is_symlink()
    assert target.read_text() == "after"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    with pytest.raises(HostError, match="exists already"):
        save(New(link, "again"))


@example("\u0dd4\x14")  # Its bytes look like two of Japan's characters, and are none.
@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=700))
def test_qr_codes_read_back(text: str) -> None:
    assert decoded(qr.terminal(text)) == text.encode()


def decoded(lines: list[str], scale: int = 3) -> bytes:
    """What a scanner sees on the terminal."""
    import zxingcpp

    rows = [
        [cell in half for cell in line]
        for line in lines
        for half in ("\u2580\u2588", "\u2584\u2588")
    ]
    dots = bytes(
        0 if dark else 255
        for row in rows
        for _ in range(scale)
        for dark in row
        for _ in range(scale)
    )
    image = memoryview(dots).cast("B", shape=(len(rows) * scale, len(rows[0]) * scale))
    [code] = zxingcpp.read_barcodes(image)
    return bytes(code.bytes)


def test_the_qr_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "phone.conf"
    peer = f"{OTHER}Endpoint = 192.0.2.9:7\n"
    path.write_text(f"{START}PostUp = true\n{peer}")
    assert main(["qr", "phone.conf"]) == 0
    said = capsys.readouterr()
    assert "phone.conf:5: left out PostUp" in said.err
    assert "private key" in said.err
    lines = said.out.splitlines()
    assert all(
        line.startswith("\033[38;5;16;48;5;231m") and line.endswith("\033[0m") for line in lines
    )
    bare = [re.sub("\033\\[[0-9;]*m", "", line) for line in lines]
    assert decoded(bare) == f"{START.partition(chr(10))[2]}\n{peer}".encode()
    assert main(["qr", "--raw", "phone.conf"]) == 0
    raw = re.sub("\033\\[[0-9;]*m", "", capsys.readouterr().out)
    assert decoded(raw.splitlines()) == path.read_bytes()
    capsys.readouterr()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    for rows, small in (("20", True), ("60", False)):
        monkeypatch.setenv("LINES", rows)
        assert main(["qr", "phone.conf"]) == 0
        assert ("make the window larger" in capsys.readouterr().err) == small
    assert main(["qr", str(path), "--png", "x.png"]) == 0
    assert main(["qr", str(path), "--svg", "x.svg"]) == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()
    assert stat.S_IMODE((tmp_path / "x.png").stat().st_mode) == 0o600
    assert main(["qr", str(path), "--png", "x.png"]) == 1
    assert "--force" in capsys.readouterr().err
    path.write_text(f"{peer}{'#' * 3000}")
    assert main(["qr", "--raw", str(path)]) == 1
    assert "2953 at most" in capsys.readouterr().err


def test_what_the_interface_has_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be out of date, as with SaveConfig or a hook that adds peers."""
    text = START + "Address = 10.0.0.1/24\nSaveConfig = true\n" + OTHER + "AllowedIPs=10.0.0.4\n"
    taken = [ipaddress.ip_network(one) for one in ("10.0.0.2/32", "10.0.0.5/32", "10.0.0.0/24")]
    found = []
    for name in "ab":
        pair = generate.peer(name, text, file="x", taken=taken)
        text = pair.server
        found.append(pair.addresses)
    assert found == [("10.0.0.3/32",), ("10.0.0.6/32",)]
    with pytest.raises(ConfigError, match=r"10.0.0.5 is taken"):
        generate.peer("c", text, file="x", taken=taken, addresses=["10.0.0.5"])


def test_a_running_server_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For what its peers have and its host; and only the new peer is reloaded."""
    server_file(tmp_path, START + "Address = 10.0.0.1/24\n")
    peer = PeerState("key", None, None, ("10.0.0.2/32", "10.9.0.0/16"), (0, 0), 0, 0, 0)
    state = InterfaceState("wg0", "user", None, None, 7, 0, (peer,))
    monkeypatch.setattr(cli_new, "is_up", lambda _: True)
    monkeypatch.setattr(cli_new, "_here", lambda: [ipaddress.ip_network("10.0.0.3/32")])
    monkeypatch.setattr(interface, "open_interface", lambda _: SimpleNamespace(read=lambda: state))
    called: list[list[str]] = []
    whole = cli_main.main

    def note(argv: list[str]) -> int:
        called.append(argv)
        return 0

    monkeypatch.setattr(cli_main, "main", note)
    assert whole(["new", "peer", "phone", "--no-qr", "--reload"]) == 0
    phone = values(tmp_path / "phone.conf")
    assert phone["Address"] == "10.0.0.4/32"
    assert called == [["reload", "--only", public(phone["PrivateKey"]), "wg0"]]

    def refuse() -> InterfaceState:
        raise HostError(1, "Operation not permitted")

    monkeypatch.setattr(interface, "open_interface", lambda _: SimpleNamespace(read=refuse))
    assert whole(["new", "peer", "tablet", "--no-qr"]) == 1
    assert "the addresses in use cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Annas-iPhone-15-Pro", "Annas iPhone", "Zoë", "a@b", "手机"])
def test_a_phone_has_any_name(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = server_file(tmp_path, START + "Address = 10.0.0.1/24\n")
    assert main(["new", "peer", unicodedata.normalize("NFD", name), "--no-qr"]) == 0
    assert "For a Linux interface, rename" in capsys.readouterr().out
    assert main(["new", "peer", unicodedata.normalize("NFC", name), "--no-qr"]) == 1
    assert "already" in capsys.readouterr().err, "the same name, however it was typed"
    [notes] = labels.read(path.read_bytes()).values()
    assert notes.name == name
    assert values(tmp_path / f"{name}.conf")["Address"] == "10.0.0.2/32"
    assert check(path.read_text()) == []


def test_dns_may_be_left_out(run: Run, tmp_path: Path) -> None:
    server_file(tmp_path, "# dns = 10.0.0.1\n" + START + "Address = 10.0.0.1/24\n")
    assert run("peer phone") == run("peer laptop --no-dns") == run("peer pc --dns 9.9.9.9") == 0
    found = [values(tmp_path / f"{one}.conf").get("DNS") for one in ("phone", "laptop", "pc")]
    assert found == ["10.0.0.1", None, "9.9.9.9"]
    assert run("peer both --dns 9.9.9.9 --no-dns") == 1


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("", True),
        ("PostUp = iptables -A FORWARD -i %i -j ACCEPT\n", True),
        ("# PostUp = MASQUERADE\n", True),
        ("PostUp = iptables -t nat -A POSTROUTING -j MASQUERADE\n", False),
        ("PostUp = nft 'add rule inet n o oifname eth0 snat to 192.0.2.1'\n", False),
    ],
)
def test_a_full_tunnel_to_a_server_without_nat(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], hook: str, said: bool
) -> None:
    server_file(tmp_path, START + "Address = 10.0.0.1/24\n" + hook)
    assert run("peer phone --full-tunnel") == run("peer laptop") == 0
    assert capsys.readouterr().out.count("has no NAT") == said


def test_an_endpoint_is_noted_for_the_next_peer(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a server that somebody else set up; one that is noted stays."""
    plain = START.partition("\n")[2] + "Address = 10.0.0.1/24\n"
    for text in (plain, "\ufeff" + plain, plain.replace("\n", "\r\n"), "# mine\n" + plain):
        path = server_file(tmp_path, text)
        assert run("peer phone --endpoint vpn.example --force") == 0
        assert "for the next peer: endpoint = vpn.example:7" in capsys.readouterr().out
        assert path.read_bytes().startswith(text.partition("PrivateKey")[0].encode())
        assert run("peer laptop --endpoint other.example:9 --force") == 0
        assert "for the next peer" not in capsys.readouterr().out
        assert run("peer tablet --force") == 0
        found = [values(tmp_path / f"{one}.conf")["Endpoint"] for one in ("laptop", "tablet")]
        assert found == ["other.example:9", "vpn.example:7"]


def test_a_lost_phone_gets_new_keys(run: Run, tmp_path: Path) -> None:
    path = server_file(tmp_path, START + "Address = 10.0.0.1/24, fd00::1/64\n")
    assert run("peer phone") == run("peer laptop") == 0
    before = path.read_text().replace("AllowedIPs", "# Anna's\nOnUp = true\nAllowedIPs", 1)
    path.write_text(before.replace("/128\n", "/128, 10.20.0.0/16\n", 1))
    old = values(tmp_path / "phone.conf")
    assert run("peer phone --replace") == 1, "its old file is there"
    assert run("peer phone --replace --force") == 0
    lost = values(tmp_path / "phone.conf")
    assert lost["Address"] == old["Address"] == "10.0.0.2/32, fd00::2/128"
    assert lost["PrivateKey"] != old["PrivateKey"]
    text = path.read_text()
    assert public(old["PrivateKey"]) not in text
    assert old["PresharedKey"] not in text
    assert text.replace(public(lost["PrivateKey"]), public(old["PrivateKey"])).replace(
        lost["PresharedKey"], old["PresharedKey"]
    ) == before.replace("/128\n", "/128, 10.20.0.0/16\n", 1)
    assert run("peer phone --replace --force --no-psk") == 0
    assert path.read_text().count("PresharedKey") == 1
    assert run("peer phone --replace --force") == 0
    assert path.read_text().count("PresharedKey") == 2
    assert check(path.read_text()) == []
    assert run("peer nobody --replace") == 1


FOREIGN = """\
[Interface]
Address = 10.0.0.1/24
# endpoint = vpn.example
{above}
[Peer]
# friendly_name = phone
PublicKey = {key}
AllowedIPs = 10.0.0.2
{below}
"""


@pytest.mark.parametrize(
    ("above", "below", "left"),
    [
        ("", "", "# endpoint = vpn.example\n"),
        (
            "\n# Anna's phone",
            "\n# the next's\n[Peer]\n# x",
            "\n\n# the next's\n[Peer]\n# x\n",
        ),
        ("### begin phone", "### end phone\n\n[Peer]", "# endpoint = vpn.example\n[Peer]\n"),
        ("# dns = 10.0.0.1", "# Tom's\n[Peer]", "# dns = 10.0.0.1\n# Tom's\n[Peer]\n"),
    ],
)
def test_a_peer_is_taken_out(above: str, below: str, left: str) -> None:
    key = base64.b64encode(b"\x07" * 32).decode()
    text = FOREIGN.format(above=above, below=below, key=key).replace("\n\n\n", "\n\n")
    for peer in ("phone", key):
        rest, gone = generate.without(text, peer, file="x")
        assert gone == key
        assert rest.startswith("[Interface]\nAddress = 10.0.0.1/24\n# endpoint = vpn.example\n")
        assert rest.endswith(left.lstrip("\n")), rest
        assert "10.0.0.2" not in rest
        assert "phone" not in rest
    with pytest.raises(ConfigError, match="has no peer 'tablet'"):
        generate.without(text, "tablet", file="x")


def test_remove(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = server_file(tmp_path, START + "Address = 10.0.0.1/24\n")
    start = path.read_text()
    assert run("peer phone") == 0
    one = path.read_text()
    assert run("peer laptop") == 0
    capsys.readouterr()
    assert main(["remove", "laptop", "--reload"]) == 0
    assert "wg0 is not up, so nothing was reloaded\n" in capsys.readouterr().out
    assert path.read_text() == one
    assert run("peer tablet --reload") == 0
    assert "wg0 is not up, so nothing was reloaded\n" in capsys.readouterr().out
    assert main(["remove", "tablet"]) == 0
    assert "not up" not in capsys.readouterr().out
    monkeypatch.setattr(cli_new, "is_up", lambda _: True)
    assert main(["remove", "phone"]) == 0
    assert "the peer can use the tunnel until: wiresnake reload wg0" in capsys.readouterr().out
    assert path.read_text() == start
    assert main(["remove", "phone"]) == 1
    assert "has no peer 'phone'" in capsys.readouterr().err
    twice = one + one.partition("\n\n")[2].replace("PublicKey = ", "PublicKey = 0")
    path.write_text(twice)
    assert main(["remove", "phone"]) == 1
    assert "has 2 peers called 'phone'" in capsys.readouterr().err
    assert path.read_text() == twice
    assert main(["remove", "x", "--server", "wg9"]) == 1


def test_a_servers_key_is_no_phones(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("server --endpoint vpn.example") == 0
    assert run("peer phone") == 0
    for words in (["wg0"], ["wg0", "--raw"], ["etc/wg0.conf", "--png", "x.png"]):
        assert main(["qr", *words]) == 1
        out, err = capsys.readouterr()
        assert "\u2588" not in out
        assert "belongs to a server" in err
    assert main(["qr", "wg0", "--force"]) == 0
    assert "\u2588" in capsys.readouterr().out
    (tmp_path / "phone.conf").rename(tmp_path / "Zoë's phone.conf")
    assert main(["qr", "Zoë's phone.conf"]) == 0
    site = (tmp_path / "phone.conf").write_text(
        START + OTHER + "AllowedIPs = 10.0.0.1\nEndpoint = 192.0.2.9:7\n"
    )
    assert site
    assert main(["qr", "phone.conf"]) == 0, "who listens and calls may move to another device"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "# endpoint = a:5\n[Interface]\n#dns=9.9.9.9, x \r\n",
            {"endpoint": "a:5", "dns": "9.9.9.9, x"},
        ),
        ("\ufeff# Endpoint = a:5\n[Peer]\n# dns = b\n", {"endpoint": "a:5"}),
        ("[ peer ] # x\n# dns = b\n\n[Interface]\n# dns = c\n", {"dns": "c"}),
        ("# endpoints = a\n## dns = b\nListenPort = 5 # dns = c\n", {}),
        ("# PrivateKey = dns = b\n", {}),
    ],
)
def test_what_is_told_to_the_next_peer(text: str, found: dict[str, str]) -> None:
    """One reader for `new` and for `save`."""
    assert labels.remembered(text.encode(), scan(text.encode())) == found
    assert wg_quick.parse(bytearray(text.encode()), "x").remembered == found


def test_comments_that_are_saved_are_no_reason_for_a_warning() -> None:
    saved = START + "Address = 10.0.0.1/24\nSaveConfig = true\n# dns = 9.9.9.9\n"
    saved += OTHER + "# friendly_json = {}\nAllowedIPs = 10.0.0.2/32\n"
    assert check(saved) == []
    [finding] = check(saved + "# mine\n")
    assert "removes all comments" in finding.reason
