"""`Config` and `Peer` as a program makes them: what no interface can have is refused at once."""

import base64
from typing import Any

import pytest

from wiresnake import Config, ConfigError, Peer

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
    with pytest.raises(ConfigError, match="is not the name of a file"):
        Config.from_file("a\0b")
