"""Completion: what is offered where, and that each shell takes its script."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from interop.harness import unavailable

from wiresnake.cli import commands, completion
from wiresnake.cli.arguments import Parser

PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """What a line is completed with, where `check` has every kind of argument."""

    def parser(_: str) -> argparse.ArgumentParser:
        made = Parser(prog="wiresnake check")
        made.add_argument("--json", action="store_true", help="for programs; not for people")
        made.add_argument("--backend", choices=["auto", "kernel"])
        made.add_argument("--out", metavar="FILE")
        kinds = made.add_subparsers(metavar="KIND")
        kinds.add_parser("server", help="a server's").add_argument("name", metavar="FILE|NAME")
        peer = kinds.add_parser("peer", help="a peer's")
        peer.add_argument("name", metavar="IFACE")
        peer.add_argument("peer", metavar="PEER", nargs="?")
        peer.add_argument("colour", choices=["red", "blue"])
        return made

    monkeypatch.setattr(completion, "module_of", lambda word: SimpleNamespace(parser=parser))
    monkeypatch.setitem(completion._KINDS, "IFACE", lambda taken: iter([("wg7", "")]))
    monkeypatch.setitem(completion._KINDS, "PEER", lambda taken: iter([(f"KEY:{taken[-1]}", "")]))

    def ask(line: str) -> set[str]:
        return {word for word, _ in completion.candidates(line.split(" "))}

    return ask


def test_commands() -> None:
    words = {word for word, _ in completion.candidates(["wiresnake", ""])}
    assert words == {word for group in commands.COMMANDS.values() for word in group} | {"help"}
    assert [word for word, _ in completion.candidates(["wiresnake", "rel"])] == ["reload"]
    assert ("peer", "the next peer's public key") not in completion.candidates(["wiresnake", "p"])
    assert {word for word, _ in completion.candidates(["/x/wg", "s"])} == {
        *("show", "showconf", "set", "setconf", "syncconf")
    }
    assert not list(completion.candidates(["wiresnake", "nonsense", ""]))


def test_what_parsers_know(offered: Callable[[str], set[str]]) -> None:
    assert offered("wiresnake check --") == {"--help", "--json", "--backend", "--out"}
    assert offered("wiresnake check --b") == {"--backend"}
    assert offered("wiresnake check --backend ") == {"auto", "kernel"}
    assert offered("wiresnake check --backend kernel ") == {"server", "peer"}
    assert offered("wiresnake check --json s") == {"server"}
    assert offered("wiresnake check --out ") == {completion.FILES}
    assert offered("wiresnake check peer -") == {"-h", "--help"}
    assert offered("wiresnake check peer ") == {"wg7"}
    assert offered("wiresnake check peer wg7 ") == {"KEY:wg7", "red", "blue"}
    assert offered("wiresnake check peer wg7 x b") == {"blue"}
    assert offered("wiresnake check peer wg7 x red ") == set()
    assert completion.FILES in offered("wiresnake check server ")
    assert offered("wiresnake check nonsense ") == set()


def test_set_has_a_grammar_of_its_own(offered: Callable[[str], set[str]]) -> None:
    device = {"listen-port", "fwmark", "private-key", "peer"}
    assert offered("wiresnake set wg7 ") == device
    assert offered("wiresnake set wg7 private-key ") == {completion.FILES}
    assert offered("wiresnake set wg7 fwmark ") == set()
    assert offered("wiresnake set wg7 fwmark 1 l") == {"listen-port"}
    assert offered("wiresnake set wg7 peer KEY al") == {"allowed-ips"}


def test_configurations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wg3.conf").touch()
    monkeypatch.setattr(completion, "_CONFIGURATIONS", tmp_path)
    found = list(completion._configurations([]))
    assert found == [("wg3", str(tmp_path / "wg3.conf")), (completion.FILES, "")]


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_the_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        unavailable(f"{shell} is missing: apt-get install {shell}")
    script = tmp_path / "script"
    script.write_bytes(subprocess.check_output([PROGRAMS / "wiresnake", "completion", shell]))
    subprocess.run([shell, "-n", script], check=True)


def test_in_bash() -> None:
    program = """
source <(wiresnake completion bash)
COMP_WORDS=(wiresnake completion f) COMP_CWORD=2
_wiresnake
printf '%s\\n' "${COMPREPLY[@]}"
complete -p wiresnake
"""
    command = ["bash", "--norc", "-c", program]
    said = subprocess.check_output(command, text=True, env=ENVIRONMENT)
    assert said == "fish\ncomplete -F _wiresnake wiresnake\n"


def test_in_fish(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        unavailable("fish is missing: apt-get install fish")
    program = "wiresnake completion fish | source; complete -C 'wiresnake completion b'"
    said = subprocess.check_output(
        ["fish", "--no-config", "-c", program], text=True, env=ENVIRONMENT | {"HOME": str(tmp_path)}
    )
    assert said.splitlines() == ["bash"]
