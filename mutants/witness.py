"""A pytest plugin for the runner. It records which code ran, and the result of each test.

It writes JSON values, one per line, to the file named by MUTANTS_REPORT: first the places of the
package and the extension, then one for each phase of each test.
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
