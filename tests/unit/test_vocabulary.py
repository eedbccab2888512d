"""One vocabulary of the UAPI: what is written is in it, and all of it is written and documented."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.model import DeviceChange, DeviceStatus, Note, PeerChange, Prefix, Stranger
from wiresnake.uapi.get import write_device
from wiresnake.uapi.set import SetParser, UapiError, write_change
from wiresnake.uapi.state import (
    parse_report,
    write_device_state,
    write_machine_state,
    write_peer_state,
)
from wiresnake.uapi.vocabulary import DEVICE_KEYS, PEER_KEYS, DeviceReport, Key, PeerReport

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/uapi_page.py"
PEER = bytes(range(32))
ENDPOINT = Endpoint("192.0.2.1", 7)
NOTES = ("initiation", "bad_response", "unconfirmed_response", "stale_initiation", "cookie_reply")


def names(text: str | bytes | bytearray) -> list[str]:
    lines = text if isinstance(text, str) else text.decode()
    return [line.partition("=")[0] for line in lines.splitlines() if line]


def rust(*functions: str) -> set[str]:
    """The keys that these functions of the plane write, each whole in one place."""
    source = (ROOT / "rust/plane/src/uapi.rs").read_text().partition("#[cfg(test)]")[0]
    found: set[str] = set()
    for body in re.split(r"\n(?:pub )?fn ", source)[1:]:
        if re.match(r"\w+", body)[0] in functions:  # type: ignore[index]
            for said in re.findall(r'"((?:[^"\\]|\\.)*)"', body):
                found |= set(re.findall(r"(?:^|\\n)([a-z_0-9]+)=", said))
                found |= {said} & {field.name for report in REPORTS for field in fields(report)}
    return found


REPORTS = (DeviceReport, PeerReport)


def test_a_get_has_the_keys_of_the_table() -> None:
    def said(keys: dict[str, Key]) -> set[str]:
        return {name for name, key in keys.items() if key.get}

    key = PrivateKey.from_hex(b"11" * 32)
    assert set(names(write_device(DeviceStatus(key, 1, 1)))) == said(DEVICE_KEYS)
    assert rust("describe", "describe_endpoint", "describe_allowed_ip") == said(PEER_KEYS)


def test_a_set_has_the_keys_of_the_table() -> None:
    key, preshared = PrivateKey.from_hex(b"11" * 32), PresharedKey.from_hex(b"22" * 32)
    prefix = Prefix.parse("10.0.0.0/8")
    peer = PeerChange(PEER, True, True, preshared, ENDPOINT, 1, True, ((True, prefix),))
    text = write_change(DeviceChange(key, 1, 1, True, (peer,)))
    taken = {name for name, key in {**DEVICE_KEYS, **PEER_KEYS}.items() if key.set}
    assert {*names(text)} - {"set"} == taken - {"protocol_version"}, "what stock `wg` leaves out"


@pytest.mark.parametrize("name", [*DEVICE_KEYS, *PEER_KEYS])
def test_a_set_takes_the_keys_of_the_table(name: str) -> None:
    value = {"endpoint": "192.0.2.1:7", "allowed_ip": "::/0", "protocol_version": "1"}.get(name)
    for candidate in filter(None, (value, "true", "1", "11" * 32)):
        parser = SetParser(lambda zone: 1)
        lines = [f"public_key={PEER.hex()}"] if name in PEER_KEYS else []
        try:
            for line in [*lines, f"{name}={candidate}"]:
                parser.feed(bytearray(line, "ascii"), 0, len(line))
        except UapiError:
            continue
        break
    else:
        assert not {**DEVICE_KEYS, **PEER_KEYS}[name].set
        return
    assert {**DEVICE_KEYS, **PEER_KEYS}[name].set


def test_a_state_has_the_keys_of_the_table_and_is_read_back() -> None:
    """Each of them, once, from Python or from the plane."""
    machine = write_machine_state("own", True, ["gro"])
    stranger = Stranger(3, PEER, ENDPOINT, 1)
    device = [*names(write_device_state(True, False, 98, stranger, machine, 2_000_001))]
    device += sorted(rust("describe_drops"))
    assert sorted(device) == sorted(field.name for field in fields(DeviceReport))
    notes = {what: Note(number, 0, 5) for number, what in enumerate(NOTES, 1)}
    text = write_peer_state(PEER, b"", 1_000_000_007, notes, 9_000_000)
    peer = names(text) + sorted(rust("describe_state", "describe_endpoint"))
    assert sorted(peer) == sorted(field.name for field in fields(PeerReport))
    report = parse_report([*text.decode().splitlines(), "errno=0"])
    assert report is not None
    (read,) = report.peers.values()
    assert (read.initiations, read.first_initiation_age_ms, read.cookie_replies) == (1, 9, 5)
    assert (read.last_handshake_time_sec, read.last_handshake_time_nsec) == (1, 7)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_page_has_the_table() -> None:
    done = run("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_page_that_is_out_of_date_is_found(tmp_path: Path) -> None:
    page = tmp_path / "uapi.md"
    page.write_text((ROOT / "docs/uapi.md").read_text().replace("`bind_error`", "`bind_errors`"))
    done = run("--check", "--page", str(page))
    assert (done.returncode, done.stderr) == (1, "")
    assert "uapi.md is out of date" in done.stdout
    assert run("--page", str(page)).returncode == 0
    assert page.read_text() == (ROOT / "docs/uapi.md").read_text()
