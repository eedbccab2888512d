"""Where a daemon's errors go whose stderr is the null device."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from wiresnake._native import PanicException
from wiresnake.daemon import main

SCRIPT = """
import logging, sys
from wiresnake.daemon import main
main._SYSTEM_LOG, main._KERNEL_LOG = sys.argv[1:]
main._start_logging("wg%0")
logging.getLogger("x").error("went wrong: %s", "\u00fc")
logging.getLogger("x").info("went well")
"""


def run(
    system: Path, kernel: Path, stderr: int | None = subprocess.DEVNULL, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(system), str(kernel)]
    variables = {key: value for key, value in os.environ.items() if key != "LOG_LEVEL"} | env
    return subprocess.run(command, stderr=stderr, text=True, check=True, env=variables)


def test_errors_go_to_syslog_and_without_one_to_the_kernels_log(tmp_path: Path) -> None:
    system, kernel = tmp_path / "log", tmp_path / "kmsg"
    kernel.touch()
    says = "ERROR: (wg%0) went wrong: \u00fc"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(system))
        log.settimeout(5)
        run(system, kernel)
        head, _, text = log.recv(1000).decode().partition(": ")
        assert head.startswith("<27>wiresnaked[") and text == says
        log.setblocking(False)
        run(system, kernel, LOG_LEVEL="silent")
        with pytest.raises(BlockingIOError):
            log.recv(1000)
        assert "went wrong" in run(system, kernel, stderr=subprocess.PIPE).stderr
        with pytest.raises(BlockingIOError):
            log.recv(1000)
    assert kernel.read_text() == ""
    run(system, kernel)  # Nobody listens any more.
    assert kernel.read_text().endswith(says)
    run(tmp_path / "none", tmp_path / "none")


def test_a_panic_that_python_met_is_logged_once_with_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    untold = ["a panic at src/gate.rs:1:2: ups"]
    monkeypatch.setattr(main, "panics", lambda: [untold.pop()] if untold else [])
    caplog.set_level(logging.ERROR)
    for _ in range(3):
        context = {"message": "the device failed", "exception": PanicException("ups")}
        main._log_failure(Mock(), context)
    assert [record.message for record in caplog.records] == ["a panic at src/gate.rs:1:2: ups"]
