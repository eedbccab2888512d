"""The pure parts of what is measured of tunnels without root, and their section of the report."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import report, rootless, within
from bench.plan import ROOTLESS
from bench.record import Record, Result
from bench.subjects import INTERFACE, NETSTACK
from bench.subjects import ROOTLESS as SUBJECTS
from lab.hosts import LabError


def test_every_scenario_is_measured_of_known_subjects() -> None:
    assert {*rootless.TAKEN, "import wiresnake"} == {*ROOTLESS}
    names = {subject.name for subject in SUBJECTS}
    assert all({*takes} <= names for takes in rootless.TAKEN.values())


def test_the_median_of_pings() -> None:
    lines = "".join(f"64 bytes: icmp_seq={n} ttl=64 time={n / 10} ms\n" for n in (1, 2, 9))
    assert rootless.median_ping(lines) == 0.2
    with pytest.raises(LabError):
        rootless.median_ping("300 packets transmitted, 0 received")


def test_a_family_and_its_use_of_the_machine() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as shell:
        try:
            while len(found := rootless.family(shell.pid)) < 2:
                pass
            child = found[1]
            assert Path(f"/proc/{child}/comm").read_text().strip() in ("sh", "sleep")
            os.kill(child, 9)
        finally:
            shell.kill()
    assert rootless.pss(os.getpid()) > 1 << 20
    assert rootless.busy(os.getpid()) > 0


def test_what_goes_through_socks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sink and the source, with a proxy in front that leads to them."""
    ports = {}
    for name, answer in (("SINK", within._count), ("SOURCE", within._send)):
        listener = socket.create_server(("127.0.0.1", 0))
        ports[name] = listener.getsockname()[1]
        monkeypatch.setattr(within, name, ports[name])
        threading.Thread(target=within._accept, args=(listener, answer), daemon=True).start()
    monkeypatch.setattr(within, "_socks", lambda _, *place: socket.create_connection(place))
    assert within.send("0", "127.0.0.1", "0.05")["gbit"] > 0
    assert within.receive("0", "127.0.0.1", "0.05")["gbit"] > 0


def test_starts_are_above_the_bare_command() -> None:
    slow = (sys.executable, "-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", "true")
    found = within.starts("3", "/no/such/file", *slow)
    assert 0 < found["start_above"] < found["start"]


def test_they_have_a_section_of_their_own_with_their_goals() -> None:
    found = [
        Result("interface", "TCP exec", 1, {"gbit": 4.0}),
        Result("exec", "TCP exec", 1, {"gbit": 3.8}),
        Result("user", "TCP forward", 1, {"gbit": 3.0}),
        Result("netstack", "TCP forward", 1, {"gbit": 1.5}),
        Result("kernel", "connections", 1, {"connections": 9999, "errors": 1}),
        Result("wiresnake", "TCP 1 stream", 1, {"gbit": 3.0}),
    ]
    text = report.markdown(Record({}, {}, found, "m", "c", 0.5, "d"))
    speed, without_root = text.split("## Tunnels without root\n")
    assert "### TCP 1 stream" in speed and "### TCP exec" not in speed
    assert "| wiresnake exec, ordinary user | 1 | 3.80 | 0.95 |" in without_root
    assert "| wiresnake, user stack | 1 | 3.00 | 2.00 |" in without_root
    goal = "TCP exec, wiresnake exec, ordinary user: Gbit/s at least 0.9 x"
    assert f"{goal} {INTERFACE} | 0.95 | reached" in without_root and goal not in speed
    goal = "TCP forward, wiresnake, user stack: Gbit/s at least 1.5 x"
    assert f"{goal} {NETSTACK} | 2.00 | reached" in without_root
    assert "connections at once at least 10000 | 9,999.00 | not reached" in without_root
