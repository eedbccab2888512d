"""D. Timers, in real time."""

from ..stand import Stand
from ..verdict import Differs, check


@check(66, seconds=22)
def passive_keepalive(stand: Stand) -> None:
    """10 s after data with nothing sent in answer comes one keepalive, and none for keepalives."""
    peer = stand.peer()
    session = peer.handshake()
    data = session.seal(peer.packet())
    sent = stand.now()
    peer.send(data)
    datagram = peer.road.expect(4, "a passive keepalive", 12)
    if peer.opened(session, datagram):
        raise Differs("what came is no keepalive")
    stand.expect_between(datagram.time - sent, 9.7, 10.6, "the keepalive comes after")
    peer.send(session.seal())
    peer.road.silence(11, "a keepalive is not answered")
