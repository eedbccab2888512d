"""Writes an interface's present state to its file, with what only the file can know."""

import contextlib
import errno
import os
from collections.abc import Iterator

from wiresnake.config.uapi import wipe
from wiresnake.control.interface import interface_names, open_interface
from wiresnake.control.state import InterfaceState
from wiresnake.control.text import write_config
from wiresnake.errors import ConfigError, HostError
from wiresnake.host import linux
from wiresnake.host.model import Network
from wiresnake.quick import config, killed
from wiresnake.quick.config import PeerExtra, QuickConfig
from wiresnake.quick.hooks import Say


def assert_wireguard(interface: str) -> None:
    """HostError with wg-quick's words if that is none, or not there."""
    # A daemon may outlive its interface.
    if interface not in interface_names() or not linux.exists(interface):
        raise HostError(errno.ENODEV, f"`{interface}' is not a WireGuard interface")


def assert_savable(path: str, file: QuickConfig) -> None:
    """ConfigError for SaveConfig in a credential of systemd, which is read-only and ends with the
    service: what is to be saved would be lost."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if file.save and folder and os.path.dirname(path) == os.path.realpath(folder):
        raise ConfigError(
            f"{path}: SaveConfig cannot be kept in a credential, which is read-only: remove it"
            " there and encrypt the file anew, or use a file in /etc/wireguard"
        )


def save_present(argument: str, say: Say, note: Say) -> None:
    """`wiresnake save`: HostError or ConfigError."""
    interface, path = config.find(argument)
    file = config.load(path)
    wipe(file.wg)
    try:
        with killed.begin(interface, say, note):
            save(interface, path, file, say)
    except HostError as error:
        if error.errno != errno.EDEADLK:
            raise
        save(interface, path, file, say)  # A hook of the interface may save, as with wg-quick.


def save(interface: str, path: str, file: QuickConfig, say: Say) -> None:
    """Replaces the file in one step; it is readable by root alone.

    Unlike wg-quick's, what is kept has no mark and no link-local address that nobody wrote, and
    keeps search domains, names of peers and their hooks.
    """
    assert_wireguard(interface)
    say(f"wg showconf {interface}")
    state = open_interface(interface).read()
    network = linux.read(interface, [state.fwmark])
    if network is None:
        raise HostError(errno.ENODEV, f"{interface} went away meanwhile")
    text = "\n".join(lines(file, network, state)) + "\n"
    temporary = f"{path}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as out:
                os.fchmod(out.fileno(), 0o600)
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}; it is as it was"
        raise HostError(error.errno, what) from None


def lines(file: QuickConfig, network: Network, state: InterfaceState) -> Iterator[str]:
    """The whole file."""
    yield "[Interface]"
    for one in network.addresses:
        # Before Linux 5.18 nothing tells which the kernel made.
        if one in file.addresses or not one.startswith("fe80:"):
            yield f"Address = {one}"
    dns = network.dns if network.dns.servers else file.dns
    yield from (f"DNS = {one}" for one in (*dns.servers, *(dns.search or file.dns.search)))
    if file.mtu:
        yield f"MTU = {network.mtu}"
    if file.table:
        yield f"Table = {file.table}"
    if file.save:
        yield "SaveConfig = true"
    for key, commands in (
        ("PreUp", file.pre_up),
        ("PostUp", file.post_up),
        ("PreDown", file.pre_down),
        ("PostDown", file.post_down),
    ):
        yield from (f"{key} = {one}" for one in commands)
    if network.policy and state.fwmark == network.policy.mark and not file.has_mark:
        state = state._replace(fwmark=0)
    extras = {peer.public_key: peer for peer in file.peers}
    for line in write_config(state).splitlines()[1:]:
        key, _, value = line.partition(" = ")
        extra = extras.get(value) if key == "PublicKey" else None
        if extra:
            yield from extra.comments
        yield line
        if extra:
            yield from _hooks(extra)


def _hooks(peer: PeerExtra) -> Iterator[str]:
    yield from (f"OnUp = {one}" for one in peer.on_up)
    yield from (f"OnDown = {one}" for one in peer.on_down)
