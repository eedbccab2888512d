"""For all tests: the host's network must not change, and tests that did not run are counted."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from lab.hosts import program_path

# The time of an example depends on what else the machine does.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ours",
        metavar="PROGRAM",
        help="run the interop tests with this daemon in our place: a test of the tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C for its background processes, and nohup ignores SIGHUP. Programs that
    # tests start would inherit that.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    config.addinivalue_line("markers", "item: the items of docs/conformance.md that a test holds")
    config.addinivalue_line("markers", "slow: waits for real time to pass, a minute or more")
    config.addinivalue_line(
        "markers", "alone: measures time, processors or memory: `make test` runs nothing beside it"
    )
    config.addinivalue_line(
        "markers", "others: needs what takes minutes to build: `make interop-others` builds it"
    )


NETWORK = (
    "ip -o link",
    "ip -o address",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule",
    "ip -6 rule",
    "nft list ruleset",
)


def network_state() -> dict[str, str]:
    """Returns everything that a careless test could leave behind and that does not change by
    itself.

    /run is not included, as the interop tests have their own.
    """
    state = {}
    for command in NETWORK:
        words = command.split()
        if shutil.which(words[0], path=program_path()):
            env = os.environ | {"PATH": program_path()}
            done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
            state[command] = re.sub(r"(expires|valid_lft|preferred_lft) \S+", "", done.stdout)
    if os.access("/etc/wireguard", os.R_OK):
        state["/etc/wireguard"] = " ".join(sorted(os.listdir("/etc/wireguard")))
    return state


@pytest.fixture(scope="session", autouse=True)
def network_left_as_it_was() -> Iterator[None]:
    """Checks law 7: tests only change namespaces that they made."""
    before = network_state()
    yield
    assert network_state() == before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints why tests did not run, with the number for each reason, so that no skip is hidden."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section(f"did not run: {reasons.total()}")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5} {reason}")
