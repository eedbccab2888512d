"""A. The handshake, Noise_IKpsk2."""

from .. import oracle
from ..oracle import again_with_macs, tai64n
from ..stand import Stand
from ..verdict import Differs, check


@check(2)
def only_the_right_lengths(stand: Stand) -> None:
    """Handshake messages of any other length are dropped in silence."""
    peer = stand.peer()
    for length in (0, 1, 31, 32, 115, 147, 149, 1000):
        message = oracle.initiate(peer.key, stand.public).message
        cut = (message + bytes(1000))[:length]
        if length >= 32 + 116:  # with macs that fit what is there
            cut = again_with_macs(cut, stand.public)
        peer.send(cut)
    peer.road.silence(0.5, "initiations of a wrong length")
    session = peer.handshake()
    for length in (1, 15, 16, 31, 33, 47):
        peer.send(session.seal(bytes(64))[:length])
    stand.expect_dropped("transport data of a wrong length")
    peer.works(session)


@check(9)
def timestamps_must_grow(stand: Stand) -> None:
    """An initiation is answered only if its timestamp is greater than any before."""
    peer = stand.peer()
    now = 1_700_000_000.0
    peer.handshake(timestamp=tai64n(now))
    for timestamp in (tai64n(now), tai64n(now - 1), bytes(12)):
        stand.pause(0.05)
        peer.initiate(timestamp=timestamp)
        peer.road.silence(0.3, "an initiation that is not newer")
    peer.handshake(timestamp=tai64n(now + 0.05))


@check(18)
def low_order_ephemerals(stand: Stand) -> None:
    """Initiations whose ephemeral key takes every DH to zero, right in all else, get no answer."""
    peer = stand.peer()
    for point in oracle.LOW_ORDER_POINTS:
        stand.pause(0.03)
        peer.initiate(point=point)
        peer.road.silence(0.2, f"an initiation with the ephemeral key {point.hex()}")
    stand.pause(0.03)
    peer.works(peer.handshake())


@check(24)
def keepalive_completes_a_handshake(stand: Stand) -> None:
    """With nothing to send the initiator confirms a response by one keepalive."""
    peer = stand.peer(endpoint=True, keepalive=25)
    session = peer.answer()
    if peer.received(session, "the initiator confirms the response"):
        raise Differs("the first message of the session is no keepalive")
    peer.road.silence(1, "one keepalive is enough")
    peer.works(session)


@check(16)
def responses_to_nothing(stand: Stand) -> None:
    """A response for an index that waits for none is dropped in silence."""
    peer = stand.peer(endpoint=True)
    stand.inject(peer.packet_here())
    initiated = peer.awaited()
    for receiver in (0, initiated.index ^ 1):
        message, _ = oracle.respond(peer.key, initiated, receiver=receiver)
        peer.send(message)
        peer.road.silence(0.3, "a response for another index")
    message, session = oracle.respond(peer.key, initiated)
    peer.send(message)
    peer.received(session, "the right response still counts")
    peer.send(message)
    peer.road.silence(0.3, "the same response once more")
    peer.works(session)
