"""The server behind the socket file, where the daemon's own tests cannot reach."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import cast

import pytest

from wiresnake.errors import HostError
from wiresnake.model import DeviceChange
from wiresnake.runtime import uapi_server
from wiresnake.runtime.tunnel import Tunnel
from wiresnake.runtime.uapi_server import UapiServer, adopt


class RefusingTunnel:
    async def apply(self, change: DeviceChange) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def listener(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen()
    return one


def test_what_the_system_refuses_is_answered(tmp_path: Path) -> None:
    async def main() -> bytes:
        server = UapiServer(
            cast(Tunnel, RefusingTunnel()), listener(tmp_path / "s"), tmp_path / "s"
        )
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b"set=1\nlisten_port=1\n\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\n\n"), 2)
        writer.close()
        server.close()
        return answer

    assert asyncio.run(main()) == b"errno=-%d\n\n" % errno.EAGAIN
    assert not (tmp_path / "s").exists()


def test_no_socket_file_is_left_that_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> int:
        raise HostError(errno.EMFILE, "no more inotify instances")

    async def main() -> None:
        with listener(tmp_path / "s") as one, pytest.raises(HostError):
            UapiServer(cast(Tunnel, RefusingTunnel()), one, tmp_path / "s")

    monkeypatch.setattr(uapi_server, "_watch_file", refuse)
    asyncio.run(main())
    assert not (tmp_path / "s").exists()


def test_a_socket_has_its_name_only_once_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[bool]()

    class Watched(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            seen.append((tmp_path / "wg0.sock").exists())
            super().listen(backlog)

    monkeypatch.setattr(uapi_server, "DIRECTORY", tmp_path)
    monkeypatch.setattr(socket, "socket", Watched)
    for _ in range(2):  # The second finds a file that nobody listens at.
        with uapi_server.listen("wg0"), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "wg0.sock"))
            with pytest.raises(HostError, match="in use"):
                uapi_server.listen("wg0")
        assert [path.name for path in tmp_path.iterdir()] == ["wg0.sock"]
    assert not seen[0]


@pytest.mark.parametrize(
    ("kind", "name", "listens", "good"),
    [
        (socket.SOCK_STREAM, "s", True, True),
        (socket.SOCK_STREAM, "s", False, False),
        (socket.SOCK_SEQPACKET, "s", True, False),
        (socket.SOCK_DGRAM, "s", False, False),
        (socket.SOCK_STREAM, "\0wiresnake test", True, False),
    ],
)
def test_only_a_listening_stream_socket_is_adopted(
    tmp_path: Path, kind: socket.SocketKind, name: str, listens: bool, good: bool
) -> None:
    one = socket.socket(socket.AF_UNIX, kind)
    one.bind(name if "\0" in name else str(tmp_path / name))
    if listens:
        one.listen()
    fd = one.detach()
    if good:
        adopt(fd).close()
        return
    with pytest.raises(HostError, match=f"WG_UAPI_FD={fd} is no listening unix stream socket"):
        adopt(fd)
