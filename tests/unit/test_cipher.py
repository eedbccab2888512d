"""Each cipher that this CPU can run, forced; and what is wrong with WIRESNAKE_CIPHER, in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wiresnake.daemon import main
from wiresnake.linux.offloads import Offload

ASK = "from wiresnake._native import cipher; print(*cipher())"
HERE = Path(__file__).parent
DAEMON = Path(sys.executable).with_name("wiresnaked")


def run(name: str, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"WIRESNAKE_CIPHER": name}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def need(name: str) -> None:
    """Skips the test where the CPU lacks what the cipher needs: nothing else can bring that."""
    said = run(name, sys.executable, "-c", ASK)
    if "it needs a CPU" in said.stderr:
        pytest.skip(said.stderr[said.stderr.index("WIRESNAKE") :].partition(";")[0])
    assert said.stdout == f"{name} False\n", said.stderr


@pytest.mark.parametrize("name", ["own", "ring"])
def test_secrets_and_handshakes_with(name: str) -> None:
    need(name)
    files = [HERE / "test_secrets.py", HERE / "test_noise.py"]
    plain = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = run(name, sys.executable, *plain, *files)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "why"), [("rot13", "there is no such cipher"), ("Own", "there is no such cipher")]
)
def test_a_wrong_value_is_refused_in_words(name: str, why: str) -> None:
    said = run(name, sys.executable, "-c", ASK).stderr.splitlines()[-1]
    expected = f"WIRESNAKE_CIPHER={name}: {why}; say 'ring', or leave it out"
    assert said == f"ValueError: {expected}"
    daemon = run(name, DAEMON, "-f", "wnone")
    assert (daemon.returncode, daemon.stderr) == (1, f"wiresnaked: {expected}\n")


def test_the_log_says_that_the_own_cipher_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(main, "cipher", lambda: ("ring", True))
    monkeypatch.setenv("WIRESNAKE_OFFLOADS", "none,+gro")
    caplog.set_level("INFO")
    assert main._machine() == {Offload.GRO}
    started, failed = caplog.records
    assert started.getMessage() == "cipher: ring; offloads that may be used: gro"
    assert failed.levelname == "ERROR" and "the own cipher fails" in failed.getMessage()


def test_a_wrong_word_for_offloads_ends_the_daemon() -> None:
    environment = os.environ | {"WIRESNAKE_OFFLOADS": "-lro"}
    command = [str(DAEMON), "-f", "wnone"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("wiresnaked: WIRESNAKE_OFFLOADS: '-lro' is not valid")


def test_without_a_word_the_best_runs() -> None:
    best, fails = run("", sys.executable, "-c", ASK).stdout.split()
    assert fails == "False", "the own cipher fails its self-test on this CPU"
    forced = run("own", sys.executable, "-c", ASK)
    assert best == ("ring" if forced.returncode else "own")
