"""`Config` and `Peer` as a program makes them: what no interface can have is refused at once."""

import base64
import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from wiresnake import (
    Config,
    ConfigError,
    DeviceChange,
    Endpoint,
    Peer,
    PeerChange,
    Prefix,
    PresharedKey,
    PrivateKey,
)

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"listen_port": 65536}, "listen_port is not a number from 0 to 65535: 65536"),
        ({"fwmark": 1 << 32}, "fwmark is not a number from 0 to 4294967295: 4294967296"),
        ({"mtu": -1}, "mtu is not a number from 0 to 65535: -1"),
        ({"addresses": ("10.0.0.1/24", "foo")}, "not an address: 'foo'"),
        ({"private_key": KEY}, "private_key is not a PrivateKey"),
    ],
)
def test_a_wrong_value_of_the_interface(value: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**value)
    assert said in str(error.value) and KEY not in str(error.value)


def test_a_wrong_value_of_a_peer() -> None:
    for seconds in (-1, 65536):
        with pytest.raises(ConfigError, match="persistent_keepalive is not a number"):
            Peer(KEY, persistent_keepalive=seconds)
    with pytest.raises(ConfigError, match="not a public key in base64: 'x'"):
        Peer("x")


def test_no_name_of_a_file() -> None:
    with pytest.raises(ConfigError, match="is not a file name"):
        Config.from_file("a\0b")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeviceChange(listen_port=70000), "listen_port is not a number from 0 to 65535"),
        (lambda: DeviceChange(listen_port=1.5), "listen_port is not a number"),  # type: ignore[arg-type]
        (lambda: Config(mtu="1420"), "mtu is not a number"),  # type: ignore[arg-type]
        (lambda: Prefix(bytes(4), "8"), "not an IP network"),  # type: ignore[arg-type]
        (lambda: DeviceChange(fwmark=-1), "fwmark is not a number from 0 to 4294967295"),
        (lambda: PeerChange(bytes(31)), "public_key is not a key of 32 bytes"),
        (lambda: PeerChange("x" * 32), "public_key is not a key of 32 bytes"),  # type: ignore[arg-type]
        (lambda: PeerChange(bytes(32), persistent_keepalive=65536), "persistent_keepalive is not"),
        (lambda: Prefix(bytes(3), 8), "not an IP network"),
        (lambda: Prefix(bytes(4), 33), "not an IP network"),
        (lambda: Prefix(bytes(4), -1), "not an IP network"),
        (lambda: Prefix(bytes([10, 0, 0, 1]), 8), "bits of a host are set"),
    ],
)
def test_a_wrong_value_of_a_change(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_configuration_is_a_value() -> None:
    """It is compared and looked up as any frozen dataclass is; only its secrets refuse copies."""
    endpoint = Endpoint("fe80::1", 51820, 7)
    prefixes = (Prefix.parse("10.0.0.0/8"), Prefix.parse("::/0"))
    peer = Peer(KEY, PresharedKey.generate(), endpoint, prefixes, 25)
    config = Config(PrivateKey.generate(), peers=(peer,), addresses=("10.0.0.1/24",))
    again = replace(config)
    assert again == config and again is not config and {again: 1}[config] == 1
    public = replace(config, private_key=None, peers=(replace(peer, preshared_key=None),))
    assert public != config
    assert copy.deepcopy(public) == pickle.loads(pickle.dumps(public)) == public
    assert asdict(public)["peers"][0]["endpoint"] == endpoint
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(config)
