"""Devices, a network between them, and a clock that jumps from one wake-up to the next.

Hours of protocol time take milliseconds, and the same seed gives the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from random import Random

from sim.plane import FakePeer, FakePlane, ipv4

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import SECOND, Timing
from wiresnake.protocol.device import Device
from wiresnake.protocol.peer import Peer
from wiresnake.protocol.timers import Now

MILLISECOND = SECOND // 1000
BOOT = 1_000 * SECOND
WALL = 1_700_000_000 * SECOND


class Entropy:
    """Repeatable randomness: SHA-256 of a seed and a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._counter = count()

    def private_key(self) -> PrivateKey:
        return private_key(f"{self._seed} {next(self._counter)}")

    def uniform(self, limit: int) -> int:
        digest = sha256(f"{self._seed} {next(self._counter)}".encode()).digest()
        return int.from_bytes(digest) % limit


def private_key(name: str) -> PrivateKey:
    key = PrivateKey.from_hex(bytearray(sha256(name.encode()).hexdigest().encode()))
    assert key is not None
    return key


def preshared_key(name: str) -> PresharedKey:
    key = PresharedKey.from_hex(bytearray(sha256(name.encode()).hexdigest().encode()))
    assert key is not None
    return key


@dataclass(slots=True)
class Link:
    """How the network treats each datagram."""

    delay: int = 10 * MILLISECOND
    spread: int = 0
    """A uniform additional delay; anything above 0 reorders."""
    loss: float = 0.0
    duplication: float = 0.0


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram that a node sent, recorded by an eavesdropper."""

    time: int
    source: Endpoint
    destination: Endpoint
    message: bytes

    @property
    def kind(self) -> int:
        return self.message[0] if self.message else 0


class Node:
    """A host: a device, its plane, and an address in the network."""

    def __init__(self, world: "World", name: str, number: int, timing: Timing) -> None:
        self.world = world
        self.name = name
        self.address = f"10.0.0.{number}"
        """The inner address."""
        self.endpoint = Endpoint(f"192.0.2.{number}", 51820)
        self.key = private_key(name)
        self.plane = FakePlane(lambda: world.boot, self._transmit, seed=number)
        self.device = Device(self.plane, Entropy(f"entropy of {name} {world.seed}"), timing)
        self.hung_until = 0
        """Until then Python does nothing, while the plane continues."""
        self.deaf: Callable[[Datagram], bool] = lambda datagram: False
        """Datagrams that never reach the node."""

    def peer(self, other: "Node") -> Peer:
        return self.device.peers[other.key.public]

    def fake(self, other: "Node") -> FakePeer:
        return self.plane.peers[self.peer(other).id]

    def send(self, other: "Node", payload: bytes = b"") -> bytes:
        """Sends a packet from the TUN device to the other's inner address."""
        packet = ipv4(self.address, other.address, payload)
        self.plane.send_packet(packet)
        self.work()
        return packet

    def change(self, change: DeviceChange) -> None:
        list(self.device.configure(change, lambda: self.world.now))

    def configure(self, *peers: PeerChange, key: PrivateKey | None = None) -> None:
        self.change(DeviceChange(private_key=key, peers=peers))
        self.work()

    def up(self) -> None:
        list(self.device.up(lambda: self.world.now))
        self.work()

    def down(self) -> None:
        list(self.device.down())
        self.work()

    def rebind(self, host: str, port: int) -> None:
        """Gives the node another outer address, as a NAT does."""
        del self.world.nodes[self.endpoint]
        self.endpoint = Endpoint(host, port)
        self.world.nodes[self.endpoint] = self

    def work(self) -> None:
        """Does what the tunnel does when the plane's descriptor is readable."""
        if self.world.boot < self.hung_until:
            return
        while self.plane.events or self.plane.messages:
            for event, peer in self.plane.take_events():
                self.device.handle(event, peer, self.world.now)
            if message := self.plane.take_message():
                self.device.receive(*message, self.world.now)

    def wake_up(self) -> int | None:
        if self.world.boot < self.hung_until and (self.plane.events or self.plane.messages):
            return self.hung_until
        deadline = self.device.next_deadline()
        return None if deadline is None else max(deadline[0], self.hung_until)

    def _transmit(self, message: bytes, destination: Endpoint) -> None:
        self.world.transmit(Datagram(self.world.boot, self.endpoint, destination, message))


class World:
    def __init__(
        self, seed: int = 0, link: Link | None = None, timing: Timing | None = None
    ) -> None:
        self.boot = BOOT
        self.wall_offset = WALL - BOOT
        self.link = link or Link()
        self.timing = timing or Timing()
        self.nodes: dict[Endpoint, Node] = {}
        self.log: list[Datagram] = []
        """Everything that was sent."""
        self.seed = seed
        self.random = Random(seed)
        self._order = count()
        self._flying: list[tuple[int, int, Datagram]] = []

    @property
    def now(self) -> Now:
        return Now(self.boot, self.boot + self.wall_offset)

    def node(self, name: str) -> Node:
        node = Node(self, name, len(self.nodes) + 1, self.timing)
        self.nodes[node.endpoint] = node
        node.configure(key=node.key)
        node.up()
        return node

    def pair(self) -> tuple[Node, Node]:
        """Makes Alice and Bob, who have each other's keys and endpoints."""
        alice, bob = self.node("alice"), self.node("bob")
        introduce(alice, bob)
        introduce(bob, alice)
        return alice, bob

    def transmit(self, datagram: Datagram) -> None:
        self.log.append(datagram)
        for _ in range(2 if self.random.random() < self.link.duplication else 1):
            if self.random.random() >= self.link.loss:
                delay = self.link.delay + self.random.randrange(self.link.spread + 1)
                heappush(self._flying, (self.boot + delay, next(self._order), datagram))

    def inject(self, message: bytes, source: Endpoint, destination: Endpoint) -> None:
        """Delivers an attacker's datagram, with any source address."""
        self._arrive(Datagram(self.boot, source, destination, message))

    def run(self, duration: int) -> None:
        """Lets time pass."""
        self.run_until(self.boot + duration)

    def run_until(self, end: int) -> None:
        while (moment := self.next_wake_up()) is not None and moment <= end:
            self.step(moment)
        self.boot = max(self.boot, end)

    def settle(self, limit: int = 3600 * SECOND) -> None:
        """Runs until nothing is pending. It is an error if that never happens."""
        end = self.boot + limit
        while (moment := self.next_wake_up()) is not None:
            assert moment <= end, f"no rest: {[n.device.next_deadline() for n in self.all()]}"
            self.step(moment)

    def step(self, moment: int) -> None:
        self.boot = max(self.boot, moment)
        while self._flying and self._flying[0][0] <= self.boot:
            self._arrive(heappop(self._flying)[2])
        for node in self.all():
            if node.hung_until <= self.boot:
                node.work()
                node.device.tick(self.now)
                node.work()
                deadline = node.device.next_deadline()
                assert deadline is None or deadline[0] > self.boot, f"spins: {deadline}"

    def next_wake_up(self) -> int | None:
        moments = [moment for node in self.all() if (moment := node.wake_up()) is not None]
        if self._flying:
            moments.append(self._flying[0][0])
        return max(min(moments), self.boot) if moments else None

    def all(self) -> list[Node]:
        return list(self.nodes.values())

    def sent(self, node: Node, kind: int | None = None, since: int = 0) -> list[Datagram]:
        """Returns the datagrams that the node sent, of one type or all."""
        return [
            datagram
            for datagram in self.log
            if datagram.source == node.endpoint
            and datagram.time >= since
            and kind in (None, datagram.kind)
        ]

    def _arrive(self, datagram: Datagram) -> None:
        node = self.nodes.get(datagram.destination)
        if node is not None and not node.deaf(datagram):
            node.plane.receive_datagram(datagram.message, datagram.source)
            node.work()


def introduce(
    node: Node,
    other: Node,
    *,
    keepalive: int | None = None,
    psk: PresharedKey | None = None,
    endpoint: bool = True,
) -> None:
    """Adds the other node as a peer."""
    node.configure(
        PeerChange(
            other.key.public,
            preshared_key=psk,
            endpoint=other.endpoint if endpoint else None,
            persistent_keepalive=keepalive,
            allowed_ips=((True, Prefix.parse(other.address)),),
        )
    )
