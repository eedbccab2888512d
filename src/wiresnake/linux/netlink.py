"""Netlink: sends requests to the kernel and reads its answers, for links, routes and WireGuard.

docs/dependencies.md says why this is our own code.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Self

from wiresnake.errors import HostError

ROUTE, GENERIC = 0, 16
SOL_NETLINK, CAP_ACK, EXT_ACK, STRICT, LISTEN_ALL_NSID = 270, 10, 11, 12, 8
RECEIVE_BYTES = 1 << 18

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_DUMP_INTERRUPTED, _CAPPED, _ACK_ATTRIBUTES = 0x10, 0x100, 0x200
_MESSAGE = 1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_KIND = 0x3FFF
_ONE_BYTES = 1 << 13
"""The size of the buffer for one answer."""
_TOGETHER = 500
"""The most requests in one call. Twice as many buffers are allowed, and if all are refused, their
answers still fit the receive buffer."""


class Request(NamedTuple):
    kind: int
    body: bytes | bytearray
    flags: int = 0


class Answer(NamedTuple):
    kind: int
    flags: int
    sequence: int
    body: memoryview


class Refused(HostError):
    """The kernel refused a request; `strerror` is the kernel's own explanation."""


class Netlink:
    """A connection to the kernel in the current network namespace."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def carry_out(self, requests: Sequence[Request]) -> dict[int, Refused]:
        """Carries out all requests in order; returns refusals by position. A refusal does not stop
        the others."""
        refused: dict[int, Refused] = {}
        for begin in range(0, len(requests), _TOGETHER):
            part = requests[begin : begin + _TOGETHER]
            first = self._send(part, _ACK)
            for answer in self._receive():
                if answer.kind == _ERROR and (error := _error(answer)):
                    refused[begin + answer.sequence - first] = error
                if answer.kind == _ERROR and answer.sequence == first + len(part) - 1:
                    break
        return refused

    def ask(self, request: Request) -> memoryview:
        """Returns the single answer to a request."""
        self._send([request], 0)
        answer = next(self._receive())
        if answer.kind == _ERROR and (error := _error(answer)):
            raise error
        return answer.body

    def ask_each(self, requests: Sequence[Request]) -> "list[memoryview | Refused | None]":
        """Returns one answer for each request without waiting; None if there is none. Only for
        requests that the kernel answers immediately, and few enough for the receive buffer."""
        found: list[memoryview | Refused | None] = [None] * len(requests)
        with contextlib.suppress(OSError):  # EAGAIN, or no memory for one of the answers.
            first = self._send(requests, 0)
            while None in found:
                for answer in answers(self._socket.recv(_ONE_BYTES, socket.MSG_DONTWAIT)):
                    if first <= answer.sequence:
                        error = _error(answer) if answer.kind == _ERROR else None
                        found[answer.sequence - first] = error or answer.body
        return found

    def dump(
        self, request: Request, nothing: Collection[int] = ()
    ) -> tuple[list[memoryview], bool]:
        """Returns all answers, and whether nothing changed during the dump; otherwise some may be
        missing. The errors in `nothing` count as a normal end."""
        self._send([request], _DUMP)
        found: list[memoryview] = []
        whole = True
        for answer in self._receive():
            whole &= not answer.flags & _DUMP_INTERRUPTED
            if answer.kind in (_DONE, _ERROR):
                error = _error(answer)
                if error and error.errno not in nothing:
                    raise error
                break
            found.append(answer.body)
        return found, whole

    def _send(self, requests: Sequence[Request], last: int) -> int:
        """Sends the requests in one call, the last one with these flags; returns the first sequence
        number. Successful requests are not acknowledged, except the last. Bodies are not copied,
        because they may hold keys."""
        first = self._sequence + 1
        buffers: list[bytes | bytearray] = []
        for kind, body, flags in requests:
            self._sequence += 1
            if self._sequence - first == len(requests) - 1:
                flags |= last
            length = _HEADER.size + len(body)
            buffers += (_HEADER.pack(length, kind, flags | _REQUEST, self._sequence, 0), body)
        self._socket.sendmsg(buffers)
        return first

    def _receive(self) -> Iterator[Answer]:
        """Yields sequence numbers forever."""
        while True:
            yield from answers(self._socket.recv(RECEIVE_BYTES))


def answers(datagram: bytes) -> Iterator[Answer]:
    data = memoryview(datagram)
    while len(data) >= _HEADER.size:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
        yield Answer(kind, flags, sequence, data[_HEADER.size : length])
        data = data[max(_HEADER.size, length + -length % 4) :]


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields the kind and value of each attribute, without flags and padding."""
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _KIND, data[at + 4 : at + length]
        at += max(4, length + -length % 4)


def fields(data: memoryview) -> dict[int, memoryview]:
    """Returns attributes by kind, if each kind occurs once."""
    return dict(attributes(data))


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """Returns an attribute of 32 bits."""
    return struct.pack("=HHI", 8, kind, value)


def name(kind: int, value: str) -> bytes:
    return attribute(kind, os.fsencode(value) + b"\0")


def unsigned(data: bytes | memoryview) -> int:
    return int.from_bytes(data, sys.byteorder)


def _error(answer: Answer) -> Refused | None:
    code = -struct.unpack_from("=i", answer.body)[0] if len(answer.body) >= 4 else 0
    if not code:
        return None
    said = ""
    if answer.flags & _ACK_ATTRIBUTES:
        # After the code comes the request or only its header, then the kernel's explanation.
        request = _HEADER.size if answer.flags & _CAPPED else unsigned(answer.body[4:8])
        told = fields(answer.body[4 + request + -request % 4 :]).get(_MESSAGE, b"")
        said = bytes(told).rstrip(b"\0").decode(errors="replace").rstrip(".")
    return Refused(code, f"{os.strerror(code)} ({said})" if said else os.strerror(code))
