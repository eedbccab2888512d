"""Endpoints and cryptokey routing (conformance E and F)."""

import pytest
from sim.forge import initiation
from sim.plane import ipv4
from sim.world import Node, World, introduce, private_key

from wiresnake._native import Endpoint
from wiresnake.model import PeerChange, Prefix
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.messages import Data
from wiresnake.protocol.noise import tai64n

ELSEWHERE = Endpoint("203.0.113.9", 9)


def connected() -> tuple[World, Node, Node]:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    return world, alice, bob


def seal(node: Node, other: Node, packet: bytes) -> bytes:
    """Makes a data message without sending it."""
    slot = node.fake(other).current
    assert slot is not None
    message = slot.session.seal(packet.ljust(-(-len(packet) // 16) * 16, b"\0"), node.world.boot)
    assert message is not None
    return message


def endpoint(node: Node, other: Node) -> Endpoint | None:
    return node.plane.endpoint(node.peer(other).id)


@pytest.mark.item(76)
def test_an_authenticated_initiation_moves_the_endpoint() -> None:
    world, alice, bob = connected()
    world.run(SECOND)
    stamp = tai64n(world.now.wall)
    message = initiation(alice.key, bob.key.public, private_key("e"), stamp)[1]
    world.inject(message, ELSEWHERE, bob.endpoint)
    assert endpoint(bob, alice) == ELSEWHERE


@pytest.mark.item(76)
def test_an_authenticated_response_moves_the_endpoint() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(11 * SECOND // 1000)
    [response] = world.sent(bob, 2)
    alice.deaf = lambda datagram: datagram.source != ELSEWHERE
    world.inject(response.message, ELSEWHERE, alice.endpoint)
    assert endpoint(alice, bob) == ELSEWHERE


@pytest.mark.parametrize("inner", [b"", "10.0.0.1", "10.66.66.66", b"no packet at all"])
@pytest.mark.item(76, 77)
def test_data_moves_it_and_so_do_keepalives_and_bad_inner_sources(
    inner: str | bytes,
) -> None:
    world, alice, bob = connected()
    packet = inner if isinstance(inner, bytes) else ipv4(inner, bob.address)
    world.inject(seal(alice, bob, packet), ELSEWHERE, bob.endpoint)
    assert endpoint(bob, alice) == ELSEWHERE
    assert len(bob.plane.delivered) == (2 if inner == alice.address else 1)


@pytest.mark.item(76)
def test_nothing_else_moves_the_endpoint() -> None:
    world, alice, bob = connected()
    good = seal(alice, bob, ipv4(alice.address, bob.address))
    data = Data.parse(good)
    assert data is not None
    stranger = initiation(
        private_key("x"), bob.key.public, private_key("e"), tai64n(world.now.wall)
    )
    world.inject(good, alice.endpoint, bob.endpoint)
    transferred = bob.plane.transfer(bob.peer(alice).id)
    stamps = bob.plane.stamps(bob.peer(alice).id)
    for message in (
        good,
        good[:-1] + bytes([good[-1] ^ 1]),
        data._replace(counter=data.counter + 1).pack(),
        data._replace(receiver=data.receiver ^ 1).pack(),
        world.sent(alice, 1)[0].message,
        world.sent(bob, 2)[0].message,
        stranger[1],
        bytes(148),
        bytes(64),
        b"\3\0\0\0" + bytes(60),
        b"\3\0\0\0" + world.sent(bob, 2)[0].message[4:8] + bytes(56),
    ):
        world.inject(message, ELSEWHERE, bob.endpoint)
        bob.device.receive(message, ELSEWHERE, world.now)
        assert endpoint(bob, alice) == alice.endpoint
    assert bob.plane.transfer(bob.peer(alice).id) == transferred
    assert bob.plane.stamps(bob.peer(alice).id) == stamps


@pytest.mark.item(78)
def test_the_sticky_source_is_forgotten_on_retry_and_on_a_new_handshake() -> None:
    world, alice, bob = connected()
    world.run(20 * SECOND)
    bob.deaf = lambda datagram: True
    assert alice.fake(bob).sticky
    alice.send(bob)
    world.run(15 * SECOND - 1)
    assert alice.fake(bob).sticky
    world.run(SECOND)
    assert len(world.sent(alice, 1)) == 2 and not alice.fake(bob).sticky
    alice.fake(bob).sticky = True
    world.run(6 * SECOND)
    assert len(world.sent(alice, 1)) == 3 and not alice.fake(bob).sticky


@pytest.mark.item(78)
def test_every_third_unconfirmed_response_leaves_by_the_hosts_own_route() -> None:
    """Bob's initiations come by a path that carries nothing back, but alice has a better one.

    She hears from bob all the time, so her timers see no problem. Only her unconfirmed responses
    do.
    """
    world, alice, bob = connected()
    world.run(20 * SECOND)
    bob.deaf = lambda datagram: alice.fake(bob).sticky
    bob.send(alice)
    world.run(16 * SECOND)
    assert len(world.sent(bob, 1)) == 1, "the first answer came to nothing"
    world.run(25 * SECOND)
    assert [len(world.sent(node, kind)) for node, kind in ((bob, 1), (alice, 2))] == [3, 3]
    assert bob.peer(alice).last_handshake > world.now.wall - 25 * SECOND, "the third arrived"


@pytest.mark.item(82)
def test_a_rebinding_is_survived_at_the_next_packet() -> None:
    world, alice, bob = connected()
    for port in range(1000, 1020):
        alice.rebind("198.51.100.7", port)
        alice.send(bob)
        world.run(SECOND)
        bob.send(alice)
        world.run(SECOND)
    assert len(alice.plane.delivered) == 20
    assert endpoint(bob, alice) == alice.endpoint


@pytest.mark.item(86)
def test_the_source_check_is_of_the_whole_device() -> None:
    """Carol's host is inside the network of alice, who must not send in its name."""
    world = World()
    alice, bob, carol = world.node("alice"), world.node("bob"), world.node("carol")
    introduce(alice, bob)
    introduce(carol, bob)
    bob.configure(
        PeerChange(alice.key.public, allowed_ips=((True, Prefix.parse("10.0.0.0/8")),)),
        PeerChange(carol.key.public, allowed_ips=((True, Prefix.parse(carol.address)),)),
    )
    own, spoofed = (ipv4(source, bob.address) for source in (alice.address, carol.address))
    alice.plane.send_packet(own)
    alice.plane.send_packet(spoofed)
    alice.work()
    world.run(SECOND)
    assert bob.plane.delivered == [own]
    assert bob.plane.refused == [spoofed.ljust(32, b"\0")]
    packet = carol.send(bob)
    world.run(SECOND)
    assert bob.plane.delivered == [own, packet]


@pytest.mark.item(87)
def test_a_duplicate_prefix_moves_to_the_newest_peer() -> None:
    world = World()
    alice, bob, carol = world.node("alice"), world.node("bob"), world.node("carol")
    introduce(alice, bob)
    introduce(alice, carol)
    shared = Prefix.parse("10.5.0.0/16")
    for owner, other in ((bob, carol), (carol, bob), (carol, bob)):
        alice.configure(PeerChange(owner.key.public, allowed_ips=((True, shared),)))
        assert shared in alice.peer(owner).allowed_ips
        assert shared not in alice.peer(other).allowed_ips
        assert alice.plane.route(bytes([10, 5, 1, 2])) is alice.fake(owner)
    alice.configure(PeerChange(bob.key.public, allowed_ips=((False, shared),)))
    assert alice.plane.route(bytes([10, 5, 1, 2])) is alice.fake(carol), "not bob's to remove"
    alice.configure(PeerChange(carol.key.public, replace_allowed_ips=True))
    assert alice.plane.route(bytes([10, 5, 1, 2])) is None
    assert not alice.peer(carol).allowed_ips


@pytest.mark.item(89)
def test_a_packet_for_nobody_or_for_nowhere_is_unreachable() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    introduce(alice, bob, endpoint=False)
    nobody = ipv4(alice.address, "192.168.7.7")
    alice.plane.send_packet(nobody)
    nowhere = alice.send(bob)
    assert alice.plane.unreachable == [nobody, nowhere]
    world.settle()
    assert not world.log
