"""Changes, ups and downs in any order, interleaved wherever they yield."""

from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sim.world import MILLISECOND, Node, World, introduce, private_key

from wiresnake._native import Endpoint
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.protocol import device as module
from wiresnake.protocol.constants import SECOND
from wiresnake.protocol.device import Steps
from wiresnake.protocol.peer import Peer

KEYS = [private_key(f"peer {number}").public for number in range(4)]
PREFIXES = [Prefix.parse(f"10.1.{number}.0/24") for number in range(4)]

peer_changes = st.builds(
    PeerChange,
    st.sampled_from(KEYS),
    remove=st.sampled_from((False, False, True)),
    update_only=st.booleans(),
    endpoint=st.just(Endpoint("192.0.2.77", 7)),
    persistent_keepalive=st.sampled_from((None, 0, 25)),
    replace_allowed_ips=st.booleans(),
    allowed_ips=st.lists(
        st.tuples(st.sampled_from((True, True, False)), st.sampled_from(PREFIXES)), max_size=4
    ).map(tuple),
)
changes = st.builds(
    DeviceChange,
    private_key=st.sampled_from((None, None, None, private_key("alice"), private_key("another"))),
    replace_peers=st.sampled_from((False, False, False, True)),
    peers=st.lists(peer_changes, max_size=5).map(tuple),
)
STEPS = ("change", "flap", "up", "down", "send", "wait")


class Interleaved:
    """A node with one queue for changes and one for ups and downs, as in the tunnel."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.changes: deque[Steps] = deque()
        self.flaps: deque[Steps] = deque()

    def step(self, queue: deque[Steps]) -> None:
        if queue:
            try:
                assert next(queue[0]) is None, "no step may fail"
            except StopIteration:
                queue.popleft()
            self.node.work()

    def finish(self) -> None:
        while self.changes or self.flaps:
            self.step(self.changes)
            self.step(self.flaps)


def everywhere_the_same(node: Node) -> None:
    device, plane = node.device, node.plane
    peers = {peer.id: peer for peer in device.peers.values()}
    assert device._by_id == peers and set(plane.peers) == set(peers)
    routes = {prefix: peer.id for peer in peers.values() for prefix in peer.allowed_ips}
    assert routes == {prefix: peer.id for prefix, peer in device._routes.items()}
    assert routes == {Prefix(*prefix): peer.id for prefix, peer in plane.routes.items()}


@settings(max_examples=200, deadline=None)
@example(["down", "flap", DeviceChange(replace_peers=True), "change", "change", "flap"])
@given(st.lists(st.sampled_from(STEPS) | changes, max_size=40))
def test_whatever_falls_in_between_all_is_well_in_the_end(story: list[str | DeviceChange]) -> None:
    with patch.object(module, "_PEERS_PER_SLICE", 1):
        world = World()
        alice, bob = world.pair()
        alice.configure(*(PeerChange(key) for key in KEYS))
        alice.configure(PeerChange(bob.key.public, persistent_keepalive=25))
        interleaved = Interleaved(alice)
        up = True
        for one in story:
            match one:
                case DeviceChange():
                    interleaved.changes.append(alice.device.configure(one, lambda: world.now))
                case "change":
                    interleaved.step(interleaved.changes)
                case "flap":
                    interleaved.step(interleaved.flaps)
                case "up" | "down":
                    up = one == "up"
                    device = alice.device
                    interleaved.flaps.append(device.up(lambda: world.now) if up else device.down())
                case "send":
                    alice.plane.send_packet(b"\x45" + bytes(15) + bytes([10, 1, 0, 1]))
                    alice.work()
                case "wait":
                    world.run(30 * MILLISECOND)
        interleaved.finish()
        everywhere_the_same(alice)
        if not up:
            assert not any(peer.slots() or peer.staged for peer in alice.plane.peers.values())
            assert alice.device.next_deadline() is None
            assert not alice.plane.table
        world.run(100 * SECOND)
        for peer in alice.device.peers.values():
            if up and alice.device.private_key is not None and peer.persistent_keepalive:
                fake = alice.plane.peers[peer.id]
                assert peer.notes or fake.slots(), "its keepalive began a handshake"


def naive(owners: dict[Prefix, bytes], change: DeviceChange) -> dict[Prefix, bytes]:
    """Applies a change line by line, as it is written."""
    owners = {} if change.replace_peers else dict(owners)
    for peer in change.peers:
        key = peer.public_key
        if peer.remove or peer.replace_allowed_ips:
            owners = {prefix: owner for prefix, owner in owners.items() if owner != key}
        if peer.remove:
            continue
        for add, prefix in peer.allowed_ips:
            if add:
                owners.pop(prefix, None)
                owners[prefix] = key
            elif owners.get(prefix) == key:
                del owners[prefix]
    return owners


@settings(max_examples=300, deadline=None)
@given(st.lists(changes, max_size=6))
@pytest.mark.item(87)
def test_a_prefix_that_stays_is_never_without_an_owner(story: list[DeviceChange]) -> None:
    """In the end each prefix has the owner that the lines give it, and is listed in their order."""
    world = World()
    node = world.node("hub")
    owners: dict[Prefix, bytes] = {}
    plane = node.plane
    for change in story:
        change = DeviceChange(
            replace_peers=change.replace_peers,
            peers=tuple(one for one in change.peers if not one.update_only),
        )
        after = naive(owners, change)
        kept = set() if change.replace_peers else owners.keys() & after.keys()
        again = {one.public_key for one in change.peers if one.remove}
        kept = {prefix for prefix in kept if not again & {owners[prefix], after[prefix]}}
        kept -= {
            prefix
            for one in change.peers
            if one.public_key in again
            for _, prefix in one.allowed_ips
        }

        def watched(action: Callable[..., None]) -> Callable[..., None]:
            def act(*arguments: Any) -> None:
                action(*arguments)
                assert kept <= {Prefix(*prefix) for prefix in plane.routes}  # noqa: B023

            return act

        with (
            patch.object(plane, "allow", watched(plane.allow)),
            patch.object(plane, "disallow", watched(plane.disallow)),
        ):
            node.change(change)
        owners = after
        assert {prefix: peer.public_key for prefix, peer in node.device._routes.items()} == owners
        for peer in node.device.peers.values():
            listed = [prefix for prefix, owner in owners.items() if owner == peer.public_key]
            assert set(peer.allowed_ips) == set(listed)
        everywhere_the_same(node)


@pytest.mark.item(87)
def test_a_network_that_is_listed_again_is_listed_in_the_new_order() -> None:
    world = World()
    node = world.node("hub")
    first, second, third = PREFIXES[:3]

    def replace(*prefixes: Prefix) -> list[Prefix]:
        allowed = tuple((True, prefix) for prefix in prefixes)
        node.configure(PeerChange(KEYS[0], replace_allowed_ips=True, allowed_ips=allowed))
        return list(node.device.peers[KEYS[0]].allowed_ips)

    assert replace(first, second) == [first, second]
    assert replace(third, second, first, second) == [third, second, first]
    assert replace() == []


@pytest.mark.item(87)
def test_the_same_list_again_asks_nothing_of_the_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    alice, bob = world.pair()
    calls: list[str] = []
    for name in ("allow", "disallow"):
        monkeypatch.setattr(alice.plane, name, lambda *_, name=name: calls.append(name))
    prefix = Prefix.parse(bob.address)
    alice.configure(
        PeerChange(bob.key.public, replace_allowed_ips=True, allowed_ips=((True, prefix),))
    )
    assert not calls


def test_a_network_moves_to_a_new_peer_before_the_old_one_goes() -> None:
    """For example when a key was renewed: packets sent meanwhile wait, without an error."""
    world = World()
    alice, bob = world.pair()
    carol = private_key("carol").public
    prefix = Prefix.parse(bob.address)
    change = DeviceChange(
        peers=(
            PeerChange(bob.key.public, remove=True),
            PeerChange(carol, endpoint=bob.endpoint, allowed_ips=((True, prefix),)),
        )
    )
    with patch.object(module, "_PEERS_PER_SLICE", 1):
        for _ in alice.device.configure(change, lambda: world.now):
            alice.send(bob)
    alice.send(bob)
    assert not alice.plane.unreachable
    assert list(alice.device.peers) == [carol]


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_peer_removed_while_the_interface_changes_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The steps use a snapshot of the peers, and skip those that were removed since."""
    monkeypatch.setattr(module, "_PEERS_PER_SLICE", 1)
    world = World()
    alice = world.node("alice")
    others = [private_key(f"other {number}").public for number in range(10)]
    alice.configure(*(PeerChange(key) for key in others))
    bob = world.node("bob")
    introduce(alice, bob, keepalive=1)
    introduce(bob, alice)
    world.run(SECOND)
    if way == "up":
        alice.down()
    start = world.boot
    steps = alice.device.up(lambda: world.now) if way == "up" else alice.device.down()
    removal = DeviceChange(peers=tuple(PeerChange(key, remove=True) for key in others))
    gone = alice.device.configure(removal, lambda: world.now)
    next(gone, None)
    next(gone, None)
    for defect in steps:
        assert defect is None
        for _ in range(2):
            assert next(gone, None) is None
    assert not any(gone)
    alice.work()
    world.run(SECOND)
    if way == "up":
        assert world.sent(alice, since=start)[0].kind == 1
        assert alice.fake(bob).current is not None
    else:
        assert not alice.fake(bob).slots()


def test_a_defect_of_one_peer_does_not_affect_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    alice = world.node("alice")
    keys = [private_key(f"other {number}").public for number in range(5)]
    alice.configure(*(PeerChange(key) for key in keys))
    stopped: list[int] = []

    def stop(peer: Peer) -> None:
        stopped.append(peer.id)
        if peer.id == 2:
            raise KeyError("a defect")

    monkeypatch.setattr(Peer, "stop", stop)
    defects = list(alice.device.down())
    assert [repr(one) for one in defects] == ["KeyError('a defect')"]
    assert stopped == [1, 2, 3, 4, 5]
