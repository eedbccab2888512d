"""Two tunnels with user stacks in this process, joined by UDP over loopback. No root is needed."""

import contextlib
import socket
from collections.abc import Iterator, Sequence

import wiresnake
from wiresnake import Config, Endpoint, Peer, Prefix, PrivateKey
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.sockets.user import UserStack
from wiresnake.text import base64_text

MTU = 1420


class WithoutOffloads(UserStack):
    """A stack whose segments are not split or merged elsewhere."""

    def open(self, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]) -> Tun:
        return super().open(addresses, mtu, frozenset())


def configs(mtu: int) -> Iterator[Config]:
    """Makes the configurations of 10.9.0.1 and 10.9.0.2, each of which knows the other."""
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    with contextlib.ExitStack() as held:
        free = [held.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in keys]
        for one in free:
            one.bind(("127.0.0.1", 0))
        ports = [int(one.getsockname()[1]) for one in free]
    for here, there in (0, 1), (1, 0):
        allowed = (f"10.9.0.{there + 1}/32", f"fd09::{there + 1}/128")
        peer = Peer(
            base64_text(keys[there].public),
            endpoint=Endpoint("127.0.0.1", ports[there]),
            allowed_ips=tuple(map(Prefix.parse, allowed)),
        )
        addresses = (f"10.9.0.{here + 1}/24", f"fd09::{here + 1}/64")
        yield Config(keys[here], ports[here], peers=(peer,), addresses=addresses, mtu=mtu)


@contextlib.contextmanager
def running(mtu: int = MTU, offloads: bool = True) -> Iterator[tuple[UserStack, UserStack]]:
    """Runs two tunnels on loops in threads, so that blocking sockets can be used here."""
    kind = UserStack if offloads else WithoutOffloads
    stacks = kind(), kind()
    first, second = configs(mtu)
    with (
        wiresnake.open_tunnel(first, stack=stacks[0]),
        wiresnake.open_tunnel(second, stack=stacks[1]),
    ):
        yield stacks
