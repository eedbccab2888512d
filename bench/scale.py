"""Measures many peers: the time to configure and list them, their memory, and the throughput of
one.

How long an event loop is blocked can be seen from outside: every few ms another process sends a
request that the daemon refuses at once. The longest wait is the longest block. It may be too short
by the pause between two requests, and too long by other processes' use of the CPUs.
"""

import base64
import contextlib
import multiprocessing
import os
import signal
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from wiresnake_conformance import oracle

from bench import handshakes, traffic
from bench.handshakes import Initiators, inner_address
from bench.plan import Part, Plan
from bench.record import FAILURES, Record
from bench.subjects import WIREGUARD_GO, WIRESNAKE, Subject
from bench.tunnel import FAR, Network, network
from lab import hosts
from lab.hosts import Host, LabError

THOUSANDS = {"10k peers": 10_000, "100k peers": 100_000}
LIMIT = {WIREGUARD_GO: 65_000}
"""It refuses more than 65,536 peers."""
ONE, ACTIVE = "TCP 1 peer", "TCP 1000 peers active"
TCP = {f"TCP {name}": count for name, count in THOUSANDS.items()}
QUICK = ("10k peers", ONE, "TCP 10k peers")
ACTIVE_PEERS = 1000
PROBE_EVERY = 0.003
DISCARD = 9


def run(subjects: Sequence[Subject], plan: Plan, record: Record) -> None:
    chosen = [subject for subject in subjects if subject.name in (WIRESNAKE, WIREGUARD_GO)]
    scenarios = QUICK if plan.quick and plan.sparing else PART.scenarios
    wanted = [name for name in scenarios if plan.wants(name)]
    for name in (name for name in THOUSANDS if name in wanted):
        for number in range(1, 2 if plan.quick else 4):
            for subject in chosen:
                most = peers(subject, THOUSANDS[name])
                record.measure(subject, name, number, partial(configure, subject, most))
    throughput(chosen, [name for name in (ONE, *TCP, ACTIVE) if name in wanted], plan, record)


def peers(subject: Subject, count: int) -> int:
    return min(count, LIMIT.get(subject.name, count))


def configure(subject: Subject, count: int) -> Mapping[str, float]:
    """Measures a daemon with that many idle peers: configured, brought up, listed."""
    config = f"[Interface]\nPrivateKey = {hosts.keypair()[0]}\nListenPort = 51820\n" + idle(count)
    with Host("b") as b:
        b.run(*subject.command, "wg0", env=subject.env)
        (pid,) = b.processes(subject.program)
        before = resident(pid)
        path = f"/proc/{pid}/root/run/wireguard/wg0.sock"
        dump = partial(b.run, "sh -c", "wg show wg0 dump >/dev/null", timeout=90)
        with probing(path) as waited:
            configured = timed(lambda: b.run("wg setconf wg0 /dev/stdin", text=config, timeout=90))
            b.run("ip link set wg0 up")
            dump()
        dumped, got = again(dump), again(lambda: read_all(path, b"get=1\n\n"))
        after = resident(pid)
    return {
        "configure": configured,
        "dump": dumped,
        "get": got,
        "waited": waited() * 1000,
        "rss": after / 1e6,
        "peer_memory": (after - before) / count / 1e3,
    }


def idle(count: int, first: int = 0) -> str:
    """Makes idle peers; any 32 bytes are a public key."""
    return "".join(
        f"[Peer]\nPublicKey = {base64.b64encode(os.urandom(32)).decode()}\n"
        f"AllowedIPs = {inner_address(first + number)}/32\n"
        for number in range(count)
    )


def resident(pid: int) -> int:
    """Returns the resident memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def again(action: Callable[[], object]) -> float:
    """Returns the median of several runs, as each is short enough to be disturbed by others."""
    return statistics.median(timed(action) for _ in range(5))


def read_all(path: str, request: bytes) -> int:
    """Sends a UAPI request and reads to the empty line or to the end. Returns the length."""
    length, last = 0, b""
    buffer = bytearray(1 << 18)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            while not last.endswith(b"\n\n") and (received := connection.recv_into(buffer)):
                last = (last + buffer[max(0, received - 2) : received])[-2:]
                length += received
    return length


@contextmanager
def probing(path: str) -> Iterator[Callable[[], float]]:
    """Sends tiny requests during the block. The yielded function returns the longest wait."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_probe, args=(path, writer))
    process.start()
    writer.close()  # so that the end of the probe is an end here
    waits: list[float] = []
    try:
        yield lambda: waits[0]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGUSR1)
        try:
            waits.append(reader.recv())
        except EOFError:
            raise LabError("the probe of the event loop ended too early") from None
    finally:
        process.kill()
        process.join()


def _probe(path: str, writer: "multiprocessing.connection.Connection[float, float]") -> None:
    done = False

    def finish(*_: object) -> None:
        nonlocal done
        done = True

    signal.signal(signal.SIGUSR1, finish)
    longest = 0.0
    while not done:
        longest = max(longest, timed(lambda: read_all(path, b"nothing=1\n")))
        time.sleep(PROBE_EVERY)
    writer.send(longest)


def throughput(
    chosen: Sequence[Subject], wanted: Sequence[str], plan: Plan, record: Record
) -> None:
    """Measures several tunnels in turns, while the others are up but idle."""
    with ExitStack() as stack:
        tunnels = []
        for subject in chosen:
            for scenario in wanted:
                try:
                    net = stack.enter_context(tunnel(subject, scenario))
                    tunnels.append((subject, scenario, net))
                except FAILURES as error:
                    record.fail(subject, scenario, 1, error)
        for number in range(1, (2 if plan.quick else plan.rounds) + 1):
            for subject, scenario, net in tunnels if number % 2 else reversed(tunnels):
                take = partial(traffic.tcp, net, max(1, round(plan.seconds)))
                record.measure(subject, scenario, number, take)


@contextmanager
def tunnel(subject: Subject, scenario: str) -> Iterator[Network]:
    """Makes a tunnel whose far end has more peers than the measured one."""
    with network(subject) as net, ExitStack() as stack:
        if scenario == ACTIVE:
            stack.enter_context(active(net))
        elif count := TCP.get(scenario):
            text = idle(peers(subject, count))
            net.b.run("wg addconf wg0 /dev/stdin", text=text, timeout=90)
        yield net


@contextmanager
def active(net: Network) -> Iterator[None]:
    """Adds 1,000 active peers, which each send a packet per second through a session."""
    initiators = Initiators(ACTIVE_PEERS)
    initiators.device = oracle.Key(b"", base64.b64decode(net.b.output("wg show wg0 public-key")))
    handshakes.route(net.a, net.b)
    net.b.run("wg addconf wg0 /dev/stdin", text=initiators.peers())
    net.b.run("ip route add 10.64.0.0/10 dev wg0")
    with handshakes.sender(net.a) as udp, hosts.udp_socket(net.b, socket.AF_INET, DISCARD):
        initiated = initiators.initiate(0)
        messages = [initiating.message for initiating in initiated]
        most = min(handshakes.OUTSTANDING.values())
        responses = handshakes.exchange(udp, messages, 0, most)
        sessions = [
            oracle.complete(*each)
            for each in zip(initiated, initiators.keys, responses, strict=True)
        ]
        for number, session in enumerate(sessions):
            handshakes.send(udp, session.seal(), number)
        process = multiprocessing.get_context("fork").Process(target=_chatter, args=(udp, sessions))
        process.start()
        try:
            yield
            if not process.is_alive():
                raise LabError("the active peers fell silent")
        finally:
            process.kill()
            process.join()


def _chatter(udp: socket.socket, sessions: Sequence[oracle.Session]) -> None:
    """Sends a packet per second in each session, evenly spread."""
    while True:
        for number, session in enumerate(sessions):
            if number % 10 == 0:
                time.sleep(10 / len(sessions))
            handshakes.send(udp, session.seal(discarded(inner_address(number))), number)


def discarded(source: str, size: int = 200) -> bytes:
    """Makes a UDP packet to the far end's discard port, which does not answer."""
    addresses = socket.inet_aton(source) + socket.inet_aton(FAR)
    head = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0)
    total = sum(struct.unpack("!10H", head + addresses))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    udp = struct.pack("!HHHH", DISCARD, DISCARD, size - 20, 0)
    packet = head[:10] + struct.pack("!H", checksum) + addresses + udp
    return packet + bytes(size - len(packet))


PART = Part((*THOUSANDS, ONE, *TCP, ACTIVE), run)
