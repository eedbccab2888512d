"""What a stranger can send: the answer is silence, and the tunnel does not notice."""

import os
import random
import socket
import struct
import time
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    Wiretap,
    assert_pings,
    assert_tcp,
    configuration,
    count_pings,
    tunnel,
)
from sim.forge import with_macs

from lab import hosts
from lab.hosts import Host

LONGEST = 65507
VICTIM, STRANGER = {4: "198.51.100.1", 6: "2001:db8:1::1"}, {4: "198.51.100.2", 6: "2001:db8:1::2"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass
class Attack:
    """A tunnel between `victim` and `friend`, and a stranger on a cable of its own."""

    victim: End
    friend: End
    stranger: Host
    tap: Wiretap
    sockets: dict[int, socket.socket]
    program: str
    receiver: int
    """The index by which the victim knows the session that is in use."""

    def send(self, datagrams: Iterable[bytes], version: int = 4) -> None:
        """Sends them no faster than the victim reads: each must really be looked at."""
        target = (VICTIM[version], self.victim.port)
        waiting = 0
        for datagram in datagrams:
            self.sockets[version].sendto(datagram, target)
            waiting += len(datagram) + 1000
            if waiting > 1_000_000:
                self.drained()
                waiting = 0
        self.drained()

    def drained(self) -> None:
        deadline = time.monotonic() + 20
        while self._queue()[0]:
            assert time.monotonic() < deadline, "the victim does not read any more"
            time.sleep(0.0005)

    def lost(self) -> int:
        return self._queue()[1]

    def _queue(self) -> tuple[int, int]:
        """Bytes that wait at the victim's port, and datagrams that the kernel dropped there."""
        queued = dropped = 0
        for table in ("udp", "udp6"):
            text = Path(f"/proc/{self.victim.host.pid}/net/{table}").read_text()
            for row in map(str.split, text.splitlines()[1:]):
                if int(row[1].rpartition(":")[2], 16) == self.victim.port:
                    queued += int(row[4].partition(":")[2], 16)
                    dropped += int(row[-1])
        return queued, dropped

    def assert_silence(self) -> None:
        """Not a byte came back: no answer, no ICMP error."""
        answers = [packet for packet in self.tap.packets() if packet.source in VICTIM.values()]
        assert not answers, answers[:3]

    def memory(self) -> int:
        """KiB that the daemon holds."""
        (pid,) = self.victim.host.processes(self.program)
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@pytest.fixture
def attack(make_host: MakeHost, ours: Implementation) -> Iterator[Attack]:
    friend, victim = tunnel(make_host("friend"), make_host("victim"), ours, ours)
    stranger = make_host("stranger")
    near, far = hosts.cable(victim.host, stranger, mtu=65535)
    hosts.address(victim.host, near, f"{VICTIM[4]}/24", f"{VICTIM[6]}/64")
    hosts.address(stranger, far, f"{STRANGER[4]}/24", f"{STRANGER[6]}/64")
    road = Wiretap(friend.host, friend.device)
    assert_pings(friend, victim)
    data = [p.payload for p in road.packets() if p.target == victim.outer[4] and p.payload[0] == 4]
    road.close()
    sockets = {version: hosts.udp_socket(stranger, family) for version, family in FAMILY.items()}
    made = Attack(
        victim,
        friend,
        stranger,
        Wiretap(stranger, far),
        sockets,
        Path(ours.program).name,
        struct.unpack_from("<I", data[-1], 4)[0],
    )
    yield made
    made.tap.close()
    for opened in sockets.values():
        opened.close()


def assert_unharmed(attack: Attack) -> None:
    attack.assert_silence()
    assert attack.victim.peer_endpoint() == attack.friend.endpoint(4)
    assert_pings(attack.friend, attack.victim)
    assert_tcp(attack.friend, attack.victim)
    assert len(attack.victim.host.processes(attack.program)) == 1


@pytest.mark.item(2, 85)
def test_every_length_is_met_with_silence(attack: Attack) -> None:
    """Lengths 0 to 65,507, all of them: noise, and data messages of the session in use."""
    noise = os.urandom(LONGEST)
    live = struct.pack("<IIQ", 4, attack.receiver, 1 << 40)
    pings = attack.friend.host.start("ping -n -q -i 0.05 -c 40 -W 5", attack.victim.inner[4])
    before = attack.memory()
    attack.send(noise[:length] for length in range(LONGEST + 1))
    attack.send((live + noise)[:length] for length in range(LONGEST + 1))
    assert attack.lost() == 0, "datagrams never reached the daemon"
    assert count_pings(pings.wait(30)[1]).lost == 0
    assert attack.memory() - before < 32 << 10
    assert_unharmed(attack)


@pytest.mark.parametrize("version", [4, 6], ids=["v4", "v6"])
@pytest.mark.item(3)
def test_every_type_and_reserved_byte_is_survived(attack: Attack, version: int) -> None:
    """First words that are almost right, in all lengths that a parser may treat specially."""
    noise = os.urandom(2000)
    words = [bytes([kind, 0, 0, 0]) for kind in range(7)]
    words += [bytes([kind, *rest]) for kind in (1, 2, 3, 4) for rest in ((1, 0, 0), (0, 0, 255))]
    attack.send(((word + noise)[:length] for word in words for length in range(1600)), version)
    assert attack.lost() == 0
    assert_unharmed(attack)


@pytest.mark.item(92)
def test_valid_mac1_with_nothing_behind_it(attack: Attack) -> None:
    """Whoever knows the public key can write mac1; without load even that is not answered."""
    messages = []
    for size, kind in ((116, 1), (60, 2)):
        for _ in range(10):
            body = struct.pack("<I", kind) + os.urandom(size - 4)
            messages.append(with_macs(body, b64decode(attack.victim.public)))
    attack.send(messages)
    assert_unharmed(attack)


@pytest.mark.item(9, 51, 76)
def test_replays_change_nothing(attack: Attack) -> None:
    """All that the friend ever said, said again by a stranger, in any order."""
    road = Wiretap(attack.friend.host, attack.friend.device)
    attack.victim.wg("set", "wg0", "peer", attack.friend.public, "remove")
    text = configuration(attack.victim, attack.friend).partition("[Peer]")
    attack.victim.wg("addconf", "wg0", "/dev/stdin", text="[Peer]" + text[2])
    attack.friend.wg("set", "wg0", "peer", attack.victim.public, "remove")
    text = configuration(attack.friend, attack.victim, outer=4).partition("[Peer]")
    attack.friend.wg("addconf", "wg0", "/dev/stdin", text="[Peer]" + text[2])
    assert_pings(attack.friend, attack.victim)
    target = attack.victim.outer[4]
    said = [packet.payload for packet in road.packets() if packet.target == target]
    road.close()
    assert {payload[0] for payload in said} >= {1, 4}
    received = attack.victim.transfer()[0]
    attack.send(said)
    attack.send(random.sample(said, len(said)))
    attack.assert_silence()
    assert attack.victim.transfer()[0] == received
    attack.send(payload[:length] for payload in said for length in range(len(payload)))
    attack.send(
        payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        for payload in said
        for at in range(len(payload))
    )
    assert_unharmed(attack)


@pytest.mark.item(28)
def test_a_stranger_with_another_key_gets_no_answer(attack: Attack, ours: Implementation) -> None:
    """A real WireGuard whose key nobody here knows gets no answer, however it tries."""
    stranger = End(attack.stranger, "", STRANGER, {4: "10.9.0.66", 6: "fd09::66"}, port=4444)
    victim = replace(attack.victim, outer=VICTIM)
    ours.start(stranger.host)
    text = configuration(stranger, victim, outer=4, extra="PersistentKeepalive = 1")
    stranger.wg("setconf", "wg0", "/dev/stdin", text=text)
    stranger.up()
    sent = attack.stranger.run("ping -c1 -W2", victim.inner[4], check=False)
    assert sent.returncode == 1
    assert stranger.handshake() == 0
    assert stranger.transfer()[1] >= 148
    assert_unharmed(attack)
