"""The machine as the portable plane sees it: without what only Linux has."""

import socket
import time
from dataclasses import replace

import wiresnake._native as native
from wiresnake.linux import tun, udp
from wiresnake.protocol.timers import Now
from wiresnake.tunnel.host import Host, Unwatched


def machine(host: Host) -> Host:
    """Returns the host without offloads, without socket options beyond the ordinary, and without
    watches of routes, of sleep and of copies of the machine."""
    return replace(
        host,
        open_tun=lambda name: tun.create(name, frozenset()),
        open_sockets=lambda port, mark: udp.open_sockets(port, mark, _configure),
        clock=lambda: Now(native.clock(), time.time_ns()),
        watch_sleep=lambda on_wake: Unwatched(),
        watch_generation=lambda on_copy: Unwatched(),
        watch_routes=lambda plane, peers, flow: Unwatched(),
    )


def make_plane() -> native.Plane:
    """Makes a plane of ordinary sockets."""
    return native.Plane(portable=True)


def _configure(one: socket.socket) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
