"""The client of a UAPI socket: ours, wireguard-go's, boringtun's and those made from them.

Without `model`, which takes 20 ms to import: `show` reads, it changes nothing.
"""

import contextlib
import errno
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.errors import HostError
from wiresnake.text import base64_text, ip_text, write_endpoint, zone_text
from wiresnake.uapi.snapshot import Backend, InterfaceState, PeerState

if TYPE_CHECKING:
    from wiresnake.model import Clear, DeviceChange

DIRECTORY = "/var/run/wireguard"

_TIMEOUT = 60
"""Seconds without a sign of life; changing 100,000 peers takes some."""
_ZERO = "0" * 64


def connect(name: str) -> socket.socket | None:
    """A connection to the interface's daemon; None if nobody answers there.

    A socket file that refuses is what a dead daemon left: it goes, as with `wg`.
    """
    path = f"{DIRECTORY}/{name}.sock"
    if "/" in name or not _is_socket(path):
        return None
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.settimeout(_TIMEOUT)
    try:
        one.connect(path)
    except ConnectionRefusedError:
        one.close()
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None
    except OSError as error:
        one.close()
        if error.errno == errno.ENOENT:
            return None
        raise HostError(error.errno, f"cannot reach {path}: {error.strerror}") from None
    return one


def names() -> list[str]:
    """The interfaces whose daemon answers, in the directory's order."""
    try:
        files = os.listdir(DIRECTORY)
    except OSError:
        return []
    found = []
    for file in files:
        name = file.removesuffix(".sock")
        if name != file and name:
            try:
                one = connect(name)
            except HostError:
                continue
            if one is not None:
                one.close()
                found.append(name)
    return found


class UapiInterface:
    """An interface that a daemon runs. Each call is a connection of its own: some serve but one
    operation on each. The first call takes the one that is given."""

    backend: Backend = "user"

    def __init__(self, name: str, connection: socket.socket | None = None) -> None:
        self.name = name
        self._connection = connection

    def read(self) -> InterfaceState:
        """HostError if the daemon is gone, or says no."""
        return parse_state(self.name, self.ask(b"get=1\n\n"), time.time())

    def change(self, change: "DeviceChange") -> None:
        """HostError with the daemon's errno; what stood before the refused line may be applied.

        Nobody is asked first who it is: boringtun refuses the first of the words about peers, and
        that before it does anything to a peer.
        """
        from wiresnake.devices import compatibility

        try:
            self._set(compatibility.but_for_boringtun(change))
        except HostError as error:
            if error.errno not in compatibility.UNKNOWN_WORDS or not change.peers:
                raise
            if self._first_key() == "own_public_key":
                for step in compatibility.anew(change, self.read()):
                    self._set(step)
            else:
                compatibility.apply(change, self._set, self.read)

    def _first_key(self) -> str:
        """Of a `get`, whose rest need not come: boringtun's begins with a key of its own."""
        one = connect(self.name)
        if one is None:
            return ""
        with one, contextlib.suppress(OSError):
            one.sendall(b"get=1\n\n")
            return one.recv(64).partition(b"=")[0].decode("ascii", "replace")
        return ""

    def _set(self, change: "DeviceChange") -> None:
        request = write_change(change)
        try:
            self.ask(request)
        finally:
            request[:] = bytes(len(request))

    def ask(self, request: bytes | bytearray) -> str:
        """Sends one operation; its answer without the errno line. HostError if that is not 0.

        The sign of an errno differs between operations and implementations, and tells nothing.
        """
        one, self._connection = self._connection or connect(self.name), None
        if one is None:
            raise HostError(errno.ENODEV, f"no daemon runs {self.name}")
        try:
            with one:
                answer = _exchange(one, request)
        except OSError as error:
            number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
            raise HostError(number, f"{self.name}'s daemon: {error.strerror or error}") from None
        text, _, number_text = answer.removesuffix("\n\n").rpartition("errno=")
        try:
            number = abs(int(number_text))
        except ValueError:
            raise HostError(errno.EPROTO, f"{self.name}'s daemon gave no errno") from None
        if number:
            what = f"{self.name}'s daemon refused: {os.strerror(number)}"
            raise HostError(number, what)
        return text


def parse_state(name: str, text: str, now: float) -> InterfaceState:
    """Reads the answer to a `get`; keys that are unknown here are ignored."""
    device: dict[str, str] = {}
    fields = device
    allowed: list[str] = []
    peers: list[tuple[dict[str, str], list[str]]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "allowed_ip":
            allowed.append(value)
            continue
        if key == "public_key":
            fields, allowed = {}, []
            peers.append((fields, allowed))
        fields[key] = value
    # boringtun and its kin give the public key instead of the private one, and times as ages.
    public = device.get("own_public_key")
    begin = now if public is not None else None
    try:
        private = device.get("private_key", _ZERO)
        return InterfaceState(
            name,
            "user",
            _base64(private),
            _base64(public) if public is not None else _public(private),
            int(device.get("listen_port", 0)),
            int(device.get("fwmark", 0)),
            tuple([_peer(fields, allowed, begin) for fields, allowed in peers]),
        )
    except ValueError:
        raise HostError(errno.EPROTO, f"{name}'s daemon gave what is no WireGuard state") from None


def _peer(fields: dict[str, str], allowed: list[str], begin: float | None) -> PeerState:
    seconds = int(fields.get("last_handshake_time_sec", 0))
    nanoseconds = int(fields.get("last_handshake_time_nsec", 0))
    if begin is not None and "last_handshake_time_sec" in fields:
        age = seconds + nanoseconds / 1e9
        seconds, nanoseconds = int(begin - age), int((begin - age) % 1 * 1e9)
    return PeerState(
        base64_text(bytes.fromhex(fields["public_key"])),
        _base64(fields.get("preshared_key", _ZERO)),
        _endpoint(fields.get("endpoint")),
        tuple(allowed),
        (seconds, nanoseconds),
        int(fields.get("rx_bytes", 0)),
        int(fields.get("tx_bytes", 0)),
        int(fields.get("persistent_keepalive_interval", 0)),
    )


def _endpoint(text: str | None) -> str | None:
    """With the name of a zone for its number, as in a kernel's state."""
    if text is None or "%" not in text:
        return text
    address, _, rest = text.partition("%")
    zone, bracket, port = rest.partition("]")
    return f"{address}%{zone_text(int(zone)) if zone.isdecimal() else zone}{bracket}{port}"


def write_change(change: "DeviceChange") -> bytearray:
    """The text of a `set`, which the caller wipes."""
    text = _Text()
    text.secret("private_key", change.private_key)
    text.value("listen_port", change.listen_port)
    text.value("fwmark", change.fwmark)
    text.flag("replace_peers", change.replace_peers)
    for peer in change.peers:
        text.value("public_key", peer.public_key.hex())
        text.flag("remove", peer.remove)
        text.flag("update_only", peer.update_only)
        text.secret("preshared_key", peer.preshared_key)
        if peer.endpoint is not None:
            text.value("endpoint", write_endpoint(peer.endpoint))
        text.value("persistent_keepalive_interval", peer.persistent_keepalive)
        text.flag("replace_allowed_ips", peer.replace_allowed_ips)
        for add, (address, length) in peer.allowed_ips:
            text.value("allowed_ip", f"{'' if add else '-'}{ip_text(address)}/{length}")
    return text.finish()


class _Text:
    """Lines with room for secrets, which are written once nothing moves any more."""

    def __init__(self) -> None:
        self._parts = ["set=1\n"]
        self._length = len(self._parts[0])
        self._secrets: list[tuple[PrivateKey | PresharedKey, int]] = []

    def value(self, key: str, value: str | int | None) -> None:
        if value is not None:
            self._parts.append(f"{key}={value}\n")
            self._length += len(self._parts[-1])

    def flag(self, key: str, value: bool) -> None:
        self.value(key, "true" if value else None)

    def secret(self, key: str, secret: "PrivateKey | PresharedKey | Clear | None") -> None:
        if secret is None:
            return
        if isinstance(secret, PrivateKey | PresharedKey):
            self._secrets.append((secret, self._length + len(key) + 1))
        self.value(key, _ZERO)

    def finish(self) -> bytearray:
        self._parts.append("\n")
        text = bytearray("".join(self._parts), "ascii")
        for secret, offset in self._secrets:
            secret.write_hex(text, offset)
        return text


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _exchange(one: socket.socket, request: bytes | bytearray) -> str:
    one.sendall(request)
    parts = []
    tail = b""
    while not tail.endswith(b"\n\n"):
        part = one.recv(1 << 18)
        if not part:
            break
        parts.append(part)
        tail = tail[-1:] + part[-2:]
    return b"".join(parts).decode("ascii", "replace")


def _base64(digits: str) -> str | None:
    """Of a key in hex; None of the zero key."""
    if digits == _ZERO:
        return None
    key = bytes.fromhex(digits)
    if len(key) != 32:
        raise ValueError
    return base64_text(key)


def _public(digits: str) -> str | None:
    private = PrivateKey.from_hex(digits.encode())
    return private and base64_text(private.public)
