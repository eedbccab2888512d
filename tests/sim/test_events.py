"""The reports to an operator: each event and each note comes when it is due, and not before."""

from binascii import a2b_base64
from collections.abc import Iterator

import pytest
from sim.forge import initiation
from sim.plane import ipv4
from sim.test_roaming import ELSEWHERE, connected, seal
from sim.world import Node, World, introduce, preshared_key, private_key

from wiresnake._native import Endpoint
from wiresnake.events import HandshakeStep, PeerEvent
from wiresnake.model import DeviceChange, PeerChange
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.noise import tai64n
from wiresnake.protocol.plane import PlaneEvent
from wiresnake.text import read_endpoint
from wiresnake.uapi.events import details, kind_of
from wiresnake.uapi.state import write_device_state, write_peer_state

MILLISECOND = SECOND // 1000
GIVES_UP = 100 * SECOND
"""The time after 20 initiations, each with a wait of 5 s and up to a third of a second."""


class Ear:
    """Collects the events of a device."""

    def __init__(self, node: Node) -> None:
        self._world = node.world
        self._told: list[tuple[int, bytes, str, dict[str, object]]] = []
        self.steps: list[tuple[str, int | None]] = []
        node.device.observe(self._hear)

    def _hear(self, event: PeerEvent) -> None:
        if isinstance(event, HandshakeStep):
            self.steps.append((event.step, event.number))
            return
        said: dict[str, object] = {"endpoint": None, **details(event)}
        for name in said.keys() & {"endpoint", "old_endpoint"}:
            said[name] = said[name] and read_endpoint(str(said[name]))
        public_key = a2b_base64(event.public_key)
        self._told.append((self._world.boot, public_key, kind_of(event), said))

    def take(self) -> list[tuple[str, dict[str, object]]]:
        told, self._told = self._told, []
        return [(kind, details) for _, _, kind, details in told]

    def __iter__(self) -> Iterator[tuple[int, bytes, str, dict[str, object]]]:
        return iter(self._told)


def state(node: Node, other: Node) -> dict[str, str]:
    """Returns Python's part of a peer's `state`. The plane's part is tested in
    rust/plane/src/uapi.rs."""
    peer = node.peer(other)
    text = write_peer_state(
        peer.public_key, b"", peer.last_handshake, peer.notes or {}, node.world.boot
    )
    return dict(line.split("=") for line in text.decode().splitlines()[1:])


def device_state(node: Node) -> dict[str, str]:
    text = write_device_state(True, True, 0, node.device.stranger, "", node.world.boot)
    return dict(line.split("=", 1) for line in text.decode().splitlines())


def deafen(node: Node) -> None:
    node.deaf = lambda datagram: True


def test_a_first_handshake_connects_both_ends_and_a_later_one_is_a_rekey() -> None:
    world = World()
    alice, bob = world.pair()
    ears = Ear(alice), Ear(bob)
    alice.send(bob)
    world.run(SECOND)
    for ear, initiator, endpoint in zip(
        ears, (True, False), (bob.endpoint, alice.endpoint), strict=True
    ):
        assert ear.take() == [
            ("handshake", {"endpoint": endpoint, "initiator": initiator}),
            ("connected", {"endpoint": endpoint}),
        ]
    world.run(130 * SECOND)
    assert not [event for ear in ears for event in ear.take()]
    alice.send(bob)
    alice.send(bob)
    world.run(SECOND)
    assert ears[0].take() == [("rekey", {"endpoint": bob.endpoint, "initiator": True})]
    assert ears[1].take() == [("rekey", {"endpoint": alice.endpoint, "initiator": False})]


def test_a_responder_is_connected_by_the_first_message_and_not_by_its_answer() -> None:
    world = World()
    alice, bob = world.pair()
    ear = Ear(bob)
    deafen(alice)
    alice.send(bob)
    world.run(SECOND)
    assert world.sent(bob, 2) and not ear.take()


def test_a_session_that_ends_in_silence_disconnects_once_its_keys_are_wiped() -> None:
    world, alice, bob = connected()
    ear = Ear(alice)
    start = world.boot
    world.run(538 * SECOND)
    assert not ear.take()
    world.run(3 * SECOND)
    [(moment, key, kind, details)] = ear
    assert (key, kind, details["reason"]) == (bob.key.public, "disconnected", "expired")
    assert 538 * SECOND <= moment - start <= 540 * SECOND
    ear.take()
    world.settle()
    assert not ear.take()


@pytest.mark.parametrize("before", [True, False])
def test_a_peer_that_never_answers_is_unreachable(before: bool) -> None:
    world, alice, bob = connected()
    if before:
        world.run(20 * SECOND)  # Its keepalive has arrived.
    else:
        world.settle()
    ear = Ear(alice)
    deafen(bob)
    start = world.boot
    alice.send(bob)
    waits = 15 * SECOND if before else 0
    world.run(waits + GIVES_UP - SECOND)
    assert not ear.take()
    world.run(9 * SECOND)
    unreachable = {"endpoint": bob.endpoint, "reason": "no_answer", "initiations": 20}
    gone = [("disconnected", {"endpoint": bob.endpoint, "reason": "no_answer"})]
    assert ear._told[0][0] - start >= waits + GIVES_UP
    assert ear.take() == [("unreachable", unreachable)] + (gone if before else [])
    world.settle()
    assert not ear.take(), "the keys that are wiped later were reported"
    bob.deaf = lambda datagram: False
    alice.send(bob)
    world.run(SECOND)
    assert [kind for kind, _ in ear.take()] == ["handshake", "connected"]


def test_removal_and_down_disconnect_who_was_connected() -> None:
    world, alice, bob = connected()
    ear = Ear(alice)
    alice.down()
    alice.up()
    alice.down()
    assert ear.take() == [("disconnected", {"endpoint": bob.endpoint, "reason": "down"})]
    world, alice, bob = connected()
    introduce(alice, world.node("carol"))
    ear = Ear(alice)
    list(alice.device.configure(DeviceChange(replace_peers=True), lambda: world.now))
    assert ear.take() == [("disconnected", {"endpoint": bob.endpoint, "reason": "removed"})]


def test_a_confirmation_that_comes_after_the_end_connects_nobody() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    bob.down()
    ear.take()
    bob.device.handle(PlaneEvent.SESSION_CONFIRMED, bob.peer(alice).id, world.now)
    assert not ear.take() and not bob.peer(alice).connected


def test_data_that_comes_from_elsewhere_is_reported_once() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    for _ in range(3):
        packet = ipv4(alice.address, bob.address)
        world.inject(seal(alice, bob, packet), ELSEWHERE, bob.endpoint)
    roamed = {"endpoint": ELSEWHERE, "old_endpoint": alice.endpoint}
    assert ear.take() == [("roamed", roamed)]


def test_an_endpoint_that_came_back_meanwhile_did_not_roam() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    bob.hung_until = world.boot + SECOND
    there, back = (seal(alice, bob, ipv4(alice.address, bob.address)) for _ in range(2))
    world.inject(there, ELSEWHERE, bob.endpoint)
    world.inject(back, alice.endpoint, bob.endpoint)
    world.run(2 * SECOND)
    assert not ear.take()


def test_the_first_and_the_last_place_of_a_long_way_are_reported() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    bob.hung_until = world.boot + SECOND
    for port in (1, 2, 3):
        packet = seal(alice, bob, ipv4(alice.address, bob.address))
        world.inject(packet, Endpoint("198.51.100.1", port), bob.endpoint)
    world.run(2 * SECOND)
    last = Endpoint("198.51.100.1", 3)
    assert ear.take() == [("roamed", {"endpoint": last, "old_endpoint": alice.endpoint})]


def test_a_peer_that_moves_back_and_forth_is_reported_once_a_second() -> None:
    """Its last endpoint is reported, too, without another message."""
    world, alice, bob = connected()
    ear = Ear(bob)
    places = [Endpoint("198.51.100.1", port) for port in (1, 2)]

    def roams(number: int) -> None:
        packet = seal(alice, bob, ipv4(alice.address, bob.address))
        world.inject(packet, places[number % 2], bob.endpoint)

    for number in range(400):
        roams(number)
        world.run(SECOND // 100)
    told = [details["endpoint"] for kind, details in ear.take() if kind == "roamed"]
    assert 4 <= len(told) <= 6
    world.run(2 * SECOND)
    told += [details["endpoint"] for kind, details in ear.take() if kind == "roamed"]
    assert told[-1] == places[1]
    # If the interface goes down within that second, nothing stays armed.
    roams(0)
    roams(1)
    bob.down()
    bob.up()
    assert PlaneEvent.UNREPORTED not in bob.plane.peers[bob.peer(alice).id].armed


def test_a_handshake_from_elsewhere_is_reported() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    world.run(SECOND)
    stamp = tai64n(world.now.wall)
    message = initiation(alice.key, bob.key.public, private_key("e"), stamp)[1]
    world.inject(message, ELSEWHERE, bob.endpoint)
    assert ear.take() == [("roamed", {"endpoint": ELSEWHERE, "old_endpoint": alice.endpoint})]


def test_the_first_endpoint_is_not_roaming() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    introduce(alice, bob)
    introduce(bob, alice, endpoint=False)
    ear = Ear(bob)
    alice.send(bob)
    world.run(SECOND)
    assert [kind for kind, _ in ear.take()] == ["handshake", "connected"]


def test_a_wrong_inner_source_is_reported_once_a_second() -> None:
    world, alice, bob = connected()
    ear = Ear(bob)
    for number in range(25):
        packet = ipv4(f"10.66.0.{number}", bob.address)
        world.inject(seal(alice, bob, packet), alice.endpoint, bob.endpoint)
        world.run(100 * MILLISECOND)
    told = [(details["source"], details["count"]) for _, details in ear.take()]
    assert told == [("10.66.0.0", 1), ("10.66.0.10", 11), ("10.66.0.20", 21)]


def test_without_a_subscriber_nothing_is_reported_then_or_later() -> None:
    world, alice, bob = connected()
    events = bob.plane.event_count
    for packet in ipv4("10.66.0.1", bob.address), b"":
        world.inject(seal(alice, bob, packet), ELSEWHERE, bob.endpoint)
    assert bob.plane.event_count == events
    ear = Ear(bob)
    bob.device.handle(PlaneEvent.UNREPORTED, bob.peer(alice).id, world.now)
    assert not ear.take()
    bob.device.observe(None)
    assert not bob.plane.watched


def test_an_end_of_the_subscription_does_not_leave_the_event_armed() -> None:
    world, alice, bob = connected()
    Ear(bob)
    bob.hung_until = world.boot + SECOND
    world.inject(seal(alice, bob, b""), ELSEWHERE, bob.endpoint)
    bob.device.observe(None)
    world.run(2 * SECOND)
    ear = Ear(bob)
    world.inject(seal(alice, bob, b""), alice.endpoint, bob.endpoint)
    roamed = {"endpoint": alice.endpoint, "old_endpoint": ELSEWHERE}
    assert ear.take() == [("roamed", roamed)]


def test_strangers_and_outsiders_cause_no_event() -> None:
    world, _, bob = connected()
    ear = Ear(bob)
    stranger = initiation(
        private_key("x"), bob.key.public, private_key("e"), tai64n(world.now.wall)
    )[1]
    replayed = [datagram.message for datagram in world.log]
    for message in (stranger, *replayed, bytes(148), bytes(92), b"\4" + bytes(40)):
        world.inject(message, ELSEWHERE, bob.endpoint)
    world.run(SECOND)
    assert not ear.take()


# The content of `state`.


def test_initiations_are_counted_until_one_is_answered() -> None:
    world = World()
    alice, bob = world.pair()
    assert state(alice, bob) == {}
    deafen(bob)
    alice.send(bob)
    world.run(8 * SECOND)
    said = state(alice, bob)
    assert said["initiations"] == "2" and said["first_initiation_age_ms"] == "8000"
    assert 2600 <= int(said["last_initiation_age_ms"]) <= 3000
    bob.deaf = lambda datagram: False
    world.run(10 * SECOND)
    assert state(alice, bob).keys() == {"last_handshake_time_sec", "last_handshake_time_nsec"}


def test_another_preshared_key_shows_on_both_ends() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    introduce(alice, bob, psk=preshared_key("one"))
    introduce(bob, alice, psk=preshared_key("other"))
    alice.send(bob)
    world.run(6 * SECOND)
    said = state(alice, bob)
    assert (said["initiations"], said["bad_responses"]) == ("2", "2")
    assert 600 <= int(said["bad_response_age_ms"]) <= 980
    said = state(bob, alice)
    assert said["unconfirmed_responses"] == "2"
    introduce(bob, alice, psk=preshared_key("one"))
    world.run(6 * SECOND)
    assert "last_handshake_time_sec" in state(alice, bob)
    for said in state(alice, bob), state(bob, alice):
        assert not said.keys() & {"initiations", "bad_responses", "unconfirmed_responses"}


def test_a_clock_that_went_back_shows() -> None:
    world, alice, bob = connected()
    for late in (1, 2):
        world.run(SECOND)
        stamp = tai64n(world.now.wall - 3600 * SECOND + late)
        message = initiation(alice.key, bob.key.public, private_key(f"e{late}"), stamp)[1]
        world.inject(message, ELSEWHERE, bob.endpoint)
    world.run(250 * MILLISECOND)
    said = state(bob, alice)
    assert (said["stale_initiations"], said["stale_initiation_age_ms"]) == ("2", "250")
    assert bob.plane.endpoint(bob.peer(alice).id) == alice.endpoint


def test_many_fresh_initiations_at_once_are_not_stale() -> None:
    world, alice, bob = connected()
    world.run(SECOND)
    for number in range(3):
        stamp = tai64n(world.now.wall + number * SECOND)
        message = initiation(alice.key, bob.key.public, private_key(f"e{number}"), stamp)[1]
        world.inject(message, alice.endpoint, bob.endpoint)
    assert "stale_initiations" not in state(bob, alice)


def test_the_last_stranger_is_known_and_their_number() -> None:
    world, alice, bob = connected()
    assert device_state(bob) == {"up": "true", "bound": "true"}
    for name, endpoint in (("x", alice.endpoint), ("y", ELSEWHERE)):
        message = initiation(
            private_key(name), bob.key.public, private_key(f"e of {name}"), tai64n(world.now.wall)
        )[1]
        world.inject(message, endpoint, bob.endpoint)
        world.run(30 * MILLISECOND)
    assert device_state(bob) == {
        "up": "true",
        "bound": "true",
        "unknown_initiations": "2",
        "unknown_initiator": private_key("y").public.hex(),
        "unknown_initiator_endpoint": "203.0.113.9:9",
        "unknown_initiator_age_ms": "30",
    }
    bob.configure(PeerChange(private_key("x").public))
    assert device_state(bob)["unknown_initiations"] == "2"


def test_a_peer_at_rest_has_no_notes() -> None:
    world, alice, bob = connected()
    world.settle()
    assert not alice.peer(bob).notes and not bob.peer(alice).notes


def test_each_step_of_a_handshake_is_reported() -> None:
    world = World()
    alice, bob = world.pair()
    ears = Ear(alice), Ear(bob)
    deafen(bob)
    alice.send(bob)
    world.run(7 * SECOND)
    bob.deaf = lambda datagram: False
    world.run(30 * SECOND)
    sent = [("initiation sent", number) for number in (1, 2, 3)]
    answered = [("response received", None), ("session made", None)]
    assert ears[0].steps[: ears[0].steps.index(answered[0]) + 2] in (
        [*sent, *answered],
        [*sent[:2], *answered],
    )
    received = ["initiation received", "session made", "response sent"]
    assert [step for step, _ in ears[1].steps] == [*received, "keepalive"]


def test_a_strangers_messages_are_not_steps() -> None:
    """Replays are not steps either, as an attacker could fill the log with them."""
    world, alice, bob = connected()
    world.run(SECOND)
    (begun,) = world.sent(alice, kind=1)
    ear = Ear(bob)
    for number in range(10):
        world.run(SECOND)
        world.inject(begun.message, alice.endpoint, bob.endpoint)
        stamp = tai64n(world.now.wall - 3600 * SECOND + number)
        kept = initiation(alice.key, bob.key.public, private_key(f"k{number}"), stamp)[1]
        world.inject(kept, ELSEWHERE, bob.endpoint)
        stranger, ephemeral = private_key("x"), private_key(f"e{number}")
        message = initiation(stranger, bob.key.public, ephemeral, tai64n(world.now.wall))[1]
        world.inject(message, ELSEWHERE, bob.endpoint)
    world.run(SECOND)
    assert {step for step, _ in ear.steps} <= {"keepalive"}
