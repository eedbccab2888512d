"""The nouns of a configuration: frozen, the one truth that every dialect is read into."""

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
    """A network of allowed IPs: 4 or 16 address bytes with host bits zero, and a length.

    ConfigError if there is no such network.
    """

    __slots__ = ()

    def __new__(cls, address: bytes, length: int) -> Self:
        host_bits = 8 * len(address) - length
        if len(address) not in (4, 16) or not 0 <= host_bits <= 8 * len(address):
            raise ConfigError(f"not an IP network: {address!r}, {length!r}")
        if int.from_bytes(address) & ((1 << host_bits) - 1):
            raise ConfigError(f"not an IP network, as bits of a host are set: {address!r}/{length}")
        return super().__new__(cls, address, length)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `address[/length]`; host bits are cut off, as the kernel does.

        A dotted mask or a zone is refused, as by `wg`. ConfigError says what is wrong.
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
        return cls._make((network.to_bytes(len(address)), length))  # Nothing is left to judge.


class Clear(Enum):
    """Remove the value, where None means: leave it as it is."""

    CLEAR = "clear"


CLEAR: Literal[Clear.CLEAR] = Clear.CLEAR


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What to do to one peer; None leaves a value as it is."""

    public_key: bytes
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | Clear | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    """Seconds, 1 to 65535; 0 is off."""
    replace_allowed_ips: bool = False
    allowed_ips: tuple[tuple[bool, Prefix], ...] = ()
    """In order; True adds the prefix, False removes it if this peer has it."""

    def __post_init__(self) -> None:
        """ConfigError says which value no peer can have."""
        if not isinstance(self.public_key, bytes) or len(self.public_key) != 32:
            raise ConfigError("public_key is not a key of 32 bytes")
        check_number("persistent_keepalive", self.persistent_keepalive, 16)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What to do to a device: one UAPI `set`, or a file. Applied whole or not at all."""

    private_key: PrivateKey | Clear | None = None
    listen_port: int | None = None
    """0 asks for any free port."""
    fwmark: int | None = None
    """0 is off."""
    replace_peers: bool = False
    peers: tuple[PeerChange, ...] = ()

    def __post_init__(self) -> None:
        """ConfigError says which value no device can have."""
        check_number("listen_port", self.listen_port, 16)
        check_number("fwmark", self.fwmark, 32)


def check_number(name: str, value: int | None, bits: int) -> None:
    """ConfigError if the value, which is called `name`, is no number of so many bits."""
    if value is not None and not 0 <= value < 1 << bits:
        raise ConfigError(f"{name} is not a number from 0 to {(1 << bits) - 1}: {value}")


class Note(NamedTuple):
    """How often something happened, and when first and last, in ns of CLOCK_BOOTTIME."""

    number: int
    first: int
    last: int


class Stranger(NamedTuple):
    """Who wanted to be a peer and is none: how many initiations, and the last one."""

    number: int
    public_key: bytes
    """As it says; nothing proves it."""
    endpoint: Endpoint
    last: int
    """In ns of CLOCK_BOOTTIME."""


class Dns(NamedTuple):
    """Name servers by address, and the domains in which they are asked for short names."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """What a device is, without its peers."""

    private_key: PrivateKey | None
    listen_port: int
    """0 before the first bind to any port."""
    fwmark: int
    """0 is off."""
    up: bool = False
    bound: bool = False
    """It has its UDP sockets, which it has only while it is up."""
    bind_error: int = 0
    """The errno for which it is up without them; they are tried again."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What a peer is at the moment."""

    public_key: str
    """In base64."""
    endpoint: Endpoint | None
    allowed_ips: tuple[Prefix, ...]
    """In the order in which they were added."""
    latest_handshake: int
    """In ns since 1970; 0 is never."""
    received: int
    sent: int
    """Bytes of the outer UDP payload."""
    persistent_keepalive: int
    """Seconds; 0 is off."""
