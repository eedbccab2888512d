"""Changes of the configuration, and their effect on a running device."""

import pytest
from sim.world import World, introduce, preshared_key, private_key

from wiresnake._native import Endpoint
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.plane import PlaneEvent


@pytest.mark.item(103)
def test_own_public_key_as_a_peer_is_ignored() -> None:
    world = World()
    alice = world.node("alice")
    alice.configure(PeerChange(alice.key.public))
    assert not alice.device.peers and not alice.plane.peers


@pytest.mark.item(103)
def test_a_private_key_removes_the_peer_of_the_same_key() -> None:
    world = World()
    alice, bob = world.pair()
    alice.configure(key=bob.key)
    assert not alice.device.peers and not alice.plane.peers and not alice.plane.routes
    alice.configure(PeerChange(bob.key.public))
    assert not alice.device.peers


@pytest.mark.item(103)
def test_a_private_key_expires_the_sessions() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.configure(key=private_key("another"))
    start = world.boot
    alice.send(bob)
    assert [datagram.kind for datagram in world.sent(alice, since=start)] == [1]
    bob.send(alice)
    world.run(SECOND)
    assert len(alice.plane.delivered) == 1, "what is on its way is still received"


@pytest.mark.item(103)
def test_the_same_private_key_again_changes_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.configure(key=private_key("alice"))
    start = world.boot
    alice.send(bob)
    assert [datagram.kind for datagram in world.sent(alice, since=start)] == [4]


@pytest.mark.item(102)
def test_update_only_and_remove_of_a_stranger_do_nothing() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    alice.configure(
        PeerChange(bob.key.public, update_only=True), PeerChange(bob.key.public, remove=True)
    )
    assert not alice.device.peers


def test_replace_peers_forgets_all_others() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    carol = private_key("carol").public
    change = DeviceChange(replace_peers=True, peers=(PeerChange(carol),))
    alice.change(change)
    assert list(alice.device.peers) == [carol]
    assert len(alice.plane.peers) == 1 and not alice.plane.table and not alice.plane.routes
    world.settle()


@pytest.mark.item(104)
def test_values_that_are_not_given_stay() -> None:
    world = World()
    alice, bob = world.node("alice"), world.node("bob")
    psk = preshared_key("psk")
    introduce(alice, bob, keepalive=25, psk=psk)
    alice.configure(PeerChange(bob.key.public))
    peer = alice.peer(bob)
    assert (peer.preshared_key, peer.persistent_keepalive) == (psk, 25)
    assert list(peer.allowed_ips) == [Prefix.parse(bob.address)]
    alice.configure(PeerChange(bob.key.public, preshared_key=CLEAR))
    assert peer.preshared_key is None


def test_events_and_deadlines_of_a_removed_peer_are_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.send(bob)
    gone = alice.peer(bob).id
    alice.configure(PeerChange(bob.key.public, remove=True))
    assert alice.device.next_deadline() is None
    for event in PlaneEvent:
        alice.device.handle(event, gone, world.now)
    bob.send(alice)
    world.run(60 * SECOND)
    assert not alice.plane.events and alice.device.next_deadline() is None


@pytest.mark.item(13)
def test_a_peer_that_is_removed_and_added_again_shakes_hands_at_once() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.configure(PeerChange(bob.key.public, remove=True))
    introduce(alice, bob)
    packet = alice.send(bob, b"again")
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


@pytest.mark.item(13)
def test_an_endpoint_that_comes_late_is_used_at_the_next_try() -> None:
    world = World()
    alice, bob = world.pair()
    alice.configure(PeerChange(bob.key.public, endpoint=Endpoint("203.0.113.77", 1)))
    packet = alice.send(bob)
    world.run(SECOND)
    alice.configure(PeerChange(bob.key.public, endpoint=bob.endpoint))
    world.run(5 * SECOND)
    assert bob.plane.delivered == [packet]


def test_last_handshake_is_wall_time_on_both_sides() -> None:
    world = World()
    alice, bob = world.pair()
    assert alice.peer(bob).last_handshake == 0
    start = world.now.wall
    alice.send(bob)
    world.run(60 * SECOND)
    assert alice.peer(bob).last_handshake == start + 2 * world.link.delay
    assert bob.peer(alice).last_handshake == start + 3 * world.link.delay


@pytest.mark.item(87)
def test_host_bits_are_cut_and_each_network_is_listed_once() -> None:
    """Uses the list of the kernel's selftest."""
    world = World()
    alice = world.node("alice")
    peer = private_key("peer").public
    given = (
        "192.95.5.93/27",
        "2607:5300:6000:6b00::c05f:543/128",
        "10.1.0.20/29",
        "2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/83",
        "2607:5300:6d8a:6bf8:dab1:f1df:c05f:1523/21",
    )
    alice.configure(PeerChange(peer, allowed_ips=tuple((True, Prefix.parse(n)) for n in given)))
    expected = {
        "192.95.5.64/27",
        "2607:5300:6000:6b00::c05f:543/128",
        "10.1.0.16/29",
        "2607:5300:6d8a:6bf8:dab1:e000::/83",
        "2607:5000::/21",
    }
    allowed = alice.device.peers[peer].allowed_ips
    assert set(allowed) == {Prefix.parse(network) for network in expected}


@pytest.mark.item(88)
def test_removing_a_peer_touches_its_own_prefixes_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    hub = world.node("hub")
    changes = [
        PeerChange(
            number.to_bytes(32),
            allowed_ips=tuple(
                (True, Prefix(bytes([10, number >> 8, number & 255, host]), 32))
                for host in range(3)
            ),
        )
        for number in range(1, 1001)
    ]
    hub.configure(*changes)
    assert len(hub.plane.routes) == 3000
    removed: list[tuple[bytes, int]] = []
    disallow = hub.plane.disallow

    def counting(prefix: bytes, length: int) -> None:
        removed.append((prefix, length))
        disallow(prefix, length)

    monkeypatch.setattr(hub.plane, "disallow", counting)
    hub.configure(PeerChange((500).to_bytes(32), remove=True))
    assert removed == [(bytes([10, 1, 244, host]), 32) for host in range(3)]
    assert len(hub.plane.routes) == len(hub.device._routes) == 2997


def test_a_copied_machine_sends_no_more_with_its_sessions_and_shakes_hands_at_once() -> None:
    """A pending handshake is also replaced, as the copy has its ephemeral key (kernel:
    wg_vm_notification)."""
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(SECOND)
    alice.send(bob, b"1")
    start = world.boot
    assert not any(alice.device.expire(lambda: world.now))
    packet = alice.send(bob, b"2")
    assert [datagram.kind for datagram in world.sent(alice, since=start)] == [4, 1]
    in_flight = world.sent(alice)[-1]
    assert not any(alice.device.expire(lambda: world.now))
    again = world.sent(alice)[-1]
    assert again.kind == 1 and again.message[8:40] != in_flight.message[8:40]
    bob.send(alice)
    world.run(6 * SECOND)  # Bob does not accept two initiations at once.
    assert packet in bob.plane.delivered
    assert len(alice.plane.delivered) == 1, "what was on its way is still received"
