"""A connector of aiohttp whose connections go through a tunnel.

async with aiohttp.ClientSession(connector=Connector(tunnel)) as session:
    async with session.get("http://10.0.0.1/") as response:
        print(await response.text())
"""

import socket
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    from wiresnake.sockets.tunnel import Tunnel


class Connector(aiohttp.TCPConnector):
    """Connects `aiohttp.ClientSession` through a `Tunnel`, which resolves its names."""

    def __init__(self, tunnel: "Tunnel", **options: Any) -> None:
        """Takes the options of `aiohttp.TCPConnector`, except `resolver` and `socket_factory`."""

        def open_socket(address: Any) -> socket.socket:
            family, kind, proto, *_ = address
            opened = tunnel.socket(family, kind, proto)
            opened.setblocking(False)
            return opened

        super().__init__(resolver=_Resolver(tunnel), socket_factory=open_socket, **options)


class _Resolver(AbstractResolver):
    def __init__(self, tunnel: "Tunnel") -> None:
        self._tunnel = tunnel

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._tunnel.resolve(host, family)
        ]

    async def close(self) -> None:
        pass
