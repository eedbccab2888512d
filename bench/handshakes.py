"""Handshakes as responder: what 1,000 of them cost the daemon, and how many it answers a second.

500 peers from 500 addresses, their initiations made ahead. As many are outstanding at a time as
each takes without being under load: ours asks for cookies once 16 messages wait, wireguard-go once
128 do.
"""

import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from functools import partial

from wiresnake_conformance import oracle

from bench.plan import Part, Plan
from bench.record import Record
from bench.subjects import WIREGUARD_GO, WIRESNAKE, Subject
from lab import hosts
from lab.hosts import Host, LabError

SCENARIO = "handshakes"
PEERS = 500
OUTSTANDING = {WIRESNAKE: 16, WIREGUARD_GO: 64}
PORT = 51820
DEVICE = "192.0.2.2"
SOURCES = "198.18.0.0/16"
"""A network in which every address belongs to the initiators' host."""

Initiations = Sequence[bytes]
_IP_PKTINFO = 8


class Initiators:
    """Peers that make their own initiations, and the configuration with these peers."""

    def __init__(self, count: int) -> None:
        self.device = oracle.Key.new()
        self.keys = [oracle.Key.new() for _ in range(count)]
        self.indices = 0

    def config(self) -> str:
        """The configuration for `wg setconf`."""
        head = f"[Interface]\nPrivateKey = {self.device.private_text}\nListenPort = {PORT}\n"
        return head + self.peers()

    def peers(self) -> str:
        """The peers for `wg addconf`. Each may use one address of 10.64.0.0/10."""
        return "".join(
            f"[Peer]\nPublicKey = {key.text}\nAllowedIPs = {inner_address(number)}/32\n"
            for number, key in enumerate(self.keys)
        )

    def initiate(self, turn: int) -> list[oracle.Initiating]:
        """Makes an initiation of each peer. Those of a later turn have later timestamps."""
        made = []
        for key in self.keys:
            made.append(
                oracle.initiate(
                    key,
                    self.device.public,
                    timestamp=oracle.tai64n(time.time() + turn),
                    index=self.indices,
                )
            )
            self.indices += 1
        return made


def inner_address(number: int) -> str:
    return socket.inet_ntoa(struct.pack("!I", 0x0A400000 + number))


def source_address(number: int) -> str:
    return socket.inet_ntoa(struct.pack("!I", 0xC6120000 + 1 + number))


def run(subjects: Sequence[Subject], plan: Plan, record: Record) -> None:
    chosen = [subject for subject in subjects if subject.name in (WIRESNAKE, WIREGUARD_GO)]
    initiators = Initiators(PEERS)
    # The first turn warms up: the product of the static keys is kept by both.
    turns = [
        [initiating.message for initiating in initiators.initiate(turn)]
        for turn in range(4 if plan.quick else 9)
    ]
    for number in range(1, (2 if plan.quick else max(5, plan.rounds)) + 1):
        for subject in chosen:
            take = partial(measure, subject, initiators, turns)
            record.measure(subject, SCENARIO, number, take)


def measure(
    subject: Subject, initiators: Initiators, turns: Sequence[Initiations]
) -> Mapping[str, float]:
    """Measures one daemon with all initiations. The first turn is not counted."""
    counted = [message for turn in turns[1:] for message in turn]
    outstanding = OUTSTANDING[subject.name]
    with Host("a") as a, Host("b") as b:
        pid = responder(subject, a, b, initiators.config())
        with sender(a) as udp:
            exchange(udp, turns[0], 0, outstanding)
            used, began = hosts.cpu_seconds(pid), time.monotonic()
            exchange(udp, counted, len(turns[0]), outstanding)
            took = time.monotonic() - began
            used = hosts.cpu_seconds(pid) - used
    return {"handshakes": len(counted) / took, "handshake_cpu": used / len(counted) * 1000}


def responder(subject: Subject, a: Host, b: Host, config: str) -> int:
    """Starts the daemon on `b` for initiators on `a`, configured and up. Returns its pid."""
    devices = hosts.cable(a, b)
    hosts.address(a, devices[0], "192.0.2.1/24")
    hosts.address(b, devices[1], f"{DEVICE}/24")
    route(a, b)
    b.run(*subject.command, "wg0", env=subject.env)
    (pid,) = b.processes(subject.program)
    b.run("wg setconf wg0 /dev/stdin", text=config, timeout=120)
    b.run("ip link set wg0 mtu 1420 up")
    hosts.await_tunnel(b, port=PORT)
    return pid


def route(a: Host, b: Host) -> None:
    """Gives all addresses of `SOURCES` to `a`."""
    a.run(f"ip route add local {SOURCES} dev lo")
    b.run(f"ip route add {SOURCES} via 192.0.2.1")


def sender(host: Host) -> socket.socket:
    """Opens a socket whose datagrams come from any address of `SOURCES`."""
    udp = hosts.udp_socket(host, socket.AF_INET)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    udp.setblocking(False)
    return udp


def send(udp: socket.socket, message: bytes, number: int) -> None:
    """Sends a datagram as the peer with that number."""
    info = struct.pack("@I4s4s", 0, socket.inet_aton(source_address(number)), bytes(4))
    udp.sendmsg([message], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (DEVICE, PORT))


def exchange(udp: socket.socket, messages: Initiations, first: int, most: int) -> list[bytes]:
    """Sends initiations, `most` outstanding at a time; returns their responses, in their order.

    `first` is the index of the first one; the others follow it. LabError if any has no response.
    """
    responses = [b""] * len(messages)
    sent = answered = 0
    while answered < len(messages):
        while sent < len(messages) and sent - answered < most:
            send(udp, messages[sent], sent % PEERS)
            sent += 1
        if not select.select([udp], [], [], 1)[0]:
            raise LabError(f"{sent - answered} initiations got no response")
        answer = udp.recv(2048)
        number = responds_to(answer, first)
        if number is None or number >= sent or responses[number]:
            raise LabError(f"no response, but {oracle.describe(answer)}")
        responses[number] = answer
        answered += 1
    return responses


def responds_to(answer: bytes, first: int) -> int | None:
    """Returns the number of the initiation that this response answers."""
    if len(answer) != oracle.LENGTHS[oracle.RESPONSE]:
        return None
    kind, receiver = struct.unpack_from("<I4xI", answer)
    return receiver - first if kind == oracle.RESPONSE and receiver >= first else None


PART = Part((SCENARIO,), run)
