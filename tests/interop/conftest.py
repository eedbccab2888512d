"""Hosts for a test, and the implementations that it may need; what waits longest comes first."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from interop.harness import OURS, PEERS, PORTABLE, Implementation, MakeHost, unavailable

from lab import hosts
from lab.hosts import Host

CLONE_NEWNS = 0x00020000


@pytest.fixture(scope="session")
def machine() -> Iterator[None]:
    """What all of these tests need; and a /run of their own, so that the machine's stays as it is.

    Daemons leave sockets in /run/wireguard, and `ip netns` names in /run/netns.
    """
    if os.geteuid() != 0:
        unavailable("needs root, for network namespaces: sudo make test")
    if missing := hosts.missing_programs(
        "ip", "wg", "wg-quick", "ping", "nsenter", "nft", "setpriv"
    ):
        unavailable(f"missing programs, run `make setup` as root: {', '.join(missing)}")
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.getcwd()
    root = os.open("/", os.O_PATH)  # it may be a chroot's, which is left by entering a namespace
    with open("/proc/self/ns/mnt", "rb") as namespace:
        if libc.unshare(CLONE_NEWNS):
            unavailable(f"mount namespaces are refused here: {os.strerror(ctypes.get_errno())}")
        subprocess.run(hosts.words("mount --make-rprivate /"), check=True)
        subprocess.run(hosts.words("mount -t tmpfs -o mode=755 tmpfs /run"), check=True)
        try:
            yield
        finally:
            # The kernel refuses it while a thread that was joined is still about to end.
            refused = True
            for _ in range(100):
                if not (refused := bool(libc.setns(namespace.fileno(), CLONE_NEWNS))):
                    break
                time.sleep(0.05)
            if refused:
                raise OSError(ctypes.get_errno(), "no way back to the machine's mounts")
            os.fchdir(root)
            os.chroot(".")
            os.chdir(here)
            os.close(root)


@pytest.fixture
def make_host(machine: None) -> Iterator[MakeHost]:
    """Makes hosts that are gone after the test, whatever happens in it."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "host", *, kernel_wireguard: bool = True) -> Host:
            host = Host(name, kernel_wireguard=kernel_wireguard)
            return stack.enter_context(host)

        yield make


@pytest.fixture(scope="session")
def ours(pytestconfig: pytest.Config) -> Implementation:
    other = pytestconfig.getoption("--ours")
    found = replace(OURS, program=other) if other else OURS
    found.need()
    return found


@pytest.fixture(params=["linux", "portable"])
def either(request: pytest.FixtureRequest, ours: Implementation) -> Implementation:
    """Ours on each of its planes."""
    return ours if request.param == "linux" else PORTABLE


@pytest.fixture(params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Implementation:
    """Each other implementation in turn."""
    found: Implementation = request.param
    found.need()
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The others run meanwhile, where there are several workers."""
    items.sort(key=lambda item: "slow" not in item.keywords)
