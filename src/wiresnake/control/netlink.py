"""Netlink messages, as few as a WireGuard interface needs.

Own code, because pyroute2 takes 0.17 s to import and 0.1 ms to read a peer, where a whole `show`
has 40 ms; and it keeps copies of keys.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.errors import HostError

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300

_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
_NESTED = 0x8000
_CONTROL_FAMILY, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_GENERIC_NETLINK = 16
_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")
_NIBBLE = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


class Interrupted(Exception):
    """The kernel's state changed during a dump, which is to be made again."""


class Message:
    """A generic netlink message under construction. Secrets are written once nothing moves."""

    def __init__(self, family: int, command: int, flags: int) -> None:
        self.data = bytearray(_HEADER.pack(0, family, REQUEST | flags, 0, 0))
        self.data += _GENERIC.pack(command, 1)
        self._secrets: list[tuple[PrivateKey | PresharedKey, int]] = []

    def put(self, kind: int, value: bytes) -> None:
        self.data += _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)

    def put_secret(self, kind: int, secret: PrivateKey | PresharedKey | None) -> None:
        """Without one the key of zeros."""
        if secret is not None:
            self._secrets.append((secret, len(self.data) + 4))
        self.put(kind, bytes(32))

    def begin(self, kind: int) -> int:
        """Opens a nest; `end` takes what this returns."""
        self.data += _ATTRIBUTE.pack(0, kind | _NESTED)
        return len(self.data) - 4

    def end(self, begin: int) -> None:
        struct.pack_into("=H", self.data, begin, len(self.data) - begin)

    def finish(self) -> bytearray:
        """The bytes to send, which the caller wipes."""
        struct.pack_into("=I", self.data, 0, len(self.data))
        digits = bytearray(64)
        for secret, offset in self._secrets:
            secret.write_hex(digits, 0)
            nibbles = digits.translate(_NIBBLE)
            for at in range(32):
                self.data[offset + at] = nibbles[2 * at] << 4 | nibbles[2 * at + 1]
            nibbles[:] = digits[:] = bytes(64)
        return self.data


class Netlink:
    """A conversation with the kernel's generic netlink."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC_NETLINK)
        self._socket.bind((0, 0))

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def family(self, name: str) -> int:
        """The number of a family. HostError (EPROTONOSUPPORT) if the kernel has none."""
        message = Message(_CONTROL_FAMILY, _GET_FAMILY, ACK)
        message.put(_FAMILY_NAME, name.encode() + b"\0")
        number = 0
        try:
            for data in self.ask(message):
                for kind, value in attributes(data):
                    if kind == _FAMILY_ID:
                        (number,) = struct.unpack("=H", value)
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
        if not number:
            what = f"this kernel has no {name}: load its module"
            raise HostError(errno.EPROTONOSUPPORT, what)
        return number

    def ask(self, message: Message) -> Iterator[memoryview]:
        """Sends a message; yields the attributes of each that comes back, until the last.

        HostError with the kernel's errno; Interrupted.
        """
        data = message.finish()
        try:
            self._socket.send(data)
        finally:
            data[:] = bytes(len(data))
        while True:
            answer = memoryview(self._socket.recv(1 << 17))
            offset = 0
            while offset < len(answer):
                length, kind, flags, _, _ = _HEADER.unpack_from(answer, offset)
                body = answer[offset + _HEADER.size : offset + length]
                offset += length + -length % 4
                if flags & _DUMP_INTERRUPTED:
                    raise Interrupted
                if kind in (_ERROR, _DONE):
                    (number,) = struct.unpack_from("=i", body) if len(body) >= 4 else (0,)
                    if number:
                        raise HostError(-number, f"the kernel says: {os.strerror(-number)}")
                    return
                yield body[_GENERIC.size :]


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The kind and the value of each attribute, without flags and padding."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += length + -length % 4
