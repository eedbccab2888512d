"""wg's configuration grammar, and errors that say where."""

import base64
import contextlib
import errno
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.conffile.wg import parse
from wiresnake.errors import ConfigError
from wiresnake.model import CLEAR, DeviceChange, Prefix

PRIVATE = base64.b64encode(b"\x40" * 32).decode()
PUBLIC = base64.b64encode(b"\x11" * 32).decode()
OTHER = base64.b64encode(b"\x22" * 32).decode()


def resolve(host: str, port: str) -> Endpoint:
    number = {"domain": 53}.get(port) or int(port) % 65536  # as the C library
    if host == "nowhere.example":
        raise OSError(errno.ENOENT, "Name or service not known")
    return Endpoint({"vpn.example": "192.0.2.9"}.get(host, host), number)


def read(text: str) -> DeviceChange:
    return parse(bytearray(text.encode()), resolve, name="wg0.conf")


def mistake(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


FULL = f"""\
[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820
FwMark = 0xca6c

[Peer]  # laptop
PublicKey = {PUBLIC}
PresharedKey = {OTHER}
AllowedIPs = 10.0.0.1/24, 2001:db8::/32
AllowedIPs = 192.0.2.7
Endpoint = vpn.example:51820
PersistentKeepalive = 25
"""


def test_a_whole_file() -> None:
    change = read(FULL)
    assert isinstance(change.private_key, PrivateKey)
    assert (change.listen_port, change.fwmark, change.replace_peers) == (51820, 0xCA6C, True)
    [peer] = change.peers
    assert peer.public_key == b"\x11" * 32
    assert isinstance(peer.preshared_key, PresharedKey)
    assert peer.endpoint == Endpoint("192.0.2.9", 51820)
    assert peer.persistent_keepalive == 25
    assert peer.replace_allowed_ips
    networks = ("10.0.0.0/24", "2001:db8::/32", "192.0.2.7/32")
    assert peer.allowed_ips == tuple((True, Prefix.parse(one)) for one in networks)


def each_line(change: Callable[[str, str], str]) -> str:
    """FULL with every line made again from the text before and after its first '='."""
    return "\n".join(
        change(*line.split("=", 1)) if "=" in line else line for line in FULL.split("\n")
    )


@pytest.mark.parametrize(
    "text",
    [
        FULL.replace("\n", "\r\n"),
        "\ufeff" + FULL,
        each_line(lambda key, value: f"{key.upper()}={value}").replace("Peer", "pEER"),
        each_line(lambda key, value: f"{key[:3]} {key[3:]}={value}").replace("[", " [ "),
        each_line(lambda key, value: f"\v{key}\t=\f{value[:5]} {value[5:]} "),
        FULL.rstrip("\n"),
        "# nothing\n\n" + FULL.replace("\n", " # note = [Peer]\n"),
    ],
    ids=["crlf", "bom", "case", "spaces in names", "whitespace", "no last newline", "comments"],
)
def test_the_same_file_otherwise(text: str) -> None:
    expected, change = read(FULL), read(text)
    assert change == expected


def test_what_a_file_lacks_is_zero() -> None:
    assert read("") == DeviceChange(CLEAR, 0, 0, True)
    assert read("[Interface]\n[Peer]\nPublicKey=" + PUBLIC).listen_port == 0


@pytest.mark.item(103)
def test_a_peer_of_very_many_networks() -> None:
    lines = [f"AllowedIPs=10.{n >> 8}.{n & 255}.0/24\n" for n in range(60_000)]
    begin = time.process_time()
    change = read(f"[Peer]\nPublicKey={PUBLIC}\n" + "".join(lines) + f"[Peer]\nPublicKey={OTHER}")
    assert time.process_time() - begin < 4  # Quadratic, it took 12 s.
    assert [len(peer.allowed_ips) for peer in change.peers] == [60_000, 0]


def test_sections_come_again() -> None:
    change = read(
        f"[Peer]\nPublicKey={PUBLIC}\n[Interface]\nListenPort=7\n[Peer]\nPublicKey={OTHER}"
    )
    assert change.listen_port == 7
    assert [peer.public_key[0] for peer in change.peers] == [0x11, 0x22]


def test_the_last_of_two_equal_peers_replaces_the_allowed_ips() -> None:
    peer = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs="
    change = read(f"{peer}10.0.0.0/8\n{peer}10.1.0.0/16")
    assert [one.replace_allowed_ips for one in change.peers] == [True, True]
    assert change.peers[1].allowed_ips == ((True, Prefix.parse("10.1.0.0/16")),)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("FwMark=off", "fwmark", 0),
        ("FwMark=4294967295", "fwmark", 0xFFFFFFFF),
        ("FwMark=0xFFFFFFFF", "fwmark", 0xFFFFFFFF),
        ("ListenPort=0", "listen_port", 0),
        ("ListenPort=domain", "listen_port", 53),
        ("ListenPort=99999", "listen_port", 34463),
        ("PrivateKey=" + "A" * 43 + "=", "private_key", CLEAR),
    ],
)
def test_interface_values(line: str, field: str, value: object) -> None:
    assert getattr(read(f"[Interface]\n{line}"), field) == value


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("PersistentKeepalive=off", "persistent_keepalive", 0),
        ("PersistentKeepalive=65535", "persistent_keepalive", 65535),
        ("PresharedKey=" + "A" * 43 + "=", "preshared_key", CLEAR),
        ("Endpoint=192.0.2.1:domain", "endpoint", Endpoint("192.0.2.1", 53)),
        ("Endpoint=[2001:db8::1]:5", "endpoint", Endpoint("2001:db8::1", 5)),
        ("Endpoint=2001:db8::1:5", "endpoint", Endpoint("2001:db8::1", 5)),
        ("AllowedIPs=0.0.0.0/0", "allowed_ips", ((True, Prefix(bytes(4), 0)),)),
    ],
)
def test_peer_values(line: str, field: str, value: object) -> None:
    [peer] = read(f"[Peer]\nPublicKey={PUBLIC}\n{line}").peers
    assert getattr(peer, field) == value


@pytest.mark.parametrize(
    "line",
    [
        "PrivateKey=" + PRIVATE[:-1],
        "PrivateKey=" + PRIVATE[:-2] + "B=",
        "ListenPort=nonsense",
        "ListenPort=",
        "FwMark=0X10",
        "FwMark=0x100000000",
        "FwMark=0x1_0",
        "FwMark=-1",
        "Unknown=1",
        "PublicKey=" + PUBLIC,
        "just words",
        "PrivateKey=\N{SNOWMAN}",
        "[Nonsense]",
        "=",
    ],
)
def test_interface_mistakes(line: str) -> None:
    assert mistake(f"[Interface]\n\n  {line}\n").startswith("wg0.conf:3:3: ")


@pytest.mark.parametrize(
    "line",
    [
        "PublicKey=" + PUBLIC[:-1],
        "PublicKey=" + PUBLIC[:-2] + "F=",
        "PresharedKey=" + "A" * 45,
        "AllowedIPs=",
        "AllowedIPs=10.0.0.0/8,",
        "AllowedIPs=10.0.0.0/255.0.0.0",
        "AllowedIPs=10.0.0.0/33",
        "AllowedIPs=example.com",
        "Endpoint=192.0.2.1",
        "Endpoint=:51820",
        "Endpoint=192.0.2.1:",
        "Endpoint=nowhere.example:51820",
        "PersistentKeepalive=65536",
        "PersistentKeepalive=on",
        "ListenPort=5",
    ],
)
def test_peer_mistakes(line: str) -> None:
    assert mistake(f"[Peer]\nPublicKey={PUBLIC}\n{line}\n").startswith("wg0.conf:3:1: ")


def test_a_sign_makes_allowed_ips_a_change() -> None:
    begin = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs="
    [peer] = read(begin + "+10.0.0.0/8, -fd00::/8, 10.1.0.0/16").peers
    assert not peer.replace_allowed_ips
    assert [add for add, _ in peer.allowed_ips] == [True, False, True]
    [peer] = read(begin + "10.0.0.0/8").peers
    assert peer.replace_allowed_ips
    for value in ("+", "-+10.0.0.0/8", "+-10.0.0.0/8", "10.0.0.0/+8"):
        mistake(begin + value)


def test_what_is_appended_leaves_the_rest() -> None:
    text = bytearray(f"[Peer]\nPublicKey={PUBLIC}\n".encode())
    change = parse(text, resolve, append=True)
    assert change.peers
    assert change == DeviceChange(peers=change.peers)


def test_keys_of_wg_quick_are_named_as_such() -> None:
    for line in ("Address=10.0.0.1/24", "DNS=1.1.1.1", "MTU=1280", "Table=off", "SaveConfig=true",
                 "PreUp=a", "PostUp=b", "PreDown=c", "PostDown=d"):  # fmt: skip
        assert "wg-quick strip" in mistake(f"[Interface]\n{line}\n")


def test_errors_elsewhere() -> None:
    assert mistake("PrivateKey = x").startswith("wg0.conf:1:1: 'PrivateKey' comes before any")
    assert mistake("[Peer]\n[Peer]\n").startswith("wg0.conf:1:1: this [Peer] has no PublicKey")
    assert mistake(f"[Peer]\nPublicKey={PUBLIC}\n\n [Peer]\n").startswith("wg0.conf:4:1: ")


@pytest.mark.parametrize("line", [PRIVATE, "PrivateKey=" + PRIVATE + "x", "x" + PRIVATE + "y"])
@pytest.mark.item(105)
def test_no_error_shows_a_secret(line: str) -> None:
    assert PRIVATE[:8] not in mistake(f"[Interface]\n{line}\n")


@given(st.binary(max_size=300))
def test_any_bytes_give_a_change_or_an_error(text: bytes) -> None:
    with contextlib.suppress(ConfigError):
        parse(bytearray(text), resolve)


LINES = st.sampled_from(
    [*FULL.splitlines(), "Endpoint=x:y", "FwMark=0x", "AllowedIPs=,", "Address=1"]
)


@given(st.lists(LINES | st.text(max_size=30), max_size=20))
def test_any_lines_give_a_change_or_an_error(lines: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        parse(bytearray("\n".join(lines).encode("utf-8", "surrogatepass")), resolve)
