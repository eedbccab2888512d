"""Writes an interface's current state to its file, with what only the file knows."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wiresnake.conffile import schema, wg, wg_quick
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.conffile.write import write_config, written
from wiresnake.devices.interface import interface_names, open_interface
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import applied, hooks, peer_diff, recovery
from wiresnake.lifecycle.resolve import resolver
from wiresnake.linux import files
from wiresnake.network import observe
from wiresnake.network.model import Network
from wiresnake.network.transaction import Say
from wiresnake.text import wipe
from wiresnake.uapi.snapshot import InterfaceState


def assert_wireguard(interface: str) -> None:
    """Raises HostError with wg-quick's text if this is not a WireGuard interface."""
    # A daemon may outlive its interface.
    if interface not in interface_names() or not observe.exists(interface):
        raise HostError(errno.ENODEV, f"`{interface}' is not a WireGuard interface")


def assert_savable(path: str, file: QuickConfig) -> None:
    """Raises ConfigError for SaveConfig in a systemd credential, which is read-only and ends with
    the service, so that the saved state would be lost."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if file.save and folder and os.path.dirname(path) == os.path.realpath(folder):
        raise ConfigError(
            f"{path}: SaveConfig cannot be kept in a credential, which is read-only: remove it"
            " there and encrypt the file again, or use a file in /etc/wireguard"
        )


def save_present(argument: str, say: Say, warn: Say) -> None:
    """Carries out `wiresnake save`; HostError or ConfigError."""
    interface, path = wg_quick.find(argument)
    file = wg_quick.load(path)
    wipe(file.wg)
    try:
        with recovery.begin(interface, say, warn):
            save(interface, path, file, say)
    except HostError as error:
        if error.errno != errno.EDEADLK:
            raise
        save(interface, path, file, say)  # A hook of the interface can save, as with wg-quick.


def save(interface: str, path: str, file: QuickConfig, say: Say) -> None:
    """Replaces the file in one step; only root can read it. Unlike wg-quick, it adds no mark and no
    link-local address that nobody wrote, and keeps search domains, names and hooks of peers, and
    what `new` remembers for the next peer.
    """
    assert_wireguard(interface)
    say(f"wg showconf {interface}")
    state = open_interface(interface).read()
    network = observe.read(interface, [state.fwmark])
    if network is None:
        raise HostError(errno.ENODEV, f"{interface} has disappeared")
    text = "\n".join(lines(file, network, state)) + "\n"
    try:
        files.replace(Path(path), text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}; it is unchanged"
        raise HostError(error.errno, what) from None
    _remember(interface, path, text)


def _remember(interface: str, path: str, text: str) -> None:
    """Updates the record: the file now names everything, so a peer that is removed from it later is
    removed. Without a record none is begun, because the `up` in whose hook this runs will do so."""
    if record := applied.load(interface):
        file = wg_quick.parse(bytearray(text.encode("utf-8", "surrogateescape")), path)
        try:
            device = wg.parse(file.wg, resolver(), name=path, scanned=file.lines)
            endpoints, said = peer_diff.told(file)
        finally:
            wipe(file.wg)
        new = hooks.record(file, endpoints, said, device)
        with contextlib.suppress(OSError):  # The disk is full, but the file is written.
            applied.save(interface, replace(new, events=record.events))


def lines(file: QuickConfig, network: Network, state: InterfaceState) -> Iterator[str]:
    """Yields the lines of the whole file."""
    yield from (f"# {key} = {value}" for key, value in file.remembered.items())
    yield "[Interface]"
    for one in network.addresses:
        # Before Linux 5.18 the kernel does not say which address it made itself.
        if one in file.addresses or not one.startswith("fe80:"):
            yield f"{schema.ADDRESS.name} = {one}"
    dns = network.dns if network.dns.servers else file.dns
    yield from (
        f"{schema.DNS.name} = {one}" for one in (*dns.servers, *(dns.search or file.dns.search))
    )
    if file.mtu:
        yield f"{schema.MTU.name} = {network.mtu}"
    changed = (schema.ADDRESS, schema.DNS, schema.MTU)
    kept = (key for key in schema.keys_of("interface", quick=True) if key not in changed)
    yield from written(kept, file)
    if network.policy and state.fwmark == network.policy.mark and not file.has_mark:
        state = state._replace(fwmark=0)
    extras = {peer.public_key: peer for peer in file.peers}
    for line in write_config(state).splitlines()[1:]:
        key, _, value = line.partition(" = ")
        extra = extras.get(value) if key == schema.PUBLIC_KEY.name else None
        if extra:
            yield from extra.comments
        yield line
        if extra:
            yield from written(schema.keys_of("peer", quick=True), extra)
