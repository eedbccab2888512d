"""The file grammar of wg-quick, and what becomes of it."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import Endpoint
from wiresnake.conffile import wg, wg_quick
from wiresnake.conffile.labels import PeerLabels
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import desired_network
from wiresnake.model import Dns
from wiresnake.network.model import Policy, Route

SECRET = base64.b64encode(b"\x40" * 32).decode()
PUBLIC = base64.b64encode(b"\x11" * 32).decode()
OTHER = base64.b64encode(b"\x22" * 32).decode()

FULL = f"""\
# my tunnel
[Interface]
PrivateKey = {SECRET}
Address = 10.0.0.1/24, fd00::1/64
address=10.0.1.1  10.0.0.1/24
DNS = 192.0.2.53,corp.example
DNS = 2001:db8::53
MTU = 1400
Table = auto
PreUp = one %i
PreUp = two # not a comment
PostDown = iptables -m comment --comment "a=b # c"
SaveConfig = TRUE
FwMark = off

[Peer]
# friendly_name = the \x1boffice
# something else
PublicKey = {PUBLIC} # comment
PresharedKey = {SECRET}
AllowedIPs = 0.0.0.0/0
OnUp = echo up # really
OnDown = echo down
[Peer]
PublicKey = {OTHER}
# friendly_name = below
AllowedIPs = 10.9.0.0/16
"""


def read(text: str) -> QuickConfig:
    return wg_quick.parse(bytearray(text.encode()), "wg0.conf")


def resolve(host: str, port: str) -> Endpoint:
    return Endpoint(host, int(port))


def test_a_whole_file() -> None:
    file = read(FULL)
    assert file.addresses == ("10.0.0.1/24", "fd00::1/64", "10.0.1.1/32")
    assert file.dns == Dns(("192.0.2.53", "2001:db8::53"), ("corp.example",))
    assert (file.mtu, file.table, file.save, file.has_mark) == (1400, "auto", True, True)
    assert file.pre_up == ("one %i", "two # not a comment")
    assert file.post_down == ('iptables -m comment --comment "a=b # c"',)
    assert (file.post_up, file.pre_down) == ((), ())
    office = ("# friendly_name = the \x1boffice",)
    assert file.peers == (
        PeerLabels(PUBLIC, "the office", "", ("echo up # really",), ("echo down",), office),
        PeerLabels(OTHER, "below", comments=("# friendly_name = below",)),
    )
    change = wg.parse(file.wg, resolve)
    assert [peer.public_key for peer in change.peers] == [b"\x11" * 32, b"\x22" * 32]
    assert SECRET not in repr(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(" = ", "\t=\t "),
        lambda text: text.replace("MTU", "mTu").replace("[Interface]", " [INTERFACE] # here"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.removesuffix("\n"),
    ],
)
def test_what_makes_no_difference(change: Callable[[str], str]) -> None:
    one, other = read(FULL), read(change(FULL))
    for name in ("addresses", "dns", "mtu", "table", "pre_up", "post_down", "save"):
        assert getattr(one, name) == getattr(other, name)
    peers = [[peer._replace(comments=()) for peer in file.peers] for file in (one, other)]
    assert peers[0] == peers[1]
    assert wg.parse(one.wg, resolve).peers == wg.parse(other.wg, resolve).peers


def test_what_iproute2_takes() -> None:
    file = read("[Interface]\nAddress = 10.1/16, 10.2.0.1, 10.3.0.1/255.255.255.0\nMTU = 0x578\n")
    assert file.addresses == ("10.1.0.0/16", "10.2.0.1/32", "10.3.0.1/24")
    assert file.mtu == 1400
    assert desired_network.table_number("0", "wg0.conf") == 254


def test_search_domains_alone_are_ignored() -> None:
    assert read("[Interface]\nDNS = corp.example, lan\n").dns == Dns()
    assert read("[Interface]\nDNS =\nAddress =\nMTU =\nTable =\nPreUp =\n").pre_up == ("",)


def test_strip_leaves_what_wg_reads() -> None:
    stripped = read(FULL).stripped().decode()
    own = ("Address", "address", "DNS", "MTU", "Table", "PreUp", "PostDown", "SaveConfig", "On")
    kept = [line for line in FULL.splitlines() if not line.startswith(own)]
    assert stripped.splitlines() == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Interface]\nMTU = big", "wg0.conf:2:7: not an MTU: 'big'"),
        ("[Interface]\n  Address = 10.0.0.1/24, x", "wg0.conf:2:26: not an address: 'x'"),
        ("[Interface]\nAddress = fe80::1%eth0/64", "wg0.conf:2:11: not an address"),
        ("[Interface]\nSaveConfig = yes", "wg0.conf:2:14: `yes' is neither true nor false"),
        ("[Interface]\nSaveConfig =", "wg0.conf:2:13: `' is neither true nor false"),
        ("[Interface]\nTable = 1 2", "wg0.conf:2:9: Table takes"),
        ("[Peer]\n\nMTU = 3", "wg0.conf:3:1: 'MTU' belongs in [Interface]; move it there"),
        ("[Interface]\nOnUp = x", "wg0.conf:2:1: 'OnUp' belongs in [Peer]; move it there"),
        ("Address = 10.0.0.1", "wg0.conf:1:1: 'Address' belongs in [Interface]"),
    ],
)
def test_mistakes_say_where(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["Address", "MTU", "SaveConfig"])
def test_a_key_in_another_line_is_not_shown(key: str) -> None:
    secret = "WAV6Tf3bPHgy8acMcw1yk1F8zrLxQ9tQhhJ+gAWfC1o="
    with pytest.raises(ConfigError) as caught:
        read(f"[Interface]\n{key} = {secret}")
    assert "(hidden)" in str(caught.value)
    assert secret[:20] not in str(caught.value)


def test_a_mistake_of_wg_keeps_its_place() -> None:
    """Lines that only wg-quick reads are still counted."""
    file = read("[Interface]\nAddress = 10.0.0.1\nPostUp = x\n  Colour = blue\n")
    with pytest.raises(ConfigError, match=r"wg0.conf:4:3: unknown key 'Colour'"):
        wg.parse(file.wg, resolve, name="wg0.conf")


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x00"), max_size=30)
LINES = st.lists(
    st.tuples(
        st.sampled_from(
            ("PrivateKey", "PostUp", "Address", "x y", "OnUp", "#", "[Peer]", "MTU", "")
        ),
        st.sampled_from(("=", " = ", "", "#")),
        VALUES,
    ).map("".join),
    max_size=8,
)


@given(LINES)
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    """And no line is lost: what is not wg-quick's own is still there, at its place."""
    try:
        file = read("\n".join(["[Interface]", *lines]))
    except ConfigError:
        return
    kept = file.wg.decode().split("\n")[1:]
    for number, (before, after) in enumerate(zip(lines, kept, strict=True), 2):
        assert (after.strip() == "") if number in file.own_lines else (after == before)


@given(
    st.lists(st.from_regex(r"[a-z %#=]{1,20}", fullmatch=True).map(str.strip).filter(bool)),
    st.lists(st.ip_addresses(v=4).map(lambda ip: f"{ip}/24"), unique=True),
    st.one_of(st.none(), st.integers(68, 65535)),
)
def test_a_file_of_save_is_read_as_it_was(
    hooks: list[str], ips: list[str], mtu: int | None
) -> None:
    lines = [
        "[Interface]",
        *(f"PostUp = {one}" for one in hooks),
        *(f"Address = {ip}" for ip in ips),
    ]
    lines += [f"MTU = {mtu}"] if mtu else []
    file = read("\n".join(lines))
    assert (file.post_up, file.addresses, file.mtu) == (tuple(hooks), tuple(ips), mtu)


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    link = tmp_path / "home.conf"
    link.symlink_to(path)
    assert wg_quick.find(str(path)) == ("wg0", str(path))
    assert wg_quick.find(str(link)) == ("home", str(path)), "the name is that of the link"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert wg_quick.find("wg0") == ("wg0", str(path))
    with pytest.raises(HostError, match=r"nowhere\.conf' does not exist"):
        wg_quick.find("nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostError, match=r"wg0\.conf\.conf' .*; the file here is \./wg0\.conf"):
        wg_quick.find("wg0.conf")
    for name in ("wg0.txt", "a name.conf", "sixteen-letters-.conf"):
        (tmp_path / name).touch()
        with pytest.raises(
            ConfigError, match=r"must be a valid interface name, followed by \.conf"
        ):
            wg_quick.find(str(tmp_path / name))


def test_everybody_can_read_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(FULL)
    for folder, file, warns in ((0o755, 0o644, True), (0o700, 0o644, False), (0o755, 0o600, False)):
        os.chmod(tmp_path, folder)
        path.chmod(file)
        wg_quick.load(str(path))
        said = capsys.readouterr().err
        assert said == (f"Warning: `{path}' is world accessible\n" if warns else "")


ALLOWED = ("10.7.0.0/16", "10.0.0.9/32", "0.0.0.0/0", "fd00::5/128", "::/0")


def test_routes_of_a_table() -> None:
    def routes(table: str, *allowed: str) -> tuple[Route, ...]:
        file = read(f"[Interface]\nAddress = 10.0.0.1/24, fd00::1/64\nTable = {table}\n")
        network = desired_network.network(file, allowed, mtu=1420, mark=7, path="wg0.conf")
        assert (network.policy is not None) == desired_network.needs_mark(file, allowed)
        return network.routes

    assert routes("off", *ALLOWED) == ()
    everything = (Route(one, 99) for one in ("fd00::5/128", "10.0.0.9/32", "10.7.0.0/16"))
    assert routes("99", *ALLOWED) == (*everything, Route("::/0", 99), Route("0.0.0.0/0", 99))
    assert routes("0x63", "10.7.0.0/16") == (Route("10.7.0.0/16", 99),)
    assert routes("main", "10.7.0.0/16") == (Route("10.7.0.0/16"),)
    # What an address leads to already gets no route, the default ones a table of their own.
    auto = (Route("10.7.0.0/16"), Route("::/0", 7), Route("0.0.0.0/0", 7))
    assert routes("auto", *ALLOWED) == routes("", *ALLOWED) == auto
    with pytest.raises(ConfigError, match="no routing table 'nowhere'"):
        routes("nowhere", "10.7.0.0/16")


def test_a_policy_of_the_versions_that_need_it() -> None:
    file = read("[Interface]\n")
    both = desired_network.network(file, ["::/0", "0.0.0.0/0"], mtu=1420, mark=7)
    assert both.policy == Policy(7, (4, 6))
    assert desired_network.network(file, ["0.0.0.0/0"], mtu=1420, mark=7).policy == Policy(7, (4,))
    assert not desired_network.needs_mark(file, ["0.0.0.0/1", "128.0.0.0/1"])


@pytest.mark.parametrize("key", ["Address", "DNS", "MTU", "Table"])
def test_a_key_without_a_value_says_nothing(key: str) -> None:
    empty, without = (
        wg_quick.parse(bytearray(f"[Interface]\n{line}", "ascii"), "wg0.conf")
        for line in (f"{key} =\n", "")
    )
    for field in ("addresses", "dns", "mtu", "table"):
        assert getattr(empty, field) == getattr(without, field)
    assert isinstance(empty.dns, Dns)
