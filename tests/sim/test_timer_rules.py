"""The timer rules, each at its exact time (conformance D)."""

from functools import partial
from itertools import pairwise

import pytest
from sim.world import MILLISECOND, Link, Node, World, introduce, private_key

from wiresnake._native import Endpoint
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import SECOND, Timing
from wiresnake.protocol.timers import Now

JITTER = Timing().max_jitter


def seconds(world: World, node: Node, kind: int, since: int = 0) -> list[float]:
    return [(d.time - since) / SECOND for d in world.sent(node, kind, since)]


def keepalives(world: World, node: Node, since: int = 0) -> list[float]:
    """Returns when the node sent datagrams of 32 bytes, in seconds since `start`."""
    sent = world.sent(node, 4, since)
    return [(d.time - since) / SECOND for d in sent if len(d.message) == 32]


def connected(link: Link | None = None) -> tuple[World, Node, Node, int]:
    """Makes two peers with a session, and returns the time after the handshake."""
    world = World(link=link)
    alice, bob = world.pair()
    alice.send(bob)
    world.run(20 * SECOND)
    assert bob.plane.delivered
    return world, alice, bob, world.boot


@pytest.mark.item(62, 63)
def test_twenty_initiations_with_jitter_then_silence() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    start = world.boot
    world.run(100 * SECOND)
    moments = [datagram.time for datagram in world.sent(alice, 1)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert all(5 * SECOND <= gap <= 5 * SECOND + JITTER for gap in gaps)
    assert len(set(gaps)) == len(gaps), "jitter"
    world.run(3600 * SECOND)
    moments = [datagram.time for datagram in world.sent(alice, 1)]
    assert len(moments) == 20
    assert 95 * SECOND <= moments[-1] - start <= 102 * SECOND
    assert not alice.fake(bob).staged
    assert not alice.fake(bob).armed


@pytest.mark.item(63)
def test_key_zeroing_is_armed_when_a_series_ends() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    world.run(110 * SECOND)
    assert len(world.sent(alice)) == 20
    deadline = alice.device.next_deadline()
    assert deadline is not None and deadline[1] == "zero keys"
    assert world.sent(alice)[-1].time + 540 * SECOND <= deadline[0] <= world.boot + 540 * SECOND


@pytest.mark.item(64)
def test_a_new_packet_restarts_the_series() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    world.run(80 * SECOND)
    assert len(world.sent(alice, 1)) < 20
    alice.send(bob)
    world.run(3600 * SECOND)
    assert 30 < len(world.sent(alice, 1)) <= 40


@pytest.mark.item(64)
def test_a_new_packet_after_the_end_begins_another_series_at_once() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.send(bob)
    world.run(120 * SECOND)
    start = world.boot
    alice.send(bob)
    assert seconds(world, alice, 1, start) == [0]
    world.run(3600 * SECOND)
    assert len(world.sent(alice, 1, start)) == 20


@pytest.mark.item(65)
def test_a_new_handshake_when_nothing_comes_back() -> None:
    world, alice, bob, start = connected()
    bob.deaf = lambda datagram: datagram.kind == 4
    alice.send(bob)
    world.run(5 * SECOND)
    alice.send(bob)
    world.run(20 * SECOND)
    [moment] = seconds(world, alice, 1, start)
    assert 15 <= moment <= 15.334
    assert moment != 15, "jitter"


@pytest.mark.item(65)
def test_anything_authenticated_cancels_a_new_handshake() -> None:
    world, alice, bob, start = connected()
    alice.send(bob)
    world.run(100 * SECOND)
    assert keepalives(world, bob, start)
    assert not world.sent(alice, 1, start)


@pytest.mark.item(66)
def test_a_passive_keepalive_after_10_s() -> None:
    world, alice, bob, start = connected()
    alice.send(bob)
    world.run(100 * SECOND)
    assert keepalives(world, bob, start) == [10.01]
    assert keepalives(world, alice, start) == []


@pytest.mark.item(66)
def test_timed_from_the_first_unanswered_packet() -> None:
    world, alice, bob, start = connected()
    bob.send(alice)
    world.run(3 * SECOND)
    bob.send(alice)
    alice.send(bob)
    world.run(SECOND)
    alice.send(bob)
    world.run(30 * SECOND)
    # Both sent at 3 s. Bob must answer the packet of 3.01 s; alice must answer hers of 3.01 s, too,
    # which she did with the packet of 4 s.
    assert keepalives(world, bob, start) == [13.01, 23.01], "and a second one for that of 4.01"
    assert keepalives(world, alice, start) == []


@pytest.mark.item(66)
def test_a_second_keepalive_if_more_data_came() -> None:
    world, alice, bob, start = connected()
    alice.send(bob)
    world.run(SECOND)
    alice.send(bob)
    world.run(100 * SECOND)
    assert keepalives(world, bob, start) == [10.01, 20.01]


@pytest.mark.item(66)
def test_the_second_keepalive_is_cancelled_by_anything_sent() -> None:
    world, alice, bob, start = connected()
    alice.send(bob)
    world.run(SECOND)
    alice.send(bob)
    world.run(14 * SECOND)
    bob.send(alice)
    world.run(100 * SECOND)
    assert keepalives(world, bob, start) == [10.01]
    assert keepalives(world, alice, start) == [25.01]


@pytest.mark.item(66)
def test_steady_one_way_data_is_acknowledged_every_10_s() -> None:
    world, alice, bob, start = connected()
    for _ in range(50):
        alice.send(bob)
        world.run(SECOND)
    assert keepalives(world, bob, start) == [10.01, 20.01, 30.01, 40.01]
    assert not world.sent(alice, 1, start)


@pytest.mark.item(66)
def test_never_in_answer_to_a_keepalive() -> None:
    world, alice, bob, start = connected()
    alice.plane.send_keepalive(alice.peer(bob).id)
    world.settle()
    assert len(world.sent(alice, since=start)) == 1
    assert not world.sent(bob, since=start)


@pytest.mark.item(67)
def test_the_initiator_rekeys_after_120_s_and_the_responder_does_not() -> None:
    world, alice, bob, _ = connected()
    for _ in range(99):
        alice.send(bob)
        bob.send(alice)
        world.run(SECOND)
    assert len(world.sent(alice, 1)) == 1 and not world.sent(bob, 1)
    for _ in range(20):
        bob.send(alice)
        world.run(SECOND)
    assert len(world.sent(alice, 1)) == 2, "passive keepalives of the initiator count"
    assert not world.sent(bob, 1)


@pytest.mark.item(67)
def test_rekey_on_send_is_after_120_s_exactly() -> None:
    world, alice, bob, _ = connected()
    session = alice.fake(bob).current
    assert session is not None
    world.run_until(session.session.created + 120 * SECOND)
    alice.send(bob)
    assert len(world.sent(alice, 1)) == 1
    world.run(1)
    alice.send(bob)
    assert len(world.sent(alice, 1)) == 2


@pytest.mark.item(68)
def test_rekey_on_receive_after_165_s_by_the_initiator_once() -> None:
    world, alice, bob, _ = connected()
    session = alice.fake(bob).current
    assert session is not None
    world.run_until(session.session.created + 164 * SECOND)
    bob.send(alice)
    world.run(SECOND // 2)
    assert len(world.sent(alice, 1)) == 1
    world.run(SECOND)
    bob.deaf = lambda datagram: datagram.kind == 1
    bob.send(alice)
    world.run(SECOND)
    assert len(world.sent(alice, 1)) == 2
    wanted = alice.fake(bob).wanted
    bob.send(alice)
    world.run(SECOND)
    assert alice.fake(bob).wanted == wanted


@pytest.mark.item(69)
def test_no_send_with_a_key_of_180_s() -> None:
    world, alice, bob, _ = connected()
    session = alice.fake(bob).current
    assert session is not None
    world.run_until(session.session.created + 180 * SECOND)
    start = world.boot
    bob.deaf = lambda datagram: True
    alice.send(bob)
    assert [datagram.kind for datagram in world.sent(alice, since=start)] == [1]
    assert len(alice.fake(bob).staged) == 1


@pytest.mark.item(70)
def test_all_keys_are_gone_after_540_s() -> None:
    world, alice, bob, _ = connected()
    session = alice.fake(bob).current
    assert session is not None
    world.run_until(session.session.created + 540 * SECOND - 1)
    assert alice.fake(bob).slots()
    world.run(1)
    assert not alice.fake(bob).slots() and not alice.plane.table
    assert alice.device.next_deadline() is None
    world.settle()
    assert not bob.fake(alice).slots()


@pytest.mark.item(71)
def test_persistent_keepalive_from_the_moment_it_is_switched_on() -> None:
    world, alice, bob, start = connected()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=25))
    world.run(80 * SECOND)
    assert keepalives(world, alice, start) == [0, 25, 50, 75]
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=0))
    start = world.boot
    world.run(600 * SECOND)
    assert not world.sent(alice, since=start)


@pytest.mark.parametrize("sender", ["alice", "bob"])
@pytest.mark.item(71)
def test_it_is_reset_by_anything_sent_or_received(sender: str) -> None:
    world, alice, bob, start = connected()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=7))
    world.run(SECOND)
    for _ in range(8):
        if sender == "alice":
            alice.send(bob)
        else:
            bob.plane.send_keepalive(bob.peer(alice).id)
        world.run(5 * SECOND)
    assert keepalives(world, alice, start) == [0]


@pytest.mark.item(71)
def test_it_goes_on_forever_without_an_answer() -> None:
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: True
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=25))
    world.run(3600 * SECOND)
    bob.deaf = lambda datagram: False
    world.run(140 * SECOND)
    assert bob.fake(alice).current is not None


@pytest.mark.item(71)
def test_a_shorter_interval_counts_from_the_last_message() -> None:
    world, alice, bob, start = connected()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=60))
    world.run(20 * SECOND)
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=30))
    world.run(20 * SECOND)
    assert keepalives(world, alice, start) == [0, 30]


@pytest.mark.item(72)
def test_down_stops_everything() -> None:
    world, alice, bob, _ = connected()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=10))
    alice.send(bob)
    world.run(SECOND)
    alice.down()
    start = world.boot
    bob.send(alice)
    alice.plane.send_packet(b"")
    world.run(100 * SECOND)
    assert not world.sent(alice, since=start)
    assert alice.device.next_deadline() is None
    assert not alice.fake(bob).slots() and not alice.fake(bob).armed


@pytest.mark.item(72)
def test_up_needs_no_wait() -> None:
    world, alice, bob, _ = connected()
    bob.deaf = lambda datagram: True
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=25))
    for _ in range(3):
        alice.down()
        world.run(100 * MILLISECOND)
        start = world.boot
        alice.up()
        assert seconds(world, alice, 1, start) == [0]
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=0))
    alice.down()
    world.run(SECOND)
    start = world.boot
    alice.up()
    world.run(SECOND)
    assert not world.sent(alice, since=start)
    alice.send(bob)
    assert seconds(world, alice, 1, start) == [1]


@pytest.mark.item(72)
def test_what_was_staged_while_down_leaves_when_up() -> None:
    world, alice, bob, _ = connected()
    alice.down()
    packet = alice.send(bob, b"too early")
    alice.up()
    world.run(SECOND)
    assert packet in bob.plane.delivered


@pytest.mark.item(73)
def test_ages_are_of_the_boot_clock() -> None:
    world, alice, bob, start = connected()
    world.boot += 200 * SECOND  # Suspended.
    world.wall_offset -= 200 * SECOND
    alice.send(bob)
    assert [datagram.kind for datagram in world.sent(alice, since=start)] == [1]


@pytest.mark.parametrize("step", [-86_400, 86_400, 10 * 365 * 86_400])
@pytest.mark.item(74)
def test_steps_of_the_wall_clock_leave_sessions_alone(step: int) -> None:
    world, alice, bob, start = connected()
    world.wall_offset += step * SECOND
    for _ in range(90):
        alice.send(bob)
        world.run(SECOND)
    assert len(bob.plane.delivered) == 91
    assert not world.sent(alice, 1, start)


@pytest.mark.item(74)
def test_clocks_that_run_backwards_never_raise() -> None:
    world, alice, bob, _ = connected()
    response = world.sent(bob, 2)[0].message
    for moment in (world.boot - 100 * SECOND, 0, -SECOND):
        now = Now(moment, -moment)
        for event in range(7):
            alice.device.handle(event, alice.peer(bob).id, now)
        alice.device.receive(response, bob.endpoint, now)
        alice.device.tick(now)
        list(alice.device.configure(DeviceChange(private_key=alice.key), partial(Now, *now)))


@pytest.mark.item(74)
def test_a_step_back_revives_no_key() -> None:
    world, alice, bob, _ = connected()
    world.boot += 200 * SECOND
    bob.deaf = lambda datagram: True
    alice.send(bob)
    start, world.boot = world.boot, world.boot - 150 * SECOND
    alice.send(bob)
    assert not world.sent(alice, 4, start - 150 * SECOND)


@pytest.mark.item(75)
def test_10_000_peers_wait_without_work() -> None:
    world = World()
    alice = world.node("alice")
    peers = [
        PeerChange(number.to_bytes(32), allowed_ips=((True, Prefix(number.to_bytes(4), 32)),))
        for number in range(2, 10_002)
    ]
    alice.configure(*peers)
    assert alice.device.next_deadline() is None
    assert len(alice.device.peers) == 10_000


@pytest.mark.item(73)
def test_suspend_of_hours_is_survived() -> None:
    world, alice, bob, _ = connected()
    world.run(5 * 3600 * SECOND)
    packet = alice.send(bob, b"good morning")
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


def test_100k_ping_pongs_cause_at_most_10_events() -> None:
    world = World(link=Link(delay=100_000))
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    count = alice.plane.event_count + bob.plane.event_count
    for _ in range(100_000):
        alice.send(bob)
        world.run_until(world.boot + 150_000)
        bob.send(alice)
        world.run_until(world.boot + 150_000)
    assert len(alice.plane.delivered) == 100_000
    assert alice.plane.event_count + bob.plane.event_count - count <= 10


@pytest.mark.item(55)
def test_a_loop_that_hangs_for_30_s_loses_no_packet_of_a_live_session() -> None:
    world, alice, bob, _ = connected()
    alice.hung_until = bob.hung_until = world.boot + 30 * SECOND
    for _ in range(29):
        alice.send(bob)
        bob.send(alice)
        world.run(SECOND)
    assert len(bob.plane.delivered) == 30
    assert len(alice.plane.delivered) == 29
    world.settle()
    assert not alice.fake(bob).armed and not bob.fake(alice).armed


def test_three_devices_do_not_disturb_each_other() -> None:
    world = World()
    nodes = [world.node(name) for name in ("alice", "bob", "carol")]
    for one in nodes:
        for other in nodes:
            if one is not other:
                introduce(one, other)
    for one in nodes:
        for other in nodes:
            if one is not other:
                one.send(other)
    world.run(60 * SECOND)
    assert [len(node.plane.delivered) for node in nodes] == [2, 2, 2]
    assert private_key("alice").public == nodes[0].key.public


@pytest.mark.item(75)
def test_many_deadlines_at_once_are_looked_at_in_slices() -> None:
    world = World()
    node = world.node("alice")
    for number in range(100):
        public = private_key(f"peer {number}").public
        node.configure(
            PeerChange(public, endpoint=Endpoint("203.0.113.9", 9), persistent_keepalive=25)
        )
    world.boot += 60 * SECOND
    slices = []
    while (due := node.device.next_deadline()) is not None and due[0] <= world.boot:
        node.device.tick(world.now)
        slices.append(len(world.sent(node, 1, world.boot)))
    assert slices[-1] == 100
    assert max(after - before for before, after in pairwise([0, *slices])) <= 20


def test_after_a_sleep_no_key_is_left_and_the_next_packet_begins_a_handshake() -> None:
    """A pending handshake continues with its next retry."""
    world, alice, bob, _ = connected()
    for _ in alice.device.wipe():
        pass
    fake = alice.fake(bob)
    assert not fake.previous and not fake.current and not fake.next
    assert not alice.peer(bob).connected
    assert "zero keys" not in str(alice.device.next_deadline())
    at, delivered = world.boot, len(bob.plane.delivered)
    alice.send(bob)
    world.run(SECOND)
    assert len(seconds(world, alice, 1, at)) == 1
    assert len(bob.plane.delivered) == delivered + 1
    # In the middle of a handshake.
    world.run(10 * SECOND)
    bob.deaf = lambda datagram: True
    for _ in alice.device.wipe():
        pass
    alice.send(bob)
    for _ in alice.device.wipe():
        pass
    bob.deaf = lambda datagram: False
    alice.send(bob)
    world.run(6 * SECOND)
    assert fake.current and len(bob.plane.delivered) >= delivered + 2
