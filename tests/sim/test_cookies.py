"""Cookies between whole devices (conformance B, items 37 to 40)."""

import pytest
from sim.forge import initiation, with_macs
from sim.world import Node, World, private_key

from wiresnake._native import Endpoint
from wiresnake.protocol import noise
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import CookieReply, Initiation
from wiresnake.protocol.noise import tai64n

ELSEWHERE = Endpoint("203.0.113.9", 9)
THRESHOLD = 16


def load(world: World, node: Node) -> None:
    """Puts the node under load for a second, with more messages than Python handles in 5 ms."""
    hung, node.hung_until = node.hung_until, world.boot + 1
    for number in range(THRESHOLD):
        stamp = tai64n(world.now.wall)
        ephemeral = private_key(f"{world.boot} {number}")
        message = initiation(private_key("x"), node.key.public, ephemeral, stamp)[1]
        world.inject(message, Endpoint("203.0.113.1", 1000 + number), node.endpoint)
    world.inject(message, ELSEWHERE, node.endpoint)
    node.hung_until = hung
    node.work()


def under_load() -> tuple[World, Node, Node]:
    world = World()
    alice, bob = world.pair()
    load(world, bob)
    world.log.clear()
    return world, alice, bob


def mac2(message: bytes) -> bytes:
    return message[-16:]


@pytest.mark.item(32)
def test_a_loaded_responder_answers_with_a_cookie_and_the_next_try_succeeds() -> None:
    world, alice, bob = under_load()
    packet = alice.send(bob)
    world.run(SECOND)
    assert [datagram.kind for datagram in world.sent(bob)] == [3]
    world.run(3 * SECOND)
    load(world, bob)
    world.run(SECOND - 1)
    load(world, bob)
    world.run(SECOND)
    [first, second] = world.sent(alice, 1)
    assert mac2(first.message) == bytes(16) != mac2(second.message)
    assert second.time - first.time >= 5 * SECOND
    assert bob.plane.delivered == [packet]


@pytest.mark.item(37)
def test_a_cookie_reply_counts_once_and_only_for_the_last_mac1() -> None:
    world, alice, bob = under_load()
    alice.send(bob)
    world.run(SECOND)
    reply = world.sent(bob, 3)[0].message
    alice.device.receive(reply, bob.endpoint, world.now)
    world.run(6 * SECOND)
    taken = alice.peer(bob)._cookies._cookie
    alice.device.receive(reply, bob.endpoint, world.now)
    assert alice.peer(bob)._cookies._cookie == taken


@pytest.mark.item(38)
def test_a_cookie_reply_resends_nothing_moves_nothing_and_ticks_no_timer() -> None:
    world, alice, bob = under_load()
    alice.deaf = lambda datagram: True  # A copy of the reply comes from elsewhere.
    alice.send(bob)
    world.run(SECOND // 10)
    stamps = alice.plane.stamps(alice.peer(bob).id)
    bytes_before = alice.plane.transfer(alice.peer(bob).id)
    deadline = alice.device.next_deadline()
    sent = len(world.sent(alice))
    [reply] = world.sent(bob, 3)
    alice.deaf = lambda datagram: False
    world.inject(reply.message, ELSEWHERE, alice.endpoint)
    assert alice.peer(bob)._cookies._cookie is not None
    assert alice.plane.endpoint(alice.peer(bob).id) == bob.endpoint
    assert alice.plane.stamps(alice.peer(bob).id) == stamps
    assert alice.plane.transfer(alice.peer(bob).id) == bytes_before
    assert alice.device.next_deadline() == deadline
    assert len(world.sent(alice)) == sent


@pytest.mark.item(39)
def test_an_old_cookie_is_not_used() -> None:
    world, alice, bob = under_load()
    alice.send(bob)
    world.run(30 * SECOND)
    messages = world.sent(alice, 1)
    assert mac2(messages[1].message) != bytes(16)
    world.run(116 * SECOND)
    alice.send(bob)
    world.run(SECOND)
    assert mac2(world.sent(alice, 1)[-1].message) == bytes(16)


@pytest.mark.item(40)
def test_a_response_too_may_be_answered_by_a_cookie() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    load(world, alice)
    world.run(SECOND // 2)
    assert [datagram.kind for datagram in world.sent(alice)] == [1, 3]
    assert bob.peer(alice)._cookies._cookie is not None
    world.run(60 * SECOND)
    assert mac2(world.sent(bob, 2)[-1].message) != bytes(16)
    assert len(bob.plane.delivered) == 1


@pytest.mark.item(45)
def test_no_key_is_touched_before_length_mac1_load_and_limiter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, _, bob = under_load()
    consumed = []
    consume = noise.consume_initiation

    def counting(*arguments: object) -> object:
        consumed.append(arguments)
        return consume(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(noise, "consume_initiation", counting)

    def knock(number: int, cookies: Cookies | None = None) -> bytes:
        body = Initiation(number, number.to_bytes(32), bytes(48), bytes(28)).pack()
        if cookies is None:
            return with_macs(body, bob.key.public)
        return cookies.add_macs(body, world.boot)

    def arrives(message: bytes) -> None:
        world.inject(message, ELSEWHERE, bob.endpoint)

    for number in range(100):
        arrives(knock(number)[:-1])
        arrives(knock(number) + b"\0")
        arrives(knock(number)[:116] + bytes(32))
    assert not consumed and not world.sent(bob)
    for number in range(100):
        arrives(knock(number))
    assert not consumed and len(world.sent(bob, 3)) == 100
    cookies = Cookies(bob.key.public)
    arrives(knock(1000, cookies))
    reply = CookieReply.parse(world.sent(bob, 3)[-1].message)
    assert reply is not None and cookies.consume(reply, world.boot)
    # Messages refused before the limiter have used none of its five tokens.
    for number in range(10):
        arrives(knock(2000 + number, cookies))
    assert len(consumed) == 5
    world.run(SECOND)
    arrives(knock(3000))
    assert len(consumed) == 6, "without load no cookie is asked for, and no token"
