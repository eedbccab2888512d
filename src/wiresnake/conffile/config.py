"""A whole configuration as a value: what a file says, or what a program makes up."""

import ipaddress
import os
from dataclasses import dataclass, field

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.conffile import wg, wg_quick
from wiresnake.errors import ConfigError, HostError
from wiresnake.linux import files, udp
from wiresnake.model import CLEAR, DeviceChange, Dns, PeerChange, Prefix, check_number
from wiresnake.text import base64_text, wipe


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as it is configured."""

    public_key: str
    """In base64."""
    preshared_key: PresharedKey | None = field(default=None, repr=False, hash=False)
    endpoint: Endpoint | None = None
    allowed_ips: tuple[Prefix, ...] = ()
    persistent_keepalive: int = 0
    """Seconds; 0 is off."""

    def __post_init__(self) -> None:
        _raw(self.public_key)
        check_number("persistent_keepalive", self.persistent_keepalive, 16)


@dataclass(frozen=True, slots=True)
class Config:
    """An interface and its peers; no secret is in its repr."""

    private_key: PrivateKey | None = field(default=None, repr=False, hash=False)
    listen_port: int = 0
    """0 is any free port."""
    fwmark: int = 0
    """0 is off."""
    peers: tuple[Peer, ...] = ()
    addresses: tuple[str, ...] = ()
    """With their networks, as `10.0.0.1/24`."""
    mtu: int | None = None
    """None: 1420."""
    dns: Dns = Dns()  # noqa: RUF009
    """For a resolver, as `Table` is for routes; `Tunnel` uses neither."""
    table: str = ""
    """As written; empty is auto."""

    def __post_init__(self) -> None:
        """ConfigError says which value no interface can have."""
        if not isinstance(self.private_key, PrivateKey | None):
            raise ConfigError("private_key is not a PrivateKey: PrivateKey.from_base64 reads one")
        check_number("listen_port", self.listen_port, 16)
        check_number("fwmark", self.fwmark, 32)
        check_number("mtu", self.mtu, 16)
        for address in self.addresses:
            try:
                ipaddress.ip_interface(address)
            except ValueError:
                raise ConfigError(f"not an address: {address!r}") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "Config":
        """Reads a file of `wg-quick` or of `wg`; hooks in it are passed over.

        ConfigError says what is wrong, with file:line:column; HostError, that it cannot be read.
        Names of hosts are looked up, which blocks for as long as DNS does.
        """
        name = os.fspath(path)
        text = read(name)
        try:
            return _parse(text, name)
        finally:
            wipe(text)

    @classmethod
    def parse(cls, text: str, name: str = "configuration") -> "Config":
        """The same for text, which is `name` in errors."""
        buffer = bytearray(text, "utf-8", "surrogateescape")
        try:
            return _parse(buffer, name)
        finally:
            wipe(buffer)

    def change(self) -> DeviceChange:
        """What makes any device this one."""
        return DeviceChange(
            private_key=self.private_key or CLEAR,
            listen_port=self.listen_port,
            fwmark=self.fwmark,
            replace_peers=True,
            peers=tuple(
                PeerChange(
                    _raw(peer.public_key),
                    preshared_key=peer.preshared_key or CLEAR,
                    endpoint=peer.endpoint,
                    persistent_keepalive=peer.persistent_keepalive,
                    replace_allowed_ips=True,
                    allowed_ips=tuple((True, prefix) for prefix in peer.allowed_ips),
                )
                for peer in self.peers
            ),
        )


def read(path: str) -> bytearray:
    """A file that may have secrets, in a buffer for the caller to wipe and with no copy elsewhere.
    HostError if it cannot be read."""
    try:
        return files.read(path)
    except OSError as error:
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path!r} is not the name of a file: {error}") from None


def _parse(text: bytearray, name: str) -> Config:
    whole = wg_quick.parse(text, name)
    try:
        device = wg.parse(whole.wg, udp.resolve, name=name)
    finally:
        wipe(whole.wg)
    return Config(
        device.private_key if isinstance(device.private_key, PrivateKey) else None,
        device.listen_port or 0,
        device.fwmark or 0,
        tuple(map(_peer, device.peers)),
        whole.addresses,
        whole.mtu,
        whole.dns,
        whole.table,
    )


def _peer(change: PeerChange) -> Peer:
    preshared = change.preshared_key
    return Peer(
        base64_text(change.public_key),
        preshared if isinstance(preshared, PresharedKey) else None,
        change.endpoint,
        tuple(prefix for _, prefix in change.allowed_ips),
        change.persistent_keepalive or 0,
    )


def _raw(public_key: str) -> bytes:
    try:
        return wg.public_key(public_key)
    except ValueError:
        raise ConfigError(f"not a public key in base64: {public_key!r}") from None
