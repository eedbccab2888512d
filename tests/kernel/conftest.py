"""Provides an inner kernel for tests. What takes minutes starts before all tests."""

import contextlib
from collections.abc import Iterator

import pytest
from interop.conftest import machine, make_host, ours
from interop.harness import Implementation, unavailable
from kernel.harness import Lasting, connect
from kernel.uml import Uml, missing_parts
from wiresnake_conformance.machine import Watch

from lab.hosts import Host

__all__ = ["machine", "make_host", "ours"]


@pytest.fixture(scope="session")
def watch() -> Iterator[Watch]:
    """Measures how late this machine is, to widen limits of time."""
    with Watch() as watch:
        watch.measure()
        yield watch


@pytest.fixture(scope="session")
def inner_kernel(machine: None) -> None:
    if missing := missing_parts():
        unavailable(missing)


@pytest.fixture
def kernel(inner_kernel: None) -> Iterator[Uml]:
    with Uml() as uml:
        yield uml


@pytest.fixture(scope="session")
def lasting(inner_kernel: None, ours: Implementation) -> Iterator[dict[str, Lasting]]:
    """Two tunnels with pings for longer than a session lasts, by the initiator."""
    with contextlib.ExitStack() as stack:
        made = {}
        for first in ("ours", "theirs"):
            host, kernel = stack.enter_context(Host("ours")), stack.enter_context(Uml())
            made[first] = Lasting(*connect(host, kernel, ours, first=first), first)
        yield made


@pytest.fixture(scope="session", autouse=True)
def lasting_begin_early(request: pytest.FixtureRequest) -> None:
    if any(map(_lasts, request.session.items)):
        request.getfixturevalue("lasting")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_lasts)


def _lasts(item: pytest.Item) -> bool:
    return "lasting" in getattr(item, "fixturenames", ())
