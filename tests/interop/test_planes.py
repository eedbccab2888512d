"""What a program sends through a tunnel arrives, whatever planes the two ends have."""

import asyncio
import hashlib
import os
from typing import Literal

import pytest
from interop.harness import unavailable

import wiresnake
from lab import hosts
from wiresnake.linux.offloads import ALL

Plane = Literal["portable"] | None

OWN = """
[Interface]
PrivateKey = {private}
Address = 10.7.0.{number}/24, fd07::{number}/64
[Peer]
PublicKey = {public}
AllowedIPs = 10.7.0.{other}/32, fd07::{other}/128
"""
DATA = os.urandom(1 << 18)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Returns the digest of all that comes, and then all of it."""
    data = await reader.read(-1)
    writer.write(hashlib.sha256(data).digest() + data)
    await writer.drain()
    writer.close()


async def carry(left: Plane, right: Plane, outer: str) -> None:
    (one, one_public), (two, two_public) = hosts.keypair(), hosts.keypair()
    first = OWN.format(private=one, public=two_public, number=1, other=2)
    second = OWN.format(private=two, public=one_public, number=2, other=1)
    async with wiresnake.Tunnel(wiresnake.Config.parse(first), plane=left) as asked:
        second += f"Endpoint = {outer}:{asked.status.listen_port}\n"
        server = await asked.start_server(answer, "fd07::1", 80)
        async with (
            server,
            wiresnake.Tunnel(wiresnake.Config.parse(second), plane=right) as asking,
        ):
            for tunnel, plane in ((asked, left), (asking, right)):
                assert not (plane and tunnel.offloads)
                assert plane or set(tunnel.offloads) <= ALL
            reader, writer = await asking.open_connection("fd07::1", 80)
            writer.write(DATA)
            writer.write_eof()
            back = await reader.read(-1)
            assert back == hashlib.sha256(DATA).digest() + DATA
            writer.close()
            (peer,) = asked.peers
            assert peer.endpoint is not None
            assert str(peer.endpoint) == f"{outer}:{asking.status.listen_port}"


@pytest.mark.parametrize("outer", ["127.0.0.1", "[::1]"], ids=["v4", "v6"])
@pytest.mark.parametrize("right", [None, "portable"], ids=["to-linux", "to-portable"])
@pytest.mark.parametrize("left", [None, "portable"], ids=["linux", "portable"])
def test_what_is_sent_comes_back(left: Plane, right: Plane, outer: str) -> None:
    """256 KiB each way over TCP, so that segments are merged and cut where the planes do that."""
    try:
        asyncio.run(asyncio.wait_for(carry(left, right, outer), 60))
    except wiresnake.HostError as error:
        unavailable(f"a stack for the tunnel is refused here: {error}")


def test_there_is_no_other_plane() -> None:
    with pytest.raises(wiresnake.ConfigError, match="no plane 'fast'"):
        wiresnake.Tunnel(plane="fast")  # type: ignore[arg-type]
