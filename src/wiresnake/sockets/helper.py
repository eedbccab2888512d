"""The helper of the kernel stack: a process with one thread, which owns network namespaces.

Only such a process may make a user namespace, and a socket belongs to the namespace in which it is
opened. So the helper opens interfaces and sockets for its parent and passes their descriptors. It
serves all tunnels of its parent, each with a network namespace, and ends with it.

A request is a JSON object in one datagram: `{"do": METHOD, ...}` with the
arguments of the method of that name. The answer is its result, with at most one descriptor, or
`{"errno": N, "error": TEXT}`.
"""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from wiresnake.errors import HostError, WiresnakeError
from wiresnake.linux import link, namespace, processes, rtnetlink, tun
from wiresnake.linux.namespace import Kind
from wiresnake.linux.offloads import Offload

REQUEST_BYTES = 1 << 16
INTERFACE = "wg0"
"""The name of the interface in each namespace."""
_MAIN_TABLE = 254

Socket = socket.socket
Answer = tuple[dict[str, Any], int | None]


class Helper:
    """Owns the network namespaces of one process, each a descriptor."""

    def __init__(self) -> None:
        namespace.become_owner()

    def open(self, addresses: list[str], mtu: int, offloads: list[str]) -> Answer:
        """Makes a namespace with loopback and a TUN device that has the addresses and all routes.

        Passes the device's descriptor.
        """
        namespace.unshare(Kind.NETWORK)
        place = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            made = tun.create(INTERFACE, frozenset(map(Offload, offloads)))
            try:
                link.configure("lo")
                used = link.configure(INTERFACE, addresses, mtu)
                _route_everything(addresses)
                _allow_everything()
            except BaseException:
                os.close(made.fd)
                raise
        except BaseException:
            os.close(place)
            raise
        device = [made.name, used, made.vnet_header, list(made.offloads)]
        return {"place": place, "device": device}, made.fd

    def socket(self, place: int, family: int, type: int, proto: int) -> Answer:
        """Opens a socket in a namespace, and passes it."""
        namespace.enter(place, Kind.NETWORK)
        return {}, socket.socket(family, type, proto).detach()

    def namespace(self, place: int, kind: str) -> Answer:
        """Passes the network namespace (`net`), or the user namespace that owns it (`user`)."""
        namespace.enter(place, Kind.NETWORK)
        return {}, os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)

    def inhabitants(self, place: int) -> Answer:
        """Lists the processes in a namespace, without this one."""
        namespace.enter(place, Kind.NETWORK)
        found = processes.in_network(os.stat(f"/proc/self/fd/{place}").st_ino)
        return {"processes": sorted(found - {os.getpid()})}, None

    def close(self, place: int) -> Answer:
        """Lets go of a namespace, which ends with its last socket."""
        namespace.unshare(Kind.NETWORK)
        os.close(place)
        return {}, None

    def serve(self, parent: Socket) -> None:
        """Answers requests until the parent has closed its end."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while request := parent.recv(REQUEST_BYTES):
                self._answer(parent, json.loads(request))

    def _answer(self, parent: Socket, request: dict[str, Any]) -> None:
        try:
            answer, descriptor = getattr(self, request.pop("do"))(**request)
        except (OSError, WiresnakeError) as error:
            answer, descriptor = failure(error), None
        passed = [] if descriptor is None else [descriptor]
        try:
            socket.send_fds(parent, [json.dumps(answer).encode()], passed)
        finally:
            for each in passed:
                os.close(each)


@contextlib.contextmanager
def naming_the_alternative() -> Iterator[None]:
    """Adds to a refusal of the host what works without namespaces."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}; `wiresnake proxy` works without that"
        raise HostError(error.errno, what) from None


def failure(error: OSError | WiresnakeError) -> dict[str, Any]:
    what = error.message if isinstance(error, WiresnakeError) else error.strerror or str(error)
    return {"errno": getattr(error, "errno", None), "error": what}


def _route_everything(addresses: list[str]) -> None:
    """Leads all destinations of the addresses' families through the interface."""
    index = socket.if_nametoindex(INTERFACE)
    made = rtnetlink.CREATE | rtnetlink.EXCLUSIVE
    everything = {"::/0" if ":" in address else "0.0.0.0/0" for address in addresses}
    requests = [rtnetlink.route_request(made, index, all, _MAIN_TABLE) for all in everything]
    with rtnetlink.RouteNetlink() as kernel:
        for error in kernel.carry_out(requests).values():
            raise error


def _allow_everything() -> None:
    """Lets programs without privileges ping and listen on all ports, as nobody else is here."""
    group = os.getegid()
    for setting, value in (
        ("ping_group_range", f"{group} {group}"),
        ("ip_unprivileged_port_start", "0"),
    ):
        with open(f"/proc/sys/net/ipv4/{setting}", "w") as file:
            file.write(value)


def main(descriptor: str) -> None:
    """Serves the process at the other end of the socket with that number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")
    with socket.socket(fileno=int(descriptor)) as parent:
        try:
            helper = Helper()
        except (OSError, WiresnakeError) as error:
            parent.send(json.dumps(failure(error)).encode())
            return
        parent.send(json.dumps({}).encode())
        helper.serve(parent)
