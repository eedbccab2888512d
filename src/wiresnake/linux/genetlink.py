"""Generic netlink: looks up a family by name, and builds messages that hold each secret only
once."""

import errno
import os
import struct
from typing import TYPE_CHECKING

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.errors import HostError
from wiresnake.linux import netlink
from wiresnake.linux.netlink import Netlink, Refused, Request, attributes

if TYPE_CHECKING:
    from wiresnake.model import Clear

HEADER_BYTES = 4
_CONTROL_FAMILY, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_NESTED = 0x8000
_NIBBLE = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


class Message:
    """A request under construction. Secrets are written last, when nothing moves any more."""

    def __init__(self, family: int, command: int) -> None:
        self._family = family
        self.body = bytearray(struct.pack("=BBxx", command, 1))
        self._secrets: list[tuple[PrivateKey | PresharedKey, int]] = []

    def put(self, kind: int, value: bytes) -> None:
        self.body += netlink.attribute(kind, value)

    def put_number(self, kind: int, value: int | None, form: str = "=I") -> None:
        """Adds a number; None adds nothing."""
        if value is not None:
            self.put(kind, struct.pack(form, value))

    def put_secret(self, kind: int, secret: "PrivateKey | PresharedKey | Clear | None") -> None:
        """Adds a key; CLEAR adds zeros, and None nothing."""
        if isinstance(secret, PrivateKey | PresharedKey):
            self._secrets.append((secret, len(self.body) + 4))
        if secret is not None:
            self.put(kind, bytes(32))

    def begin(self, kind: int) -> int:
        """Opens a nested attribute; pass the result to `end`."""
        self.put(kind | _NESTED, b"")
        return len(self.body) - 4

    def end(self, begin: int) -> None:
        struct.pack_into("=H", self.body, begin, len(self.body) - begin)

    def finish(self) -> Request:
        """Returns the message with its secrets, which `wipe` erases."""
        digits = bytearray(64)
        for secret, offset in self._secrets:
            secret.write_hex(digits, 0)
            nibbles = digits.translate(_NIBBLE)
            for at in range(32):
                self.body[offset + at] = nibbles[2 * at] << 4 | nibbles[2 * at + 1]
            nibbles[:] = digits[:] = bytes(64)
        return Request(self._family, self.body)

    def wipe(self) -> None:
        self.body[:] = bytes(len(self.body))

    def carry_out(self, kernel: Netlink) -> None:
        try:
            for error in kernel.carry_out([self.finish()]).values():
                raise failure(error)
        finally:
            self.wipe()


def family(kernel: Netlink, name: str) -> int:
    """Returns the number of a family. HostError (EPROTONOSUPPORT) if the kernel has none."""
    message = Message(_CONTROL_FAMILY, _GET_FAMILY)
    message.body += netlink.name(_FAMILY_NAME, name)
    try:
        answer = kernel.ask(message.finish())
    except Refused as error:
        if error.errno != errno.ENOENT:
            raise failure(error) from None
        what = f"this kernel has no {name}: load its module"
        raise HostError(errno.EPROTONOSUPPORT, what) from None
    return netlink.unsigned(dict(attributes(answer[HEADER_BYTES:]))[_FAMILY_ID])


def failure(error: Refused) -> HostError:
    number = error.errno or errno.EIO
    return HostError(number, f"the kernel says: {os.strerror(number)}")
