"""The frame of the command line: words, names, errors, exit codes."""

import argparse
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wiresnake.arguments import EXIT_CODES, Parser
from wiresnake.cli import commands, help, invoked_as, main, progress
from wiresnake.errors import ConfigError, HostError

PROGRAM = Path(sys.executable).with_name("wiresnake")
ALL = [(word, entry) for group in commands.COMMANDS.values() for word, entry in group.items()]


def run(*argv: str, name: Path = PROGRAM, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [name, *argv],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Calls `wiresnake check`, whose module raises that error."""

    def call(error: BaseException) -> int:
        class Module:
            @staticmethod
            def main(argv: list[str]) -> int:
                raise error

        monkeypatch.setattr(main, "module_of", lambda word: Module)
        return main.main(["check"])

    return call


def test_an_unknown_word() -> None:
    code, said, complaint = run("shw")
    first, second = complaint.splitlines()
    assert (code, said, first) == (1, "", "Invalid subcommand: `shw'")
    assert second == "wiresnake: did you mean `show'? `wiresnake help` lists them all"
    assert "did you mean" not in run("zzzzzz")[2]


def test_closed_streams() -> None:
    """Of a service or a cron job; nothing that is opened takes their place."""
    for words, closed, code, said in (
        ("help", ">&-", 1, "wiresnake: Bad file descriptor\n"),
        ("check --json /none", ">&-", 1, "Bad file descriptor\n"),
        ("show interfaces", "2>&-", 0, ""),
        ("why --json nobody", "<&- 2>&-", 1, ""),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{PROGRAM} {words} {closed}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == code
        assert done.stderr.endswith(said), done.stderr
        assert "internal error" not in done.stderr


def test_who_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} metrics | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) in (("141\n", ""), ("0\n", ""))


def test_help_names_every_command() -> None:
    for option in ("help", "-h", "--help"):
        code, said, complaint = run(option)
        assert (code, complaint) == (0, "")
        assert all(f"  {word} " in said for word, _ in ALL)
        assert said.rstrip().count("\n  wiresnake ") == 3


def test_help_of_one_command() -> None:
    said = [run("help", "check"), run("check", "--help"), run("check", "-h")]
    assert said[0] == said[1] == said[2]
    assert said[0][:2] == (0, said[0][1]) and said[0][1].startswith("usage: wiresnake check")
    assert run("help", "chek")[0] == 1


@pytest.mark.parametrize("word", [word for word, _ in ALL])
def test_every_command_explains_itself(word: str) -> None:
    """From this come its help, its page of the manual and its completion."""
    module = commands.module_of(word)
    assert module is not None
    parser = module.parser(word)
    assert isinstance(parser, Parser)
    assert parser.prog == f"wiresnake {word}"
    assert parser.description and parser.epilog
    assert "examples:\n  " in parser.epilog
    codes = parser.epilog.partition("exit codes: ")[2]
    assert codes.startswith("0 ")
    assert {int(code) for code in re.findall(r"(?:^|[;,]\s+)(\d+) ", codes)} <= EXIT_CODES.keys()
    for action in parser._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), action


def test_version() -> None:
    assert run("--version") == run("-v") == run("version")
    assert run("version")[1].startswith("wiresnake 0.")


def test_by_the_names_of_stock(tmp_path: Path) -> None:
    for name in invoked_as.STOCK:
        (tmp_path / name).symlink_to(PROGRAM)
    wg, quick = tmp_path / "wg", tmp_path / "wg-quick"
    tools, version, *_ = run("--version", name=wg)[1].split()
    assert (tools, version) == ("wireguard-tools", help.STOCK_VERSION)
    assert run("up", "wg0", name=wg)[2].startswith("Invalid subcommand: `up'\n")
    assert run("show", name=quick)[2].startswith("Invalid subcommand: `show'\n")
    code, said, complaint = run("strip", "/nowhere/wg0.conf", name=quick)
    assert (code, said) == (1, "") and complaint.startswith("wg-quick: ")
    code, said, complaint = run(name=quick)
    assert (code, said) == (1, "") and "reload" in complaint and "genkey" not in complaint


def test_an_empty_word_is_no_command() -> None:
    assert run("")[0] == 1
    assert run("")[2].startswith("Invalid subcommand: `'\n")


def test_a_wrong_command_line_is_1_and_one_line() -> None:
    """argparse would say 2, which is what `reload --diff` says of changes."""
    code, said, complaint = run("check", "--nonsense")
    assert (code, said, complaint.count("\n")) == (1, "", 1)
    assert complaint.startswith("wiresnake check: ") and "`wiresnake check --help`" in complaint


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("a.conf:1:2: wrong"), 1, "wiresnake: a.conf:1:2: wrong\n"),
        (HostError(13, "cannot open it: be root"), 1, "wiresnake: cannot open it: be root\n"),
        (FileNotFoundError(2, "No such file", "/x"), 1, "wiresnake: /x: No such file\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(), 0, ""),
        (SystemExit(1), 1, ""),
    ],
)
def test_errors(
    broken: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    assert broken(error) == code
    assert code in EXIT_CODES
    assert capsys.readouterr().err == said


def test_a_defect_is_one_line_without_its_text(
    broken: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The text of an exception may be the key that could not be read."""
    assert broken(ValueError("SECRET")) == 1
    said = capsys.readouterr().err
    assert said.startswith("wiresnake: internal error, please report it: ValueError at ")
    assert said.count("\n") == 1 and "SECRET" not in said
    monkeypatch.setenv("WIRESNAKE_DEBUG", "1")
    with pytest.raises(ValueError, match="SECRET"):
        broken(ValueError("SECRET"))


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen([PROGRAM, "help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, "help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"wiresnake: No space left on device\n")


def test_memory_is_protected_before_a_secret_is_read() -> None:
    """Until then nothing of a subcommand is imported."""
    script = """
import ctypes, sys
from wiresnake.cli import main
def module_of(word):
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "wiresnake.cli.show" in sys.modules)
    sys.exit(0)
main.module_of = module_of
main.main(["show"])
"""
    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert said == "0 False\n"


def test_options_cannot_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="wiresnake x")
    parser.add_argument("--difference", action="store_true")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--diff"])
    assert end.value.code == 1


def test_progress_is_for_a_terminal_and_for_what_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.02)
    reader, writer = pty.openpty()
    with open(writer, "w") as terminal, open(reader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress.progress("waiting for x"):
            time.sleep(0.2)
        seen = screen.read(4096)
        while not seen.endswith(b"\r\x1b[K"):
            seen += screen.read(4096)
    assert b"\r\x1b[Kwaiting for x ... 0 s" in seen


def test_progress_says_nothing_to_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.progress("waiting for x"):
        pass
    assert capfd.readouterr().err == ""
