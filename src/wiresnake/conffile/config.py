"""A whole configuration as a value, read from a file or made by a program."""

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
    """The configuration of one peer. ConfigError if a value is not valid."""

    public_key: str
    """The peer's public key in base64."""
    preshared_key: PresharedKey | None = field(default=None, repr=False, hash=False)
    """A secret that both sides share, or None."""
    endpoint: Endpoint | None = None
    """Where to reach the peer. None: it is only known once the peer has sent a message."""
    allowed_ips: tuple[Prefix, ...] = ()
    """The networks that are routed to the peer and accepted from it."""
    persistent_keepalive: int = 0
    """Seconds; 0 is off."""

    def __post_init__(self) -> None:
        _raw(self.public_key)
        check_number("persistent_keepalive", self.persistent_keepalive, 16)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of an interface and its peers. ConfigError if a value is not valid.

    Its repr shows no secrets.
    """

    private_key: PrivateKey | None = field(default=None, repr=False, hash=False)
    """The interface's key. Without one it cannot make sessions."""
    listen_port: int = 0
    """The UDP port; 0 is any free port."""
    fwmark: int = 0
    """The mark of the datagrams that it sends; 0 is off."""
    peers: tuple[Peer, ...] = ()
    addresses: tuple[str, ...] = ()
    """The interface's addresses with their networks, as `10.0.0.1/24`."""
    mtu: int | None = None
    """Bytes; None is 1420."""
    dns: Dns = Dns()  # noqa: RUF009
    """For a resolver. `Tunnel` does not use it."""
    table: str = ""
    """The value of `Table`, as written; empty is auto. `Tunnel` does not use it."""

    def __post_init__(self) -> None:
        if not isinstance(self.private_key, PrivateKey | None):
            raise ConfigError("private_key is not a PrivateKey: use PrivateKey.from_base64")
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
        """Reads a `wg-quick` or `wg` file. Hooks in it are ignored.

        ConfigError, with file:line:column, if something is wrong in it; HostError if it cannot be
        read. Host names are resolved, which blocks for as long as DNS takes.
        """
        name = os.fspath(path)
        text = read(name)
        try:
            return _parse(text, name)
        finally:
            wipe(text)

    @classmethod
    def parse(cls, text: str, name: str = "configuration") -> "Config":
        """Parses the text of a file, as `from_file` does. Errors call the text `name`."""
        buffer = bytearray(text, "utf-8", "surrogateescape")
        try:
            return _parse(buffer, name)
        finally:
            wipe(buffer)

    def change(self) -> DeviceChange:
        """Returns the change that gives any device this configuration."""
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
    """Reads a file of secrets into a buffer, which the caller wipes. There is no other copy.

    HostError if it cannot be read.
    """
    try:
        return files.read(path)
    except OSError as error:
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path!r} is not a file name: {error}") from None


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
