"""The UAPI's text: every key, every errno, and that nothing else can happen."""

import contextlib
import errno
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake._native import Endpoint, Plane, PresharedKey, PrivateKey
from wiresnake.events import (
    Connected,
    Disconnected,
    Event,
    EventsLost,
    HandshakeCompleted,
    PeerEvent,
    Rekeyed,
    Roamed,
    SourceRejected,
    Unreachable,
)
from wiresnake.model import (
    CLEAR,
    DeviceChange,
    DeviceStatus,
    Note,
    PeerChange,
    Prefix,
    Stranger,
)
from wiresnake.text import base64_text, wipe
from wiresnake.uapi.events import KINDS, parse_event, write_event
from wiresnake.uapi.get import write_device
from wiresnake.uapi.set import SetParser, UapiError
from wiresnake.uapi.state import Question, write_device_state, write_machine_state, write_peer_state

KEY = "11" * 32
PEER = bytes.fromhex(KEY)


def zone(name: str) -> int:
    if name != "eth9":
        raise OSError(errno.ENODEV, "no such interface")
    return 9


def parse(*lines: str | bytes) -> DeviceChange:
    text = [line if isinstance(line, bytes) else line.encode() for line in lines]
    buffer = bytearray(b"".join(line + b"\n" for line in text))
    parser = SetParser(zone)
    start = 0
    for line in text:
        parser.feed(buffer, start, start + len(line))
        start += len(line) + 1
    return parser.finish()


def parse_peer(*lines: str) -> PeerChange:
    [peer] = parse(f"public_key={KEY}", *lines).peers
    return peer


def prefixes(*texts: str) -> tuple[tuple[bool, Prefix], ...]:
    return tuple((text[0] != "-", Prefix.parse(text.lstrip("-"))) for text in texts)


def test_nothing_is_no_change() -> None:
    assert parse() == DeviceChange()


def test_device_keys() -> None:
    change = parse("private_key=" + "aB" * 32, "listen_port=65535", "fwmark=4294967295")
    assert isinstance(change.private_key, PrivateKey)
    assert (change.listen_port, change.fwmark, change.replace_peers) == (65535, 0xFFFFFFFF, False)
    assert parse("replace_peers=true").replace_peers
    assert parse("listen_port=00051820").listen_port == 51820


def test_zero_keys_clear() -> None:
    assert parse("private_key=" + "0" * 64).private_key is CLEAR
    assert parse_peer("preshared_key=" + "0" * 64).preshared_key is CLEAR


def test_peer_keys() -> None:
    peer = parse_peer(
        "preshared_key=" + "22" * 32,
        "endpoint=192.0.2.1:51820",
        "persistent_keepalive_interval=25",
        "protocol_version=1",
        "update_only=true",
        "allowed_ip=10.0.0.1/24",
        "allowed_ip=-2001:db8::1/32",
    )
    assert isinstance(peer.preshared_key, PresharedKey)
    assert peer.endpoint == Endpoint("192.0.2.1", 51820)
    assert (peer.persistent_keepalive, peer.update_only, peer.remove) == (25, True, False)
    assert peer.allowed_ips == prefixes("10.0.0.0/24", "-2001:db8::/32")
    assert parse_peer("remove=true").remove


def test_replace_allowed_ips_forgets_what_stood_before_it() -> None:
    peer = parse_peer("allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=10.1.0.0/16")
    assert peer.replace_allowed_ips
    assert peer.allowed_ips == prefixes("10.1.0.0/16")


def test_a_peer_may_come_twice() -> None:
    change = parse(f"public_key={KEY}", "allowed_ip=::/0", f"public_key={KEY}", "remove=true")
    assert [(peer.remove, len(peer.allowed_ips)) for peer in change.peers] == [
        (False, 1),
        (True, 0),
    ]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("[2001:db8::1]:1", Endpoint("2001:db8::1", 1)),
        ("[fe80::1%3]:51820", Endpoint("fe80::1", 51820, 3)),
        ("[fe80::1%eth9]:51820", Endpoint("fe80::1", 51820, 9)),
    ],
)
@pytest.mark.item(80)
def test_ipv6_endpoints_are_parsed(text: str, endpoint: Endpoint) -> None:
    parsed = parse_peer(f"endpoint={text}").endpoint
    assert parsed == endpoint
    assert parsed.scope == endpoint.scope


DEVICE_MISTAKES = [
    "private_key=" + "1" * 63,
    "private_key=" + "1" * 65,
    "private_key=" + "g" * 64,
    "private_key=",
    "listen_port=65536",
    "listen_port=70000",
    "listen_port=-1",
    "listen_port=+1",
    "listen_port=1_0",
    "listen_port= 1",
    "listen_port=",
    "listen_port=" + "9" * 100,
    "fwmark=0x10",
    "fwmark=4294967296",
    "fwmark=off",
    "replace_peers=1",
    "replace_peers=false",
    "public_key=" + "1" * 62,
    "public_key=" + "11 " * 21 + "1",
    "unknown=1",
    "=",
    "preshared_key=" + "1" * 64,
    "allowed_ip=10.0.0.0/8",
    "errno=0",
]
PEER_MISTAKES = [
    "private_key=" + "1" * 64,
    "preshared_key=" + "1" * 60,
    "listen_port=1",
    "fwmark=1",
    "replace_peers=true",
    "remove=yes",
    "update_only=false",
    "replace_allowed_ips=1",
    "protocol_version=2",
    "persistent_keepalive_interval=70000",
    "persistent_keepalive_interval=off",
    "allowed_ip=10.0.0.1",
    "allowed_ip=10.0.0.0/33",
    "allowed_ip=::/129",
    "allowed_ip=10.0.0.0/255.0.0.0",
    "allowed_ip=10.0.0/8",
    "allowed_ip=fe80::1%3/64",
    "allowed_ip=+10.0.0.0/8",
    "allowed_ip=--10.0.0.0/8",
    "allowed_ip=",
    "allowed_ip=/",
    "endpoint=example.com:51820",
    "endpoint=192.0.2.1",
    "endpoint=192.0.2.1:65536",
    "endpoint=2001:db8::1:51820",
    "endpoint=[192.0.2.1]:51820",
    "endpoint=[fe80::1%]:51820",
    "endpoint=[fe80::1%nope]:51820",
    "endpoint=192.0.2.1%3:51820",
    "endpoint=:51820",
    "endpoint=",
    "last_handshake_time_sec=1",
]


@pytest.mark.parametrize(
    "lines",
    [[line] for line in DEVICE_MISTAKES] + [[f"public_key={KEY}", line] for line in PEER_MISTAKES],
    ids=lambda lines: lines[-1][:40],
)
@pytest.mark.item(102)
def test_bad_values_are_einval(lines: list[str]) -> None:
    with pytest.raises(UapiError) as caught:
        parse(*lines)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.item(102)
def test_a_line_without_equals_is_eproto() -> None:
    with pytest.raises(UapiError) as caught:
        parse("listen_port")
    assert caught.value.errno == errno.EPROTO


@pytest.mark.parametrize("line", ["private_key=", "preshared_key=", "secret=", ""])
@pytest.mark.item(105)
def test_no_error_shows_a_value(line: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse(line + "5e" * 33)
    assert "5e5e" not in str(caught.value)


@given(st.lists(st.binary(max_size=80), max_size=8))
@pytest.mark.item(102)
def test_any_bytes_give_a_change_or_an_error(lines: list[bytes]) -> None:
    with contextlib.suppress(UapiError):
        parse(*(line.replace(b"\n", b"") for line in lines))


VALUES = st.sampled_from(
    [
        KEY,
        "0" * 64,
        "true",
        "1",
        "10.0.0.0/8",
        "-::/0",
        "[::1%3]:5",
        "1.2.3.4:5",
        "",
        "\N{PILE OF POO}",
    ]
)
KEYS = st.sampled_from(
    [line.partition("=")[0] for line in DEVICE_MISTAKES + PEER_MISTAKES] + ["public_key"]
)


@given(st.lists(st.tuples(KEYS, VALUES | st.text(max_size=20)), max_size=12))
@pytest.mark.item(102)
def test_any_values_give_a_change_or_an_error(lines: list[tuple[str, str]]) -> None:
    with contextlib.suppress(UapiError):
        parse(*(f"{key}={value}".replace("\n", "") for key, value in lines))


def test_get_of_nothing() -> None:
    assert write_device(DeviceStatus(None, 0, 0)) == b""


def test_get_of_a_device_in_order() -> None:
    private = PrivateKey.from_hex(b"40" * 32)
    assert write_device(DeviceStatus(private, 51820, 0xCA6C)).decode().splitlines() == [
        "private_key=" + "40" * 32,
        "listen_port=51820",
        "fwmark=51820",
    ]


def described(endpoint: Endpoint | None, last: int = 0, keepalive: int = 0, *allowed: str) -> str:
    plane = Plane()
    peer = plane.add_peer()
    plane.set_endpoint(peer, endpoint)
    plane.count_received(peer, 7)
    prefixes = dict.fromkeys(map(Prefix.parse, allowed))
    [text] = plane.describe([(peer, PEER, last, keepalive, prefixes)])
    return text.decode()


def test_get_of_a_peer_in_order() -> None:
    endpoint = Endpoint("fe80::1", 51820, 3)
    last = 1_700_000_000_500_000_007
    text = described(endpoint, last, 25, "10.0.0.0/8", "::/0", "2001:db8::/128")
    assert text == "".join(
        f"{line}\n"
        for line in [
            f"public_key={KEY}",
            "preshared_key=" + "0" * 64,
            "protocol_version=1",
            "endpoint=[fe80::1%3]:51820",
            "last_handshake_time_sec=1700000000",
            "last_handshake_time_nsec=500000007",
            "tx_bytes=0",
            "rx_bytes=7",
            "persistent_keepalive_interval=25",
            "allowed_ip=10.0.0.0/8",
            "allowed_ip=::/0",
            "allowed_ip=2001:db8::/128",
        ]
    )


def test_what_a_peer_lacks_is_zero_or_left_out() -> None:
    assert described(None).splitlines()[2:] == [
        "protocol_version=1",
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        "tx_bytes=0",
        "rx_bytes=7",
        "persistent_keepalive_interval=0",
    ]


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("192.0.2.1", 5), "192.0.2.1:5"),
        (Endpoint("::ffff:192.0.2.1", 5), "192.0.2.1:5"),
        (Endpoint("2001:db8::1", 5), "[2001:db8::1]:5"),
        (Endpoint("fe80::1", 5), "[fe80::1]:5"),
        (Endpoint("fe80::1", 5, 4), "[fe80::1%4]:5"),
    ],
)
def test_endpoint_text(endpoint: Endpoint, text: str) -> None:
    assert f"\nendpoint={text}\n" in described(endpoint)


def test_a_peer_that_is_gone_has_no_description() -> None:
    plane = Plane()
    gone = plane.add_peer()
    plane.remove_peer(gone)
    assert plane.describe([(gone, PEER, 0, 0, {})]) == [b""]
    with pytest.raises(ValueError, match="32 bytes"):
        plane.describe([(plane.add_peer(), PEER[1:], 0, 0, {})])


def ask(*lines: bytes) -> Question:
    buffer = bytearray(b"".join(line + b"\n" for line in lines))
    question = Question()
    start = 0
    for line in lines:
        question.feed(buffer, start, start + len(line))
        start += len(line) + 1
    return question


def test_a_question_is_of_all_peers_or_of_one() -> None:
    assert (ask().public_key, ask().errno) == (None, 0)
    one = ask(b"public_key=" + KEY.upper().encode())
    assert (one.public_key, one.errno) == (PEER, 0)


@pytest.mark.parametrize(
    "lines",
    [
        (f"public_key={KEY}", f"public_key={KEY}"),
        (f"public_key={KEY}0",),
        (f"public_key= {KEY}",),
        (f"public_key={KEY[:-2]}",),
        ("public_key=",),
        ("public_key",),
        ("private_key=" + "0" * 64,),
        ("get=1",),
        ("=",),
        (f"public_key={KEY}", "\xff"),
    ],
)
def test_a_wrong_question_is_einval(lines: tuple[str, ...]) -> None:
    assert ask(*(line.encode("latin-1") for line in lines)).errno == errno.EINVAL


@given(st.lists(st.binary(max_size=80) | st.just(b"public_key=" + KEY.encode()), max_size=4))
def test_any_bytes_are_a_question_or_an_error(lines: list[bytes]) -> None:
    question = ask(*(line.replace(b"\n", b"") for line in lines))
    right = lines in ([], [b"public_key=" + KEY.encode()])
    assert question.errno == (0 if right else errno.EINVAL)


def test_state_of_a_device_in_order() -> None:
    stranger = Stranger(3, PEER, Endpoint("fe80::1", 9, 4), 5_000_000)
    text = write_device_state(True, False, 98, stranger, "invalid_mac1=1\n", 12_999_999)
    assert text.decode().splitlines() == [
        "up=true",
        "bound=false",
        "bind_error=98",
        "unknown_initiations=3",
        f"unknown_initiator={KEY}",
        "unknown_initiator_endpoint=[fe80::1%4]:9",
        "unknown_initiator_age_ms=7",
        "invalid_mac1=1",
    ]
    assert write_device_state(False, False, 0, None, "", 5) == b"up=false\nbound=false\n"


def test_state_says_what_of_the_machine_is_used() -> None:
    assert write_machine_state("own", False, ["gro", "uso"]) == "cipher=own\noffloads=gro,uso\n"
    assert write_machine_state("ring", True, []) == "cipher=ring\nown_cipher_failed=true\n"


def test_state_of_a_peer() -> None:
    notes = {
        "initiation": Note(3, 1_000_000, 6_000_000),
        "bad_response": Note(2, 2_000_000, 5_000_000),
    }
    text = write_peer_state(PEER, b"session=none\n", 1_700_000_000_000_000_007, notes, 9_000_000)
    assert text.decode().splitlines() == [
        f"public_key={KEY}",
        "session=none",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=7",
        "initiations=3",
        "first_initiation_age_ms=8",
        "last_initiation_age_ms=3",
        "bad_responses=2",
        "bad_response_age_ms=4",
    ]
    assert write_peer_state(PEER, b"", 0, {}, 5).decode() == f"public_key={KEY}\n"


def test_an_event_is_a_block() -> None:
    key, time = base64_text(PEER), b"time_sec=1\ntime_nsec=7\n"
    rekeyed = Rekeyed(key, None, initiator=True)
    assert write_event(rekeyed, 1_000_000_007) == (
        b"event=rekey\n%spublic_key=%s\ninitiator=true\n\n" % (time, KEY.encode())
    )
    rejected = SourceRejected(key, "[fe80::1%3]:5", "10.0.0.1", 0)
    assert write_event(rejected, 1_000_000_007) == (
        b"event=rejected_source\n%spublic_key=%s\nendpoint=[fe80::1%%3]:5\n"
        b"source=10.0.0.1\ncount=0\n\n" % (time, KEY.encode())
    )
    assert write_event(EventsLost(7), 1_000_000_007) == b"event=lost\n%scount=7\n\n" % time


MADE: dict[type[Event], Event] = {
    HandshakeCompleted: HandshakeCompleted("11", None, False),
    Rekeyed: Rekeyed("11", "192.0.2.1:5", None),
    Connected: Connected("11", "192.0.2.1:5"),
    Disconnected: Disconnected("11", None, "expired"),
    Roamed: Roamed("11", "[fe80::1%3]:5", "192.0.2.1:5"),
    Unreachable: Unreachable("11", None, "no_answer", initiations=20),
    SourceRejected: SourceRejected("11", "192.0.2.1:5", "fd00::1", 3),
    EventsLost: EventsLost(4),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_event_is_read_as_it_was_written(kind: str) -> None:
    event = MADE[KINDS[kind]]
    if isinstance(event, PeerEvent):
        event = replace(event, public_key=base64_text(PEER))
    lines = write_event(event, 3_000_000_005).decode().removesuffix("\n\n").split("\n")
    assert lines[0] == f"event={kind}"
    assert parse_event(lines) == (3_000_000_005, event)


@pytest.mark.item(105)
def test_wipe_leaves_zeros() -> None:
    buffer = bytearray(b"secret")
    wipe(buffer)
    assert buffer == bytes(6)
