"""B. MACs, cookies, and what happens under load."""

from ..oracle import RESPONSE
from ..stand import Stand
from ..verdict import Differs, check


@check(34, alone=True, seconds=6, shared=False)
def cookies_are_bound_to_the_port(stand: Stand) -> None:
    """Under load a cookie serves the address and port that it was sent to, and no other."""
    peer = stand.peer()
    with stand.load():
        cookie = peer.cookie()
        own, peer.road = peer.road, stand.road()
        _, answer = peer.insist([RESPONSE], times=5, cookie=cookie)
        if answer:
            raise Differs("the cookie of another port was taken")
        peer.road = own
        _, answer = peer.insist([RESPONSE], cookie=cookie)
        if not answer:
            raise Differs("an initiation with the right cookie gets no response")
