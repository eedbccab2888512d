"""Completion: what is offered where, and that each shell takes its script."""

import argparse
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from interop.harness import unavailable

from wiresnake.arguments import Parser
from wiresnake.cli import commands, completion
from wiresnake.conffile import files

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


def test_the_commands_of_each_name_are_offered() -> None:
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
    monkeypatch.setattr(files, "FOLDER", tmp_path)
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


NAMES = {
    # What is typed: the name that is meant.
    "An": "Annas iPhone",
    "Bo": "Bob: work;touch ran",
    "a:": "a:b:c d",
    "$": "$(touch ran)",
    "`": "`touch ran`",
    "q": "q'uo\"te\\\\",
    "!": "!x & | > ran * ? [a] {b,c} ~ #",
    "~": "~root",
    "x=": "x=y @home -z",
    "Zo": "Zoë\u2019s 東京",
}
SHELLS = {
    "bash": (["bash", "--norc", "-i"], "PS1='READY> '; source <(wiresnake completion bash)"),
    "zsh": (
        ["zsh", "-f"],
        "PS1='READY> '; autoload -U compinit; compinit -D -u; source <(wiresnake completion zsh)",
    ),
    "fish": (
        ["fish", "--no-config"],
        "function fish_prompt; echo 'READY> '; end; wiresnake completion fish | source",
    ),
}
FAKE = f"""#!{sys.executable}
import json, sys
from wiresnake.cli import completion
from wiresnake.linux import streams
streams.prepare()
completion._KINDS["PEER"] = lambda taken: iter([(one, "peer") for one in {list(NAMES.values())!r}])
if sys.argv[1] == "completion":
    sys.exit(completion.main(sys.argv[1:]))
with open("took.new", "w") as file:
    json.dump(sys.argv[1:], file)
import os
os.rename("took.new", "took")
"""


@pytest.fixture
def typed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Types into a shell, with the names of peers in reach; what our command is called with."""
    words, begin = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        unavailable(f"{words[0]} is missing: apt-get install {words[0]}")
    fake = tmp_path / "bin" / "wiresnake"
    fake.parent.mkdir()
    fake.write_text(FAKE, "utf-8")
    fake.chmod(0o755)
    environment = ENVIRONMENT | {
        "PATH": f"{fake.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execvpe(words[0], words, environment)
    said = b""

    def wait(what: Callable[[], bool]) -> None:
        nonlocal said
        deadline = time.monotonic() + 30
        while not what():
            assert time.monotonic() < deadline, said
            if select.select([terminal], [], [], 0.05)[0]:
                said += os.read(terminal, 4096)

    def type_(keys: str) -> list[str]:
        nonlocal said
        (tmp_path / "took").unlink(missing_ok=True)
        said = b""
        os.write(terminal, f"{keys}\t".encode())
        # The name is complete once the cursor has passed it; what is typed meanwhile waits its
        # turn.
        os.write(terminal, b"\n")
        wait((tmp_path / "took").exists)
        assert not (tmp_path / "ran").exists(), "text of a file was run"
        found: list[str] = json.loads((tmp_path / "took").read_text())
        return found

    os.write(terminal, f"{begin}; stty -echo; echo begun''here\n".encode())
    wait(lambda: b"begunhere" in said)
    yield type_
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)


@pytest.mark.parametrize("typed", SHELLS, indirect=True)
def test_names_are_no_code(typed: Callable[[str], list[str]]) -> None:
    """Whatever stands in a file arrives as one word, and is not run."""
    for begin, name in NAMES.items():
        assert typed(f"wiresnake why wg0 {_begun(begin)}") == ["why", "wg0", name]
    assert typed("wiresnake why wg0 Annas\\ i") == ["why", "wg0", "Annas iPhone"]
    assert typed("wiresnake why wg0 'Annas i") == ["why", "wg0", "Annas iPhone"]


def _begun(text: str) -> str:
    """As somebody would type it."""
    return f"\\{text}" if text in ("$", "`", "!", "~") else text


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("wiresnake why An", r"Annas\ iPhone"),
        ("wiresnake why  Annas\\ ", r"Annas\ iPhone"),
        ("wiresnake why 'An", "Annas iPhone"),
        ('wiresnake why "q', r"q'uo\"te\\\\"),
        ("wiresnake why 'q", r"""q'\''uo"te\\"""),
        ("wiresnake why Bob", r"Bob:\ work\;touch\ ran"),
        ("wiresnake why Bob:", r"\ work\;touch\ ran"),
        ("wiresnake why Bob\\:", r"Bob:\ work\;touch\ ran"),
        ("wiresnake why 'Bob:", "Bob: work;touch ran"),
        ('wiresnake why "!', r""""\!"x & | > ran * ? [a] {b,c} ~ #"""),
    ],
)
def test_what_bash_is_given(line: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [(one, "") for one in NAMES.values()]
    monkeypatch.setitem(completion._KINDS, "PEER", lambda taken: iter(names))
    assert list(completion.for_bash(line, " \t\n\"'@><=;|&(:")) == [word]
