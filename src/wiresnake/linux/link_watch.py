"""Watches an interface: up, down, MTU, deletion, and its move to another network namespace.

It uses raw rtnetlink without polling. A message only says that something has changed; the present
state is then read. After a move our own socket hears the other namespace (NETLINK_LISTEN_ALL_NSID),
so that we hold no descriptor that keeps that namespace alive: a container that ends takes the
interface with it, as with the kernel's WireGuard.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable

from wiresnake.errors import DEFECTS, reason
from wiresnake.linux import netlink, tun
from wiresnake.linux.namespace import visit
from wiresnake.linux.netlink import Answer, Netlink, Request
from wiresnake.linux.rtnetlink import GET_LINK, Group

# <linux/rtnetlink.h>, <linux/if_link.h>, <linux/net_namespace.h>, <linux/netlink.h>
_NEW_NSID, _GET_NSID = 88, 90
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TARGET_NETNSID = 3, 4, 46
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IFF_UP = 1
_ANY = 0xFFFFFFFF
"""Asks for any free number."""

_log = logging.getLogger(__name__)


class LinkWatch:
    """Calls `on_link(up, mtu)` when either changed, and `on_gone()` once. Needs a running loop."""

    def __init__(
        self,
        tun_fd: int,
        on_link: Callable[[bool, int], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._tun = tun_fd
        self._on_link, self._on_gone = on_link, on_gone
        self._state: tuple[bool, int] | None = None
        self._index = 0
        self._lost_sight = False
        self._home = os.stat("/proc/self/ns/net").st_ino
        self._place = self._home
        self._loop = asyncio.get_running_loop()
        self._links = subscribe(Group.LINK)
        self._loop.add_reader(self._links, self._link_changed)
        self._refresh()

    def close(self) -> None:
        self._loop.remove_reader(self._links)
        self._links.close()

    def _link_changed(self) -> None:
        try:
            data = self._links.recv(netlink.RECEIVE_BYTES)
        # ENOBUFS: the kernel had to drop some messages, so read the state.
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            data = b""
        known = data and self._index
        if not known or any(_index_of(one) == self._index for one in netlink.answers(data)):
            self._refresh()

    def _refresh(self) -> None:
        name = tun.name_of(self._tun)
        if name is None:
            self._on_gone()
            return
        try:
            self._index, up, mtu = self._look(name)
            self._lost_sight = False
        except DEFECTS as error:  # An answer that makes no sense must not end the interface either.
            if tun.name_of(self._tun) is None:
                self._on_gone()
                return
            if not self._lost_sight:
                _log.error("cannot follow %s, which is assumed to be up: %s", name, reason(error))
            self._lost_sight = True
            self._index = 0  # It may return with any index.
            up, mtu = True, self._state[1] if self._state else tun.DEFAULT_MTU
        if self._state != (up, mtu):
            self._state = (up, mtu)
            self._on_link(up, mtu)

    def _look(self, name: str) -> tuple[int, bool, int]:
        """Returns index, up and MTU, wherever the interface is."""
        try:
            namespace = tun.namespace_of(self._tun)
        except OSError:
            return _query(name, None)  # Correct as long as the interface is in our namespace.
        try:
            place = os.fstat(namespace).st_ino
            if place != self._place:
                with contextlib.suppress(OSError):  # A move resets its settings.
                    visit(namespace, lambda: tun.keep_quiet(name))
                away = int(place != self._home)
                self._links.setsockopt(netlink.SOL_NETLINK, netlink.LISTEN_ALL_NSID, away)
                self._place = place
            return _query(name, None if place == self._home else _identify(namespace))
        finally:
            os.close(namespace)


def _query(interface: str, nsid: int | None) -> tuple[int, bool, int]:
    """Returns index, up and MTU of the interface in the namespace with our number `nsid`."""
    body = bytes(16) + netlink.name(_IFLA_IFNAME, interface)
    if nsid is not None:
        body += netlink.number(_IFLA_TARGET_NETNSID, nsid)
    with Netlink() as kernel:
        answer = kernel.ask(Request(GET_LINK, body))
    index, flags = struct.unpack_from("iI", answer, 4)
    return index, bool(flags & _IFF_UP), netlink.unsigned(netlink.fields(answer[16:])[_IFLA_MTU])


def _identify(namespace: int) -> int:
    """Returns our namespace's number for another namespace, and assigns one if needed."""
    target = bytes(4) + netlink.number(_NETNSA_FD, namespace)
    with Netlink() as kernel:
        made = Request(_NEW_NSID, target + netlink.number(_NETNSA_NSID, _ANY))
        for error in kernel.carry_out([made]).values():
            if error.errno != errno.EEXIST:
                raise error
        answer = kernel.ask(Request(_GET_NSID, target))
    return int(struct.unpack("i", netlink.fields(answer[4:])[_NETNSA_NSID])[0])


def subscribe(*groups: int) -> socket.socket:
    """Opens a non-blocking socket that hears these multicast groups of rtnetlink."""
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    one.bind((0, sum(1 << (group - 1) for group in groups)))
    return one


def _index_of(message: Answer) -> int:
    return netlink.unsigned(message.body[4:8])
