"""Makes a running interface what its file says: keys, peers, and all of the host's network.

Only what differs is touched, so that sessions and counters of everybody else live on, and either
all of it is done or nothing. What a file need not say stays as it is: the port, the mark, the
private key. A peer's endpoint: `peers`.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace

from wiresnake._native import PrivateKey
from wiresnake.config.uapi import wipe
from wiresnake.control.interface import Interface, open_interface
from wiresnake.control.state import InterfaceState
from wiresnake.control.text import base64_text, write_endpoint
from wiresnake.errors import HostError
from wiresnake.host import linux
from wiresnake.host.changes import Change
from wiresnake.host.model import Network
from wiresnake.host.state import Former
from wiresnake.model import CLEAR, DeviceChange, PeerChange
from wiresnake.quick import applied, config, desired, hooks, killed, loops, peers
from wiresnake.quick.applied import Applied
from wiresnake.quick.config import QuickConfig
from wiresnake.quick.hooks import Say
from wiresnake.quick.peers import Difference, PeerDifference
from wiresnake.quick.resolve import resolver
from wiresnake.quick.save import assert_wireguard


def reload(argument: str, say: Say, note: Say) -> None:
    """HostError or ConfigError: then all is as it was before. `note` takes what is kept though the
    file does not say so."""
    interface, path = config.find(argument)
    file = config.load(path)
    try:
        with killed.begin(interface, say, note) as change:
            todo = _plan(change, file, path, note)
            _apply(change, todo, path, say)
            record = hooks.record(file, todo.difference.endpoints)
            record = replace(record, events=todo.record.events if todo.record else 0)
            applied.save(interface, hooks.restart_events(record, path, interface))
    finally:
        wipe(file.wg)


def difference(argument: str, say: Say, note: Say) -> list[str]:
    """What `reload` would change, a line each, without secrets. `say` takes what is done to mend
    what a killed change left."""
    interface, path = config.find(argument)
    file = config.load(path)
    try:
        with killed.begin(interface, say, note) as change:
            todo = _plan(change, file, path, note)
            return [*_device_lines(todo), *map(_signed, map(str, change.plan(todo.network)))]
    finally:
        wipe(file.wg)


@dataclass(frozen=True, slots=True)
class _Todo:
    names: dict[str, str]
    """Of peers that have one: their name and key, by key."""
    device: Interface
    state: InterfaceState
    """Before."""
    record: Applied | None
    difference: Difference
    head: DeviceChange
    """Of the interface itself, only what changes."""
    network: Network


def _plan(change: Change, file: QuickConfig, path: str, note: Say) -> _Todo:
    interface = change.interface
    assert_wireguard(interface)
    device = open_interface(interface)
    state = device.read()
    record = applied.load(interface)
    found = peers.compare(
        file.wg, state, record.endpoints if record else None, resolver(), name=path
    )
    if found.device.private_key is CLEAR and state.private_key:
        note(f"{path} has no PrivateKey: {interface} keeps its own")
    names = {
        peer.public_key: f"{peer.name} ({peer.public_key})" for peer in file.peers if peer.name
    }
    for key in found.unsure:
        note(f"peer {names.get(key, key)} keeps its endpoint: it may have roamed there")
    marked = desired.needs_mark(file, found.allowed_ips)
    mark = found.device.fwmark or (0 if file.has_mark and not marked else state.fwmark)
    if marked and not mark:
        mark = linux.free_table()
    mtu = file.mtu
    if mtu is None and (record is None or record.mtu is None):
        # It was guessed once; what has changed since is no matter of the file.
        mtu = linux.mtu(interface)
    network = desired.network(
        file,
        found.allowed_ips,
        mtu=mtu or desired.guess_mtu(state),
        mark=mark,
        path=path,
    )
    if lost := desired.lost(file, network):
        note(lost)
    return _Todo(names, device, state, record, found, _head(found.device, state, mark), network)


def _head(wanted: DeviceChange, state: InterfaceState, mark: int) -> DeviceChange:
    key = wanted.private_key
    same = key is CLEAR or key == _private(state.private_key)
    port = wanted.listen_port
    return DeviceChange(
        private_key=None if same else key,
        listen_port=port if port and port != state.listen_port else None,
        fwmark=mark if mark != state.fwmark else None,
    )


def _apply(change: Change, todo: _Todo, path: str, say: Say) -> None:
    """Peers that go are the last, as nothing brings their sessions back."""
    for line in _device_lines(todo):
        say(line)
    stay = [one for one in todo.difference.peers if not one.change.remove]
    go = [one for one in todo.difference.peers if one.change.remove]
    first = replace(todo.head, peers=tuple(one.change for one in stay))
    if first != DeviceChange():
        # Of peers that go, too, allowed IPs may have moved away.
        back = [*stay, *(one for one in go if one.lost)]
        former = _former(todo)
        change.former = Former(former.fwmark, former.listen_port)
        undo = replace(former, peers=tuple(map(_undone, back)))
        change.do("", lambda: todo.device.change(first), lambda: todo.device.change(undo))
    change.to(todo.network, file=path, backend=todo.device.backend)
    _assert_no_loop(change.interface, todo)
    if go:
        last = DeviceChange(peers=tuple(one.change for one in go))
        again = DeviceChange(peers=tuple(map(_undone, go)))
        change.do("", lambda: todo.device.change(last), lambda: todo.device.change(again))


def _former(todo: _Todo) -> DeviceChange:
    """The interface itself as it was, as far as it changes."""
    head, state = todo.head, todo.state
    return DeviceChange(
        private_key=(_private(state.private_key) or CLEAR) if head.private_key else None,
        listen_port=None if head.listen_port is None else state.listen_port,
        fwmark=None if head.fwmark is None else state.fwmark,
    )


def _undone(one: PeerDifference) -> PeerChange:
    if one.before is None:
        return PeerChange(one.change.public_key, remove=True)
    return peers.whole(one.before)


def _private(text: str | None) -> PrivateKey | None:
    return PrivateKey.from_base64(bytearray(text, "ascii")) if text else None


def _assert_no_loop(interface: str, todo: _Todo) -> None:
    mark = todo.state.fwmark if todo.head.fwmark is None else todo.head.fwmark
    ways = {one.public_key: one.endpoint for one in todo.state.peers if one.endpoint}
    # Who gets a new endpoint, or whose is in a network that is new in the tunnel.
    asked = set()
    for one in todo.difference.peers:
        if one.change.remove:
            ways.pop(one.public_key, None)
        elif one.change.endpoint is not None:
            ways[one.public_key] = write_endpoint(one.change.endpoint)
            asked.add(one.public_key)
    gained = (ip for one in todo.difference.peers for ip in one.gained)
    for found in loops.find(interface, ways, mark, gained, asked, todo.names):
        raise HostError(errno.ELOOP, found)


def _device_lines(todo: _Todo) -> Iterator[str]:
    head, state = todo.head, todo.state
    if isinstance(head.private_key, PrivateKey):
        yield f"~ public key {state.public_key or 'none'} -> {base64_text(head.private_key.public)}"
    if head.listen_port is not None:
        yield f"~ listen port {state.listen_port} -> {head.listen_port}"
    if head.fwmark is not None:
        yield f"~ fwmark {_mark(state.fwmark)} -> {_mark(head.fwmark)}"
    for one in todo.difference.peers:
        yield _peer_line(one, todo.names.get(one.public_key, one.public_key))


def _peer_line(one: PeerDifference, name: str) -> str:
    change = one.change
    if change.remove:
        return f"- peer {name}"
    parts = []
    if change.preshared_key is not None:
        had = one.before is not None and one.before.preshared_key is not None
        has = change.preshared_key is not CLEAR
        parts.append(f"preshared key {'changed' if had and has else 'added' if has else 'removed'}")
    if change.endpoint is not None:
        old = f"{one.before.endpoint} -> " if one.before and one.before.endpoint else ""
        parts.append(f"endpoint {old}{write_endpoint(change.endpoint)}")
    if change.persistent_keepalive is not None:
        old = f"{one.before.persistent_keepalive or 'off'} -> " if one.before else ""
        parts.append(f"persistent keepalive {old}{change.persistent_keepalive or 'off'}")
    ips = [f"+{ip}" for ip in one.gained] + [f"-{ip}" for ip in one.lost]
    if ips:
        parts.append(f"allowed ips {' '.join(ips)}")
    sign = "~" if one.before else "+"
    return f"{sign} peer {name}: {', '.join(parts)}" if parts else f"{sign} peer {name}"


def _signed(step: str) -> str:
    words = set(step.split())
    sign = "+" if "add" in words else "-" if words & {"delete", "del"} else "~"
    return f"{sign} {step}"


def _mark(mark: int) -> str:
    return f"{mark:#x}" if mark else "off"
