"""Hours of a bad network never leave too many sessions or old keys, and devices come to rest."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sim.plane import FakePlane
from sim.world import MILLISECOND, Link, Node, World, introduce, private_key

from wiresnake._native import Endpoint
from wiresnake.model import CLEAR, DeviceChange, PeerChange
from wiresnake.protocol.constants import SECOND, Timing
from wiresnake.protocol.messages import Data
from wiresnake.protocol.plane import PlaneEvent
from wiresnake.protocol.timers import Timer

REJECT = Timing().reject_after_time


class Watch:
    """Checks the invariants that hold at any moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.looked_at = 0
        self.created: dict[int, int] = {}
        """The start of each session, by its receiver index."""

    def check(self) -> None:
        for node in self.world.all():
            self.check_sessions(node)
            if node.hung_until <= self.world.boot:
                self.check_wake_ups(node)
        self.check_keys()

    def check_sessions(self, node: Node) -> None:
        for peer in node.plane.peers.values():
            assert len(peer.slots()) <= 3
            assert len(peer.staged) <= 128
        assert len(node.plane.table) <= 4 * len(node.plane.peers)
        assert len(node.device._shared.indices) <= 2 * len(node.plane.peers)
        assert seals_of_old_keys(node.plane, self.world.boot) == 0

    def check_wake_ups(self, node: Node) -> None:
        """Checks that no wake-up is lost: an armed event has a deadline, or waits for a key or
        up."""
        around = node.device._shared
        works = around.up and around.identity is not None
        for peer in node.device.peers.values():
            fake = node.plane.peers[peer.id]
            pending = {timer for timer in Timer if around.timers.is_set(peer.id, timer)}
            assert PlaneEvent.DATA_SENT not in fake.armed or Timer.NEW_HANDSHAKE in pending
            assert PlaneEvent.DATA_RECEIVED not in fake.armed or Timer.KEEPALIVE in pending
            if PlaneEvent.HANDSHAKE_WANTED in fake.armed:
                assert peer.wants_handshake
                assert not works or Timer.RETRANSMIT in pending
            if peer.persistent_keepalive and around.up:
                assert Timer.PERSISTENT_KEEPALIVE in pending
            assert not fake.slots() or Timer.ZERO_KEYS in pending
            assert works or peer._handshake is None
            assert (peer._handshake is None) == (not fake.reserved)
            assert around.up or not pending

    def check_keys(self) -> None:
        for node in self.world.all():
            for peer in node.plane.peers.values():
                for slot in peer.slots():
                    self.created[slot.session.remote_index] = slot.session.created
        for datagram in self.world.log[self.looked_at :]:
            data = Data.parse(datagram.message)
            if data is not None and data.receiver in self.created:
                assert datagram.time - self.created[data.receiver] < REJECT
        self.looked_at = len(self.world.log)


def seals_of_old_keys(plane: FakePlane, now: int) -> int:
    """Counts the sessions of a plane that would still seal although they are too old."""
    slots = [slot for peer in plane.peers.values() for slot in peer.slots()]
    old = [slot for slot in slots if now - slot.session.created >= REJECT]
    return sum(slot.session.seal(bytes(16), now) is not None for slot in old)


LINKS = {
    "loss 1 %": Link(loss=0.01),
    "loss 10 %, duplication 10 %": Link(loss=0.1, duplication=0.1),
    "loss 30 %": Link(loss=0.3),
    "reordering": Link(delay=20 * MILLISECOND, spread=4 * SECOND),
    "all of it": Link(delay=80 * MILLISECOND, spread=SECOND, loss=0.2, duplication=0.3),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("seed", range(4))
def test_two_virtual_hours_of_a_bad_network(link: Link, seed: int) -> None:
    world = World(seed, Link(link.delay, link.spread, link.loss, link.duplication))
    alice, bob = world.pair()
    watch, number, sent = Watch(world), 0, 0
    end = world.boot + 2 * 3600 * SECOND
    while world.boot < end:
        number += 1
        one, other = (alice, bob) if world.random.random() < 0.5 else (bob, alice)
        one.send(other, number.to_bytes(4))
        sent += 1
        # Only one of them moves: two peers that move at once lose each other in any protocol.
        if world.random.random() < 0.05:
            alice.rebind(f"198.51.100.{1 + world.random.randrange(200)}", 1 + number)
            alice.send(bob, b"moved" + number.to_bytes(4))
            sent += 1
        pause = world.random.choice([MILLISECOND, SECOND, 7 * SECOND, 30 * SECOND, 130 * SECOND])
        world.run(pause)
        watch.check()
    for node in (alice, bob):
        assert len(set(node.plane.delivered)) == len(node.plane.delivered), "a duplicate"
        assert not node.plane.refused
    arrived = len(alice.plane.delivered) + len(bob.plane.delivered)
    assert arrived > sent * (1 - link.loss) * 0.9

    # The network recovers: everything that is sent arrives again, ...
    world.link = Link()
    for node, other in ((alice, bob), (bob, alice)):
        node.configure(PeerChange(other.key.public, endpoint=other.endpoint))
    for _ in range(3):
        alice.send(bob, b"warm up")
        bob.send(alice, b"warm up")
        world.run(20 * SECOND)
    last = alice.send(bob, b"last"), bob.send(alice, b"last")
    world.run(20 * SECOND)
    assert (bob.plane.delivered[-1], alice.plane.delivered[-1]) == last
    # ... and then there is rest, and no key is left.
    world.settle()
    for node in (alice, bob):
        assert node.device.next_deadline() is None
        assert not node.plane.table and not node.plane.events
        assert all(not peer.armed and not peer.slots() for peer in node.plane.peers.values())
    total = len(world.log)
    world.run(24 * 3600 * SECOND)
    assert len(world.log) == total


@pytest.mark.parametrize("seed", range(6))
def test_a_network_of_five_with_keepalives_comes_to_terms(seed: int) -> None:
    world = World(seed, Link(delay=30 * MILLISECOND, spread=100 * MILLISECOND, loss=0.1))
    nodes = [world.node(name) for name in "abcde"]
    for one in nodes:
        for other in nodes:
            if one is not other:
                introduce(one, other, keepalive=25 if one is nodes[0] else None)
    watch = Watch(world)
    for _ in range(200):
        one, other = world.random.sample(nodes, 2)
        one.send(other)
        if world.random.random() < 0.1:
            one.hung_until = world.boot + 8 * SECOND
        world.run(world.random.randrange(20 * SECOND))
        watch.check()
    world.run(10 * SECOND)
    world.link = Link()
    for one in nodes:
        for other in nodes:
            if one is not other:
                one.send(other, b"last")
    world.run(30 * SECOND)
    for node in nodes:
        assert (
            len({packet[12:16] for packet in node.plane.delivered[-16:] if b"last" in packet}) == 4
        )


class Chaos(RuleBasedStateMachine):
    """Anything that a user, a network or an attacker can do, in any order."""

    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        self.world = World(seed)
        self.alice, self.bob = self.world.pair()
        self.watch = Watch(self.world)

    def both(self, first: bool) -> tuple[Node, Node]:
        return (self.alice, self.bob) if first else (self.bob, self.alice)

    @rule(first=st.booleans(), count=st.integers(1, 3))
    def send(self, first: bool, count: int) -> None:
        one, other = self.both(first)
        for _ in range(count):
            one.send(other)

    @rule(milliseconds=st.sampled_from([0, 1, 10, 25, 400, 4999, 5000, 5400, 10_000, 15_000]))
    def wait(self, milliseconds: int) -> None:
        self.world.run(milliseconds * MILLISECOND)

    @rule(seconds=st.sampled_from([25, 60, 119, 121, 165, 180, 540, 700]))
    def wait_long(self, seconds: int) -> None:
        self.world.run(seconds * SECOND)

    @rule(first=st.booleans(), kinds=st.sets(st.sampled_from([1, 2, 3, 4])))
    def drop(self, first: bool, kinds: set[int]) -> None:
        self.both(first)[0].deaf = lambda datagram: datagram.kind in kinds

    @rule(first=st.booleans(), on=st.booleans())
    def interface(self, first: bool, on: bool) -> None:
        one = self.both(first)[0]
        one.up() if on else one.down()

    @rule(first=st.booleans(), key=st.sampled_from(["own", "other", "none"]))
    def change_key(self, first: bool, key: str) -> None:
        one = self.both(first)[0]
        new = {"own": one.key, "other": private_key("other")}.get(key, CLEAR)
        one.change(DeviceChange(private_key=new))
        one.work()

    @rule(first=st.booleans(), seconds=st.sampled_from([0, 1, 25, 65_535]))
    def keepalive(self, first: bool, seconds: int) -> None:
        one, other = self.both(first)
        one.configure(PeerChange(other.key.public, persistent_keepalive=seconds))

    @rule(first=st.booleans())
    def remove_and_add(self, first: bool) -> None:
        one, other = self.both(first)
        one.configure(PeerChange(other.key.public, remove=True))
        introduce(one, other)

    @rule(first=st.booleans(), at=st.integers(0, 1 << 30), port=st.integers(1, 65_535))
    def replay(self, first: bool, at: int, port: int) -> None:
        """An attacker replays an old datagram from elsewhere, also after the gate's memory ends."""
        if not self.world.log:
            return
        one, message = self.both(first)[0], self.world.log[at % len(self.world.log)].message
        source = Endpoint("203.0.113.9", port)
        self.world.inject(message, source, one.endpoint)
        one.device.receive(message, source, self.world.now)
        one.work()

    @rule(first=st.booleans(), message=st.binary(max_size=160))
    def garbage(self, first: bool, message: bytes) -> None:
        one = self.both(first)[0]
        self.world.inject(message, Endpoint("203.0.113.9", 9), one.endpoint)
        one.device.receive(message, Endpoint("203.0.113.9", 9), self.world.now)
        one.work()

    @rule(first=st.booleans(), seconds=st.integers(1, 40))
    def hang(self, first: bool, seconds: int) -> None:
        self.both(first)[0].hung_until = self.world.boot + seconds * SECOND

    @invariant()
    def what_must_hold(self) -> None:
        if hasattr(self, "world"):
            self.watch.check()

    def teardown(self) -> None:
        """Checks that in the end everything works again and comes to rest."""
        if not hasattr(self, "world"):
            return
        self.world.run(60 * SECOND)
        for first in (True, False):
            one, other = self.both(first)
            one.deaf = lambda datagram: False
            one.configure(PeerChange(private_key("other").public, remove=True), key=one.key)
            one.configure(PeerChange(other.key.public, persistent_keepalive=0))
            introduce(one, other)
            one.up()
        # A packet in a session that the other side has lost is lost, but causes a new session.
        self.alice.send(self.bob)
        self.bob.send(self.alice)
        self.world.run(60 * SECOND)
        sent = self.alice.send(self.bob, b"last"), self.bob.send(self.alice, b"last")
        self.world.run(60 * SECOND)
        assert sent[0] in self.bob.plane.delivered
        assert sent[1] in self.alice.plane.delivered
        self.world.settle()
        for node in self.world.all():
            assert not node.plane.table
            assert all(not peer.armed for peer in node.plane.peers.values())


TestChaos = Chaos.TestCase
TestChaos.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
