"""Whatever starts wiresnake or another program from a folder that may be anybody's: nothing of
that folder runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wiresnake.cli import main
from wiresnake.lifecycle import keeper
from wiresnake.lifecycle.applied import Applied
from wiresnake.linux import programs

PROGRAM = Path(sys.executable).with_name("wiresnake")
SHADOWS = (
    *("argparse", "contextlib", "json", "os", "re", "rich", "segno", "shutil", "sitecustomize"),
    *("socket", "subprocess", "typing", "usercustomize"),
)
AS_A_USER = """
import os, sys
os.geteuid = lambda: 1000
sys.argv = [sys.argv[1], "strip", "./x.conf"]
from wiresnake.cli.main import main
sys.exit(main())
"""
SUDO = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder: whatever is imported from it, or run, leaves a file behind."""
    folder = tmp_path / "downloads"
    (folder / "wiresnake/cli").mkdir(parents=True)
    names = [f"{name}.py" for name in SHADOWS]
    names += ["wiresnake/__init__.py", "wiresnake/cli/__init__.py", "wiresnake/cli/main.py"]
    for name in names:
        (folder / name).write_text(f"open({str(tmp_path / 'caught')!r}, 'a').write({name!r})\n")
    for name in ("sudo", "bash", "nft", "iptables", "resolvconf", "nothing-else"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/caught\n")
        (folder / name).chmod(0o755)
    (folder / "x.conf").write_text("[Interface]\nListenPort = 7\n")
    (folder / "x.conf").chmod(0o600)
    monkeypatch.chdir(folder)
    return tmp_path


def assert_safe(folder: Path, *command: str | Path, **environment: str) -> str:
    """What it prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "caught").exists(), (folder / "caught").read_text()
    return done.stdout


@pytest.mark.parametrize("path", ["", ".", ":/nowhere", "/nowhere::"])
def test_our_own_command(poisoned: Path, path: str) -> None:
    command = (*programs.ourselves(), "wiresnake", "strip", "./x.conf")
    assert assert_safe(poisoned, *command, PYTHONPATH=path).startswith("[Interface]\n")
    assert assert_safe(poisoned, *command, PYTHONSAFEPATH="1").startswith("[Interface]\n")


def test_it_is_this_very_package(tmp_path: Path) -> None:
    """Also where it is found by PYTHONPATH alone, as in a checkout, or in a user's folder."""
    ask = "from wiresnake.linux import programs; print(*programs.ourselves(), sep='\\0', end='')"
    said = subprocess.check_output([sys.executable, "-S", "-c", ask], text=True, env=ELSEWHERE)
    command = said.split("\0")
    assert command[-1] == ELSEWHERE["PYTHONPATH"]
    bare = [command[0], "-S", *command[1:]]
    assert b"as wg" in subprocess.check_output([*bare, "wiresnake", "help"], cwd=tmp_path)


ELSEWHERE = {"PYTHONPATH": str(Path(main.__file__).parents[2])}


@pytest.mark.parametrize("name", ["wiresnake", "wg-quick"])
def test_a_user_who_becomes_root(poisoned: Path, name: str) -> None:
    """By sudo, which stays in the folder; the name it was called by goes along."""
    tools = poisoned / "tools"
    tools.mkdir()
    (tools / "sudo").write_text(SUDO)
    (tools / "sudo").chmod(0o755)
    for path in (f"{tools}:/usr/bin:/bin", f".::{tools}:/usr/bin:/bin"):
        said = assert_safe(
            poisoned, sys.executable, "-P", "-c", AS_A_USER, f"/usr/local/bin/{name}", PATH=path
        )
        assert said == "[Interface]\nListenPort = 7\n\n"
    (poisoned / "downloads/x.conf").write_text("[Interface]\nMTU = nothing\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", AS_A_USER, f"/usr/local/bin/{name}"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{tools}:/usr/bin:/bin"},
    )
    assert done.stderr.startswith(f"{name}: ")
    assert not (poisoned / "caught").exists()


def test_the_program_itself(poisoned: Path) -> None:
    assert_safe(poisoned, PROGRAM, "strip", "./x.conf", PATH=f".:{os.environ['PATH']}")
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert_safe(poisoned, PROGRAM, "strip", "./x.conf", **other)  # It starts again in UTF-8.


def test_what_runs_hooks_of_peers(poisoned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Started:
        def __init__(self, command: list[str], **_: object) -> None:
            started.append(command)
            self.pid = self.returncode = 0

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", Started)
        keeper.restart(Applied(hooks=(("key", ("true",), ()),)), "/x/wg0.conf", "wg0")
    (command,) = started
    mine = programs.ourselves()
    assert command[: len(mine)] == mine
    assert command[len(mine) :][1:3] == ["events", "--hooks"]
    assert_safe(poisoned, *mine, "wiresnake", "help", "events")


def test_nothing_else_starts_python() -> None:
    """One place says how, `programs.ourselves`; `streams` repeats the command line that it has."""
    starts = re.compile(r'sys\.executable,|"python3?"')
    package = Path(main.__file__).parents[1]
    found = {path.name for path in package.rglob("*.py") if starts.search(path.read_text())}
    assert found == {"programs.py", "streams.py"}


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/a:.::b:/c", "/a:/c"),
        (".", os.defpath),
        ("", os.defpath),
        (None, os.defpath),
    ],
)
def test_programs_are_looked_for_in_absolute_folders(
    poisoned: Path, monkeypatch: pytest.MonkeyPatch, path: str | None, kept: str
) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    assert main.main(["strip", "./x.conf"]) == 0
    assert os.environ["PATH"] == kept
    assert programs.find("nothing-else") is None


def test_a_missing_path_does_not_mean_this_folder(
    poisoned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATH")
    assert programs.find("nothing-else") is None
