"""An inner kernel and a host with our daemon, joined by a cable."""

from collections.abc import Iterator

import pytest
from interop.conftest import machine, make_host, ours
from interop.harness import unavailable
from kernel.uml import Uml, missing_parts

__all__ = ["machine", "make_host", "ours"]


@pytest.fixture(scope="session")
def inner_kernel(machine: None) -> None:
    if missing := missing_parts():
        unavailable(missing)


@pytest.fixture
def kernel(inner_kernel: None) -> Iterator[Uml]:
    with Uml() as uml:
        yield uml
