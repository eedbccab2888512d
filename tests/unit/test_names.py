"""Friendly names, endpoints and hooks of peers, from a file's text."""

import pytest

from wiresnake.conffile import labels, wg_quick
from wiresnake.conffile.dialects import ini
from wiresnake.conffile.dialects.wg_quick import read
from wiresnake.lifecycle import save
from wiresnake.network.model import Network
from wiresnake.uapi.snapshot import InterfaceState, PeerState

TEXT = """\ufeff[Interface]
PrivateKey = SECRET=
# friendly_name = not a peer
PostUp = echo # friendly_name
[Peer]
# friendly_name = OnePlus 6T
PublicKey = AAA=
AllowedIPs = 10.0.0.2/32 # friendly_name = no
Endpoint = vpn.example.org:51820 # home
[peer]\r
#friendly_json = {"username": "anna", "id": 7}\r
Public Key = BBB=\r
OnUp = echo %i # up
OnUp = true
OnDown = echo down
[Peer]
# just a comment
PublicKey = CCC=
# friendly_name = \x1b[31mred\x07
[Peer]
AllowedIPs = 10.0.0.9/32
"""


def read_labels(text: str) -> dict[str, labels.PeerLabels]:
    return labels.read(text.encode("utf-8", "surrogateescape"))


def test_read() -> None:
    found = read_labels(TEXT)
    assert {key: peer._replace(comments=()) for key, peer in found.items()} == {
        "AAA=": labels.PeerLabels("AAA=", "OnePlus 6T", "vpn.example.org:51820"),
        "BBB=": labels.PeerLabels("BBB=", "anna", "", ("echo %i # up", "true"), ("echo down",)),
        "CCC=": labels.PeerLabels("CCC=", "[31mred"),
    }
    assert found["BBB="].comments == ('#friendly_json = {"username": "anna", "id": 7}',)


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ('friendly_json = {"name": "bob", "username": "x"}', "bob"),
        ('friendly_json = {"id": 7, "username": "x", "peer_name": "y"}', "x"),
        ('friendly_json={"peer_name":"json-peer", "male": true}', "json-peer"),
        ('friendly_json={"friendly_name":"json-friendly"}', "json-friendly"),
        ('friendly_json = {"Name": null, "HostName": "h"}', "h"),
        ('friendly_json = {"name": "", "username": 7}', "7"),
        ('friendly_json = {"name": true, "id": 4, "mail": "a@b"}', ""),
        ("friendly_json = " + "[" * 100_000, ""),
        ("friendly_json = {broken", ""),
        ("friendly_json = [1]", ""),
        ("friendly_name=", ""),
        ("Friendly_Name=A=B", "A=B"),
        ("name = x", ""),
    ],
)
def test_comments(comment: str, name: str) -> None:
    text = f"[Peer]\n# {comment}\nPublicKey = AAA=\n"
    assert read_labels(text)["AAA="].name == name


KEY = "uAsDu/OcWfga3bdYBLmjfoE8kCgVt2uPyy8qqnIdLEA="


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("# friendly_name = first\nKEY\n", "first"),
        ("KEY\nAllowedIPs = 10.9.0.2/32\n# friendly_name = below\n", "below"),
        ("KEY  # a comment\n  #friendly_name=no-spaces\n", "no-spaces"),
        ("# Created 2024 = yes\n\n# friendly_name = second\nKEY\n# friendly_name = no\n", "second"),
        ('# friendly_json = {"name": "json", "id": 482217}\nKEY\n', "json"),
        ("#\tFriendly_Name\t= upper\r\nKEY\r\n", "upper"),
        ('# friendly_json = {"id": 7}\nKEY\n# friendly_name = then\n', "then"),
        ("# friendly_name =\nKEY\n# friendly_name = after an empty one\n", "after an empty one"),
        ("# friendly_name = Łódź 東京 📱 = {x}\nKEY\n", "Łódź 東京 📱 = {x}"),
        ("# friendly_name = a\x1b[31m\x9bb\nKEY\n", "a[31mb"),
        ("# friendly_name = la\udce4tin1\nKEY\n", "la\udce4tin1"),
        ("KEY # friendly_name = no\nAllowedIPs = 10.9.0.2/32 # friendly_name = no\n", ""),
        ("OnUp = true # friendly_name = no\nKEY\n", ""),
    ],
)
def test_one_meaning_for_every_reader(lines: str, name: str) -> None:
    """What shows peers, what reloads and saves them, what writes them for others."""
    lines = lines.replace("KEY", f"PublicKey = {KEY}")
    text = f"[Interface]\n# friendly_name = not a peer\n[Peer]\n{lines}[peer]\n"
    whole = f"{text}PublicKey = {KEY[::-1][1:]}=\n"
    shown = name.replace("\udce4", "\ufffd")
    assert read_labels(whole)[KEY].name == shown
    file = wg_quick.parse(bytearray(whole, "utf-8", "surrogateescape"), "wg0.conf")
    assert [peer.name for peer in file.peers if peer.public_key == KEY and peer.name] == (
        [shown] if name else []
    )
    document, _ = read(text.removesuffix("[peer]\n"), "wg0.conf")
    assert [peer.name for peer in document.peers] == [name]
    sections = ini.read(text.replace("\r", ""), "wg0.netdev")
    assert sections[1].name == name

    peer = PeerState(KEY, None, None, (), (0, 0), 0, 0, 0)
    state = InterfaceState("wg0", "user", None, None, 0, 0, (peer,))
    saved = "\n".join(save.lines(file, Network(1420), state))
    assert read_labels(saved)[KEY].name == shown
    for line in lines.splitlines():
        named = line.strip().startswith("#") and "friendly_" in line.lower()
        assert (line.strip() in saved.splitlines()) or not named, "to the byte"
