"""Handshakes between whole devices (conformance A)."""

import sys
from itertools import pairwise

import pytest
from sim.forge import (
    LOW_ORDER_POINTS,
    initiation,
    low_order_initiation,
    low_order_response,
    low_order_static_initiation,
    with_macs,
)
from sim.world import (
    MILLISECOND,
    Datagram,
    Link,
    Node,
    World,
    introduce,
    preshared_key,
    private_key,
)

from wiresnake._native import Endpoint, PrivateKey
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.messages import Initiation, Response
from wiresnake.protocol.noise import Identity, consume_initiation, create_response, tai64n

ELSEWHERE = Endpoint("203.0.113.9", 9)


def sizes(datagrams: list[Datagram]) -> list[int]:
    return [len(datagram.message) for datagram in datagrams]


def reserved(node: Node) -> int:
    """Returns the indices that have no session yet."""
    return sum(len(peer.reserved) for peer in node.plane.peers.values())


def answers(world: World, node: Node, message: bytes, source: Endpoint = ELSEWHERE) -> bool:
    """Returns whether the node sends anything after it got the message."""
    before = len(world.sent(node))
    world.inject(message, source, node.endpoint)
    return len(world.sent(node)) > before


def strangers_view(world: World) -> tuple[Node, bytes, Endpoint]:
    """Makes a node with a peer that the test plays."""
    bob = world.node("bob")
    mallory = private_key("mallory")
    bob.configure(PeerChange(mallory.public, allowed_ips=((True, Prefix.parse("10.9.9.9")),)))
    return bob, mallory.public, ELSEWHERE


@pytest.mark.item(23, 24)
def test_a_packet_brings_up_a_session_and_arrives() -> None:
    world = World()
    alice, bob = world.pair()
    packet = alice.send(bob, b"hello")
    world.run(SECOND)
    assert bob.plane.delivered == [packet]
    assert sizes(world.sent(alice)) == [148, 64] and sizes(world.sent(bob)) == [92]
    assert (reserved(alice), reserved(bob)) == (0, 0)
    assert len(alice.plane.table) == len(bob.plane.table) == 1


@pytest.mark.item(6)
def test_wrong_psk_leaves_the_live_session_alone() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.configure(PeerChange(bob.key.public, preshared_key=preshared_key("one-sided")))
    for _ in range(150):
        alice.send(bob)
        world.run(SECOND)
    assert len(bob.plane.delivered) == 151
    assert len(world.sent(alice, 1)) > 2, "rekeys were tried"
    assert alice.fake(bob).current is not None
    session = alice.fake(bob).current
    assert session is not None and session.session.created < world.boot - 140 * SECOND


@pytest.mark.item(6)
def test_the_same_psk_on_both_sides_works() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    introduce(alice, bob, psk=preshared_key("psk"))
    introduce(bob, alice, psk=preshared_key("psk"))
    packet = alice.send(bob)
    world.run(SECOND)
    assert bob.plane.delivered == [packet]


@pytest.mark.item(9)
def test_a_replayed_initiation_is_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    recorded = world.sent(alice, 1)[0].message
    for wait in (0, 1, 300, 1000):  # After 256 other messages the gate has forgotten the mac1.
        world.run(wait * SECOND)
        for number in range(300):
            stamp = tai64n(number)
            noise = initiation(private_key("x"), bob.key.public, private_key(str(number)), stamp)
            world.inject(noise[1], ELSEWHERE, bob.endpoint)
        moved = bob.plane.endpoint(bob.peer(alice).id)
        assert not answers(world, bob, recorded)
        assert bob.plane.endpoint(bob.peer(alice).id) == moved == alice.endpoint


@pytest.mark.parametrize(("second", "accepted"), [(1, True), (0, False), (-1, False)])
@pytest.mark.item(9)
def test_timestamps_must_grow(second: int, accepted: bool) -> None:
    world = World()
    bob, _, _ = strangers_view(world)
    key, moment = private_key("mallory"), world.now.wall
    first = initiation(key, bob.key.public, private_key("1"), tai64n(moment))[1]
    after = initiation(key, bob.key.public, private_key("2"), tai64n(moment + second * SECOND))[1]
    assert answers(world, bob, first)
    world.run(SECOND)
    assert answers(world, bob, after) == accepted


@pytest.mark.item(10)
def test_a_timestamp_is_an_opaque_number() -> None:
    world = World()
    bob, _, _ = strangers_view(world)
    key = private_key("mallory")
    for number, stamp in enumerate([bytes(11) + b"\1", b"\x40" + b"\xff" * 11, b"\xff" * 12]):
        world.run(SECOND)
        message = initiation(key, bob.key.public, private_key(str(number)), stamp)[1]
        assert answers(world, bob, message)


@pytest.mark.item(11)
def test_at_most_one_initiation_per_20_ms() -> None:
    world = World()
    bob, _, _ = strangers_view(world)
    key = private_key("mallory")
    taken = []
    for millisecond in range(100):
        stamp = millisecond.to_bytes(12)[:11] + bytes([millisecond + 1])
        message = initiation(key, bob.key.public, private_key(str(millisecond)), stamp)[1]
        if answers(world, bob, message):
            taken.append(millisecond)
        world.run(MILLISECOND)
    assert taken == [0, 20, 40, 60, 80]


@pytest.mark.item(12)
def test_only_what_authenticated_raises_the_timestamp() -> None:
    world = World()
    bob, _, _ = strangers_view(world)
    key = private_key("mallory")
    _, good = initiation(key, bob.key.public, private_key("1"), tai64n(world.now.wall))
    parsed = Initiation.parse(initiation(key, bob.key.public, private_key("2"), b"\xff" * 12)[1])
    assert parsed is not None
    forged = parsed._replace(timestamp=parsed.timestamp[:-1] + b"\0")
    assert not answers(world, bob, with_macs(forged.pack(), bob.key.public))
    assert bob.plane.endpoint(1) is None
    assert answers(world, bob, good)


@pytest.mark.item(13)
def test_no_initiation_sooner_than_5_s_after_an_initiation() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    for _ in range(600):
        alice.send(bob)
        world.run(100 * MILLISECOND)
    moments = [datagram.time for datagram in world.sent(alice, 1)]
    assert len(moments) > 10
    assert all(later - earlier >= 5 * SECOND for earlier, later in pairwise(moments))


@pytest.mark.item(13)
def test_no_initiation_sooner_than_5_s_after_a_response() -> None:
    world = World()
    alice, bob = world.pair()
    alice.deaf = lambda datagram: datagram.kind == 2
    alice.send(bob)
    world.run(SECOND)
    bob.send(alice)
    world.run(30 * SECOND)
    response, first = world.sent(bob, 2)[0], world.sent(bob, 1)
    assert first, "the packet that came too early is not forgotten"
    last_response = max(d.time for d in world.sent(bob, 2) if d.time < first[0].time)
    assert first[0].time - last_response >= 5 * SECOND
    assert response.time < first[0].time


@pytest.mark.item(14)
def test_indices_are_fresh_and_unique() -> None:
    """Their randomness is tested in rust/plane/src/table.rs, as the plane makes them."""
    world = World()
    alice, bob = world.pair()
    for _ in range(50):
        alice.send(bob)
        world.run(125 * SECOND)
    indices = [int.from_bytes(datagram.message[4:8]) for datagram in world.sent(alice, 1)]
    assert len(indices) >= 50
    assert len(set(indices)) == len(indices)
    steps = {after - before for before, after in pairwise(indices)}
    assert len(steps) == len(indices) - 1


@pytest.mark.item(16)
def test_a_response_that_answers_nothing_is_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    alice.deaf = lambda datagram: True
    alice.send(bob)
    world.run(7 * SECOND)
    first, second = (datagram.message for datagram in world.sent(bob, 2))
    alice.deaf = lambda datagram: False
    assert not answers(world, alice, first), "the handshake was replaced"
    unknown = Response.parse(second)
    assert unknown is not None
    assert not answers(world, alice, second[:8] + bytes(4) + second[12:])
    assert alice.plane.endpoint(alice.peer(bob).id) == bob.endpoint
    assert answers(world, alice, second)


@pytest.mark.item(17)
def test_two_valid_responses_make_one_session() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(15 * MILLISECOND)
    world.run(10 * MILLISECOND)
    response = world.sent(bob, 2)[0]
    session = alice.fake(bob).current
    assert session is not None
    handled = alice.fake(bob).received
    world.run(SECOND)
    # The gate would drop the copy, so it is given to the device directly.
    alice.device.receive(response.message, bob.endpoint, world.now)
    assert alice.fake(bob).current is session
    assert alice.fake(bob).received == handled


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.item(17)
def test_of_two_valid_responses_that_differ_the_first_counts(winner: int) -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    sent = Initiation.parse(world.sent(alice, 1)[0].message)
    assert sent is not None
    responses = []
    for index in (100, 101):
        own = Identity(bob.key, bob.key.public)
        initiated = consume_initiation(own, sent, bob.key.exchange)
        assert initiated is not None
        response = create_response(initiated, None, private_key(str(index)), index)
        assert response is not None
        responses.append(with_macs(response.pack(), alice.key.public))
    elsewhere = ELSEWHERE, Endpoint("203.0.113.10", 10)
    for number in (winner, 1 - winner):
        alice.device.receive(responses[number], elsewhere[number], world.now)
    [slot] = alice.fake(bob).slots()
    assert slot.session.remote_index == 100 + winner
    assert alice.plane.endpoint(alice.peer(bob).id) == elsewhere[winner]
    assert [len(message.message) for message in world.sent(alice, 4)] == [64]
    assert list(alice.plane.table) == [slot.session.local_index]


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.item(18)
def test_low_order_ephemeral_in_a_consistent_initiation(point: bytes) -> None:
    world = World()
    bob, _, _ = strangers_view(world)
    stamp = tai64n(world.now.wall)
    message = low_order_initiation(private_key("mallory"), bob.key.public, point, stamp)
    assert not answers(world, bob, message)
    assert reserved(bob) == 0 and not bob.plane.table


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.item(18)
def test_low_order_static_in_a_consistent_initiation(point: bytes) -> None:
    world = World()
    bob = world.node("bob")
    bob.configure(PeerChange(point, allowed_ips=((True, Prefix.parse("10.9.9.9")),)))
    stamp = tai64n(world.now.wall)
    message = low_order_static_initiation(bob.key.public, private_key("e"), point, stamp)
    assert not answers(world, bob, message)
    assert bob.plane.endpoint(1) is None and not bob.plane.table


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.item(18)
def test_low_order_ephemeral_in_a_consistent_response(point: bytes) -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    sent = Initiation.parse(world.sent(alice, 1)[0].message)
    assert sent is not None
    own = Identity(bob.key, bob.key.public)
    initiated = consume_initiation(own, sent, bob.key.exchange)
    assert initiated is not None
    message = low_order_response(initiated.state, None, sent.sender, alice.key.public, point)
    assert not answers(world, alice, message)
    assert alice.fake(bob).current is None
    assert reserved(alice) == 1, "the handshake is still in flight"


@pytest.mark.parametrize("point", LOW_ORDER_POINTS)
@pytest.mark.item(19)
def test_low_order_peer_is_accepted_and_never_sent_to(point: bytes) -> None:
    world = World()
    alice = world.node("alice")
    alice.configure(
        PeerChange(
            point,
            endpoint=ELSEWHERE,
            persistent_keepalive=1,
            allowed_ips=((True, Prefix.parse("10.9.9.9")),),
        )
    )
    world.run(300 * SECOND)
    assert point in alice.device.peers
    assert not world.log
    assert not alice.plane.table


@pytest.mark.item(20)
def test_a_new_private_key_changes_the_static_static_secret() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    changed = private_key("alice's new key")
    bob.configure(
        PeerChange(alice.key.public, remove=True),
        PeerChange(changed.public, allowed_ips=((True, Prefix.parse(alice.address)),)),
    )
    alice.configure(key=changed)
    packet = alice.send(bob, b"after")
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


@pytest.mark.item(20)
def test_static_static_is_computed_once_and_again_for_a_new_key() -> None:
    world = World()
    alice, bob = world.pair()
    first = alice.peer(bob).static_static()
    for _ in range(3):
        alice.send(bob)
        world.run(200 * SECOND)
    assert alice.peer(bob).static_static() is first
    changed = private_key("alice's new key")
    alice.configure(key=changed)
    second = alice.peer(bob).static_static()
    assert second == changed.exchange(bob.key.public) != first
    low_order = alice.device.peers
    alice.configure(PeerChange(bytes(32)))
    assert low_order[bytes(32)].static_static() is None


@pytest.mark.item(22)
def test_without_a_private_key_nothing_is_sent_or_processed() -> None:
    world = World()
    alice, bob = world.pair()
    bob.configure(PeerChange(alice.key.public, persistent_keepalive=3))
    world.run(SECOND)
    alice.change(DeviceChange(private_key=CLEAR))
    assert alice.device.private_key is None
    start = world.boot
    packet = alice.send(bob, b"patience")
    world.run(400 * SECOND)
    assert not world.sent(alice, since=start + 1)
    begin = world.boot
    alice.configure(key=alice.key)
    assert [datagram.time for datagram in world.sent(alice, 1, begin)] == [begin]
    world.run(SECOND)
    assert packet in bob.plane.delivered


@pytest.mark.item(23)
def test_the_responder_sends_nothing_before_it_hears_from_the_initiator() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: datagram.kind == 4
    alice.send(bob)
    world.run(SECOND)
    bob.send(alice, b"from bob")
    world.run(3 * SECOND)
    assert not world.sent(bob, 4)
    fake = bob.fake(alice)
    assert fake.current is None and fake.next is not None
    bob.deaf = lambda datagram: False
    alice.send(bob)
    world.run(SECOND)
    assert len(alice.plane.delivered) == 1
    assert fake.current is not None and fake.next is None


@pytest.mark.item(24)
def test_the_initiator_confirms_with_staged_packets_or_one_keepalive() -> None:
    world = World()
    alice, bob = world.pair()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=20))
    world.run(SECOND)
    assert sizes(world.sent(alice)) == [148, 32], "the staged keepalive, and no second one"
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    alice.send(bob)
    world.run(SECOND)
    assert sizes(world.sent(alice)) == [148, 64, 64]
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    alice.plane.purge(alice.peer(bob).id)
    world.run(SECOND)
    assert sizes(world.sent(alice)) == [148, 32]


@pytest.mark.item(25)
def test_never_more_than_three_sessions() -> None:
    world = World()
    alice, bob = world.pair()
    for round_number in range(200):
        (alice if round_number % 3 else bob).send(bob if round_number % 3 else alice)
        world.run((round_number % 7) * 40 * SECOND)
        for node, other in ((alice, bob), (bob, alice)):
            assert len(node.fake(other).slots()) <= 3
            assert len(node.plane.table) <= 4


@pytest.mark.item(26)
def test_the_session_takes_the_handshakes_index() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    index = int.from_bytes(world.sent(alice, 1)[0].message[4:8], "little")
    session = alice.fake(bob).current
    assert session is not None and session.session.local_index == index
    assert list(alice.plane.table) == [index]


@pytest.mark.item(27)
def test_nothing_holds_a_handshakes_secrets_once_its_session_began() -> None:
    """A handle wipes its secret when its last reference is gone."""

    class Keeping:
        def __init__(self, node: Node) -> None:
            self.node, self.entropy = node, node.device._shared.entropy
            self.made: list[PrivateKey] = []
            node.device._shared.entropy = self

        def private_key(self) -> PrivateKey:
            self.made.append(self.entropy.private_key())
            return self.made[-1]

        def uniform(self, limit: int) -> int:
            return self.entropy.uniform(limit)

    world = World()
    alice, bob = world.pair()
    keeping = Keeping(alice), Keeping(bob)
    unused = [private_key("referred to by this list alone")]
    alone = sys.getrefcount(unused[0])
    alice.send(bob)
    states = [each._handshake.state for each in alice.device.peers.values() if each._handshake]
    in_flight = [sys.getrefcount(states[0]), sys.getrefcount(keeping[0].made[0])]
    assert min(in_flight) > alone
    world.run(SECOND)
    assert alice.fake(bob).current is not None and bob.fake(alice).current is not None
    counts = [sys.getrefcount(states[number]) for number in range(len(states))]
    counts += [sys.getrefcount(each.made[n]) for each in keeping for n in range(len(each.made))]
    assert counts == [alone] * 3


@pytest.mark.item(27)
def test_an_abandoned_handshake_frees_its_index() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    for _ in range(40):
        world.run(20 * SECOND)
        assert reserved(alice) <= 1
    world.settle()
    assert reserved(alice) == 0 and not alice.plane.table
    assert not alice.device._shared.indices


@pytest.mark.parametrize("how", ["remove", "down", "key", "replace", "answered"])
@pytest.mark.item(27)
def test_a_handshake_in_flight_ends_and_frees_its_index(how: str) -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    assert reserved(alice) == 1
    if how == "remove":
        alice.configure(PeerChange(bob.key.public, remove=True))
        assert not alice.plane.table and not alice.device._shared.indices
    elif how == "down":
        alice.down()
        assert reserved(alice) == 0
    elif how == "key":
        alice.configure(key=private_key("another"))
        assert reserved(alice) == 1, "the packet still wants a handshake, now by the new key"
        assert len(world.sent(alice, 1)) == 2
    elif how == "replace":
        world.run(6 * SECOND)
        assert reserved(alice) == 1
    else:
        world.run(SECOND)
        bob.send(alice)
        world.run(SECOND)
        insists = alice.key.public > bob.key.public
        assert reserved(alice) == insists and bob.plane.delivered == []
        bob.deaf = lambda datagram: False
        world.settle()
        assert reserved(alice) == 0 and not alice.device._shared.indices


@pytest.mark.item(28)
def test_an_unknown_key_is_met_with_silence() -> None:
    world = World()
    bob = world.node("bob")
    stamp = tai64n(world.now.wall)
    message = initiation(private_key("x"), bob.key.public, private_key("e"), stamp)[1]
    assert not answers(world, bob, message)


@pytest.mark.parametrize("delay", [1, 100, 600, 2000])
def test_both_initiate_at_once_and_get_through_at_once(delay: int) -> None:
    for seed in range(10):
        world = World(seed, Link(delay=delay * MILLISECOND))
        alice, bob = world.pair()
        packets = alice.send(bob), bob.send(alice)
        world.run(4 * delay * MILLISECOND)
        assert (bob.plane.delivered, alice.plane.delivered) == ([packets[0]], [packets[1]])
        assert len(world.sent(alice, 1)) == len(world.sent(bob, 1)) == 1
        one, other = alice.fake(bob).current, bob.fake(alice).current
        assert one is not None and other is not None
        assert one.session.local_index == other.session.remote_index, "one session, not two"
        for node in (alice, bob):
            assert reserved(node) == 0
            assert len(node.device._shared.indices) == 1


@pytest.mark.parametrize("insists", ["alice", "bob"])
def test_both_initiate_at_once_and_one_of_them_is_a_kernel(insists: str) -> None:
    """The kernel, here bob, has dropped its own initiation, and ignores the response to it."""
    world = World(link=Link(delay=100 * MILLISECOND))
    names = sorted(["one", "other"], key=lambda name: private_key(name).public)
    nodes = [world.node(name) for name in names]
    bob, alice = nodes if insists == "alice" else nodes[::-1]
    introduce(alice, bob)
    introduce(bob, alice)
    packets = alice.send(bob), bob.send(alice)
    world.run(50 * MILLISECOND)
    bob.peer(alice)._drop_handshake()
    world.run((350 if insists == "alice" else 20_000) * MILLISECOND)
    assert (bob.plane.delivered, alice.plane.delivered) == ([packets[0]], [packets[1]])
