"""For every test: the host's network stays as it was, and what did not run is counted."""

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

# How long an example takes is a matter of what else the machine does.
settings.register_profile(
    "any", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ours",
        metavar="PROGRAM",
        help="run the interop tests with this daemon in our place: a test of the tests",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C for what it runs in the background, and nohup ignores SIGHUP: so would
    # all that tests start.
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
    """All that a careless test could leave behind, without what changes by itself.

    /run is not among it: the interop tests have one of their own.
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
    """Law 7: everything in namespaces that the tests made."""
    before = network_state()
    yield
    assert network_state() == before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests did not run, each reason with its number: a skip must not hide in a dot."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section(f"did not run: {reasons.total()}")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5} {reason}")
