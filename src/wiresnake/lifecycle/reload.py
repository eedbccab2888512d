"""Makes a running interface match its file: keys, peers and the host's network.

Only differences are touched, so that sessions and counters of all other peers continue, and either
everything is applied or nothing. What a file need not contain stays: the port, the mark, the
private key. For endpoints see `peer_diff`; for what other programs added see `others`.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from wiresnake._native import PrivateKey
from wiresnake.conffile import wg_quick
from wiresnake.conffile.wg import public_key
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.devices.interface import Interface, open_interface
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import (
    applied,
    desired_network,
    hooks,
    keeper,
    peer_diff,
    recovery,
    routing_loops,
)
from wiresnake.lifecycle.applied import Applied, SaidOfInterface
from wiresnake.lifecycle.others import Others
from wiresnake.lifecycle.peer_diff import Difference, PeerDifference
from wiresnake.lifecycle.resolve import resolver
from wiresnake.lifecycle.save import assert_wireguard
from wiresnake.model import CLEAR, DeviceChange, PeerChange
from wiresnake.network import observe
from wiresnake.network.journal import DeviceBefore
from wiresnake.network.model import IPV6_MTU, MAIN_TABLE, Network
from wiresnake.network.transaction import Change, Say
from wiresnake.text import base64_text, wipe, write_endpoint
from wiresnake.uapi.snapshot import InterfaceState

T = TypeVar("T")


class Wish(NamedTuple):
    """How far a reload goes."""

    keep: bool = False
    """Nothing is removed that the file does not name."""
    only: tuple[str, ...] = ()
    """Names or keys of the only peers to change."""


ALL = Wish()


def reload(argument: str, say: Say, warn: Say, wish: Wish = ALL) -> None:
    """Applies the file; after a HostError or ConfigError nothing has changed. `warn` receives what
    is kept although the file does not have it."""
    with _planned(argument, say, warn, wish) as (change, file, path, todo):
        _apply(change, todo, path, say)
        interface = change.interface
        if not wish.only:
            record = _record(file, todo, wish)
            applied.save(interface, keeper.restart(record, path, interface))
        elif todo.record:
            applied.save(interface, _with_some(todo.record, todo))


def difference(argument: str, say: Say, warn: Say, wish: Wish = ALL) -> list[str]:
    """Returns what `reload` would change, one line each, without secrets. `say` receives what is
    done to clean up after a killed change."""
    with _planned(argument, say, warn, wish) as (change, _, _, todo):
        return [*_device_lines(todo), *map(_signed, change.lines(todo.network))]


@dataclass(frozen=True, slots=True)
class _Todo:
    names: dict[str, str]
    """The names and keys of named peers, by key."""
    device: Interface
    state: InterfaceState
    """Before."""
    record: Applied | None
    difference: Difference
    head: DeviceChange
    """The changes of the interface itself."""
    network: Network
    only: frozenset[str]
    """The keys of the only peers to change; empty: all."""


@contextmanager
def _planned(
    argument: str, say: Say, warn: Say, wish: Wish
) -> Iterator[tuple[Change, QuickConfig, str, _Todo]]:
    """Begins the change; yields it with the file, its path and what is to be done."""
    interface, path = wg_quick.find(argument)
    file = wg_quick.load(path)
    try:
        with recovery.begin(interface, say, warn) as change:
            yield change, file, path, _plan(change, file, path, warn, wish)
    finally:
        wipe(file.wg)


def _record(file: QuickConfig, todo: _Todo, wish: Wish) -> Applied:
    """Returns what to remember. A peer that was named once stays named while it exists, so that it
    is removed once nothing keeps it any more."""
    found, old = todo.difference, todo.record
    record = hooks.record(file, found.endpoints, found.said, found.device)
    before = old.peers if old else None
    gone = {one.public_key for one in found.peers if one.change.remove}
    there = {one.public_key for one in todo.state.peers} - gone
    known = {key: said for key, said in (before or {}).items() if key in there}
    named = None if before is None and wish.keep else {**known, **found.said}
    return replace(record, peers=named, events=old.events if old else 0)


def _with_some(record: Applied, todo: _Todo) -> Applied:
    """Returns the same record, except for the peers that changed."""

    def mixed(old: dict[str, T], new: dict[str, T]) -> dict[str, T]:
        rest = {key: value for key, value in old.items() if key not in todo.only}
        return rest | {key: value for key, value in new.items() if key in todo.only}

    found = todo.difference
    peers = None if record.peers is None else mixed(record.peers, found.said)
    return replace(record, peers=peers, endpoints=mixed(record.endpoints, found.endpoints))


def _plan(change: Change, file: QuickConfig, path: str, warn: Say, wish: Wish) -> _Todo:
    interface = change.interface
    assert_wireguard(interface)
    device = open_interface(interface)
    state = device.read()
    record = applied.load(interface)
    names = {
        peer.public_key: f"{peer.name} ({peer.public_key})" for peer in file.peers if peer.name
    }
    only = frozenset(_public_key(one, file, path) for one in wish.only)
    others = Others(
        record.peers if record else None,
        hooks=not file.whole,
        save=file.save,
        keep=wish.keep,
    )
    found = peer_diff.compare(
        file.wg,
        file.lines,
        state,
        record.endpoints if record else None,
        resolver(),
        name=path,
        others=others,
        only=only,
    )
    gone = [one.public_key for one in found.peers if one.change.remove]
    for line in others.notes(interface, path, names, gone):
        warn(line)
    if found.device.private_key is CLEAR and state.private_key and not only:
        warn(f"{path} has no PrivateKey, so {interface} keeps its key")
    for key in found.unsure:
        warn(f"peer {names.get(key, key)} keeps its endpoint: it may have roamed there")
    base = record.interface if record and file.save else None
    live = observe.read(interface, ask_dns=not change.recorded) or Network(0)
    if base:
        file = replace(
            file,
            addresses=tuple(
                one for one in file.addresses if one in live.addresses or one not in base.addresses
            ),
        )
    allowed = found.allowed_ips | _routed(file, found.undecided, state, live, path)
    marked = desired_network.needs_mark(file, allowed)
    mark = found.device.fwmark or (0 if file.has_mark and not marked else state.fwmark)
    if base and file.has_mark and base.fwmark == found.device.fwmark:
        mark = state.fwmark
    if marked and not mark:
        mark = observe.free_table(interface)
    mtu = file.mtu
    guessed = mtu is None and (record is None or record.mtu is None)
    if guessed or (base and record and mtu == record.mtu):
        # It was guessed once; later changes do not concern the file.
        mtu = observe.mtu(interface)
    network = desired_network.network(
        file,
        allowed,
        mtu=mtu or desired_network.guess_mtu(state),
        mark=mark,
        path=path,
    )
    lost = _lost(found)
    # With --only, a later reload decides about the routes of other peers.
    ours = {one for peer in state.peers for one in peer.allowed_ips} if only else lost
    made = desired_network.network(file, ours, mtu=IPV6_MTU, mark=state.fwmark, path=path).routes
    if wish.keep:
        change.claimed = Network(0)
        network = replace(network, policy=network.policy or live.policy)
    elif not change.recorded:
        # Another program brought it up, so the rest may come from hooks.
        change.claimed = Network(0, routes=made)
        if not others.active:
            change.claimed = replace(change.claimed, addresses=live.addresses, dns=live.dns)
    if only:
        head = DeviceChange()
        network = _but_for_some(change.present(network) or network, network, found, lost)
    else:
        head = _head(found.device, state, mark, base)
        if without := desired_network.lost(file, network):
            warn(without)
        if change.claimed and (rest := list(_beside(live, network, change.claimed))):
            warn(f"{interface} keeps what {path} does not ask for: {', '.join(rest)}")
    return _Todo(names, device, state, record, found, head, network, only)


def _public_key(only: str, file: QuickConfig, path: str) -> str:
    """Returns the key of a peer, given by its name in the file or by the key itself."""
    keys = {peer.public_key for peer in file.peers if only == peer.name}
    if len(keys) > 1:
        raise ConfigError(f"{path} has {len(keys)} peers called '{only}': give the public key")
    key = keys.pop() if keys else only
    try:
        public_key(key)
    except ValueError:
        raise ConfigError(f"{path} has no peer called '{only}'; or give a public key") from None
    return key


def _routed(
    file: QuickConfig,
    undecided: frozenset[str],
    state: InterfaceState,
    live: Network,
    path: str,
) -> set[str]:
    """Returns those of the networks that the file does not control and whose route exists and
    stays."""
    if not undecided:
        return set()
    asked = desired_network.network(file, undecided, mtu=IPV6_MTU, mark=state.fwmark, path=path)
    return {route.prefix for route in asked.routes if route in live.routes}


def _lost(found: Difference) -> set[str]:
    """Returns the allowed IPs that are removed."""
    return {one for peer in found.peers for one in peer.lost} - found.allowed_ips - found.undecided


def _but_for_some(present: Network, wanted: Network, found: Difference, lost: set[str]) -> Network:
    """Returns the existing network, with the routes of the few peers that change."""
    gained = {one for peer in found.peers for one in peer.gained}
    routes = [one for one in present.routes if one.prefix not in lost]
    routes += (one for one in wanted.routes if one.prefix in gained and one not in routes)
    default = any(one.endswith("/0") for one in gained | lost)
    policy = wanted.policy if default else present.policy
    return replace(present, routes=tuple(routes), policy=policy)


def _beside(live: Network, wanted: Network, claimed: Network) -> Iterator[str]:
    """Returns descriptions of what stays although it is not in the file."""
    for address in live.addresses:
        mine = address in wanted.addresses or address in claimed.addresses
        if not mine and not address.startswith("fe80:"):
            yield f"address {address}"
    if live.dns.servers and not (wanted.dns.servers or claimed.dns.servers):
        yield f"name servers {', '.join(live.dns.servers)}"
    for route in live.routes:
        if route not in wanted.routes and route not in claimed.routes:
            table = "" if route.table == MAIN_TABLE else f" in table {route.table}"
            yield f"route {route.prefix}{table}"


def _head(
    wanted: DeviceChange, state: InterfaceState, mark: int, base: SaidOfInterface | None
) -> DeviceChange:
    """Returns the change of the interface. With `base`, what the file has said unchanged since then
    is left alone."""
    key = wanted.private_key
    same = key is CLEAR or key == _private(state.private_key)
    if base and isinstance(key, PrivateKey):
        same = same or base64_text(key.public) == base.public_key
    port = wanted.listen_port
    if base and port == base.listen_port:
        port = None
    return DeviceChange(
        private_key=None if same else key,
        listen_port=port if port and port != state.listen_port else None,
        fwmark=mark if mark != state.fwmark else None,
    )


def _apply(change: Change, todo: _Todo, path: str, say: Say) -> None:
    """Applies the change. Removed peers come last, because their sessions cannot be restored."""
    for line in _device_lines(todo):
        say(line)
    stay = [one for one in todo.difference.peers if not one.change.remove]
    go = [one for one in todo.difference.peers if one.change.remove]
    first = replace(todo.head, peers=tuple(one.change for one in stay))
    if first != DeviceChange():
        # Removed peers may have given allowed IPs to others, too.
        back = [*stay, *(one for one in go if one.lost)]
        former = _former(todo)
        change.device_before = DeviceBefore(former.fwmark, former.listen_port)
        undo = replace(former, peers=tuple(map(_undone, back)))
        change.do("", lambda: todo.device.change(first), lambda: todo.device.change(undo))
    change.to(todo.network, file=path, backend=todo.device.backend)
    _assert_no_loop(change.interface, todo)
    if go:
        last = DeviceChange(peers=tuple(one.change for one in go))
        again = DeviceChange(peers=tuple(map(_undone, go)))
        change.do("", lambda: todo.device.change(last), lambda: todo.device.change(again))


def _former(todo: _Todo) -> DeviceChange:
    """Returns the change that restores the interface."""
    head, state = todo.head, todo.state
    return DeviceChange(
        private_key=(_private(state.private_key) or CLEAR) if head.private_key else None,
        listen_port=None if head.listen_port is None else state.listen_port,
        fwmark=None if head.fwmark is None else state.fwmark,
    )


def _undone(one: PeerDifference) -> PeerChange:
    if one.before is None:
        return PeerChange(one.change.public_key, remove=True)
    return peer_diff.whole(one.before)


def _private(text: str | None) -> PrivateKey | None:
    return PrivateKey.from_base64(bytearray(text, "ascii")) if text else None


def _assert_no_loop(interface: str, todo: _Todo) -> None:
    mark = todo.state.fwmark if todo.head.fwmark is None else todo.head.fwmark
    ways = {one.public_key: one.endpoint for one in todo.state.peers if one.endpoint}
    # Peers with a new endpoint, or with one in a network that is new in the tunnel.
    asked = set()
    for one in todo.difference.peers:
        if one.change.remove:
            ways.pop(one.public_key, None)
        elif one.change.endpoint is not None:
            ways[one.public_key] = write_endpoint(one.change.endpoint)
            asked.add(one.public_key)
    gained = (ip for one in todo.difference.peers for ip in one.gained)
    for found in routing_loops.find(interface, ways, mark, gained, asked, todo.names):
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
    """Finds the verb of `ip` at its place, because an interface may be called `add`."""
    verb = re.match(r"ip (?:-[46] )?[a-z]+ (add|del)", step)
    return f"{'~' if verb is None else '+' if verb[1] == 'add' else '-'} {step}"


def _mark(mark: int) -> str:
    return f"{mark:#x}" if mark else "off"
