"""A peer of the device, played by the oracle."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import packets
from .device import Device
from .oracle import (
    COOKIE_REPLY,
    INITIATION,
    NO_PSK,
    RESPONSE,
    TRANSPORT,
    Initiated,
    Initiating,
    Key,
    Session,
    Unopened,
    complete,
    consume,
    initiate,
    open_cookie,
    respond,
)
from .peer_socket import PATIENCE, Datagram, PeerSocket
from .verdict import CERTAIN, Differs, Failed


@dataclass
class Peer:
    """A peer of the device, played by the oracle."""

    device: Device
    key: Key
    socket: PeerSocket
    inner: dict[int, str]
    """Its addresses in the tunnel, by IP version."""
    psk: bytes = NO_PSK

    def send(self, datagram: bytes) -> None:
        self.socket.send(datagram)

    def initiate(self, **parts: Any) -> Initiating:
        """Sends an initiation (`oracle.initiate` names the parts that can be replaced)."""
        initiating = initiate(self.key, self.device.public, **parts)
        self.send(initiating.message)
        return initiating

    def insist(
        self, kinds: Sequence[int] = (RESPONSE, COOKIE_REPLY), times: int = 20, **parts: Any
    ) -> tuple[Initiating, Datagram | None]:
        """Sends initiations until one gets an answer of such a kind; None if none does.

        Under load any datagram can be lost or late, so a single try proves nothing.
        """
        sent: dict[int, Initiating] = {}
        for _ in range(times):
            initiating = self.initiate(**parts)
            sent[initiating.index] = initiating
            while datagram := self.socket.receive(0.1):
                if datagram.kind in kinds and datagram.receiver in sent:
                    return sent[datagram.receiver], datagram
                if datagram.receiver == initiating.index:
                    break
        return initiating, None

    def cookie(self) -> bytes:
        """Gets the cookie that the device gives to this peer's socket under load."""
        refused, reply = self.insist()
        if reply is None or reply.kind != COOKIE_REPLY:
            raise Differs("no cookie reply to an initiation without mac2 under load")
        try:
            return open_cookie(reply.data, self.device.public, refused.mac1, refused.index)
        except Unopened as error:
            raise Differs(str(error)) from None

    def complete(self, initiating: Initiating, response: bytes) -> Session:
        try:
            return complete(initiating, self.key, response, self.psk)
        except Unopened as error:
            raise Differs(f"the response does not open: {error}", needs=CERTAIN) from None

    def handshake(self, *, confirm: bool = True, **parts: Any) -> Session:
        """Makes a session as the initiator. With `confirm` a keepalive lets the device send."""
        initiating = self.initiate(**parts)
        response = self.socket.expect(RESPONSE, "an initiation of a known peer is answered")
        session = self.complete(initiating, response.data)
        if confirm:
            self.send(session.seal())
        return session

    def awaited(self, within: float = PATIENCE) -> Initiated:
        """Waits for the device's next initiation."""
        datagram = self.socket.expect(INITIATION, "the device initiates", within)
        try:
            return consume(self.key, datagram.data)
        except Unopened as error:
            text = f"the device's initiation does not open: {error}"
            raise Differs(text, needs=CERTAIN) from None

    def answer(self, within: float = PATIENCE, **parts: Any) -> Session:
        """Makes a session that the device initiates within that time. The device sends first."""
        message, session = respond(self.key, self.awaited(within), psk=self.psk, **parts)
        self.send(message)
        return session

    def received(self, session: Session, why: str, within: float = PATIENCE) -> bytes:
        """Returns the content of the next datagram, which must be transport data of the session."""
        return self.opened(session, self.socket.expect(TRANSPORT, why, within))

    def opened(self, session: Session, datagram: Datagram) -> bytes:
        try:
            return session.open(datagram.data)
        except Unopened as error:
            text = f"what the device sent does not open: {error}"
            raise Differs(text, needs=CERTAIN) from None

    def packet(self, payload: bytes = b"", *, version: int = 4, tos: int = 0) -> bytes:
        """Makes a packet from this peer to the device."""
        own, other = self.inner[version], self.device.inner(1)[version]
        return packets.udp(own, other, payload, tos=tos)

    def packet_here(self, payload: bytes = b"", *, version: int = 4, tos: int = 0) -> bytes:
        """Makes a packet that the device must send to this peer."""
        own, other = self.inner[version], self.device.inner(1)[version]
        return packets.udp(other, own, payload, tos=tos)

    def works(self, session: Session) -> None:
        """Checks that the session carries a packet each way."""
        there = packets.reset(self.inner[4], self.device.inner(1)[4])
        back = self.packet_here(os.urandom(20))
        self.send(session.seal(there))
        self.device.expect_delivered(there, "a packet of a session is delivered")
        self.socket.drain()
        self.device.inject(back)
        why = "the device sends through a session"
        while not (content := self.received(session, why)):
            pass  # a keepalive that was due
        if content[: len(back)] != back:
            raise Differs("what the device sent is not the packet it was given", needs=CERTAIN)

    def configure(self, *words: str, text: str | None = None) -> None:
        """Runs `wg set INTERFACE peer KEY ...`."""
        self.device.wg("set", self.device.interface, "peer", self.key.text, *words, text=text)

    def endpoint(self) -> str:
        """Returns the device's endpoint of this peer, as `wg show` prints it."""
        return self.shown("endpoints")[0]

    def transfer(self) -> tuple[int, int]:
        """Returns the bytes that the device received from and sent to this peer."""
        received, sent = self.shown("transfer")
        return int(received), int(sent)

    def shown(self, field_name: str) -> list[str]:
        """Returns this peer's values in `wg show INTERFACE FIELD`."""
        for key, *values in self.device.show(field_name):
            if key == self.key.text:
                return values
        raise Failed(f"`wg show` does not list the peer {self.key.text}")
