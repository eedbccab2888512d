"""What is written for other programs and for later calls of our own."""

import errno
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from wiresnake.errors import HostError
from wiresnake.linux import programs, rtnetlink
from wiresnake.linux.netlink import number
from wiresnake.model import Dns
from wiresnake.network import dns, firewall, journal, observe
from wiresnake.network.journal import JournalEntry
from wiresnake.network.model import Guard, Network, Policy, Route, Rule
from wiresnake.network.steps import BLOCK_METRIC

UNICAST, UNREACHABLE = 1, 7

GUARD = Guard(4, 51820, ("10.0.0.1", "10.0.0.2"))
NETWORK = Network(
    1420,
    ("10.0.0.1/24", "fd09::1/64"),
    (Route("10.1.0.0/16"), Route("::/0", 51820)),
    Policy(51820, (4, 6), (Rule(4, 51820, 7),), (GUARD,)),
    Dns(("10.0.0.53",), ("example.net",)),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wiresnake"
    monkeypatch.setattr(journal, "DIRECTORY", folder)
    monkeypatch.setattr(journal, "SECOND", tmp_path / "second")
    return folder


def test_a_folder_that_cannot_be_made_has_a_second(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A root that is read-only. What a change wrote before it became so is found all the same."""
    folder.parent.joinpath("file").touch()
    monkeypatch.setattr(journal, "DIRECTORY", folder.parent / "file" / "wiresnake")
    warned: list[str] = []
    with journal.lock("wg0", warned.append):
        journal.write("wg0", JournalEntry(7, NETWORK))
        assert [path.name for path in sorted(journal.SECOND.iterdir())] == ["wg0.json", "wg0.lock"]
    assert journal.SECOND.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(journal, "DIRECTORY", folder)
    assert journal.read("wg0") == JournalEntry(7, NETWORK)
    with journal.lock("wg0", warned.append):
        journal.write("wg0", None)
    assert journal.read("wg0") is None
    assert not warned


def test_without_a_folder_there_is_no_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, with the remedy, and no more than that."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    warned: list[str] = []
    with journal.lock("wg0", warned.append):
        journal.write("wg0", JournalEntry(7, NETWORK))
    assert journal.read("wg0") is None
    assert len(warned) == 1 and "--tmpfs /run/wiresnake" in warned[0]


def test_a_state_is_read_as_it_was_written(folder: Path) -> None:
    with journal.lock("wg0", print):
        for one in (
            JournalEntry(7, NETWORK, "/etc/wireguard/wg0.conf", "kernel"),
            JournalEntry(0, None, changing=True, to=NETWORK, ours=False),
        ):
            journal.write("wg0", one)
            assert journal.read("wg0") == one
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "wg0.json").stat().st_mode & 0o777 == 0o600
    journal.write("wg0", None)
    assert journal.read("wg0") is None


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"index": 1}', '{"index": []}'])
def test_a_broken_state_is_none(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "wg0.json").write_text(text)
    assert journal.read("wg0") is None


def test_a_lock_leaves_no_file(folder: Path) -> None:
    with journal.lock("wg0", print):
        assert list(folder.iterdir())
    assert not list(folder.iterdir())


def test_a_lock_is_not_waited_for_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PATIENCE", 0.0)
    with (
        journal.lock("wg0", lambda _: None),
        pytest.raises(OSError, match="still changing wg0"),
        journal.lock("wg0", lambda _: None),
    ):
        raise AssertionError("two have it")


def test_a_hook_does_not_wait_for_its_own_interface(folder: Path) -> None:
    """`PostUp = wiresnake reload %i`: it would wait for `up`, and that for it."""
    code = (
        "import pathlib; from wiresnake.network import journal\n"
        f"journal.DIRECTORY = pathlib.Path({str(folder)!r})\n"
        "with journal.lock('wg0', print): pass"
    )
    shell = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    with journal.lock("wg0", print):
        done = subprocess.run(shell, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"process {os.getpid()} is changing wg0 and runs this as its hook" in done.stderr


def test_a_full_disk_leaves_the_state_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    journal.write("wg0", JournalEntry(7, None))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(HostError) as caught:
        journal.write("wg0", JournalEntry(8, NETWORK))
    assert caught.value.strerror == f"{folder}: No space left on device"
    assert journal.read("wg0") == JournalEntry(7, None)
    assert [path.name for path in folder.iterdir()] == ["wg0.json"]


def test_a_guard_is_read_from_iptables_as_it_is_restored() -> None:
    text = firewall._restore("wg0", GUARD, [])
    saved: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            table = line
        elif line.startswith("-I "):
            rule = line.replace("-I", "-A", 1).replace("--mark 51820", "--mark 0xca6c")
            rule = rule.replace("-d 10.0.0.1 ", "-d 10.0.0.1/32 ")
            saved.insert(0, f"{table} {rule.replace('-d 10.0.0.2 ', '-d 10.0.0.2/32 ')}")
    assert firewall._read_iptables(4, saved) == GUARD
    removal = firewall._restore("wg0", None, saved)
    assert removal.count("\n-D ") == len(saved) == 4
    assert "-I " not in removal


def test_a_guard_is_read_from_nft() -> None:
    def rule(*expressions: object) -> object:
        return {"rule": {"expr": [{"match": one} for one in expressions]}}

    daddr = {"payload": {"protocol": "ip", "field": "daddr"}}
    listed = [
        rule(
            {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": "wg0"},
            {"op": "==", "left": daddr, "right": address},
        )
        for address in GUARD.addresses
    ]
    listed.append(rule({"op": "==", "left": {"meta": {"key": "mark"}}, "right": 51820}))
    assert firewall._read_nft(4, json.dumps({"nftables": listed})) == GUARD


class Firewalls:
    """nft and iptables as they answer: each may be missing, or find no table in the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refuse: str, missing: str = "") -> None:
        self.refuse, self.missing = refuse, missing
        self.nft = self.iptables = False
        monkeypatch.setattr(programs, "find", lambda name: name not in missing.split() or None)
        monkeypatch.setattr(programs, "run", self.run)
        monkeypatch.setattr(firewall, "_saved", lambda *_: iter(["*raw -A x"] * self.iptables))
        monkeypatch.setattr(
            firewall, "read", lambda *_: GUARD if self.nft or self.iptables else None
        )

    def run(self, program: str, *_: str, text: str) -> None:
        if program in self.refuse:
            raise programs.Refused(f"{program}: Operation not supported")
        if program == "nft":
            self.nft = "delete table" not in text
        else:
            self.iptables = "-I " in text


BOTH = ("nft", "iptables-restore")


@pytest.mark.parametrize(
    ("refuse", "missing", "there", "warned"),
    [
        ((), "", (True, False), None),
        (("nft",), "", (False, True), None),
        ((), "nft", (False, True), None),
        (("nft",), "iptables-restore", (False, False), "nft: Operation not supported"),
        (("iptables-restore",), "nft", (False, False), "iptables-restore: Operation not supp"),
        (BOTH, "", (False, False), "supported; iptables-restore: "),
        ((), " ".join(BOTH), (False, False), "neither nft nor iptables: packets from outside"),
    ],
)
def test_a_firewall_that_refuses_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
    refuse: tuple[str, ...],
    missing: str,
    there: tuple[bool, bool],
    warned: str | None,
) -> None:
    """As one that is missing: the other one is asked, and then it is said. Nothing is to be undone
    of it, and so nothing is said of that."""
    host = Firewalls(monkeypatch, *refuse, missing=missing)
    said = firewall.replace("wg0", 4, None, GUARD)
    assert (host.nft, host.iptables) == there
    assert (said is None) if warned is None else warned in str(said)
    assert firewall.replace("wg0", 4, GUARD, None) is None
    assert not host.nft and not host.iptables


def test_a_firewall_that_stands_is_not_left_to_a_program_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Firewalls(monkeypatch, "nft")
    host.nft = True
    for guard in (None, GUARD):
        with pytest.raises(HostError, match="Operation not supported"):
            firewall.replace("wg0", 4, GUARD, guard)
    host.nft, host.iptables, host.refuse = False, True, BOTH
    with pytest.raises(HostError, match="Operation not supported"):
        firewall.replace("wg0", 4, GUARD, None)


def test_resolvconf_knows_an_interface_by_its_order_of_interfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tmp_path / "interface-order"
    monkeypatch.setattr(dns, "_ORDER", order)
    monkeypatch.setattr(dns, "manager", lambda: "resolvconf")
    assert dns.command("wg0", Dns(("10.0.0.53",))) == "resolvconf -a wg0 -m 0 -x"
    order.write_text("lo.inet*\nlo\ntun*\ntap*\n")
    assert dns.command("wg0", Dns(("10.0.0.53",))) == "resolvconf -a tun.wg0 -m 0 -x"
    assert dns.command("wg0", Dns()) == "resolvconf -d tun.wg0 -f"


def test_what_a_program_says_is_the_error() -> None:
    with pytest.raises(OSError, match=r"^no such file: x y$"):
        programs.run("sh", "-c", "echo 'no such file:'; echo 'no such file: x\ny' >&2; exit 3")
    assert programs.output("a-program-that-is-not-there") is None


def test_what_a_program_prints_need_not_be_utf8() -> None:
    """Among the rules of a firewall are others', with comments; all goes back as it came."""
    found = programs.output("printf", r"-A INPUT --comment caf\351\n")
    assert found == "-A INPUT --comment caf\udce9\n"
    programs.run("grep", "-qaP", r"caf\xe9", text=found)


class Tables(rtnetlink.RouteNetlink):
    """What `free_table` asks of the kernel."""

    def __init__(self, routes: dict[int, list[int]], rules: tuple[int, ...]) -> None:
        self._told = routes, rules

    def __enter__(self) -> "Tables":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def all(self, kind: int, body: bytes) -> list[memoryview]:
        if body[0] != socket.AF_INET:
            return []
        routes, rules = self._told
        if kind == rtnetlink.GET_RULE:
            return [memoryview(bytes(12) + number(15, table)) for table in rules]
        (table,) = struct.unpack("=I", body[-4:])
        metric = number(6, BLOCK_METRIC)
        return [
            memoryview(struct.pack("8BI", 2, 0, 0, 0, 0, 3, 0, kind, 0) + metric)
            for kind in routes.get(table, [])
        ]


@pytest.mark.parametrize(
    ("records", "routes", "rules", "free"),
    [
        ({}, {}, (), 51820),
        ({}, {51820: [UNICAST, UNREACHABLE]}, (), 51821),
        # What stock wg-quick leaves of our tunnels, with a record or without.
        ({}, {51820: [UNREACHABLE]}, (254,), 51820),
        ({"wg1": 51820}, {51820: [UNREACHABLE]}, (), 51820),
        # What holds back the traffic of a tunnel whose daemon is dead: another's, and its own.
        ({}, {51820: [UNREACHABLE]}, (254, 51820), 51821),
        ({"wg0": 51820}, {51820: [UNREACHABLE]}, (), 51821),
        ({"wg0": 51820}, {}, (), 51821),
        ({"wg1": 51820}, {51820: [UNREACHABLE]}, (51820,), 51820),
        ({"wg1": 51825}, {51825: [UNREACHABLE]}, (51825,), 51825),
        ({"wg1": 51825}, {51825: [UNICAST]}, (51825,), 51820),
        ({"wg0": 51820, "wg1": 51820}, {51820: [UNREACHABLE]}, (51820,), 51821),
    ],
)
def test_a_table_that_holds_anothers_traffic_back_is_not_free(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    records: dict[str, int],
    routes: dict[int, list[int]],
    rules: tuple[int, ...],
    free: int,
) -> None:
    for name, mark in records.items():
        with journal.lock(name, print):
            journal.write(name, JournalEntry(7, Network(1420, policy=Policy(mark, (4,)))))
    monkeypatch.setattr(observe, "RouteNetlink", lambda: Tables(routes, rules))
    assert observe.free_table("wg1") == free
