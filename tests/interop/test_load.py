"""A flood of initiations whose mac1 is right: sessions do not notice, honest ones get through."""

import os
import signal
import socket
import struct
import time
from base64 import b64decode
from pathlib import Path

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

from wiresnake.cli import lab

RATE, SECONDS, SOURCES = 5000, 3, 8
VICTIM, STRANGER = "198.51.100.1", "198.51.100.2"


def initiations(public: str, count: int) -> list[bytes]:
    """All different, as if of keys that nobody here knows: they cost the victim what such do."""
    bodies = (struct.pack("<II", 1, number) + os.urandom(108) for number in range(count))
    return [with_macs(body, b64decode(public)) for body in bodies]


def test_c032_c033_c043_a_flood_of_initiations(make_host: MakeHost, ours: Implementation) -> None:
    friend, victim = tunnel(make_host("friend"), make_host("victim"), ours, ours)
    stranger = make_host("stranger")
    near, far = lab.cable(victim.host, stranger)
    lab.address(victim.host, near, f"{VICTIM}/24")
    lab.address(stranger, far, f"{STRANGER}/24")
    assert_pings(friend, victim)
    program = Path(ours.program).name
    (pid,) = victim.host.processes(program)
    messages = initiations(victim.public, RATE * SECONDS)
    sockets = [lab.udp_socket(stranger, socket.AF_INET) for _ in range(SOURCES)]
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
    lab.wait_for("the friend's end", lambda: not Path(f"/proc/{old}").exists())
    ours.start(friend.host)
    text = configuration(friend, victim, outer=4)
    friend.wg("setconf", "wg0", "/dev/stdin", text=text)
    friend.up()
    lab.await_tunnel(friend.host)
    friend.host.start("ping -n -q -i 0.2 -c 40", victim.inner[4])
    lab.wait_for("an honest handshake", friend.handshake, 6)

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
