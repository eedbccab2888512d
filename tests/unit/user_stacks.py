"""Two tunnels with user stacks in this process, joined by UDP over loopback. No root is needed."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from wiresnake._native import Endpoint, Plane, PrivateKey
from wiresnake.linux.tun import Tun
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.sockets.user import UserStack
from wiresnake.tunnel import host
from wiresnake.tunnel.tunnel import Tunnel

MTU = 1420


class _StackPlane:
    """A plane whose device is a stack."""

    def __init__(self, stack: UserStack) -> None:
        self._plane, self._stack = Plane(), stack

    def attach_tun(self, *_: object) -> None:
        self._stack.attach(self._plane)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plane, name)


class _Watch:
    def close(self) -> None:
        pass


def addresses(number: int) -> list[str]:
    return [f"10.9.0.{number}/24", f"fd09::{number}/64"]


def _tunnel(stack: UserStack, number: int, mtu: int) -> Tunnel:
    def open_tun(_: str) -> Tun:
        return stack.open(addresses(number), mtu)

    machine = host.Host(
        open_tun=open_tun,
        configure_link=lambda *_: mtu,
        watch_link=lambda *_: _Watch(),
    )
    plane = cast(host.Plane, _StackPlane(stack))
    return Tunnel(interface="user", plane=plane, host=machine)


async def _open(tunnel: Tunnel, key: PrivateKey) -> int:
    await tunnel.__aenter__()
    tunnel._link_changed(True, MTU)
    await tunnel.apply(DeviceChange(private_key=key, listen_port=0))
    return tunnel.status.listen_port


def _peer(key: PrivateKey, port: int | None, number: int) -> DeviceChange:
    allowed = (f"10.9.0.{number}/32", f"fd09::{number}/128")
    prefixes = tuple((True, Prefix.parse(text)) for text in allowed)
    endpoint = None if port is None else Endpoint("127.0.0.1", port)
    peer = PeerChange(key.public, endpoint=endpoint, allowed_ips=prefixes)
    return DeviceChange(peers=(peer,))


async def opened(stacks: tuple[UserStack, UserStack], mtu: int = MTU) -> tuple[Tunnel, Tunnel]:
    """Opens two tunnels on this loop that are each other's peers, with 10.9.0.1 and 10.9.0.2."""
    tunnels = [_tunnel(stack, number, mtu) for number, stack in enumerate(stacks, 1)]
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    ports = [await _open(*pair) for pair in zip(tunnels, keys, strict=True)]
    await tunnels[0].apply(_peer(keys[1], ports[1], 2))
    await tunnels[1].apply(_peer(keys[0], ports[0], 1))
    return tunnels[0], tunnels[1]


@contextmanager
def running(mtu: int = MTU, offloads: bool = True) -> Iterator[tuple[UserStack, UserStack]]:
    """Runs two tunnels on a loop in a thread, so that blocking sockets can be used here."""
    stacks = UserStack(offloads), UserStack(offloads)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def call(action: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)

    tunnels = asyncio.run_coroutine_threadsafe(opened(stacks, mtu), loop).result(10)
    try:
        yield stacks
    finally:
        for tunnel, stack in zip(tunnels, stacks, strict=True):
            call(tunnel.close)
            stack.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
