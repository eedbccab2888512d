"""The kernel refuses an offload, at the start or later: packets then go one by one, all of them."""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    assert_answered,
    assert_pings,
    assert_tcp,
    assert_udp,
    configure,
    ends,
    join,
    tunnel,
)
from interop.test_uapi_extensions import state

from lab import hosts
from lab.hosts import Host
from wiresnake.linux.offloads import Offload, choose

# <linux/sockios.h>, <linux/ethtool.h>
SIOCETHTOOL = 0x8946
GET_STRINGS, GET_SET_INFO, SET_FEATURES, FEATURES = 0x1B, 0x37, 0x3B, 4
NAME_BYTES = 32
SUPER = 3000
"""Bytes that only a super-packet has."""

CHECKSUM = "tx-checksum-ip-generic"
SEGMENTATION = ("tx-udp-segmentation", "tx-tcp-segmentation", "tx-tcp6-segmentation")
GSO, GRO = "tx-generic-segmentation", "rx-gro"
REFUSALS = {
    "udp-segmentation": SEGMENTATION[:1],
    "checksum": (CHECKSUM,),
    "gso": (*SEGMENTATION, GSO),
    "gro": (GRO,),
    "all": (CHECKSUM, *SEGMENTATION, GSO, GRO),
}


def ethtool(device: str, request: bytes) -> bytes:
    """One ETHTOOL ioctl, in the calling thread's namespace."""
    buffer = ctypes.create_string_buffer(request, len(request))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        ifreq = struct.pack("16sP16x", device.encode(), ctypes.addressof(buffer))
        fcntl.ioctl(any_socket, SIOCETHTOOL, ifreq)
    return buffer.raw


def switch(host: Host, device: str, features: tuple[str, ...], *, on: bool) -> None:
    """As `ethtool -K DEVICE FEATURE on|off`."""

    def work() -> None:
        info = ethtool(device, struct.pack("IIQI", GET_SET_INFO, 0, 1 << FEATURES, 0))
        (count,) = struct.unpack_from("I", info, 16)
        head = struct.pack("III", GET_STRINGS, FEATURES, count)
        raw = ethtool(device, head + bytes(NAME_BYTES * count))[len(head) :]
        names = [
            raw[at : at + NAME_BYTES].rstrip(b"\0").decode()
            for at in range(0, len(raw), NAME_BYTES)
        ]
        words = [[0, 0] for _ in range((count + 31) // 32)]
        for feature in features:
            block, bit = divmod(names.index(feature), 32)
            words[block][0] |= 1 << bit
            words[block][1] |= on << bit
        blocks = b"".join(struct.pack("II", *word) for word in words)
        ethtool(device, struct.pack("II", SET_FEATURES, len(words)) + blocks)

    host.inside(work)


class Flow:
    """A TCP stream inside the tunnel that lasts until it is stopped; every byte counts."""

    def __init__(self, source: End, target: End) -> None:
        address = target.inner[4]
        server, self._out = (end.host.inside(socket.socket) for end in (target, source))
        with server:
            server.bind((address, 0))
            server.listen()
            self._out.settimeout(10)
            self._out.connect(server.getsockname())
            self._in, _ = server.accept()
        self._in.settimeout(10)
        self.received = 0
        self._ended = threading.Event()
        self._errors: list[str] = []
        self._digests: list[str] = []
        self._threads = [threading.Thread(target=work) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        digest, data = hashlib.sha256(), os.urandom(1 << 18)
        try:
            while not self._ended.is_set():
                digest.update(data)
                self._out.sendall(data)
                data = data[1:] + data[:1]
                time.sleep(0.01)
            self._out.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._errors.append(f"sending: {error!r}")
        self._digests.append(digest.hexdigest())

    def _receive(self) -> None:
        digest = hashlib.sha256()
        try:
            while data := self._in.recv(1 << 18):
                digest.update(data)
                self.received += len(data)
        except OSError as error:
            self._errors.append(f"receiving: {error!r}")
        self._digests.append(digest.hexdigest())

    def await_progress(self, size: int = 1 << 20) -> None:
        before = self.received
        hosts.wait_for("bytes of the stream", lambda: self.received > before + size)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._out.close()
        self._in.close()

    def assert_unharmed(self) -> None:
        self.end()
        assert not self._errors
        assert self._digests[0] == self._digests[1]


@contextlib.contextmanager
def flow(source: End, target: End) -> Iterator[Flow]:
    made = Flow(source, target)
    try:
        yield made
        made.assert_unharmed()
    finally:
        made.end()


def longest(
    end: End, seconds: float = 0.2, *, device: str | None = None, kind: int = socket.PACKET_OUTGOING
) -> int:
    """Of the packets that the end sends on its cable in that time; super-packets are one each.
    Or of another device's, and of another kind.

    A device that segments, as veth does, is handed super-packets, and so is a tap on it. A stream
    that has just lost something may be silent for as long as TCP waits: then it takes longer.
    """

    def make() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        tap.bind((device or end.device, 3))  # ETH_P_ALL
        return tap

    found = 0
    with end.host.inside(make) as tap:
        until = time.monotonic() + seconds
        tap.settimeout(seconds)
        buffer = bytearray(64)
        while (now := time.monotonic()) < until or (not found and now < until + 5):
            with contextlib.suppress(TimeoutError):
                length, (_, _, seen, *_) = tap.recvfrom_into(buffer, flags=socket.MSG_TRUNC)
                if seen == kind:
                    found = max(found, length)
    assert found, f"{end.host.name} sends, or receives, nothing"
    return found


def set_mtu(a: End, b: End, mtu: int) -> None:
    for end in (a, b):
        end.host.run(f"ip link set {end.device} mtu {mtu}")


def test_the_path_mtu_falls_and_rises(make_host: MakeHost, ours: Implementation) -> None:
    """Below the segment, UDP_SEGMENT is refused for each call: the stream goes on in fragments,
    and in super-datagrams again soon after the path allows it. Over IPv4 and IPv6 at once."""
    tunnels = [
        tunnel(make_host("a"), make_host("b"), ours, ours, outer=version) for version in (4, 6)
    ]
    for a, b in tunnels:
        assert_pings(a, b)
    with flow(*tunnels[0]) as over4, flow(*tunnels[1]) as over6:
        for (a, b), stream in zip(tunnels, (over4, over6), strict=True):
            stream.await_progress()
            assert longest(a) > SUPER, "this test needs super-packets to begin with"
            set_mtu(a, b, 1400)
            stream.await_progress()
            assert longest(a) <= 1400
            assert_answered(b.host, a.inner[6])
            set_mtu(a, b, 1500)
        risen = time.monotonic()
        for (a, _), stream in zip(tunnels, (over4, over6), strict=True):
            while longest(a) <= SUPER:
                assert time.monotonic() < risen + 15, "no super-packets again"
            stream.await_progress()


def test_the_route_to_one_peer_narrows(make_host: MakeHost, ours: Implementation) -> None:
    """Its datagrams go in fragments and those of the other peer in super-datagrams as before."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    c = join(a, make_host("c"), ours)
    to_c = replace(a, device="eth1")
    route = f"ip route replace {b.outer[4]}/32 dev {a.device}"
    with flow(a, b) as narrow, flow(a, c) as wide:
        assert min(longest(a), longest(to_c)) > SUPER, "this test needs super-packets to begin with"
        a.host.run(f"{route} mtu 1300")
        narrow.await_progress()
        for _ in range(5):
            assert longest(a) <= 1300
            assert longest(to_c) > SUPER
        wide.await_progress()
        a.host.run(route)
        hosts.wait_for("super-packets again", lambda: longest(a) > SUPER)
        narrow.await_progress()


@pytest.mark.parametrize("features", REFUSALS.values(), ids=REFUSALS)
def test_refused_from_the_start(
    make_host: MakeHost, ours: Implementation, features: tuple[str, ...]
) -> None:
    hosts = make_host("a"), make_host("b")
    a, b = ends(*hosts)
    for end in (a, b):
        switch(end.host, end.device, features, on=False)
        ours.start(end.host)
    configure(a, b)
    assert_pings(a, b)
    assert_tcp(a, b, 4)
    assert_tcp(a, b, 6, size=1 << 20)
    for version in (4, 6):
        assert_udp(a, b, version)


def test_refused_while_it_runs(make_host: MakeHost, ours: Implementation) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    assert_pings(a, b)
    with flow(a, b) as there, flow(b, a) as back:
        for features in REFUSALS.values():
            for on in (False, True):
                for end in (a, b):
                    switch(end.host, end.device, features, on=on)
                there.await_progress()
                back.await_progress()
        for segments in (1, 65535):
            for end in (a, b):
                end.host.run(f"ip link set {end.device} gso_max_segs {segments}")
            there.await_progress()
            back.await_progress()
    assert_pings(a, b)


def test_super_packets_on_a_given_route(make_host: MakeHost, ours: Implementation) -> None:
    """Their checksums hold the last address of a source route and not the one in the header."""
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours, allowed="0.0.0.0/0")
    last = "10.9.0.22"
    hosts.address(b.host, "lo", f"{last}/32")
    for device in ("all", "wg0"):
        b.host.run(f"sysctl -q -w net.ipv4.conf.{device}.accept_source_route=1")
        a.host.run(f"sysctl -q -w net.ipv4.conf.{device}.accept_source_route=1")
    assert_answered(a.host, b.inner[4])
    server, client = (end.host.inside(socket.socket) for end in (b, a))
    data, received = os.urandom(1 << 20), bytearray()
    with server, client:
        server.bind((last, 0))
        server.listen()
        for one in (server, client):
            one.settimeout(5)
        loose_route = bytes([1, 131, 7, 4]) + socket.inet_aton(b.inner[4])
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, loose_route)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            sending = threading.Thread(target=client.sendall, args=(data,))
            sending.start()
            accepted.settimeout(5)
            with contextlib.suppress(TimeoutError):
                while len(received) < len(data):
                    received += accepted.recv(1 << 16)
            sending.join()
    assert received == data
    wrong = b.host.output("nstat -az TcpInCsumErrors").split()[-2]
    assert wrong == "0"


def features(end: End) -> dict[str, str]:
    """What the end's tunnel device offers the stack, as `ethtool -k` names it."""
    said = end.host.output("ethtool", "-k", end.interface)
    return dict(re.findall(r"^\s*(\S+): (on|off)", said, re.MULTILINE))


@pytest.mark.parametrize("off", [*Offload, None], ids=lambda off: off or "all")
def test_each_can_be_switched_off(
    make_host: MakeHost, ours: Implementation, off: Offload | None
) -> None:
    """By whoever has a kernel that is wrong: then it is not used, and all else goes on."""
    a, b = ends(make_host("a"), make_host("b"))
    wanted = "none" if off is None else f"-{off}"
    for end in (a, b):
        end.host.run(Path(ours.program), end.interface, env={"WIRESNAKE_OFFLOADS": wanted})
    configure(a, b)
    assert_pings(a, b)
    used = set(filter(None, state(a.host)[0].get("offloads", "").split(",")))
    lacking = choose(os.uname().release, wanted) ^ used
    assert lacking <= {Offload.USO, Offload.UDP_MERGE}, "which need Linux 6.2"
    with flow(a, b) as stream:
        stream.await_progress()
        assert (longest(a) > SUPER) is (Offload.SEGMENT in used)
        arriving = longest(b, device=b.interface, kind=socket.PACKET_HOST)
        # What one receive brings is merged: all that one send held, if the kernel keeps it whole.
        whole = {Offload.SEGMENT, Offload.GRO, Offload.TCP_MERGE}
        assert (arriving > SUPER) is (whole <= used)
        stream.await_progress()
    offered = features(a)
    assert (offered["tcp-segmentation-offload"] == "on") is (Offload.TSO in used)
    assert (offered["tx-udp-segmentation"] == "on") is (Offload.USO in used)
    assert_tcp(b, a, 6, size=1 << 20)
    for version in (4, 6):
        assert_udp(a, b, version)


# A TUN device as programs make it that know of no offload, for the daemon to take over.
PLAIN_TUN = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"wg0", 0x1 | 0x1000))  # IFF_TUN | IFF_NO_PI
os.set_inheritable(fd, True)
os.environ["WG_TUN_FD"] = str(fd)
os.execv(sys.argv[1], [sys.argv[1], "wg0"])
"""


def test_a_tun_without_offloads(make_host: MakeHost, ours: Implementation) -> None:
    """At one end: what the other sends in super-packets must come out in single ones."""
    a, b = ends(make_host("a"), make_host("b"))
    ours.start(a.host)
    b.host.run(sys.executable, "-c", PLAIN_TUN, ours.program)
    configure(a, b)
    assert_pings(a, b)
    assert_tcp(a, b, 4)
    assert_tcp(b, a, 6)
