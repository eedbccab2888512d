"""Friendly names, endpoints and hooks of peers, from a file's text."""

import pytest

from wiresnake.quick import names

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


def test_read() -> None:
    assert names.read(TEXT) == {
        "AAA=": names.Notes("AAA=", "OnePlus 6T", "vpn.example.org:51820"),
        "BBB=": names.Notes("BBB=", "anna", "", ("echo %i # up", "true"), ("echo down",)),
        "CCC=": names.Notes("CCC=", "[31mred"),
    }


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ('friendly_json = {"name": "bob", "username": "x"}', "bob"),
        ("friendly_json = {broken", ""),
        ("friendly_json = [1]", ""),
        ("friendly_name=", ""),
        ("Friendly_Name=A=B", "A=B"),
        ("name = x", ""),
    ],
)
def test_comments(comment: str, name: str) -> None:
    text = f"[Peer]\n# {comment}\nPublicKey = AAA=\n"
    assert names.read(text)["AAA="].name == name
