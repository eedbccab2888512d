"""Races between the plane's threads and Python: no wake-up is lost, and none comes twice."""

from collections.abc import Callable

import pytest
from sim.world import Node, World, private_key

from wiresnake.model import PeerChange
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.plane import PlaneEvent


def connected() -> tuple[World, Node, Node]:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(20 * SECOND)
    return world, alice, bob


def before_disarm(node: Node, kind: PlaneEvent, what: Callable[[], object]) -> list[bool]:
    """Lets something happen once, after Python has read the stamps and before its `disarm`."""
    real, results = node.plane.disarm, list[bool]()

    def disarm(peer: int, asked: int, stamp: int) -> bool:
        if asked == kind and not results:
            results.append(False)
            what()
            results[0] = real(peer, asked, stamp)
            return results[0]
        return real(peer, asked, stamp)

    setattr(node.plane, "disarm", disarm)  # noqa: B010  # mypy does not allow assigning to a method.
    return results


def test_data_is_sent_just_before_the_disarm() -> None:
    world, alice, bob = connected()
    alice.send(bob)
    world.run(5 * SECOND)
    bob.send(alice)
    world.run(SECOND)
    alice.deaf = bob.deaf = lambda datagram: True
    moment = []

    def race() -> None:
        moment.append(world.boot)
        alice.send(bob)

    results = before_disarm(alice, PlaneEvent.DATA_SENT, race)
    world.run(60 * SECOND)
    assert results == [False]
    begun = next(d.time for d in world.sent(alice, 1) if d.time > moment[0])
    assert 15 * SECOND <= begun - moment[0] <= 15 * SECOND + SECOND // 3


def test_data_is_received_just_before_the_disarm() -> None:
    world, alice, bob = connected()
    bob.send(alice)
    world.run(5 * SECOND)
    alice.send(bob)
    world.run(SECOND)
    moment = []

    def race() -> None:
        [message] = [seal(bob, alice)]
        moment.append(world.boot)
        alice.plane.receive_datagram(message, bob.endpoint)

    results = before_disarm(alice, PlaneEvent.DATA_RECEIVED, race)
    world.run(60 * SECOND)
    assert results == [False]
    assert [d.time - moment[0] for d in world.sent(alice, 4) if d.time > moment[0]] == [10 * SECOND]


@pytest.mark.parametrize("kind", [PlaneEvent.DATA_SENT, PlaneEvent.DATA_RECEIVED])
def test_a_packet_is_on_its_way_while_the_interface_goes_down(kind: PlaneEvent) -> None:
    world, alice, bob = connected()
    alice.send(bob)
    world.run(5 * SECOND)
    bob.send(alice)
    world.run(SECOND)
    assert kind in alice.fake(bob).armed
    stamp = kind.name.lower()
    results = before_disarm(alice, kind, lambda: setattr(alice.fake(bob), stamp, world.boot))
    alice.down()
    assert results == [False]
    assert kind not in alice.fake(bob).armed


def seal(node: Node, other: Node) -> bytes:
    slot = node.fake(other).current
    assert slot is not None
    packet = bytes([0x45, 0, 0, 20]) + bytes(8) + bytes([10, 0, 0, 2, 10, 0, 0, 1]) + bytes(12)
    message = slot.session.seal(packet, node.world.boot)
    assert message is not None
    return message


def test_a_wish_that_the_session_fulfilled_before_python_saw_it_starts_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(11 * SECOND // 1000)
    [response] = world.sent(bob, 2)
    alice.deaf = lambda datagram: True
    alice.plane.purge(alice.peer(bob).id)  # Clears the bit,
    alice.plane.send_keepalive(alice.peer(bob).id)  # so that this is another event.
    world.boot += 1
    alice.device.receive(response.message, bob.endpoint, world.now)
    alice.work()
    world.run(30 * SECOND)
    assert len(world.sent(alice, 1)) == 1
    assert not alice.fake(bob).armed & {PlaneEvent.HANDSHAKE_WANTED}


def test_a_wish_while_the_answered_session_waits_for_confirmation_is_kept() -> None:
    """The session is confirmed 179 s late and ends a second later. Python sees both events then."""
    world = World()
    alice, bob = world.pair()
    bob.deaf = lambda datagram: datagram.kind == 4
    alice.send(bob)
    world.run(178 * SECOND)
    session = bob.fake(alice).next
    if session is None:
        pytest.fail("bob answered")
    bob.deaf = lambda datagram: False
    alice.deaf = lambda datagram: True
    bob.hung_until = world.boot + 10 * SECOND
    alice.plane.send_keepalive(alice.peer(bob).id)
    world.run(session.session.created + 181 * SECOND - world.boot)
    start = world.boot
    bob.plane.send_keepalive(bob.peer(alice).id)
    world.run(20 * SECOND)
    assert world.sent(bob, 1, start)


def test_python_hangs_longer_than_any_deadline() -> None:
    world, alice, bob = connected()
    for node in (alice, bob):
        node.hung_until = world.boot + 400 * SECOND
    for _ in range(300):
        alice.send(bob)
        bob.send(alice)
        world.run(SECOND)
    world.run(110 * SECOND)
    packets = alice.send(bob, b"back"), bob.send(alice, b"back")
    world.run(10 * SECOND)
    assert (bob.plane.delivered[-1], alice.plane.delivered[-1]) == packets
    world.settle()
    assert not alice.fake(bob).armed and not bob.fake(alice).armed


def test_no_session_for_the_passive_keepalive() -> None:
    """The session is gone when the keepalive is due: a handshake begins, and comes to an end."""
    world, alice, bob = connected()
    bob.send(alice)
    world.run(5 * SECOND)
    alice.plane.wipe(alice.peer(bob).id)
    bob.deaf = lambda datagram: True
    world.settle()
    assert len(world.sent(alice, 1)) == 21
    assert not alice.fake(bob).armed and not alice.fake(bob).staged


@pytest.mark.item(22)
def test_a_key_that_comes_while_the_interface_is_down_is_used_when_it_is_up() -> None:
    world = World()
    alice, bob = world.pair()
    alice.down()
    alice.configure(key=private_key("another"))
    alice.configure(key=alice.key)
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=25))
    assert not world.log
    alice.up()
    world.run(SECOND)
    assert bob.fake(alice).current is not None
