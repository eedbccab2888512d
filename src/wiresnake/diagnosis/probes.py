"""Asks the rest of the host: its routes, its resolver, and how far a datagram gets."""

import errno
import ipaddress
import os
import select
import socket
import struct
import time
from threading import Thread

from wiresnake.diagnosis.facts import Lookup, Probe, Way
from wiresnake.linux.rtnetlink import RouteNetlink

_RESOLVE_SECONDS = 5
_PROBE_SECONDS = 0.8
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_ECHO = {4: 8, 6: 128}
_ECHO_REPLY = {4: 0, 6: 129}


def way_to(target: str, mark: int = 0) -> Way:
    """Returns where the kernel would send a packet with that mark for the address."""
    try:
        with RouteNetlink() as kernel:
            route = kernel.way(target, mark)
        if not route.device:
            return Way(target, error=errno.ENETUNREACH)
        return Way(target, socket.if_indextoname(route.device), route.gateway)
    except OSError as error:
        return Way(target, error=error.errno or errno.ENETUNREACH)


def resolve(name: str) -> Lookup:
    """Asks the resolver for a few seconds at most; longer is as good as no answer."""
    answers = [Lookup(name, error=f"no answer within {_RESOLVE_SECONDS} s")]

    def ask() -> None:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
        except OSError as error:
            answers.append(Lookup(name, error=error.strerror or str(error)))
        else:
            answers.append(Lookup(name, tuple(dict.fromkeys(str(one[4][0]) for one in found))))

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_RESOLVE_SECONDS)
    return answers[-1]


def probe(host: str, port: int, mark: int = 0) -> Probe:
    """Sends a ping and an empty datagram, which WireGuard ignores, on the path of the device's
    datagrams."""
    version = ipaddress.ip_address(host).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        _mark(udp, mark)
        udp.setsockopt(*_RECVERR[version], 1)
        try:
            udp.connect((host, port))
            udp.send(b"")
        except OSError as error:
            return Probe(False, error.errno or 0)
        pinged = _ping(family, version, host, mark)
        select.select([udp], [], [], 0.05)
        return Probe(pinged, udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _ping(family: socket.AddressFamily, version: int, host: str, mark: int) -> bool:
    protocol = socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP
    try:
        with socket.socket(family, socket.SOCK_RAW, protocol) as icmp:
            _mark(icmp, mark)
            icmp.connect((host, 0))
            number = os.getpid() & 0xFFFF
            echo = struct.pack(">BBHHH", _ECHO[version], 0, 0, number, 1)
            # ICMPv6's checksum covers addresses, so the kernel computes it.
            total = sum(struct.unpack(">4H", echo))
            checksum = ~(total + (total >> 16)) & 0xFFFF
            icmp.send(echo[:2] + struct.pack(">H", checksum) + echo[4:])
            deadline = time.monotonic() + _PROBE_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                icmp.settimeout(left)
                answer = icmp.recv(2048)
                body = answer if version == 6 else answer[(answer[0] & 15) * 4 :]
                if body[0] == _ECHO_REPLY[version] and body[4:6] == number.to_bytes(2):
                    return True
    except OSError:  # No answer, a firewall, or no permission.
        pass
    return False


def _mark(one: socket.socket, mark: int) -> None:
    if mark:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark))
