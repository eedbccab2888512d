"""The values of a configuration and of a device's state, all immutable.

Every configuration format is parsed into these.
"""

import ipaddress
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple, Self

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.errors import ConfigError


class _Network(NamedTuple):
    address: bytes
    length: int


class Prefix(_Network):
    """A network of allowed IPs: an address of 4 or 16 bytes with zero host bits, and a length.

    ConfigError if the values are not a network.
    """

    __slots__ = ()

    def __new__(cls, address: bytes, length: int) -> Self:
        is_address = isinstance(address, bytes) and len(address) in (4, 16)
        if not is_address or type(length) is not int or not 0 <= length <= 8 * len(address):
            raise ConfigError(f"not an IP network: {address!r}, {length!r}")
        if int.from_bytes(address) & ((1 << 8 * len(address) - length) - 1):
            raise ConfigError(f"not an IP network, as bits of a host are set: {address!r}/{length}")
        return super().__new__(cls, address, length)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `address[/length]`. Host bits are set to zero, as by the kernel.

        ConfigError if it is not a network. A dotted mask or a zone is refused, as by `wg`.
        """
        host, slash, suffix = text.partition("/")
        try:
            if "%" in host or (slash and not (suffix.isascii() and suffix.isdecimal())):
                raise ValueError
            address = ipaddress.ip_address(host).packed
        except ValueError:
            raise ConfigError(f"not an IP network: {text!r}") from None
        bits = 8 * len(address)
        length = int(suffix[:9]) if slash else bits
        if length > bits:
            raise ConfigError(f"not an IP network: {text!r}")
        network = int.from_bytes(address) >> (bits - length) << (bits - length)
        return cls._make((network.to_bytes(len(address)), length))  # It is valid already.


class Clear(Enum):
    """The type of `CLEAR`, which removes a value in a change. None leaves the value unchanged."""

    CLEAR = "clear"


CLEAR: Literal[Clear.CLEAR] = Clear.CLEAR
"""Removes a value in a `DeviceChange` or `PeerChange`."""


@dataclass(frozen=True, slots=True)
class PeerChange:
    """A change of one peer. None leaves a value unchanged.

    ConfigError if no peer can have one of the values.
    """

    public_key: bytes
    """32 bytes."""
    remove: bool = False
    """Removes the peer."""
    update_only: bool = False
    """Skips the change if there is no such peer, instead of adding it."""
    preshared_key: PresharedKey | Clear | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    """Seconds, 1 to 65535; 0 is off."""
    replace_allowed_ips: bool = False
    """Removes the allowed IPs that the peer had before."""
    allowed_ips: tuple[tuple[bool, Prefix], ...] = ()
    """In this order, True adds the prefix, and False removes it if this peer has it."""

    def __post_init__(self) -> None:
        if not isinstance(self.public_key, bytes) or len(self.public_key) != 32:
            raise ConfigError("public_key is not a key of 32 bytes")
        check_number("persistent_keepalive", self.persistent_keepalive, 16)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A change of a device, from a UAPI `set` or a file. It is applied as a whole or not at all.

    None leaves a value unchanged. ConfigError if no device can have one of the values.
    """

    private_key: PrivateKey | Clear | None = None
    listen_port: int | None = None
    """0 asks for any free port."""
    fwmark: int | None = None
    """0 is off."""
    replace_peers: bool = False
    """Removes all peers that the device had before."""
    peers: tuple[PeerChange, ...] = ()

    def __post_init__(self) -> None:
        check_number("listen_port", self.listen_port, 16)
        check_number("fwmark", self.fwmark, 32)


def check_number(name: str, value: int | None, bits: int) -> None:
    """Raises ConfigError, with this `name`, if the value is not an unsigned number of `bits`."""
    if value is not None and not (type(value) is int and 0 <= value < 1 << bits):
        raise ConfigError(f"{name} is not a number from 0 to {(1 << bits) - 1}: {value}")


class Note(NamedTuple):
    """How often something happened, and when first and last, in ns of CLOCK_BOOTTIME."""

    number: int
    first: int
    last: int


class Stranger(NamedTuple):
    """The initiations by keys of no peer: their number, and the last one."""

    number: int
    public_key: bytes
    """The key as claimed, without proof."""
    endpoint: Endpoint
    last: int
    """In ns of CLOCK_BOOTTIME."""


class Dns(NamedTuple):
    """Name servers, and the search domains for short names."""

    servers: tuple[str, ...] = ()
    """IP addresses."""
    search: tuple[str, ...] = ()
    """Domains."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """The present state of a device, without its peers."""

    private_key: PrivateKey | None
    listen_port: int
    """The UDP port; 0 if it is any port and none was bound yet."""
    fwmark: int
    """0 is off."""
    up: bool = False
    bound: bool = False
    """Whether it has its UDP sockets. It only has them while it is up."""
    bind_error: int = 0
    """The errno if it is up without sockets, else 0. Opening them is tried again."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """The present state of a peer."""

    public_key: str
    """In base64."""
    endpoint: Endpoint | None
    allowed_ips: tuple[Prefix, ...]
    """In the order in which they were added."""
    latest_handshake: int
    """The time of the last completed handshake, in ns since 1970; 0 is never."""
    received: int
    sent: int
    """Bytes of the outer UDP payload."""
    persistent_keepalive: int
    """Seconds; 0 is off."""
