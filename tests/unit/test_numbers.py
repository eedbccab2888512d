"""Numbers at the edges of 16, 31 and 32 bits: what takes them, and that nothing else happens."""

import base64
import struct
from collections.abc import Callable

import pytest

from wiresnake._native import Endpoint
from wiresnake.conffile import wg, wg_quick
from wiresnake.conffile.values import problems
from wiresnake.devices import kernel
from wiresnake.errors import ConfigError
from wiresnake.lifecycle import desired_network
from wiresnake.model import DeviceChange
from wiresnake.network import firewall
from wiresnake.network.model import Guard, Route, Rule
from wiresnake.network.steps import RouteStep, RuleStep
from wiresnake.text import zone_text
from wiresnake.uapi.set import SetParser, UapiError

KEY = b"\x11" * 32
NUMBERS = (0, 1, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 64)
MARKS = [number for number in NUMBERS if number and not number >> 32]


def uapi(line: str) -> DeviceChange:
    parser = SetParser(lambda name: 0)
    for one in ("public_key=" + KEY.hex(), line) if line.startswith("persistent") else (line,):
        parser.feed(bytearray(one, "ascii"), 0, len(one))
    return parser.finish()


def file(line: str) -> DeviceChange:
    section = "Peer" if line.startswith("Persistent") else "Interface"
    key = f"PublicKey={base64.b64encode(KEY).decode()}\n" if section == "Peer" else ""
    text = bytearray(f"[{section}]\n{key}{line}\n", "ascii")
    return wg.parse(text, lambda host, port: Endpoint(host, int(port)), append=True)


def keepalive(change: DeviceChange) -> object:
    return change.peers[0].persistent_keepalive


FIELDS: dict[str, tuple[int, Callable[[str], object]]] = {
    "uapi fwmark": (32, lambda text: uapi(f"fwmark={text}").fwmark),
    "uapi port": (16, lambda text: uapi(f"listen_port={text}").listen_port),
    "uapi keepalive": (
        16,
        lambda text: keepalive(uapi(f"persistent_keepalive_interval={text}")),
    ),
    "file fwmark": (32, lambda text: file(f"FwMark={text}").fwmark),
    "file fwmark, hexadecimal": (32, lambda text: file(f"FwMark={int(text):#x}").fwmark),
    "file port": (16, lambda text: file(f"ListenPort={text}").listen_port),
    "file keepalive": (16, lambda text: keepalive(file(f"PersistentKeepalive={text}"))),
    "table": (32, lambda text: int(text) and desired_network.table_number(text, "wg0.conf")),
    "MTU": (
        16,
        lambda text: wg_quick.parse(bytearray(f"[Interface]\nMTU={text}", "ascii"), "").mtu,
    ),
    "scope": (32, lambda text: Endpoint("fe80::1", 1, int(text)).scope),
    "endpoint's port": (16, lambda text: Endpoint("192.0.2.1", int(text)).port),
}


@pytest.mark.parametrize("number", [*NUMBERS, -1], ids=hex)
@pytest.mark.parametrize("field", FIELDS)
def test_a_number_is_taken_or_refused_as_the_users_mistake(field: str, number: int) -> None:
    bits, read = FIELDS[field]
    if 0 <= number < 1 << bits:
        assert read(str(number)) == number
    else:
        with pytest.raises((UapiError, ConfigError, ValueError)):
            read(str(number))


@pytest.mark.parametrize("mark", MARKS, ids=hex)
def test_a_mark_reaches_the_kernel_whole(mark: int) -> None:
    packed = struct.pack("=I", mark)
    route = RouteStep("wg0", True, False, Route("0.0.0.0/0", mark)).request(1)
    rule = RuleStep("wg0", True, False, Rule(4, mark)).request(1)
    assert packed in bytes(route.body)
    assert packed in bytes(rule.body)
    [message] = kernel._messages(1, b"wg0\0", DeviceChange(fwmark=mark))
    assert packed in bytes(message.body)
    guard = Guard(4, mark, ("10.0.0.1",))
    assert f"udp mark {mark} ct" in firewall._nft("wg0", 4, guard)
    assert f"--mark {mark} -p" in firewall._restore("wg0", guard, [])
    saved = f"-A POSTROUTING -p udp -m mark --mark {mark:#x} -j CONNMARK"
    assert firewall._read_iptables(4, [saved]).mark == mark


def test_check_knows_the_same_marks_and_tables() -> None:
    for number in NUMBERS:
        for key in ("FwMark", "Table"):
            errors = [one for one in problems(key.lower(), str(number)) if one.level == "error"]
            assert bool(errors) == bool(number >> 32), (key, number)


def test_a_scope_without_an_interface_is_its_number() -> None:
    for number in (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
        assert zone_text(number) == str(number)
