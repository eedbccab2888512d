"""`wiresnake check`: every mistake in one run, with its place and a remedy."""

import base64
import json
from pathlib import Path

import pytest
from corpus import BAD, GOOD, OTHER, OURS, PEER, PRIVATE, PUBLIC, START, ZERO
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import Endpoint, PrivateKey
from wiresnake.cli.main import main
from wiresnake.conffile import files, values
from wiresnake.conffile.check import check
from wiresnake.conffile.wg import parse, settle
from wiresnake.errors import ConfigError


def found(text: str) -> list[str]:
    return [f"{line}:{column}: {level}: {reason}" for line, column, level, reason, _ in check(text)]


def said(text: str, *expected: str) -> None:
    """Each of these is the beginning of a finding, in this order, and there are no others."""
    findings = found(text)
    for finding, begin in zip(findings, expected, strict=False):
        assert finding.startswith(begin), findings
    assert len(findings) == len(expected), findings


CLEAN = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.0.0.1/24, fd00::1/64
ListenPort = 51820
DNS = 10.0.0.53, example.com
PostUp = echo %i

[Peer]
# friendly_name = phone
PublicKey = {PUBLIC}
PresharedKey = {OTHER}
AllowedIPs = 10.0.0.2, fd00::2
Endpoint = vpn.example:51820
PersistentKeepalive = 25
"""


def test_a_clean_file_is_silent() -> None:
    assert check(CLEAN) == []
    assert check(CLEAN.replace("\n", "\r\n")) == []


def test_all_mistakes_at_once_each_in_its_place() -> None:
    said(
        f"""\
MTU = 1420
[Interface]
Adress = 10.0.0.1/24
  PrivateKey = {PRIVATE[:-1]}
AllowedIPs = 10.0.0.0/8
[Peer]
PublicKey = {PUBLIC}
Address = 10.0.0.1/24
AllowedIPs = 10.0.0.0/8, 10.1.0.0/33
; old
Jc = 4
""",
        "1:1: error: MTU comes before any section",
        "3:1: error: unknown key 'Adress' in [Interface]",
        "4:16: error: PrivateKey misses its last character",
        "5:1: error: AllowedIPs does not belong in [Interface]",
        "8:1: error: Address does not belong in [Peer]",
        "9:26: error: not an IP network '10.1.0.0/33'",
        "10:1: error: ';' does not begin a comment",
        "11:1: error: Jc is a key of AmneziaWG",
    )
    assert check(START + "Adress = 1")[0].remedy == "did you mean Address?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ListenPort = 99999", "3:14: warning: ListenPort 99999 wraps around to 34463"),
        ("ListenPort = 1\nListenPort = 2", "4:1: warning: ListenPort appears twice"),
        ("Address = 10.0.0.1", "3:11: note: Address 10.0.0.1 has no prefix length"),
        ("Address = 10.252.1.0/24", "3:11: warning: Address 10.252.1.0/24 is the network's own"),
        ("Address = fd00::/64", "3:11: warning: Address fd00::/64 is the network's own"),
        ("PostUp =", "3:1: note: PostUp has no command"),
        ("MTU =", "3:1: warning: MTU has no value"),
        ("Address = 10.1/8", "3:11: warning: Address 10.1/8 is short for 10.1.0.0/8"),
        ("Address = 10.0.0.1/24, x", "3:24: error: Address is not an IP address"),
        ("DNS = example.com", "3:1: warning: DNS has search domains but no server"),
        ("DNS = 1.1.1", "3:7: warning: DNS '1.1.1' is taken for a server"),
        ("MTU = x", "3:7: error: MTU is not a number"),
        ("MTU = 100", "3:7: warning: MTU 100 is below"),
        ("MTU = 9000", "3:7: warning: MTU 9000 plus the tunnel's"),
        ("MTU = 1200\nAddress = fd00::1/64", "3:1: warning: MTU 1200 is below 1280"),
        ("Table = 4294967296", "3:9: error: Table 4294967296 is too big"),
        ("Table = nosuch", "3:9: warning: Table names a routing table"),
        ("SaveConfig = yes", "3:14: error: SaveConfig is neither"),
        ("SaveConfig =", "3:1: error: SaveConfig has no value"),
        ("SaveConfig = true\n# mine", "3:1: warning: SaveConfig removes all comments"),
        ("Address =", "3:1: warning: Address has no value"),
        ("ListenPort =", "3:1: error: ListenPort has no value"),
        ("PostUp = echo '#'", "3:10: warning: a '#' in a command"),
        ("PostUp = echo \u201cx\u201d", "3:10: warning: typographic quotes"),
        ("Save Config = false", "3:1: warning: SaveConfig, or the section"),
        ("ListenPort = 1\u00a0", "3:14: error: a character in ListenPort that is not ASCII"),
        ("FwMark = 0x1ffffffff", "3:10: error: FwMark '0x1ffffffff' is not a mark"),
        (f"PrivateKey = {ZERO}", "3:1: warning: PrivateKey appears twice"),
    ],
)
def test_one_mistake_under_interface(text: str, expected: str) -> None:
    findings = found(START + text + "\n")
    assert findings[0].startswith(expected), findings
    assert len(findings) == (2 if ZERO in text else 1), findings


OWN = PrivateKey.from_base64(PRIVATE.encode())
assert OWN is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AllowedIPs = 10.0.0.1/24", "5:14: warning: AllowedIPs 10.0.0.1/24 has bits set"),
        ("AllowedIPs = +::/0", "5:14: warning: a network with a sign changes what the peer has"),
        ("AllowedIPs = ::/0,", "5:19: error: an empty item"),
        ("PersistentKeepalive = 25", "5:1: warning: PersistentKeepalive without Endpoint"),
        ("Endpoint = 1.2.3.4", "5:12: error: Endpoint has no host, or no port"),
        ("Endpoint = 1.2.3.4:70000", "5:12: warning: Endpoint's port 70000 wraps around to 4464"),
        ("Endpoint = 10.1:5", "5:12: warning: Endpoint's host '10.1' means 10.0.0.1"),
        ("Endpoint = 2001:db8::1:5", "5:12: warning: an IPv6 endpoint without brackets"),
        ("Endpoint = https://a.example:5", "5:12: error: Endpoint has a '/'"),
        (
            "Endpoint = 10.9.0.1:5\nAllowedIPs = 10.0.0.0/8",
            "5:12: warning: Endpoint is inside 10.0.0.0/8",
        ),
        (f"PresharedKey = {ZERO}", "5:16: warning: PresharedKey is all zeros"),
        (f"PublicKey = {OTHER}", "5:1: warning: PublicKey appears twice"),
        (f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=::/0", "6:1: warning: the peer of line 4 again"),
        ("[Peer]\nAllowedIPs = ::/0", "5:1: error: this [Peer] has no PublicKey"),
    ],
)
def test_one_mistake_under_peer(text: str, expected: str) -> None:
    findings = found(START + PEER + text + "\n")
    ignored = "3:1: warning: this [Peer] has no AllowedIPs"
    findings = [finding for finding in findings if not finding.startswith(ignored)]
    assert findings[0].startswith(expected), findings
    assert len(findings) == 1, findings


def test_peers_that_take_from_each_other() -> None:
    both = f"{START}{PEER}AllowedIPs = %s\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = %s\n"
    said(both % ("10.0.0.0/24", "10.0.0.0/24"), "8:14: warning: line 5 has 10.0.0.0/24 too")
    said(
        both % ("10.0.0.0/24, 10.0.0.2/32", "10.0.0.1/32, 10.1.0.0/16, fd00::/64"),
        "8:14: note: 10.0.0.1/32 lies within 10.0.0.0/24 of line 5",
    )
    # The narrowest one around it is reported.
    said(
        both % ("0.0.0.0/0, 10.0.0.0/8", "10.1.2.3/32"),
        "8:14: note: 10.1.2.3/32 lies within 10.0.0.0/8 of line 5",
    )
    said(
        both % ("10.0.0.0/24, ::/0", "::/0, 10.0.0.0/24"),
        "8:14: warning: line 5 has ::/0 too, and the last peer silently gets it",
        "8:20: warning: line 5 has 10.0.0.0/24 too",
    )


def test_keys_of_the_wrong_end() -> None:
    assert OWN is not None
    own = base64.b64encode(OWN.public).decode()
    whole = START + "[Peer]\nPublicKey = {}\nAllowedIPs = ::/0\n"
    said(whole.format(own), "4:1: warning: this PublicKey is the interface's own")
    said(whole.format(PRIVATE), "4:1: warning: PublicKey is the same as PrivateKey")


def test_a_default_route_without_a_way() -> None:
    peer = PEER + "AllowedIPs = 0.0.0.0/0\n"
    said(START + "Table = off\n" + peer, "3:1: warning: Table = off: no route leads")
    said(START + "Table = off\nPostUp = ip route add x\n" + peer)
    said(START + peer + "Endpoint = 192.0.2.1:5\n")


def on_host(text: str, name: str = "wg0") -> list[str]:
    routed = {"192.168.1.0/24": "eth0", "fd01::/64": "eth0", "10.9.0.0/24": "wg0"}
    return [
        f"{line}:{column}: {level}: {reason}; {remedy}"
        for line, column, level, reason, remedy in check(text, name, routed)
        if (line, column, level, reason, remedy) not in check(text)
    ]


def test_allowed_ips_that_are_the_lans() -> None:
    peer = PEER + "AllowedIPs = 10.9.0.0/24, 192.168.1.7/24, 192.168.1.0/25, 0.0.0.0/0\n"
    [said] = on_host(START + peer)
    assert said.startswith("5:27: warning: 192.168.1.0/24 is already reached through eth0")
    assert "two halves" in said
    assert on_host(START + PEER + "AllowedIPs = fd01::/64\n")[0].startswith(
        "5:14: warning: fd01::/64"
    )
    for line in ("Table = off", "Table = 7", "Address = 192.168.1.9/24"):
        assert on_host(f"{START}{line}\n{peer}") == []
    assert on_host(START + PEER + "AllowedIPs = 192.168.1.0/24\n", "eth0") == []
    assert on_host("") == []


def test_a_name_that_nft_does_not_take() -> None:
    peer = START + PEER + "AllowedIPs = 10.0.0.0/8, ::/0\n"
    for name in ("wg+1", "wg=1"):
        [said] = on_host(peer, name)
        assert said.startswith(f"5:26: warning: nft cannot name a table after '{name}'")
        assert on_host(peer.replace(", ::/0", ""), name) == []
        assert on_host(START + "Table = off\n" + PEER + "AllowedIPs = ::/0\n", name) == []
    assert on_host(peer, "wg-1_a.b") == []


def test_what_generators_write_is_no_warning(tmp_path: Path) -> None:
    """wireguard-ui's, wg-easy's and linuxserver's files pass with --strict."""
    text = CLEAN.replace(
        "PostUp = echo %i", "PreUp = \nPostUp =\nPreDown = \nPostDown = \nTable = auto"
    )
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text(text.replace("10.0.0.1/24", "10.0.0.1"))
    assert main(["check", "--strict", str(path)]) == 0


def test_an_endpoint_behind_its_own_tunnel() -> None:
    peer = PEER + "AllowedIPs = 192.0.2.0/24\nEndpoint = 192.0.2.1:5\n"
    said(START + peer, "6:12: warning: Endpoint is inside 192.0.2.0/24, whose route leads into")
    said(START + "Table = off\n" + peer)
    address = "Address = 192.0.2.9/24\nTable = off\n"
    said(START + address + peer, "8:12: warning: Endpoint is inside the network of Address")


def test_no_key_and_no_interface() -> None:
    said("", "1:1: warning: no [Interface]")
    said("[Interface]", "1:1: warning: no PrivateKey")
    said("[Interface]\nPostUp = wg set %i private-key /etc/key")


def test_no_secret_is_ever_shown() -> None:
    half = PRIVATE[:20]
    for text in (f"{half}\n", f"{half} = 1\n", f"[Interface]\nPrivateKey = {half}\n"):
        findings = str(check(START + text))
        assert half not in findings
    assert PRIVATE not in str(check(f"[Interface]\nListenPort = {PRIVATE}\n"))


@pytest.mark.parametrize("text", GOOD)
def test_takes_what_stock_takes(text: str) -> None:
    """tests/interop asks stock itself."""
    assert not [one for one in check(text) if one.level == "error"]


@pytest.mark.parametrize("text", BAD)
def test_refuses_what_stock_refuses(text: str) -> None:
    assert [one for one in check(text) if one.level == "error"]


@pytest.mark.parametrize("text", OURS)
def test_takes_more_than_stock(text: str) -> None:
    assert not [one for one in check(text) if one.level == "error"]


def resolve(host: str, port: str) -> Endpoint:
    address = values.numeric_host(host.partition("%")[0])
    if {*"/[]"} & {*host} or (address is None and (":" in host or set(host) <= set("0123456789."))):
        raise OSError("no such host")
    try:
        return Endpoint(address or "192.0.2.1", values.port_number(port))
    except ValueError:
        raise OSError("no such port") from None


PUNCTUATION = [*PRIVATE[:3], *"=\n[]#,/:09 \t;x\r+-", "\u00a0"]
WORDS = ["[Peer]", "off", "10.0.0.0/8", "PublicKey", "ListenPort = ", "PersistentKeepalive="]
FRAGMENTS = st.sampled_from([*PUNCTUATION, *WORDS])
WG_ONLY = "\n".join(
    line for line in CLEAN.splitlines() if not line.startswith(("Address", "DNS", "PostUp"))
)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 8), FRAGMENTS), max_size=4))
def test_agrees_with_the_parser_that_up_uses(cuts: list[tuple[int, int, str]]) -> None:
    """Whatever is cut out and put in: `check` has an error just where the parser raises."""
    text = WG_ONLY
    for at, length, fragment in cuts:
        text = text[:at] + fragment + text[at + length :]
    whole = bytearray(text.encode())
    settle(whole, "x")  # As every file that is read.
    text = whole.decode()
    refused = False
    try:
        parse(bytearray(text.encode()), resolve)
    except ConfigError:
        refused = True
    findings = check(text)
    assert refused == any(finding.level == "error" for finding in findings), (text, findings)


@given(st.text() | st.text(alphabet="[]=#\n InterfacPeradsDNS,0:/"))
def test_never_fails(text: str) -> None:
    lines = text.count("\n") + 1
    for finding in check(text):
        assert 1 <= finding.line <= lines
        assert finding.column >= 1
        assert finding.remedy


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    assert main(["check"]) == 1
    assert "no *.conf found" in capsys.readouterr().err
    assert main(["check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []
    tmp_path.chmod(0o755)
    good, bad = tmp_path / "wg0.conf", tmp_path / "wg1.conf"
    good.write_text(CLEAN)
    good.chmod(0o644)
    assert main(["check", "wg0"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{good}:1:1: warning: the file and its folder are open")
    assert main(["check", "--strict", str(good)]) == 1
    good.chmod(0o600)
    assert main(["check", "--strict", "wg0"]) == 0
    capsys.readouterr()
    within = f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.0.0.2/31\n"
    good.write_text(CLEAN + within)
    assert main(["check", "--strict", "wg0"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["check", "--strict", "--verbose", "wg0"]) == 0
    assert "note: " in capsys.readouterr().out
    bad.touch(0o600)
    bad.write_bytes(CLEAN.encode() + b"\xff = 1\n")
    capsys.readouterr()
    assert main(["check", "--json"]) == 1
    [row] = json.loads(capsys.readouterr().out)
    assert (row["file"], row["line"], row["level"]) == (str(bad), 15, "error")
    assert main(["check", str(tmp_path / "none.conf")]) == 1
    assert "cannot read" in capsys.readouterr().err
    assert main(["check", "--json", str(tmp_path / "none.conf")]) == 1
    [row] = json.loads(capsys.readouterr().out)
    assert row["level"] == "error" and "cannot read" in row["reason"]


@pytest.mark.parametrize(
    ("table", "networks", "notes"),
    [
        ("auto", "0.0.0.0/1, 128.0.0.0/1", ["0.0.0.0/1 and 128.0.0.0/1 go around the tunnel"]),
        ("auto", "8000::/1, ::/1", ["::/1 and 8000::/1 go around the tunnel"]),
        ("auto", "0.0.0.0/1, 128.0.0.0/2", []),
        ("auto", "0.0.0.0/0, 0.0.0.0/1, 128.0.0.0/1", []),
        ("123", "0.0.0.0/1, 128.0.0.0/1", []),
    ],
)
def test_a_full_tunnel_in_halves_is_open_without_its_daemon(
    table: str, networks: str, notes: list[str]
) -> None:
    file = CLEAN.replace("PostUp", f"Table = {table}\nPostUp").partition("[Peer]")[0]
    of_halves = [
        one
        for one in check(f"{file}[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = {networks}\n")
        if "while its daemon is dead" in one.reason
    ]
    assert [one.level for one in of_halves] == ["note"] * len(notes)
    for one, note in zip(of_halves, notes, strict=True):
        assert one.reason.startswith(note)
        assert one.remedy.endswith("keeps it shut")
