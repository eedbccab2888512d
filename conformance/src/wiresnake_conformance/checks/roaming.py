"""E. Endpoints, roaming and sockets."""

import contextlib
import os
import re
import socket
import time
from pathlib import Path

from .. import namespaces, oracle, packets
from ..oracle import COOKIE_REPLY, INITIATION, RESPONSE, TRANSPORT, Key, Session, consume
from ..peer import Peer
from ..peer_socket import PATIENCE, Datagram, PeerSocket
from ..testbed import Testbed
from ..verdict import Differs, check
from ._common import UDP_SEGMENT, sends_data, what_waited

RST = 4
"""The TCP flag of a segment that no host answers."""
LARGEST = 65_507
"""Bytes in the largest datagram of IPv4."""
UNROUTED = {4: "203.0.113", 6: "2001:db8:2:"}
"""Networks to which the device's host only has routes that a check adds."""


@check(76, seconds=3, shared=False)
def authentic_messages_move_the_endpoint(testbed: Testbed) -> None:
    """Any authentic, fresh message moves the endpoint to its source: a response, an initiation, a
    keepalive, a packet with an inner source that is not the peer's."""
    peer = testbed.peer(endpoint=True)
    testbed.inject(peer.packet_here())
    message, session = oracle.respond(peer.key, peer.awaited())
    peer.socket = testbed.socket("198.51.100.1")
    peer.send(message)
    what_waited(peer, session)
    moved(peer, "a response")
    peer.socket = testbed.socket("198.51.100.2")
    peer.send(session.seal())
    moved(peer, "a keepalive")
    peer.socket = testbed.socket("198.51.100.3")
    peer.send(session.seal(packets.udp("203.0.113.1", testbed.inner(1)[4])))
    moved(peer, "a packet with a source that is not the peer's")
    peer.socket = testbed.socket("198.51.100.4")
    session = peer.handshake(confirm=False)
    moved(peer, "an initiation")
    peer.send(session.seal())
    testbed.expect_dropped("a packet with a source that is not the peer's")
    peer.works(session)


@check(76, seconds=5, shared=False)
def nothing_else_moves_it(testbed: Testbed) -> None:
    """Messages that are forged, replayed, too old or from strangers, and cookie replies do not move
    the endpoint."""
    peer, waiting = testbed.peer(), testbed.peer(endpoint=True)
    elsewhere = testbed.socket("198.51.100.66")
    initiation = peer.initiate()
    response = peer.socket.expect(RESPONSE, "an initiation of a known peer is answered")
    session = peer.complete(initiation, response.data)
    keepalive = session.seal()
    peer.send(keepalive)
    peer.works(session)
    peer.send(session.seal(counter=20_000))
    testbed.inject(waiting.packet_here())
    initiated = waiting.awaited()
    answer, waited = oracle.respond(waiting.key, initiated)
    unknown = oracle.initiate(Key.new(), testbed.public).message
    broken = flipped(oracle.initiate(peer.key, testbed.public).message, 100)
    for datagram, why in (
        (flipped(session.seal(counter=20_001)), "transport data with a wrong tag"),
        (keepalive, "a keepalive once more"),
        (session.seal(counter=9_000), "a counter that is out of the window"),
        (initiation.message, "an initiation once more"),
        (unknown, "an initiation of a stranger"),
        (oracle.again_with_macs(broken, testbed.public), "an initiation with a wrong tag"),
        (
            oracle.again_with_macs(flipped(answer, 50), testbed.public),
            "a response with a wrong tag",
        ),
        (
            oracle.cookie_reply(waiting.key.public, initiated.index, initiated.mac1, bytes(16)),
            "a cookie reply",
        ),
    ):
        elsewhere.send(datagram)
        elsewhere.silence(0.2, why)
        for one in (peer, waiting):
            if (endpoint := one.endpoint()) != one.socket.name:
                raise Differs(f"{why} moved the endpoint to {endpoint}")
    session.counter = 20_002
    peer.works(session)
    if repeated := [one for one in waiting.socket.drain() if one.kind == INITIATION]:
        initiated = consume(waiting.key, repeated[-1].data)
        answer, waited = oracle.respond(waiting.key, initiated)
    waiting.send(answer)
    what_waited(waiting, waited)


@check(77, shared=False)
def data_moves_the_endpoint(testbed: Testbed) -> None:
    """After a packet of a session from another address or port the device sends there."""
    follows(testbed, "192.0.2.2", "198.51.100.21", "198.51.100.22")


@check(77, shared=False)
def data_moves_to_the_other_family(testbed: Testbed) -> None:
    """A packet of a session moves the endpoint from IPv4 to IPv6 and back."""
    follows(testbed, "2001:db8:1::21", "198.51.100.21", "2001:db8:1::22")


def follows(testbed: Testbed, *addresses: str) -> None:
    peer = testbed.peer()
    session = peer.handshake()
    for address in addresses:
        before, peer.socket = peer.socket, testbed.socket(address)
        peer.works(session)
        moved(peer, "a packet")
        if before.drain():
            raise Differs("the device sends to where the peer was before")


@check(78, shared=False)
def replies_leave_from_the_contacted_address(testbed: Testbed) -> None:
    """On a host with several addresses, datagrams to a peer have the source address that the peer
    last wrote to, or another one once that address is gone."""
    stays_with(testbed, 4, "192.0.2.11", "/24")


@check(78, shared=False)
def ipv6_replies_too(testbed: Testbed) -> None:
    """The same over IPv6."""
    stays_with(testbed, 6, "2001:db8::11", "/64 nodad")


def stays_with(testbed: Testbed, version: int, second: str, length: str) -> None:
    testbed.command(f"ip address add {second}{length} dev d0")
    peer, first = testbed.peer(version=version), testbed.outer[version]
    contact(peer, second)
    initiating = peer.initiate()
    response = peer.socket.expect(RESPONSE, "an initiation to a second address is answered")
    came_from(response, second, "the response")
    session = peer.complete(initiating, response.data)
    for address in (second, first, second):
        contact(peer, address)
        heard(peer, session)
        came_from(sends_data(peer, session), address, "a packet")
    testbed.command(f"ip address del {second}{length.split()[0]} dev d0")
    testbed.pause(0.3)
    came_from(sends_data(peer, session), first, "a packet after that address was removed")
    contact(peer, first)
    peer.works(session)


@check(78, seconds=3, shared=False)
def sources_follow_the_route(testbed: Testbed) -> None:
    """Once the route to a peer leaves by another device, so does the source address."""
    testbed.command("ip link add d1 type veth peer name w1")
    testbed.command(f"ip link set w1 netns {os.getpid()}")
    testbed.command("ip link set d1 addrgenmode none up")
    testbed.command("ip address add 203.0.113.1/24 dev d1")
    testbed.world_command("ip link set w1 addrgenmode none up")
    testbed.world_command("ip address add 203.0.113.2/24 dev w1")
    peer = testbed.peer()
    peer.socket = testbed.socket("198.51.100.31")
    session = peer.handshake()
    heard(peer, session)
    came_from(sends_data(peer, session), testbed.outer[4], "a packet")
    testbed.command("ip route replace 198.51.100.0/24 via 203.0.113.2")
    testbed.pause(0.3)
    came_from(sends_data(peer, session), "203.0.113.1", "a packet after the route has changed")


@check(78, seconds=3, shared=False)
def marks_and_ports_forget_sources(testbed: Testbed) -> None:
    """After a change of the firewall mark or the port, the host chooses the source address
    again."""
    testbed.command("ip address add 192.0.2.11/24 dev d0")
    peer = testbed.peer()
    contact(peer, "192.0.2.11")
    session = peer.handshake()
    heard(peer, session)
    came_from(sends_data(peer, session), "192.0.2.11", "a packet")
    testbed.wg("set", testbed.interface, "fwmark", "7")
    came_from(sends_data(peer, session), testbed.outer[4], "a packet after the mark has changed")
    heard(peer, session)
    came_from(sends_data(peer, session), "192.0.2.11", "a packet after the peer wrote to it again")
    testbed.wg("set", testbed.interface, "listen-port", str(testbed.port + 1))
    came_from(sends_data(peer, session), testbed.outer[4], "a packet after the port has changed")


@check(78, seconds=19, shared=False, margin=0.5)
def retries_forget_sources(testbed: Testbed) -> None:
    """For a repeated initiation, or one after data without an answer, the host chooses the source
    address again."""
    testbed.command("ip address add 192.0.2.11/24 dev d0")
    silent, retried = testbed.peer(), testbed.peer()
    for peer in (silent, retried):
        contact(peer, "192.0.2.11")
    session = silent.handshake()
    heard(silent, session)
    came_from(sends_data(silent, session), "192.0.2.11", "a packet")
    retried.handshake(confirm=False)
    testbed.pause(5.3)  # so soon after its response the device may not initiate
    testbed.inject(retried.packet_here())
    first = retried.socket.expect(INITIATION, "without a confirmed session the device initiates")
    came_from(first, "192.0.2.11", "the initiation")
    second = retried.socket.expect(INITIATION, "the initiation is repeated", 7)
    came_from(second, testbed.outer[4], "the second initiation")
    new = silent.socket.expect(INITIATION, "15 s after data nobody answered", 11)
    came_from(new, testbed.outer[4], "the initiation after data nobody answered")


@check(79)
def both_families_on_one_port(testbed: Testbed) -> None:
    """The device can be reached over IPv4 and IPv6, at one port, and sends from it."""
    for version in (4, 6):
        peer = testbed.peer(version=version)
        session = peer.handshake()
        heard(peer, session)
        datagram = sends_data(peer, session)
        if datagram.port != testbed.port:
            raise Differs(f"over IPv{version} it sends from port {datagram.port}, not its own")
        peer.works(session)


@check(79, seconds=3, shared=False)
def any_port_is_free_for_both(testbed: Testbed) -> None:
    """Listen port 0 gives a port that is free for both families, even if many are not."""
    with namespaces.inside(testbed.network):
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("41000 41019")
        taken = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(10)]
    for port, one in zip(range(41_000, 41_020, 2), taken, strict=True):
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(("::", port))
    for _ in range(8):
        done = testbed.run(["wg", "set", testbed.interface, "listen-port", "0"])
        if done.returncode:
            raise Differs(f"half the ports are taken, and port 0 is refused: {done.stderr.strip()}")
        port = int(testbed.wg("show", testbed.interface, "listen-port"))
        if not port % 2:
            raise Differs(f"it says it listens on port {port}, which another has for IPv6")
        open_ones = re.findall(rf"(\S+):{port}\s", testbed.command("ss -Hnlu"))
        if len(open_ones) != 2:
            raise Differs(
                f"on its port {port} sockets listen at {open_ones}, not for both families"
            )
    peer = testbed.peer()
    peer.socket.target = (testbed.outer[4], port)
    peer.works(peer.handshake())


@check(79, shared=False)
def hosts_without_ipv6(testbed: Testbed) -> None:
    """If IPv6 is switched off, the device comes up and uses only IPv4."""
    testbed.link(up=False)
    with namespaces.inside(testbed.network):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    testbed.link(up=True)
    peer = testbed.peer()
    peer.works(peer.handshake())


@check(80, seconds=3, shared=False)
def link_local_endpoints(testbed: Testbed) -> None:
    """An IPv6 link-local endpoint keeps its scope, whether it is configured or learned."""
    met = testbed.peer()
    met.socket = testbed.socket("fe80::2%w0")
    met.works(met.handshake())
    peer_socket = testbed.socket("fe80::2%w0")
    configured = peer_at(testbed, peer_socket, peer_socket.name.replace("%w0", "%d0"))
    testbed.inject(configured.packet_here())
    session = configured.answer()
    what_waited(configured, session)
    configured.works(session)
    for peer in (configured, met):
        endpoint, right = peer.endpoint(), peer.socket.name.replace("%w0", "%d0")
        if endpoint != right:
            raise Differs(f"`wg show` says the endpoint is {endpoint}, not {right}")


@check(81, seconds=5, shared=False)
def loops_of_initiations(testbed: Testbed) -> None:
    """An initiation whose route leads into the tunnel itself waits there and causes no others."""
    peer = testbed.peer(allowed="0.0.0.0/0", endpoint=True)
    testbed.command(f"ip route add 192.0.2.2/32 dev {testbed.interface}")
    testbed.inject(peer.packet_here())
    testbed.pause(2)
    _, total = peer.transfer()
    if total > 10 * 148:
        raise Differs(f"{total} B were sent within 2 s where one initiation is due, of 148 B")
    testbed.command(f"ip route del 192.0.2.2/32 dev {testbed.interface}")
    session = peer.answer(5)
    what_waited(peer, session)
    testbed.pause(0.2)
    peer.works(session)


@check(81, seconds=6, alone=True, shared=False)
def loops_of_data(testbed: Testbed) -> None:
    """Data whose route leads into the tunnel itself is survived: the device's memory stays bounded,
    and it works again once the route is right."""
    peer = testbed.peer(allowed="10.0.0.0/24,192.0.2.2/32")
    other = testbed.peer()
    other.socket = testbed.socket("198.51.100.9")
    session = peer.handshake()
    peer.works(session)
    before = testbed.memory()
    testbed.command(f"ip route add 192.0.2.2/32 dev {testbed.interface}")
    for _ in range(10):
        testbed.inject(peer.packet_here(), quietly=True)
    testbed.pause(2)
    testbed.log(f"sent to the peer: {peer.transfer()[1]} B")
    grown = testbed.memory() - before
    testbed.log(f"memory grew by {grown >> 10} KiB")
    if grown > 64 << 20:
        raise Differs(f"the device grew by {grown >> 20} MiB")
    testbed.command(f"ip route del 192.0.2.2/32 dev {testbed.interface}")
    testbed.pause(1)
    unread(peer)
    settled(testbed, peer, session)
    other.works(other.handshake())


@check(82, seconds=4, shared=False)
def tunnel_in_a_tunnel(testbed: Testbed) -> None:
    """The datagrams of one device are carried as packets of another on the same host, both ways."""
    testbed.addresses()
    outer, inner_device = testbed.peer(), testbed.another()
    session = outer.handshake()
    port = 7
    inner = peer_at(inner_device, inner_device.socket(), f"{outer.inner[4]}:{port}")

    def unwrapped() -> bytes:
        packet = packets.read(what_waited(outer, session))
        if packet is None or packet.target != outer.inner[4]:
            raise Differs(f"the inner device's datagram is not a packet to its endpoint: {packet}")
        return packet.payload[8:]

    def wrapped(datagram: bytes) -> None:
        own, there = outer.inner[4], testbed.inner(1)[4]
        ports = (port, inner_device.port)
        outer.send(session.seal(packets.udp(own, there, datagram, ports=ports)))

    packet = inner.packet_here(os.urandom(500))
    inner_device.inject(packet)
    response, within = oracle.respond(inner.key, oracle.consume(inner.key, unwrapped()))
    wrapped(response)
    if not (within.open(unwrapped()) or within.open(unwrapped())).startswith(packet):
        raise Differs("what came through both tunnels is not the packet that went in")
    packet = inner.packet(os.urandom(500))
    wrapped(within.seal(packet))
    inner_device.expect_delivered(packet, "a packet through both tunnels")


@check(82, seconds=8)
def keepalives_hold_a_mapping(testbed: Testbed) -> None:
    """A persistent keepalive of 1 s keeps a NAT open that forgets after 2 s. If the peer's NAT
    gives it another port every second, the device follows."""
    peer = testbed.peer(endpoint=True, keepalive=1)
    session = peer.answer()
    last = peer.socket.expect(TRANSPORT, "a keepalive confirms the session").time
    end = last + 4
    while last < end:
        datagram = peer.socket.expect(TRANSPORT, "a keepalive every second", 2)
        if datagram.time - last > 2:
            raise Differs(f"nothing was sent for {datagram.time - last:.3f} s")
        last = datagram.time
    for _ in range(3):
        peer.socket = testbed.socket()
        peer.works(session)
        peer.received(session, "a keepalive to the new port", 3)


@check(83, shared=False)
def marks(testbed: Testbed) -> None:
    """Every datagram carries the firewall mark, so that a rule can route it: initiation, response
    and data; without the mark it is not routed so."""
    marked(testbed, 4, f"{UNROUTED[4]}.1")


@check(83, shared=False)
def marks_over_ipv6(testbed: Testbed) -> None:
    """The same over IPv6."""
    marked(testbed, 6, f"{UNROUTED[6]}:1")


def marked(testbed: Testbed, version: int, address: str) -> None:
    marked_route(testbed, version)
    testbed.wg("set", testbed.interface, "fwmark", "0x57")
    if (shown := testbed.wg("show", testbed.interface, "fwmark").strip()) != "0x57":
        raise Differs(f"`wg show` says the mark is {shown}, not 0x57")
    met = testbed.peer()
    met.socket = testbed.socket(address)
    session = met.handshake()
    met.works(session)
    initiated = peer_at(testbed, testbed.socket(address))
    testbed.inject(initiated.packet_here())
    begun = initiated.answer()
    what_waited(initiated, begun)
    initiated.works(begun)
    testbed.wg("set", testbed.interface, "fwmark", "off")
    testbed.inject(met.packet_here())
    met.socket.silence(0.4, "the mark is off, so no route leads there")
    testbed.wg("set", testbed.interface, "fwmark", "0x57")
    met.works(session)


@check(83, seconds=5, alone=True, shared=False)
def marks_on_cookie_replies(testbed: Testbed) -> None:
    """Cookie replies carry the firewall mark too."""
    marked_route(testbed, 4)
    peer = testbed.peer()
    peer.socket = testbed.socket(f"{UNROUTED[4]}.1")
    with testbed.load():
        _, reply = peer.insist([COOKIE_REPLY], times=5)
        if reply:
            raise Differs("a cookie reply without the mark, to where no route leads without it")
        testbed.wg("set", testbed.interface, "fwmark", "0x57")
        peer.cookie()


@check(83, seconds=3, shared=False)
def ports_change_and_nothing_else(testbed: Testbed) -> None:
    """A change of the listen port keeps peers, sessions and everything else, and closes the old
    port."""
    peer = testbed.peer(psk=os.urandom(32), keepalive=300)
    session = peer.handshake()
    peer.works(session)
    before = testbed.wg("showconf", testbed.interface)
    port = testbed.port + 7
    testbed.wg("set", testbed.interface, "listen-port", str(port))
    expected = before.replace(str(testbed.port), str(port), 1)
    if (after := testbed.wg("showconf", testbed.interface)) != expected:
        raise Differs(f"the configuration is {after!r}, not {expected!r}")
    if (datagram := sends_data(peer, session)).port != port:
        raise Differs(f"it sends from port {datagram.port}, not {port}")
    if re.search(rf":{testbed.port}\s", testbed.command("ss -Hnlu")):
        raise Differs("the old port is still open")
    peer.socket.target = (testbed.outer[4], port)
    peer.works(session)
    peer.works(peer.handshake())


@check(84, seconds=8, shared=False)
def errors_of_the_socket(testbed: Testbed) -> None:
    """Closed ports, missing or refusing routes, a cable with a small MTU and one that is down do
    not affect other peers, and the CPU stays idle. When the path works again, so does the peer."""
    good = testbed.peer()
    session = good.handshake()
    refusals(testbed, 4)
    good.works(session)
    stays_idle(testbed)
    testbed.command("ip link set d0 mtu 1280")
    testbed.inject(good.packet_here(bytes(1300)))
    testbed.pause(0.2)
    testbed.command("ip link set d0 mtu 1500")
    good.works(session)
    testbed.command("ip link set d0 down")
    testbed.inject(good.packet_here())
    testbed.pause(0.3)
    testbed.command("ip link set d0 up")
    settled(testbed, good, session)


@check(84, seconds=5, shared=False)
def errors_of_the_ipv6_socket(testbed: Testbed) -> None:
    """The same over IPv6: closed ports and routes that refuse."""
    good = testbed.peer(version=6)
    session = good.handshake()
    refusals(testbed, 6)
    good.works(session)
    stays_idle(testbed)
    good.works(session)


def refusals(testbed: Testbed, version: int) -> None:
    """Peers to which datagrams cannot be sent, or cause an ICMP error."""
    closed = testbed.peer(endpoint=True, keepalive=1, version=version)
    closed.answer()
    closed.socket.udp.close()
    kinds = ("", "unreachable", "prohibit", "blackhole")
    for number, kind in enumerate(kinds, 10):
        address = f"{UNROUTED[version]}{'.' if version == 4 else ':'}{number}"
        if kind:
            testbed.command(f"ip -{version} route add {kind} {address}")
        endpoint = f"[{address}]:9" if version == 6 else f"{address}:9"
        peer = peer_at(testbed, testbed.socket(version=version), endpoint)
        testbed.inject(peer.packet_here())


def stays_idle(testbed: Testbed) -> None:
    before, start = testbed.cpu_time(), time.monotonic()
    testbed.pause(2)
    used = (testbed.cpu_time() - before) / (time.monotonic() - start)
    testbed.log(f"the device used {used:.1%} of a CPU")
    if used > 0.05:  # a spinning device may get only its share of a busy machine
        raise Differs(f"it used {used:.0%} of a CPU with next to nothing to do")


@check(85, seconds=3, shared=False)
def datagrams_of_any_length(testbed: Testbed) -> None:
    """Datagrams of up to 65,507 bytes are survived, noise or authentic, whole, in fragments, or
    many merged by the host."""
    lengths_are_survived(testbed, 4)


@check(85, seconds=3, shared=False)
def ipv6_datagrams_of_any_length(testbed: Testbed) -> None:
    """The same over IPv6."""
    lengths_are_survived(testbed, 6)


def lengths_are_survived(testbed: Testbed, version: int) -> None:
    for mtu in (1500, 65_535):
        testbed.command(f"ip link set d0 mtu {mtu}")
        testbed.world_command(f"ip link set w0 mtu {mtu}")
        peer = testbed.peer(version=version)
        session = peer.handshake()
        for size in (2047, 2049, 4096, 4097, 8193, 16_385, 32_769, 65_000, LARGEST):
            noise = os.urandom(size - 16)
            initiation = oracle.initiate(peer.key, testbed.public).message
            for datagram in (
                os.urandom(16) + noise,
                initiation[:8] + noise + bytes(8),
                session.seal(bytes(16))[:16] + noise,
                session.seal(bytes(size - 32), pad=False),
                session.seal(
                    packets.sized(peer.inner[4], testbed.inner(1)[4], size - 32), pad=False
                ),
            ):
                peer.socket.send(datagram, quietly=True)
        testbed.log(
            f"noise and transport data of up to {LARGEST} B were sent, with an MTU of {mtu}"
        )
        for segment in (1400, 9000, 30_000):
            sender = testbed.socket(version=version)
            sender.udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
            start = session.seal(bytes(16))[:16]
            with contextlib.suppress(OSError):  # a segment must fit into the MTU
                sender.send(start + os.urandom(LARGEST - 16), quietly=True)
        settled(testbed, peer, session)
        peer.works(peer.handshake())


def moved(peer: Peer, why: str) -> None:
    """Waits until the device has the peer's present endpoint."""
    deadline = time.monotonic() + PATIENCE
    while (endpoint := peer.endpoint()) != peer.socket.name:
        if time.monotonic() > deadline:
            raise Differs(f"{why} leaves the endpoint at {endpoint}, not {peer.socket.name}")
        time.sleep(0.05)


def peer_at(testbed: Testbed, peer_socket: PeerSocket, endpoint: str = "") -> Peer:
    """Adds a peer on that socket. The device gets its endpoint, or another name for it."""
    peer = testbed.peer(configured=False)
    peer.socket, own = peer_socket, peer.inner
    words = ("allowed-ips", f"{own[4]}/32,{own[6]}/128", "endpoint", endpoint or peer_socket.name)
    peer.configure(*words)
    return peer


def flipped(message: bytes, at: int = -1) -> bytes:
    changed = bytearray(message)
    changed[at] ^= 1
    return bytes(changed)


def contact(peer: Peer, address: str) -> None:
    """Lets the peer write to that address of the device from now on."""
    peer.socket.target = (address, peer.device.port)


def heard(peer: Peer, session: Session) -> None:
    """Waits until the device has read a packet of the peer, and so everything before it."""
    packet = packets.reset(peer.inner[4], peer.device.inner(1)[4])
    peer.send(session.seal(packet))
    peer.device.expect_delivered(packet, "a packet of a session is delivered")


def came_from(datagram: Datagram, address: str, what: str) -> None:
    if datagram.source != address:
        raise Differs(f"{what} came from {datagram.source}, not from {address}")


def settled(testbed: Testbed, peer: Peer, session: Session) -> None:
    """Waits until the session carries packets again."""
    deadline = time.monotonic() + 5
    while True:
        testbed.pause(0.2)
        testbed.delivered(0, 10_000)
        try:
            return peer.works(session)
        except Differs:
            if time.monotonic() > deadline:
                raise


def unread(peer: Peer) -> None:
    """Discards received datagrams, as they are too many for the evidence."""
    peer.socket.udp.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            peer.socket.udp.recv(1)


def marked_route(testbed: Testbed, version: int) -> None:
    """Routes only datagrams with the mark 0x57 to a network of the world."""
    net = f"{UNROUTED[version]}{'.0/24' if version == 4 else ':/64'}"
    testbed.world_command(f"ip route add local {net} dev lo")
    testbed.command(f"ip -{version} route add {net} via {testbed.world[version]} table 57")
    testbed.command(f"ip -{version} rule add fwmark 0x57 table 57")
    # A socket bound to a device needs no route, so its datagrams must get lost on the cable.
    host = f"{UNROUTED[version]}{'.' if version == 4 else ':'}1"
    testbed.command(f"ip neigh add {host} lladdr 02:00:00:00:00:57 dev d0 nud permanent")
