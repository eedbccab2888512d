"""Watches the interface: up, down, MTU, deletion, and its move to another network namespace.

Raw rtnetlink, and no polling. A message only says that something has changed; what is true now
is then asked. After a move the kernel lets our own socket hear the other namespace
(NETLINK_LISTEN_ALL_NSID), so that no descriptor of ours keeps that namespace alive: a container
that ends takes the interface with it, as with the kernel's WireGuard.
"""

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from wiresnake.runtime import tun

# <linux/rtnetlink.h>, <linux/if_link.h>, <linux/net_namespace.h>, <linux/netlink.h>
_RTM_GETLINK, _RTM_NEWADDR, _RTM_NEWNSID, _RTM_GETNSID = 18, 20, 88, 90
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TARGET_NETNSID = 3, 4, 46
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NLMSG_ERROR, _NLM_F_REQUEST, _NLM_F_ACK = 2, 1, 4
_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID = 270, 8
_RTNLGRP_LINK = 1
_RTNLGRP_ROUTES = (5, 7, 9, 11)
"""IPv4 addresses and routes, IPv6 addresses and routes."""
_IFF_UP = 1
_CLONE_NEWNET = 0x40000000
_RECEIVE_BYTES = 1 << 16

_log = logging.getLogger(__name__)


class LinkWatch:
    """Calls `on_link(up, mtu)` when either changed, `on_gone()` once, and `on_routes()` when a
    route changed or an address went in the namespace of birth. Needs a running loop."""

    def __init__(
        self,
        tun_fd: int,
        on_link: Callable[[bool, int], None],
        on_gone: Callable[[], None],
        on_routes: Callable[[], None],
    ) -> None:
        self._tun = tun_fd
        self._on_link, self._on_gone, self._on_routes = on_link, on_gone, on_routes
        self._state: tuple[bool, int] | None = None
        self._index = 0
        self._lost_sight = False
        self._home = os.stat("/proc/self/ns/net").st_ino
        self._place = self._home
        self._loop = asyncio.get_running_loop()
        self._links = _subscribe(_RTNLGRP_LINK)
        self._routes = _subscribe(*_RTNLGRP_ROUTES)
        self._loop.add_reader(self._links, self._link_changed)
        self._loop.add_reader(self._routes, self._routes_changed)
        self._refresh()

    def close(self) -> None:
        for one in (self._links, self._routes):
            self._loop.remove_reader(one)
            one.close()

    def _link_changed(self) -> None:
        try:
            data = self._links.recv(_RECEIVE_BYTES)
        except OSError as error:  # ENOBUFS: the kernel had to drop some. Look for ourselves.
            if error.errno == errno.EAGAIN:
                return
            data = b""
        known = data and self._index
        if not known or any(_index_of(one) == self._index for one in _split(data)):
            self._refresh()

    def _routes_changed(self) -> None:
        changed = False
        try:
            while data := self._routes.recv(_RECEIVE_BYTES):
                # A new address takes no route away; SLAAC repeats each with every advertisement.
                kinds = {struct.unpack_from("H", one, 4)[0] for one in _split(data)}
                changed |= kinds != {_RTM_NEWADDR}
        except OSError as error:  # EAGAIN: all read. ENOBUFS: some lost.
            if changed or error.errno != errno.EAGAIN:
                self._on_routes()

    def _refresh(self) -> None:
        name = tun.name_of(self._tun)
        if name is None:
            self._on_gone()
            return
        try:
            self._index, up, mtu = self._look(name)
            self._lost_sight = False
        except OSError as error:
            if tun.name_of(self._tun) is None:
                self._on_gone()
                return
            if not self._lost_sight:
                _log.error("cannot follow %s, taken as up: %s", name, error.strerror)
            self._lost_sight = True
            self._index = 0  # It may come home under any.
            up, mtu = True, self._state[1] if self._state else tun.DEFAULT_MTU
        if self._state != (up, mtu):
            self._state = (up, mtu)
            self._on_link(up, mtu)

    def _look(self, name: str) -> tuple[int, bool, int]:
        """Index, up, and MTU, wherever the interface is."""
        try:
            namespace = tun.namespace_of(self._tun)
        except OSError:
            return _query(name, None)  # Still right for as long as the interface is at home.
        try:
            place = os.fstat(namespace).st_ino
            if place != self._place:
                _visit(namespace, lambda: tun.keep_quiet(name))  # A move resets its settings.
                away = int(place != self._home)
                self._links.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, away)
                self._place = place
            return _query(name, None if place == self._home else _identify(namespace))
        finally:
            os.close(namespace)


def _query(name: str, nsid: int | None) -> tuple[int, bool, int]:
    """Index, up, and MTU of the interface `name` in the namespace that we call `nsid`."""
    body = bytes(16) + _attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
    if nsid is not None:
        body += _attribute(_IFLA_TARGET_NETNSID, struct.pack("i", nsid))
    answer = _request(_RTM_GETLINK, body)
    index, flags = struct.unpack_from("iI", answer, 4)
    mtu = struct.unpack("I", _attributes(answer[16:])[_IFLA_MTU])[0]
    return index, bool(flags & _IFF_UP), mtu


def _identify(namespace: int) -> int:
    """The number by which our own namespace knows another, made if there is none."""
    target = bytes(4) + _attribute(_NETNSA_FD, struct.pack("I", namespace))
    with contextlib.suppress(FileExistsError):
        _request(_RTM_NEWNSID, target + _attribute(_NETNSA_NSID, struct.pack("i", -1)))
    answer = _request(_RTM_GETNSID, target)
    return int(struct.unpack("i", _attributes(answer[4:])[_NETNSA_NSID])[0])


def _visit(namespace: int, action: Callable[[], None]) -> None:
    """Runs `action` inside another network namespace, in a thread of its own: a namespace is a
    thread's, so no other one notices."""

    def body() -> None:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) == 0:
            action()

    visitor = threading.Thread(target=body)
    visitor.start()
    visitor.join()


def _subscribe(*groups: int) -> socket.socket:
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    one.bind((0, sum(1 << (group - 1) for group in groups)))
    return one


def _request(kind: int, body: bytes) -> bytes:
    """The body of the kernel's answer; OSError if it refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
        header = struct.pack("IHHII", 16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        one.sendto(header + body, (0, 0))
        answer = next(_split(one.recv(_RECEIVE_BYTES)))
    if struct.unpack_from("H", answer, 4)[0] == _NLMSG_ERROR:
        number = -struct.unpack_from("i", answer, 16)[0]
        if number:
            raise OSError(number, os.strerror(number))
    return answer[16:]


def _split(data: bytes) -> Iterator[bytes]:
    while len(data) >= 16:
        length = struct.unpack_from("I", data)[0]
        yield data[:length]
        data = data[max(16, (length + 3) & ~3) :]


def _index_of(message: bytes) -> int:
    return int(struct.unpack_from("i", message, 20)[0]) if len(message) >= 24 else 0


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[max(4, (length + 3) & ~3) :]
    return found
