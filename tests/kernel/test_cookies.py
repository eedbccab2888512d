"""Under load each end asks the other for a cookie, gets it, and completes the handshake."""

import socket

from interop.harness import End, Implementation, MakeHost, assert_pings
from kernel.harness import (
    COOKIE,
    INITIATION,
    RESPONSE,
    Flood,
    Outer,
    OuterTap,
    connect,
)
from kernel.uml import Uml

from lab import hosts
from lab.hosts import Host

OTHER = "192.0.2.50"


def flooder(host: Host) -> socket.socket:
    """Opens a socket with its own address, so that its flood does not use up another's limit."""

    def make() -> socket.socket:
        new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        new.bind((OTHER, 0))
        return new

    return host.inside(make)


def hears(out: socket.socket) -> bool:
    out.settimeout(0.5)
    try:
        return bool(out.recv(64))
    except TimeoutError:
        return False


def handshake_under_load(begins: End, answers: End, tap: OuterTap) -> list[Outer]:
    """Returns the handshake messages and cookie replies until both ends have a session."""
    seen: list[Outer] = []

    def done() -> bool:
        addresses = {begins.outer[4], answers.outer[4]}
        seen.extend(
            one
            for one in tap.datagrams()
            if one.kind <= COOKIE and {one.source, one.target} == addresses
        )
        return any(one.kind == RESPONSE for one in seen)

    ping = begins.host.start("ping -n -q -c 300 -i 0.1", answers.inner[4])
    hosts.wait_for("a handshake under load", done, 60)
    ping.stop()
    return seen


def assert_cookie_was_paid(seen: list[Outer], begins: End, answers: End) -> None:
    """Checks that a cookie reply comes first, then an initiation with mac2 that is answered."""
    kinds = [(one.source, one.kind) for one in seen]
    first, cookie = kinds[:2]
    assert first == (begins.outer[4], INITIATION)
    assert cookie == (answers.outer[4], COOKIE)
    assert kinds[-2:] == [(begins.outer[4], INITIATION), (answers.outer[4], RESPONSE)]
    initiations = [one.payload for one in seen if one.kind == INITIATION]
    assert len(initiations) <= 3
    assert not any(initiations[0][-16:]), "no cookie yet"
    assert all(any(one[-16:]) for one in initiations[1:]), "mac2"
    reply = next(one for one in seen if one.kind == COOKIE)
    assert (len(reply.payload), reply.tos) == (64, 0)


def test_linux_gets_a_cookie_from_us(
    kernel: Uml, make_host: MakeHost, ours: Implementation
) -> None:
    our, their = connect(make_host("ours"), kernel, ours, first="theirs")
    stranger = make_host("stranger")
    near, far = hosts.cable(our.host, stranger)
    hosts.address(our.host, near, "198.51.100.1/24")
    hosts.address(stranger, far, "198.51.100.2/24")
    out = hosts.udp_socket(stranger, socket.AF_INET)
    tap = OuterTap(our.host, our.device)
    with out, Flood(out, ("198.51.100.1", our.port), our.public, rate=15000):
        hosts.wait_for("a cookie", lambda: hears(out))
        seen = handshake_under_load(their, our, tap)
    assert_cookie_was_paid(seen, their, our)
    assert_pings(our, their)
    tap.close()


def test_we_get_a_cookie_from_linux(kernel: Uml, make_host: MakeHost, ours: Implementation) -> None:
    our, their = connect(make_host("ours"), kernel, ours, first="ours")
    hosts.address(our.host, our.device, f"{OTHER}/24")
    tap = OuterTap(our.host, our.device)
    out = flooder(our.host)
    with out, Flood(out, (their.outer[4], their.port), their.public, rate=10000):
        hosts.wait_for("a cookie", lambda: hears(out))
        seen = handshake_under_load(our, their, tap)
    assert_cookie_was_paid(seen, our, their)
    assert_pings(our, their)
    tap.close()
