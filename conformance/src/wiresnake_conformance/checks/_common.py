"""What checks of several sections share; there are no checks in here."""

import os

from .. import packets
from ..oracle import TRANSPORT, Session
from ..packets import ICMP, ICMP6, UDP, Packet
from ..peer import Peer
from ..peer_socket import Datagram, Tap
from ..testbed import Testbed
from ..verdict import Differs

UDP_SEGMENT = 103


def what_waited(peer: Peer, session: Session, why: str = "the packet that waited") -> bytes:
    """The next packet that the device sends; some send a keepalive before it."""
    return peer.received(session, why) or peer.received(session, why)


def sends_data(peer: Peer, session: Session) -> Datagram:
    """What the device makes of a packet for the peer."""
    packet = peer.packet_here(os.urandom(8))
    peer.device.inject(packet)
    datagram = peer.socket.expect(TRANSPORT, "the device sends through a session")
    if not peer.opened(session, datagram).startswith(packet):
        raise Differs("what the device sent is not the packet it was given")
    return datagram


def seen_from_device(testbed: Testbed, tap: Tap) -> list[Packet]:
    """What the device sent, and ICMP errors about what was sent to it. Others may use the same
    address, where the world is a loopback, so the port counts as well."""
    own = testbed.outer.values()
    return [one for one in tap.packets() if one.source in own and _port(one) == testbed.port]


def _port(packet: Packet) -> int:
    """That which a datagram is from, or, if an ICMP error is about one, which that was for."""
    if packet.protocol == UDP:
        return int.from_bytes(packet.payload[:2])
    quoted = packets.read(packet.payload[8:]) if packet.protocol in (ICMP, ICMP6) else None
    return int.from_bytes(quoted.payload[2:4]) if quoted else -1
