"""The pure parts of what is measured of the operator's tool, and its section of the report."""

import time
from types import SimpleNamespace
from typing import cast

import pytest

from bench import operator_tool, report, scale, traffic
from bench.record import Record, Result
from bench.subjects import COMMANDS
from bench.tunnel import Network
from lab.hosts import LabError


def test_one_peer_changes() -> None:
    peers = scale.idle(9)
    pairs = zip(peers.splitlines(), operator_tool.changed(peers).splitlines(), strict=True)
    different = [pair for pair in pairs if pair[0] != pair[1]]
    assert different == [("AllowedIPs = 10.64.0.4/32", "AllowedIPs = 10.127.0.1/32")]


def test_nobody_always_comes_first() -> None:
    found = [(number, subject.name) for number, subject in operator_tool.turns(2, COMMANDS)]
    assert found == [(1, "python"), (1, "stock"), (2, "stock"), (2, "python")]


def test_pings_are_counted() -> None:
    said = (
        "PING 10.9.0.2 (10.9.0.2) 56(84) bytes of data.\n\n--- 10.9.0.2 ping statistics ---\n"
        "5000 packets transmitted, 4998 received, 0.04% packet loss, time 5004ms\n"
    )
    assert operator_tool.answered(said) == (5000, 4998, 5.004)
    with pytest.raises(LabError):
        operator_tool.answered("ping: connect: Network is unreachable")


def test_the_tool_has_a_section_of_its_own_with_its_goals() -> None:
    found = [
        Result("stock", operator_tool.ONE, 1, {"show": 2.0}),
        Result("wiresnake", operator_tool.ONE, 1, {"show": 30.0, "above": 20.0}),
        Result("wiresnake", "TCP 1 stream", 1, {"gbit": 3.0}),
    ]
    text = report.markdown(Record({}, {}, found, "m", "c", 0.5, "d"))
    speed, tool = text.split("## The operator's tool\n")
    assert "### TCP 1 stream" in speed and "### show 1 peer" not in speed
    assert "| wg, wg-quick | 1 | 2.0 | 1.00 | - |" in tool
    assert "| wiresnake | 1 | 30.0 | 15.00 | 20.0 |" in tool
    goal = "show 1 peer: ms above `python -c pass` at most 40 | 20.00 | reached"
    assert goal in tool and goal not in speed
    assert "TCP 1 stream: Gbit/s" in speed and "TCP 1 stream: Gbit/s" not in tool


def test_without_the_tool_there_is_no_section() -> None:
    found = [Result("wiresnake", "TCP 1 stream", 1, {"gbit": 3.0})]
    assert "operator" not in report.markdown(Record({}, {}, found, "m", "c", 0.5, "d"))


def test_a_steady_stream_tells_the_longest_time_without_a_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic, "FAR", "127.0.0.1")
    here = SimpleNamespace(inside=lambda function: function())
    net = cast(Network, SimpleNamespace(a=here, b=here))
    with traffic.steady(net) as steady:
        time.sleep(0.1)
    assert 0.003 < steady.gap < 5
    assert steady.resent == 0
