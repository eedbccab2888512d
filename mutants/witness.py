"""A pytest plugin for the runner: it notes whose code ran, and what each test gave.

To the file that MUTANTS_REPORT names, a JSON value a line: first where the package and the
extension are, then one for each phase of each test.
"""

import importlib.util
import json
import os

import pytest

import wiresnake

_FILE = os.environ["MUTANTS_REPORT"]


def pytest_sessionstart() -> None:
    extension = importlib.util.find_spec("wiresnake._native")
    _write([wiresnake.__file__, extension.origin if extension else None])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = "" if crash is None else crash.message.partition("\n")[0]
    _write([report.nodeid, report.when, report.outcome, message])


def _write(value: object) -> None:
    with open(_FILE, "a") as file:
        file.write(json.dumps(value) + "\n")
