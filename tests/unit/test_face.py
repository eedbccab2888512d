"""What `import wiresnake` gives."""

import ast
import asyncio
import base64
import subprocess
import sys
from pathlib import Path

import pytest

import wiresnake
from wiresnake import *  # noqa: F403  # as a user may

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(1, 33))).decode()
FILE = f"""[Interface]
PrivateKey = {KEY}
ListenPort = 51820
FwMark = 0x7
Address = 10.0.0.1/24, fd00::1/64
MTU = 1380
DNS = 10.0.0.53, home.arpa
Table = off
PostUp = echo not run

[Peer]
PublicKey = {OTHER}
PresharedKey = {KEY}
Endpoint = 192.0.2.1:7
AllowedIPs = 10.0.0.2/32, fd00::/64
PersistentKeepalive = 25
"""


@pytest.mark.parametrize("name", wiresnake.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(wiresnake, name) is globals()[name]
    assert name in dir(wiresnake)


def test_the_list_of_names_is_the_same_wherever_it_stands() -> None:
    """For people, for mypy, and for the import."""
    tree = ast.parse(Path(wiresnake.__file__).read_text())
    typed = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("wiresnake.")
        for alias in node.names
    }
    assert sorted(typed) == sorted(wiresnake.__all__)
    assert not hasattr(wiresnake, "other")


def test_an_import_costs_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import wiresnake; print(*set(sys.modules) - before)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert {name for name in loaded if name.startswith("wiresnake")} == {"wiresnake"}
    assert not {"asyncio", "dataclasses", "logging"} & set(loaded)


def test_types_are_the_packages_own() -> None:
    assert Path(wiresnake.__file__).with_name("py.typed").exists()


def test_a_whole_file_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "wg0.conf"
    file.write_text(FILE)
    config = wiresnake.Config.from_file(file)
    (peer,) = config.peers
    assert config.private_key is not None and peer.preshared_key is not None
    assert (config.listen_port, config.fwmark, config.mtu) == (51820, 7, 1380)
    assert config.addresses == ("10.0.0.1/24", "fd00::1/64")
    assert (config.dns, config.table) == (wiresnake.Dns(("10.0.0.53",), ("home.arpa",)), "off")
    assert (peer.public_key, peer.persistent_keepalive) == (OTHER, 25)
    assert peer.endpoint == wiresnake.Endpoint("192.0.2.1", 7)
    assert peer.allowed_ips == tuple(map(wiresnake.Prefix.parse, ("10.0.0.2/32", "fd00::/64")))
    assert KEY not in repr(config) and repr(bytes(range(32))) not in repr(config)
    change = config.change()
    assert change.replace_peers and change.listen_port == 51820 and len(change.peers) == 1
    assert change.peers[0].public_key == bytes(range(1, 33))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Interface]\n MTU = x\n", "wg0.conf:2:8: not an MTU: 'x'; it takes bytes, as 1420"),
        ("[Interface]\nPrivateKey = x\n", "wg0.conf:2:1: "),
    ],
)
def test_a_mistake_has_its_place(text: str, said: str) -> None:
    with pytest.raises(wiresnake.ConfigError) as caught:
        wiresnake.Config.parse(text, "wg0.conf")
    assert caught.value.message.startswith(said)


def test_what_a_program_makes_up_is_checked_when_it_is_used() -> None:
    with pytest.raises(wiresnake.ConfigError, match="not a public key in base64: 'x'"):
        wiresnake.Config(peers=(wiresnake.Peer("x"),)).change()


@pytest.mark.parametrize("path", ["nowhere.conf", "/", "/dev/null"])
def test_what_is_no_file_is_an_error_of_the_host(path: str) -> None:
    with pytest.raises(wiresnake.HostError, match="cannot read"):
        wiresnake.Config.from_file(path)


def test_a_name_that_no_interface_can_have() -> None:
    async def main() -> None:
        async with wiresnake.Tunnel(interface="no/interface"):
            raise AssertionError

    with pytest.raises(wiresnake.ConfigError, match="is not a valid interface name"):
        asyncio.run(main())
