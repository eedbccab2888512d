"""Floods, of initiations whose mac1 is right and of anything else: sessions do not notice, honest
ones get through, and the daemon does not grow."""

import os
import signal
import socket
import struct
import sys
import time
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from interop.harness import (
    Implementation,
    MakeHost,
    Wiretap,
    assert_pings,
    configuration,
    count_pings,
    memory,
    tunnel,
)
from sim.forge import with_macs

from lab import hosts

pytestmark = pytest.mark.alone
RATE, SECONDS, SOURCES = 5000, 3, 8
# Whatever is sent to peers that never answer waits for their sessions.
FLOOD_ALL = """
import contextlib, socket, sys
peers, size = map(int, sys.argv[1:])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
out.setsockopt(17, 103, 1300)  # UDP_SEGMENT
while True:
    for number in range(peers):
        with contextlib.suppress(OSError):
            out.sendto(bytes(size), (f"10.100.{number >> 8}.{number & 255}", 9))
"""
PEERS = 2000
GROWTH = 40 << 10
"""KiB: 16,384 packets that all peers share, then one for each peer and what its handshake takes."""
VICTIM, STRANGER = "198.51.100.1", "198.51.100.2"


def initiations(public: str, count: int) -> list[bytes]:
    """All different, as if of keys that nobody here knows: they cost the victim what such do."""
    bodies = (struct.pack("<II", 1, number) + os.urandom(108) for number in range(count))
    return [with_macs(body, b64decode(public)) for body in bodies]


@pytest.mark.item(32, 33, 43)
def test_a_flood_of_initiations_stops_no_tunnel(make_host: MakeHost, ours: Implementation) -> None:
    friend, victim = tunnel(make_host("friend"), make_host("victim"), ours, ours)
    stranger = make_host("stranger")
    near, far = hosts.cable(victim.host, stranger)
    hosts.address(victim.host, near, f"{VICTIM}/24")
    hosts.address(stranger, far, f"{STRANGER}/24")
    assert_pings(friend, victim)
    program = Path(ours.program).name
    (pid,) = victim.host.processes(program)
    messages = initiations(victim.public, RATE * SECONDS)
    sockets = [hosts.udp_socket(stranger, socket.AF_INET) for _ in range(SOURCES)]
    before = memory(pid)
    tap = Wiretap(stranger, far)
    count = SECONDS * 50
    pings = friend.host.start(f"ping -n -q -i 0.02 -c {count} -W 2", victim.inner[4])

    begun = time.monotonic()
    for number, message in enumerate(messages):
        sockets[number % SOURCES].sendto(message, (VICTIM, victim.port))
        if number % 50 == 0:
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
    took = time.monotonic() - begun

    # Honest at once, while the victim still thinks that it is under load: by a cookie.
    (old,) = friend.host.processes(program)
    lost = count_pings(pings.wait(10)[1])
    os.kill(old, signal.SIGTERM)
    hosts.wait_for("the friend's end", lambda: not Path(f"/proc/{old}").exists())
    ours.start(friend.host)
    text = configuration(friend, victim, outer=4)
    friend.wg("setconf", "wg0", "/dev/stdin", text=text)
    friend.up()
    hosts.await_tunnel(friend.host)
    friend.host.start("ping -n -q -i 0.2 -c 40", victim.inner[4])
    hosts.wait_for("an honest handshake", friend.handshake)

    answers = [packet.payload for packet in tap.packets() if packet.source == VICTIM]
    tap.close()
    for one in sockets:
        one.close()
    assert took < 2 * SECONDS, f"the flood was too slow: {took:.1f} s"
    assert lost.lost <= 1, lost
    assert {(len(answer), answer[0]) for answer in answers} == {(64, 3)}
    assert len(answers) <= len(messages)
    assert memory(pid) - before < 16 << 10
    assert victim.host.processes(program) == [pid]
    assert_pings(friend, victim)


def test_memory_is_bounded_whatever_comes(make_host: MakeHost, ours: Implementation) -> None:
    """From outside as fast as it can be sent, and from within to peers that have no session."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    peers = (
        f"[Peer]\nPublicKey = {b64encode(os.urandom(32)).decode()}\nEndpoint = 192.0.2.77:9\n"
        f"AllowedIPs = 10.100.{number >> 8}.{number & 255}/32\n"
        for number in range(PEERS)
    )
    a.wg("addconf", "wg0", "/dev/stdin", text="".join(peers))
    a.host.run("ip route add 10.100.0.0/16 dev wg0")
    assert_pings(a, b)
    garbage = [
        *initiations(a.public, 1000),
        *(os.urandom(148) for _ in range(1000)),
        *(struct.pack("<IIQ", 4, *2 * [number]) + os.urandom(1300) for number in range(1000)),
    ]
    (pid,) = a.host.processes(Path(ours.program).name)
    before = most = memory(pid)
    floods = [
        a.host.start(sys.executable, "-c", FLOOD_ALL, str(PEERS), str(size))
        for size in (1300, 49 * 1300)
    ]
    until = time.monotonic() + 5
    with hosts.udp_socket(b.host, socket.AF_INET) as out:
        while time.monotonic() < until:
            for message in garbage:
                out.sendto(message, (a.outer[4], a.port))
            most = max(most, memory(pid))
    for flood in floods:
        flood.stop(signal.SIGKILL)
    assert most - before < GROWTH
    assert_pings(a, b)
