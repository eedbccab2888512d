"""Hosts for a test, and the implementations that it may need."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from interop.harness import OURS, PEERS, Implementation, MakeHost, unavailable

from wiresnake.cli import lab
from wiresnake.cli.lab import Host


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    """Makes hosts that are gone after the test, whatever happens in it."""
    if os.geteuid() != 0:
        unavailable("needs root, for network namespaces: sudo make test")
    if missing := lab.missing_programs("ip", "wg", "ping", "nsenter", "nft"):
        unavailable(f"missing programs, run `make setup` as root: {', '.join(missing)}")
    with contextlib.ExitStack() as stack:

        def make(name: str = "host", *, kernel_wireguard: bool = True) -> Host:
            host = Host(name, kernel_wireguard=kernel_wireguard)
            return stack.enter_context(host)

        yield make


@pytest.fixture
def ours(pytestconfig: pytest.Config) -> Implementation:
    other = pytestconfig.getoption("--ours")
    found = replace(OURS, program=other) if other else OURS
    found.need()
    return found


@pytest.fixture(params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Implementation:
    """Each other implementation in turn."""
    found: Implementation = request.param
    found.need()
    return found
