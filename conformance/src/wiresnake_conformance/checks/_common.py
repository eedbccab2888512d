"""Helpers for checks of several sections; there are no checks in this module."""

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
    """Returns the next packet that the device sends. Some devices send a keepalive before it."""
    return peer.received(session, why) or peer.received(session, why)


def sends_data(peer: Peer, session: Session) -> Datagram:
    """Lets the device send a packet to the peer, and returns the datagram."""
    packet = peer.packet_here(os.urandom(8))
    peer.device.inject(packet)
    datagram = peer.socket.expect(TRANSPORT, "the device sends through a session")
    if not peer.opened(session, datagram).startswith(packet):
        raise Differs("what the device sent is not the packet it was given")
    return datagram


def seen_from_device(testbed: Testbed, tap: Tap) -> list[Packet]:
    """Returns the packets of the device, and ICMP errors about packets to it.

    If the world is a loopback, others may use the same address, so the port is compared, too.
    """
    own = testbed.outer.values()
    return [one for one in tap.packets() if one.source in own and _port(one) == testbed.port]


def _port(packet: Packet) -> int:
    """Returns a datagram's source port, or the target port of one that an ICMP error quotes."""
    if packet.protocol == UDP:
        return int.from_bytes(packet.payload[:2])
    quoted = packets.read(packet.payload[8:]) if packet.protocol in (ICMP, ICMP6) else None
    return int.from_bytes(quoted.payload[2:4]) if quoted else -1
