"""Handshakes started by either end, and traffic in sessions, with Linux's WireGuard."""

import pytest
from interop.harness import Implementation, MakeHost, assert_pings, ping
from kernel.harness import (
    COOKIE,
    INITIATION,
    RESPONSE,
    OuterTap,
    assert_stream,
    connect,
)
from kernel.uml import Uml

from lab import hosts

first = pytest.mark.parametrize("first", ["ours", "theirs"])


@pytest.mark.parametrize("outer", [4, 6], ids=["v4", "v6"])
@first
def test_a_tunnel(
    kernel: Uml, make_host: MakeHost, ours: Implementation, first: str, outer: int
) -> None:
    """Carries both inner IP versions after one handshake, started by the end with an endpoint."""
    our, their = connect(make_host("ours"), kernel, ours, first=first, outer=outer)
    tap = OuterTap(our.host, our.device)
    begins, answers = (our, their) if first == "ours" else (their, our)
    assert_pings(begins, answers)
    seen = [(one.source, one.kind) for one in tap.datagrams() if one.kind <= COOKIE]
    tap.close()
    assert seen == [(begins.outer[outer], INITIATION), (answers.outer[outer], RESPONSE)]
    assert answers.peer_endpoint() == begins.endpoint(outer)
    for version in (4, 6):
        assert_stream(their, our, version)
    for received, sent in (our.transfer(), their.transfer()):
        assert received > 8 << 20 < sent


@first
def test_a_preshared_key_on_one_end_only(
    kernel: Uml, make_host: MakeHost, ours: Implementation, first: str
) -> None:
    our, their = connect(make_host("ours"), kernel, ours, first=first)
    begins, answers = (our, their) if first == "ours" else (their, our)
    key = hosts.tool("wg genpsk")
    our.wg("set", "wg0", "peer", their.public, "preshared-key", "/dev/stdin", text=key)
    assert ping(begins.host, answers.inner[4]).received == 0
    assert not begins.handshake()
    their.wg("set", "wg0", "peer", our.public, "preshared-key", "/dev/stdin", text=key)
    begins.host.run("ping -n -q -c 60 -i 0.1 -W 2", answers.inner[4], check=False)
    assert begins.handshake()
    assert_pings(our, their)
