"""Answers to state=1 and events=1 as typed values, and devices that have none."""

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresnake.devices import reports, uapi_client
from wiresnake.devices.reports import read_report, subscribe
from wiresnake.errors import HostError
from wiresnake.events import EventsLost, Unreachable
from wiresnake.uapi.events import kind_of, parse_event
from wiresnake.uapi.state import parse_report

HEX = bytes(range(32)).hex()
KEY = b64encode(bytes(range(32))).decode()
STATE = f"""\
up=true
bound=true
unknown_initiations=2
unknown_initiator={HEX}
unknown_initiator_endpoint=[2001:db8::1]:4000
unknown_initiator_age_ms=15
cipher=ring
own_cipher_failed=true
offloads=segment,gro
something_new=1
public_key={HEX}
endpoint=192.0.2.1:51820
session=expired
session_age_ms=200000
initiations=3
send_errors=1
send_error=101
rejected_source=10.0.0.9
something_else=x
"""


def test_a_report() -> None:
    report = parse_report((STATE + "errno=0").splitlines())
    assert report is not None
    device, peer = report.device, report.peers[KEY]
    assert (device.up, device.bound, device.unknown_initiations) == (True, True, 2)
    assert device.unknown_initiator == KEY
    assert device.unknown_initiator_age_ms == 15
    assert device.invalid_mac1_age_ms is None
    assert (device.cipher, device.own_cipher_failed) == ("ring", True)
    assert device.offloads == "segment,gro"
    assert (peer.session, peer.session_age_ms, peer.initiations) == ("expired", 200_000, 3)
    assert (peer.send_error, peer.rejected_source, peer.staged) == (101, "10.0.0.9", 0)


def test_an_answer_that_is_cut_is_none() -> None:
    assert parse_report(STATE.splitlines()) is None
    assert parse_report([]) is None
    assert parse_report(["errno=22"]) is None


def test_an_unknown_peer_is_no_peer() -> None:
    report = parse_report(["up=true", "errno=2"])
    assert report is not None
    assert report.peers == {}


def test_an_event() -> None:
    block = [
        "event=unreachable",
        "time_sec=1763856000",
        "time_nsec=5",
        f"public_key={HEX}",
        "reason=no_answer",
        "initiations=20",
        "endpoint=192.0.2.1:51820",
    ]
    time = 1_763_856_000_000_000_005
    unreachable = Unreachable(KEY, "192.0.2.1:51820", "no_answer", initiations=20)
    assert parse_event([*block, "news=of the future"]) == (time, unreachable)
    assert parse_event(["event=of the future", *block[1:]]) is None
    assert parse_event(["event=roamed", *block[1:]]) is None, "without the old endpoint"
    assert parse_event(["event=lost", *block[1:3], "count=7"]) == (time, EventsLost(7))


WORDS = st.sampled_from(["up", "public_key", "initiations", "errno", "event", "x", "time_sec", ""])


@given(st.lists(st.tuples(WORDS, st.sampled_from(["=", ""]), st.text(max_size=5))))
def test_nonsense_is_nothing_or_a_value_error(parts: list[tuple[str, str, str]]) -> None:
    for parse in (parse_report, parse_event):
        with suppress(ValueError):
            parse(["".join(part) for part in parts])


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(uapi_client, "DIRECTORY", tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "wg0.sock"))
        listener.listen()
        yield listener


def answers(listener: socket.socket, *parts: bytes) -> threading.Thread:
    """Answers one question in parts, and closes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 12)
            for part in parts:
                connection.sendall(part)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_daemon_that_closes_has_no_extensions(daemon: socket.socket) -> None:
    for ask in (read_report, subscribe):
        thread = answers(daemon)
        assert ask("wg0") is None
        thread.join()
        thread = answers(daemon, b"errno=-22\n\n")
        assert ask("wg0") is None
        thread.join()


def test_an_interface_without_socket_has_none(daemon: socket.socket) -> None:
    assert read_report("wg1") is None
    assert subscribe("wg1") is None


def test_events_until_the_daemon_ends(daemon: socket.socket) -> None:
    block = f"event=connected\ntime_sec=1\ntime_nsec=0\npublic_key={HEX}\n\n".encode()
    thread = answers(daemon, b"errno=0\n\n", block[:20], block[20:], b"event=new\n\n", block)
    events = subscribe("wg0")
    assert events is not None
    assert [kind_of(said.event) for said in events] == ["connected", "connected"]
    thread.join()


def test_nonsense_is_said(daemon: socket.socket) -> None:
    thread = answers(daemon, b"up=true\npublic_key=nobody\nerrno=0\n\n")
    with pytest.raises(HostError, match="wg0: its daemon's answer is not a state"):
        read_report("wg0")
    thread.join()


def test_a_daemon_that_hangs_is_said(
    daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_client, "_TIMEOUT", 0.05)
    with pytest.raises(HostError, match="wg0: its daemon does not answer"):
        reports.read_report("wg0")
