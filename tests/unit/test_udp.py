"""The UDP sockets' options, and what happens when a port is taken."""

import contextlib
import errno
import os
import socket
import struct

import pytest

from wiresnake.errors import HostError
from wiresnake.linux import udp

IP_PKTINFO, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, UDP_GRO = 8, 10, 23, 104
IPV6_AUTOFLOWLABEL = 70


@pytest.mark.item(79)
def test_both_families_share_a_free_port() -> None:
    sockets = udp.open_sockets(0, 0)
    try:
        assert sockets.v4 is not None
        assert sockets.v4.getsockname()[1] == sockets.port != 0
        assert sockets.v4.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1
        assert sockets.v4.getsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS) == 1
        assert sockets.v4.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == 0
        if sockets.v6 is not None:
            assert sockets.v6.getsockname()[1] == sockets.port
            for option in (socket.IPV6_V6ONLY, socket.IPV6_RECVPKTINFO, socket.IPV6_RECVTCLASS):
                assert sockets.v6.getsockopt(socket.IPPROTO_IPV6, option) == 1
            assert sockets.v6.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) == 0
            assert sockets.v6.getsockopt(socket.IPPROTO_IPV6, IPV6_AUTOFLOWLABEL) == 0
        assert not any(one.get_inheritable() for one in sockets.all)
    finally:
        sockets.close()


@pytest.mark.item(84)
def test_sending_waits_for_room_but_not_long() -> None:
    sockets = udp.open_sockets(0, 0)
    for one in sockets.all:
        raw = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
        seconds, microseconds = struct.unpack("ll", raw)
        assert (seconds, 1000 <= microseconds <= 10_000) == (0, True)  # The kernel counts jiffies.
        # The kernel doubles what it is asked for; a user gets less.
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * (64 << 20)
    sockets.close()


@pytest.mark.parametrize("error", [0, errno.ENOPROTOOPT])
def test_receiving_merged_datagrams_is_optional(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    class Socket(socket.socket):
        def setsockopt(self, *words: object) -> None:
            if error and words[1] == UDP_GRO:
                raise OSError(error, os.strerror(error))
            super().setsockopt(*words)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "socket", Socket)
    sockets = udp.open_sockets(0, 0)
    assert not sockets.merged
    sockets.receive_merged()
    assert sockets.merged is not bool(error)
    for one in sockets.all:
        assert one.getsockopt(socket.IPPROTO_UDP, UDP_GRO) == (not error)
    sockets.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        if family == socket.AF_INET6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("", 0))
        port = other.getsockname()[1]
        with pytest.raises(HostError, match=f"UDP port {port} is in use") as caught:
            udp.open_sockets(port, 0)
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(("failures", "opens"), [(99, True), (100, False)])
@pytest.mark.item(79)
def test_a_free_port_is_drawn_again_when_ipv6_has_it(
    monkeypatch: pytest.MonkeyPatch, failures: int, opens: bool
) -> None:
    drawn: list[int] = []

    def fake_open(family: int, port: int, mark: int, _: object) -> socket.socket | None:
        if family == socket.AF_INET6:
            drawn.append(port)
            if len(drawn) <= failures:
                raise OSError(errno.EADDRINUSE, "in use")
            return None
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        return one

    monkeypatch.setattr(udp, "_open", fake_open)
    if opens:
        sockets = udp.open_sockets(0, 0)
        assert sockets.port == drawn[-1]
        sockets.close()
    else:
        with pytest.raises(HostError):
            udp.open_sockets(0, 0)
    assert len(drawn) == 100


@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.item(79)
def test_one_family_is_enough(
    monkeypatch: pytest.MonkeyPatch, missing: socket.AddressFamily
) -> None:
    real = socket.socket

    def without(family: int, kind: int) -> socket.socket:
        if family == missing:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without)
    sockets = udp.open_sockets(0, 0)
    assert len(sockets.all) == 1
    sockets.close()


@pytest.mark.parametrize("mark", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_mark_is_all_of_32_bits(mark: int) -> None:
    """For whom it is set when the sockets are made, and while they live."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with one, contextlib.closing(udp.Sockets(one, None, 0)) as sockets:
        try:
            sockets.set_mark(mark)
            udp.open_sockets(0, mark).close()
        except HostError as error:  # Without CAP_NET_ADMIN.
            assert (error.errno, f"{mark:#x}" in str(error)) == (errno.EPERM, True)
        else:
            raw = one.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4)
            assert struct.unpack("I", raw) == (mark,)
