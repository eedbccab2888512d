"""Errors that other careful teams have made, each with a named test.

They come from the change log of a fork of BoringTun and its audit. If an error is about batches,
sockets or memory, the test shows what it can at this level, and names the place of the real test.
"""

import ast
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from sim.forge import initiation
from sim.plane import QUEUE_LIMIT, ipv4
from sim.world import MILLISECOND, Link, Node, World, introduce, preshared_key, private_key

import wiresnake.protocol
from wiresnake._native import Endpoint, Gate, Session
from wiresnake.model import PeerChange, Prefix
from wiresnake.protocol.constants import SECOND, Timing
from wiresnake.protocol.cookie import Cookies
from wiresnake.protocol.messages import CookieReply, Data, Initiation, Response
from wiresnake.protocol.noise import Identity, consume_initiation, create_response, tai64n
from wiresnake.protocol.timers import Now

ELSEWHERE = Endpoint("203.0.113.9", 9)
REJECT_AFTER_MESSAGES = (1 << 64) - (1 << 13) - 1


def connected() -> tuple[World, Node, Node]:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    world.run(20 * SECOND)
    world.log.clear()
    return world, alice, bob


class Sender:
    """An initiator's transport key in the open, to send with any counter."""

    INDEX, KEY = 0x55667788, "422e2be95e4133ecb734b65809e7883bab507a2646affac1ca5498f74f4e5498"

    def __init__(self) -> None:
        """Makes the handshake of the fixed vectors, whose transport keys are known."""
        ours, theirs = private_key("si"), private_key("sr")
        message = initiation(
            ours, theirs.public, private_key("ei"), tai64n(1_700_000_000_500_000_000), 0x11223344
        )[1]
        parsed = Initiation.parse(message)
        assert parsed is not None
        initiated = consume_initiation(Identity(theirs, theirs.public), parsed, theirs.exchange)
        assert initiated is not None
        psk = preshared_key("psk")
        assert create_response(initiated, psk, private_key("er"), self.INDEX) is not None
        self.receiver: Session = initiated.state.split(
            False, self.INDEX, 0x11223344, SECOND, Timing().lifetimes
        )
        self.aead = ChaCha20Poly1305(bytes.fromhex(self.KEY))

    def accepted(self, counter: int) -> bool:
        nonce = bytes(4) + counter.to_bytes(8, "little")
        sealed = self.aead.encrypt(nonce, bytes(16), b"")
        return self.receiver.open(Data(self.INDEX, counter, sealed).pack(), SECOND) is not None


def gate(public: bytes) -> Gate:
    gate = Gate()
    gate.set_identity(public)
    return gate


def knock(number: int, target: bytes) -> bytes:
    """Makes an initiation that passes mac1, a different one each time."""
    body = Initiation(number, number.to_bytes(32), bytes(48), bytes(28)).pack()
    return Cookies(target).add_macs(body, 0)


@pytest.mark.parametrize(
    ("length", "padded"), [(28, 32), (41, 48), (128, 128), (1419, 1420), (1420, 1420)]
)
@pytest.mark.item(97)
def test_trap_payload_not_padded_to_16_bytes(length: int, padded: int) -> None:
    """The real plane is tested in rust/plane/src/outbound.rs."""
    world, alice, bob = connected()
    packet = alice.send(bob, bytes(length - 20))
    assert [len(datagram.message) for datagram in world.sent(alice)] == [padded + 32]
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


@pytest.mark.item(14)
def test_trap_receiver_indices_not_random() -> None:
    """The protocol gets an index from the plane for each handshake. The real plane's randomness is
    tested in rust/plane/src/table.rs."""
    world = World()
    alice, bob = world.pair()
    for _ in range(100):
        alice.send(bob)
        world.run(125 * SECOND)
    indices = [int.from_bytes(d.message[4:8], "little") for d in world.sent(alice, 1)]
    assert len(set(indices)) == len(indices) >= 100
    ones = sum(index.bit_count() for index in indices)
    assert abs(ones - 16 * len(indices)) < 8 * len(indices) ** 0.5 * 5
    assert len({(after - before) % 2**32 for before, after in pairwise(indices)}) > 90


@pytest.mark.item(77)
def test_trap_endpoint_updated_only_on_initiation() -> None:
    world, alice, bob = connected()
    alice.rebind("198.51.100.7", 7)
    alice.send(bob)
    world.run(SECOND)
    assert bob.plane.endpoint(bob.peer(alice).id) == alice.endpoint


@pytest.mark.item(38)
def test_trap_endpoint_updated_on_cookie_reply() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    loaded = gate(bob.key.public)
    reply = loaded.check(world.sent(alice, 1)[0].message, alice.endpoint, world.boot, 64)
    assert isinstance(reply, bytes)
    world.inject(reply, ELSEWHERE, alice.endpoint)
    assert alice.peer(bob)._cookies._cookie is not None
    assert alice.plane.endpoint(alice.peer(bob).id) == bob.endpoint


@pytest.mark.item(34)
def test_trap_cookie_not_bound_to_the_port() -> None:
    public = private_key("bob").public
    loaded, cookies = gate(public), Cookies(public)
    here, beside = Endpoint("192.0.2.1", 1000), Endpoint("192.0.2.1", 1001)
    body = Initiation(1, bytes(32), bytes(48), bytes(28)).pack()
    answer = loaded.check(cookies.add_macs(body, 0), here, SECOND, 64)
    assert isinstance(answer, bytes)
    reply = CookieReply.parse(answer)
    assert reply is not None and cookies.consume(reply, 0)
    message = cookies.add_macs(body, 1)
    assert isinstance(loaded.check(message, beside, SECOND, 64), bytes)
    assert loaded.check(message, here, SECOND, 64) == "queue"


@pytest.mark.item(41)
def test_trap_one_flooder_puts_every_peer_in_cookie_mode() -> None:
    """Load depends on waiting messages: a flood that the device keeps up with is not load."""
    public = private_key("bob").public
    idle = gate(public)
    for number in range(5000):
        assert idle.check(knock(number, public), ELSEWHERE, SECOND + number, 0) == "queue"


@pytest.mark.item(41)
def test_trap_every_handshake_after_100_drew_a_cookie_reply() -> None:
    public = private_key("bob").public
    loaded = gate(public)
    replies = [loaded.check(knock(number, public), ELSEWHERE, SECOND, 64) for number in range(150)]
    assert all(isinstance(reply, bytes) for reply in replies)
    source = Endpoint("192.0.2.1", 1)
    assert isinstance(loaded.check(knock(1000, public), source, 2 * SECOND - 1, 0), bytes)
    assert loaded.check(knock(1001, public), source, 2 * SECOND, 0) == "queue", "load has an end"


@pytest.mark.item(46, 47)
def test_trap_nonce_counter_of_32_bits() -> None:
    """Of sending: rust/plane/src/session.rs."""
    sender = Sender()
    for counter in (0, (1 << 32) - 1, 1 << 32, (1 << 40) + 5):
        assert sender.accepted(counter)
        assert not sender.accepted(counter)


@pytest.mark.item(50)
def test_trap_reject_after_messages_not_enforced() -> None:
    """Of sending: rust/plane/src/session.rs."""
    assert not Sender().accepted(REJECT_AFTER_MESSAGES)
    assert not Sender().accepted((1 << 64) - 1)
    assert Sender().accepted(REJECT_AFTER_MESSAGES - 1)


@pytest.mark.item(51)
def test_trap_replay_window_of_1024() -> None:
    """The whole table of the kernel's test is in rust/plane/src/replay.rs."""
    sender = Sender()
    assert sender.accepted(20_000)
    assert sender.accepted(20_000 - 8128)
    assert not sender.accepted(20_000 - 8129)
    assert not sender.accepted(20_000 - 8128)


@pytest.mark.item(86)
def test_trap_source_check_when_one_peers_net_lies_in_anothers() -> None:
    world = World()
    inner, outer, bob = world.node("inner"), world.node("outer"), world.node("bob")
    introduce(inner, bob)
    introduce(outer, bob)
    bob.configure(
        PeerChange(inner.key.public, allowed_ips=((True, Prefix.parse("10.1.0.0/16")),)),
        PeerChange(outer.key.public, allowed_ips=((True, Prefix.parse("10.0.0.0/8")),)),
    )
    for node, source in ((inner, "10.1.0.1"), (inner, "10.2.0.1"), (outer, "10.1.0.1")):
        node.plane.send_packet(ipv4(source, bob.address))
        node.work()
    outer.plane.send_packet(ipv4("10.2.0.1", bob.address))
    world.run(SECOND)
    assert sorted(bob.plane.delivered) == sorted(
        [ipv4("10.1.0.1", bob.address), ipv4("10.2.0.1", bob.address)]
    )
    assert len(bob.plane.refused) == 2


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 255])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 15, 16, 31, 4096, 4097, 65_507])
@pytest.mark.item(85)
def test_trap_oversized_datagram_panics_the_receiver(kind: int, size: int) -> None:
    """The batched receiver with GRO, where it was fatal, is tested in rust/plane/src/inbound.rs and
    udp.rs."""
    world, alice, bob = connected()
    slot = bob.fake(alice).current
    assert slot is not None
    index = slot.session.local_index.to_bytes(4, "little")
    datagram = (bytes([kind, 0, 0, 0]) + index + b"\xff" * size)[:size]
    world.inject(datagram, ELSEWHERE, bob.endpoint)
    bob.device.receive(datagram, ELSEWHERE, world.now)
    packet = alice.send(bob, b"alive")
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


@pytest.mark.item(24)
def test_trap_short_return_of_sendmmsg_loses_packets() -> None:
    """Checks that all staged packets leave in order. The system call is tested in
    rust/plane/src/udp.rs."""
    world = World()
    alice, bob = world.pair()
    packets = [alice.send(bob, bytes([number])) for number in range(200)]
    world.run(SECOND)
    assert bob.plane.delivered == packets[-128:]


@pytest.mark.item(24)
def test_trap_handshake_response_too_late_for_one_tick() -> None:
    world = World(link=Link(delay=2400 * MILLISECOND))
    alice, bob = world.pair()
    packet = alice.send(bob)
    world.run(8 * SECOND)
    assert bob.plane.delivered == [packet]
    assert len(world.sent(alice, 1)) == 1


@pytest.mark.item(66)
def test_trap_two_idle_peers_ping_each_other_forever() -> None:
    world, alice, bob = connected()
    for one, other in ((alice, bob), (bob, alice)):
        one.plane.send_keepalive(one.peer(other).id)
    world.settle()
    assert len(world.log) == 2
    for _ in range(2):
        alice.send(bob)
        world.run(SECOND)
    world.settle()
    assert len(world.sent(bob, 4)) == 3, "one for what came first, one for what came after it"


@pytest.mark.item(66)
def test_trap_passive_keepalive_timed_from_last_sent() -> None:
    world, alice, bob = connected()
    bob.send(alice)
    world.run(8 * SECOND)
    start = world.boot
    alice.send(bob)
    world.run(9 * SECOND)
    assert not world.sent(bob, 4, start), "10 s after bob sent is too early"
    world.run(2 * SECOND)
    assert len(world.sent(bob, 4, start)) == 1


@pytest.mark.item(71)
def test_trap_persistent_keepalive_sent_though_the_tunnel_is_active() -> None:
    world, alice, bob = connected()
    alice.configure(PeerChange(bob.key.public, persistent_keepalive=5))
    for _ in range(50):
        bob.send(alice)
        world.run(SECOND)
        alice.send(bob)
        world.run(SECOND)
    sizes = [len(datagram.message) for datagram in world.sent(alice, 4)]
    assert sizes.count(32) == 1, "the one of switching it on"


@pytest.mark.parametrize("silence", ["handshake", "session"])
@pytest.mark.item(62, 65)
def test_trap_no_jitter(silence: str) -> None:
    """Retries and the handshake with a peer that became silent have jitter."""
    moments = []
    for seed in range(10):
        world = World(seed)
        alice, bob = world.pair()
        if silence == "session":
            alice.send(bob)
            world.run(20 * SECOND)
        bob.deaf = lambda datagram: True
        start = world.boot
        alice.send(bob)
        world.run(16 * SECOND)
        later = [d.time - start for d in world.sent(alice, 1) if d.time > start]
        moments.append(later[0])
    assert len(set(moments)) == 10
    assert max(moments) - min(moments) <= Timing().max_jitter


@pytest.mark.item(67)
def test_trap_too_many_rekeys() -> None:
    world, alice, bob = connected()
    for _ in range(3600):
        alice.send(bob)
        bob.send(alice)
        world.run(SECOND)
    assert 28 <= len(world.sent(alice, 1)) <= 30 and not world.sent(bob, 1)
    assert len(bob.plane.delivered) == 3601 and len(alice.plane.delivered) == 3600


@pytest.mark.item(63)
def test_trap_too_many_rekey_attempts() -> None:
    world, alice, bob = connected()
    bob.deaf = lambda datagram: datagram.kind == 1
    world.run(110 * SECOND)
    alice.send(bob)
    world.run(3600 * SECOND)
    assert len(world.sent(alice, 1)) == 20


@pytest.mark.item(6)
def test_trap_a_changed_psk_never_reaches_the_handshake() -> None:
    world, alice, bob = connected()
    for node, other in ((alice, bob), (bob, alice)):
        node.configure(PeerChange(other.key.public, preshared_key=preshared_key("new")))
    packet = alice.send(bob, b"old session")
    world.run(110 * SECOND)
    assert bob.plane.delivered[-1] == packet and not world.sent(alice, 1)
    alice.send(bob)
    world.run(SECOND)
    [first] = world.sent(alice, 1)
    [response] = world.sent(bob, 2)
    assert first and response
    session = alice.fake(bob).current
    assert session is not None and session.session.created > world.boot - 2 * SECOND
    bob.configure(PeerChange(alice.key.public, preshared_key=preshared_key("other")))
    world.run(125 * SECOND)
    alice.send(bob)
    world.run(SECOND)
    assert alice.fake(bob).current is session, "the handshake with another key fails"


@pytest.mark.item(74)
def test_trap_panic_when_the_clock_is_not_monotonic() -> None:
    world, alice, bob = connected()
    alice.send(bob)
    for back in (1, SECOND, 3600 * SECOND, world.boot * 2):
        now = Now(world.boot - back, world.now.wall - back)
        alice.device.tick(now)
        for event in range(4):
            alice.device.handle(event, alice.peer(bob).id, now)
    packet = alice.send(bob)
    world.run(SECOND)
    assert bob.plane.delivered[-1] == packet


def imports() -> set[str]:
    folder = Path(wiresnake.protocol.__file__).parent
    names: set[str] = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.item(79)
def test_trap_random_v4_port_already_taken_on_v6() -> None:
    """linux/udp.py binds ports, and its tests check that. The protocol does not know its port."""
    forbidden = {"socket", "os", "asyncio", "time", "random", "secrets", "logging"}
    assert not imports() & forbidden


@pytest.mark.parametrize("host", ["192.0.2.200", "2001:db8::200"])
@pytest.mark.item(79)
def test_trap_no_ipv6_on_the_host_fails_the_device(host: str) -> None:
    """linux/udp.py opens sockets. The protocol accepts either family, and a peer whose datagrams go
    nowhere does not affect others."""
    world = World()
    alice, bob = world.pair()
    alice.configure(
        PeerChange(private_key("x").public, endpoint=Endpoint(host, 1), persistent_keepalive=1)
    )
    packet = alice.send(bob)
    world.run(60 * SECOND)
    assert bob.plane.delivered == [packet]


def test_trap_wrong_last_handshake() -> None:
    """It is in ns of the wall clock, and set only on completion. uapi/get.py writes it."""
    world = World()
    alice, bob = world.pair()
    alice.deaf = lambda datagram: True
    alice.send(bob)
    world.run(SECOND)
    assert alice.peer(bob).last_handshake == bob.peer(alice).last_handshake == 0
    alice.deaf = lambda datagram: False
    world.run(20 * SECOND)
    for time in (alice.peer(bob).last_handshake, bob.peer(alice).last_handshake):
        assert world.now.wall - 20 * SECOND < time < world.now.wall
    before = alice.peer(bob).last_handshake
    alice.send(bob)
    world.run(SECOND)
    assert alice.peer(bob).last_handshake == before


def test_trap_a_buffer_pool_that_does_not_work() -> None:
    """There is no pool: waiting messages are limited, and freed when handled. Buffers are in
    rust/plane/src/outbound.rs and inbound.rs."""
    world = World()
    alice, bob = world.pair()
    bob.hung_until = world.boot + SECOND
    for number in range(1000):
        world.inject(knock(number, bob.key.public), ELSEWHERE, bob.endpoint)
        alice.plane.send_packet(ipv4(alice.address, bob.address))
    assert len(bob.plane.messages) <= QUEUE_LIMIT
    assert len(alice.fake(bob).staged) == 128
    world.run(20 * SECOND)
    assert not bob.plane.messages and not alice.fake(bob).staged
    world.settle()
    assert not alice.plane.table and not bob.plane.table


@pytest.mark.item(16)
def test_a_forged_response_never_stops_a_handshake() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob)
    index = int.from_bytes(world.sent(alice, 1)[0].message[4:8], "little")
    for number in range(200):
        body = Response(number, index, private_key(str(number)).public, bytes(16)).pack()
        forged = Cookies(alice.key.public).add_macs(body, 0)
        world.inject(forged, bob.endpoint, alice.endpoint)
    world.run(SECOND)
    assert bob.plane.delivered
