"""The forms of `wiresnake show`, by what stock `wg` prints for such values."""

import json

import pytest

from wiresnake.cli.show_text import FIELDS, as_json, pretty, script
from wiresnake.conffile.write import write_config
from wiresnake.text import read_endpoint, write_endpoint
from wiresnake.uapi.snapshot import InterfaceState, PeerState

PRIVATE, PUBLIC, PSK, FIRST, SECOND = (f"{letter * 42}A=" for letter in "RUSFX")
NOW = 1_700_000_000
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


def peer(**values: object) -> PeerState:
    nothing = PeerState(FIRST, None, None, (), (0, 0), 0, 0, 0)
    return nothing._replace(**values)  # type: ignore[arg-type]


def interface(*peers: PeerState) -> InterfaceState:
    return InterfaceState("wg0", "user", PRIVATE, PUBLIC, 51820, 0x1FF, peers)


def shown(one: PeerState) -> list[str]:
    return pretty(interface(one), NOW, color=False, secrets=False).splitlines()[6:]


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0, "Now"),
        (-1, "(System clock wound backward; connection problems may ensue.)"),
        (1, "1 second ago"),
        (MINUTE, "1 minute ago"),
        (2 * HOUR + 59, "2 hours, 59 seconds ago"),
        (YEAR + DAY + HOUR + MINUTE + 1, "1 year, 1 day, 1 hour, 1 minute, 1 second ago"),
        (3 * YEAR, "3 years ago"),
    ],
)
def test_handshake_ages(age: int, text: str) -> None:
    assert f"  latest handshake: {text}" in shown(peer(latest_handshake=(NOW - age, 5)))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        ((1 << 20) - 1, "1024.00 KiB"),
        (1 << 20, "1.00 MiB"),
        (5 << 30, "5.00 GiB"),
        (1 << 40, "1.00 TiB"),
        (1 << 52, "4096.00 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert f"  transfer: {text} received, 7 B sent" in shown(peer(received=count, sent=7))


def test_who_shook_hands_last_comes_first() -> None:
    ages = {"A": (0, 0), "B": (5, 1), "C": (7, 0), "D": (5, 2), "E": (0, 0)}
    peers = [peer(public_key=name, latest_handshake=time) for name, time in ages.items()]
    lines = pretty(interface(*peers), NOW, color=False, secrets=False).splitlines()
    order = [line.removeprefix("peer: ") for line in lines if line.startswith("peer: ")]
    assert order == ["C", "D", "B", "A", "E"]


def test_secrets_are_hidden_and_colours_wrapped() -> None:
    state = interface(peer(preshared_key=PSK, allowed_ips=("10.0.0.0/8",)))
    plain = pretty(state, NOW, color=False, secrets=False)
    assert plain.count("(hidden)") == 2
    assert PRIVATE not in plain
    assert PSK not in plain
    assert PRIVATE in pretty(state, NOW, color=False, secrets=True)
    colored = pretty(state, NOW, color=True, secrets=False)
    assert colored.startswith("\x1b[0m\x1b[32m\x1b[1minterface\x1b[0m: \x1b[32mwg0\x1b[0m\n")
    assert "10.0.0.0\x1b[36m/\x1b[0m8\n" in colored


def test_nothing_is_said_of_what_is_nothing() -> None:
    empty = InterfaceState("wg0", "user", None, None, 0, 0, ())
    assert pretty(empty, NOW, color=False, secrets=False) == "interface: wg0\n"
    assert script(empty, "dump", False) == "(none)\t(none)\t0\toff\n"
    assert script(empty, "peers", True) == ""
    assert write_config(empty) == "[Interface]\n\n"
    assert json.loads(as_json([empty], "", secrets=True)) == {"wg0": {"peers": {}}}


def test_every_field_has_each_peer_with_the_name_before() -> None:
    state = interface(peer(), peer(public_key=SECOND))
    for field in FIELDS:
        lines = script(state, field, True).splitlines()
        assert len(lines) in (1, 2, 3)
        assert all(line.startswith("wg0\t") for line in lines)
        assert [line.removeprefix("wg0\t") for line in lines] == (
            script(state, field, False).splitlines()
        )


def test_json_has_what_was_asked_for() -> None:
    state = interface(peer(preshared_key=PSK, endpoint="192.0.2.1:5", sent=3))
    asked = {field: json.loads(as_json([state], field, secrets=False))["wg0"] for field in FIELDS}
    assert asked["listen-port"] == {"listenPort": 51820}
    assert asked["private-key"] == {"privateKey": PRIVATE}
    assert asked["peers"] == {"peers": {FIRST: {}}}
    assert asked["preshared-keys"] == {"peers": {FIRST: {"presharedKey": PSK}}}
    assert asked["transfer"] == {"peers": {FIRST: {"transferTx": 3}}}
    assert asked["allowed-ips"] == {"peers": {FIRST: {"allowedIps": []}}}
    hidden = json.loads(as_json([state], "", secrets=False))["wg0"]
    assert hidden["privateKey"] == hidden["peers"][FIRST]["presharedKey"] == "(hidden)"


@pytest.mark.parametrize("text", ["192.0.2.1:5", "[2001:db8::1]:65535", "[fe80::1%7]:1"])
def test_endpoints_there_and_back(text: str) -> None:
    assert write_endpoint(read_endpoint(text)) == text
