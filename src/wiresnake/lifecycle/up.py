"""Brings an interface up as its file says, or leaves the host unchanged."""

import errno
import os
import time

from wiresnake.conffile import wg, wg_quick
from wiresnake.conffile.wg import Resolve
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.devices.interface import Interface, open_interface
from wiresnake.devices.reports import read_report
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import (
    applied,
    backend,
    desired_network,
    hooks,
    keeper,
    peer_diff,
    recovery,
    routing_loops,
)
from wiresnake.lifecycle.backend import Choice
from wiresnake.lifecycle.resolve import later, resolver
from wiresnake.lifecycle.save import assert_savable
from wiresnake.model import DeviceChange
from wiresnake.network import observe, transaction
from wiresnake.network.model import Network
from wiresnake.network.transaction import Change, Say
from wiresnake.text import wipe
from wiresnake.uapi.snapshot import InterfaceState

_PATIENCE = 1.0
"""Seconds to wait for a daemon's socket."""
_SHORT_RETRIES = 2
"""Lookups of a name while traffic bypasses a tunnel whose daemon is dead: two seconds, plus the
resolver's time. More only make sense at boot, when nothing is held back yet."""


def up(argument: str, choice: Choice, say: Say, warn: Say) -> str:
    """Brings the interface up and returns its name; HostError, ConfigError or HookFailed.

    The file is read and its names are resolved before anything is touched. With PreUp, names are
    resolved after its commands, which may make them known. What has held traffic back since this
    interface's daemon died stays until the next daemon is up.
    """
    interface, path = wg_quick.find(argument)
    file = wg_quick.load(path)
    try:
        _up(file, interface, path, choice, say, warn)
    finally:
        wipe(file.wg)
    return interface


def _up(file: QuickConfig, interface: str, path: str, choice: Choice, say: Say, warn: Say) -> None:
    if observe.exists(interface) and not transaction.leftovers(interface):
        raise HostError(errno.EEXIST, f"`{interface}' already exists")
    assert_savable(path, file)
    if not file.pre_up and file.table not in ("", "off", "auto"):
        desired_network.table_number(file.table, path)
    endpoints, said = peer_diff.told(file)
    past = transaction.held_back(interface)
    wait = file.pre_up or past
    device_change = _change(file, path, later if wait else resolver())
    variables = hooks.Variables.of(file, path)
    with recovery.begin(interface, say, warn) as change:
        if observe.exists(interface):
            raise HostError(errno.EEXIST, f"`{interface}' already exists")
        if past and not file.pre_up:
            device_change = _resolved(file, path, change, past, warn)
        taken = backend.create(change, choice, say, warn)
        if file.pre_up:
            hooks.run(file.pre_up, interface, variables, say)
            device_change = _resolved(file, path, change, past, warn)
        wipe(file.wg)
        device = open_interface(interface)
        say(f"wg addconf {interface} /dev/fd/63")
        device.change(device_change)
        state = device.read()
        allowed = {one for peer in state.peers for one in peer.allowed_ips}
        mark = state.fwmark
        if desired_network.needs_mark(file, allowed):
            _assert_unheld(mark, interface)
            mark = mark or set_mark(device, say)
        mtu = file.mtu or desired_network.guess_mtu(state)
        network = desired_network.network(file, allowed, mtu=mtu, mark=mark, path=path)
        if lost := desired_network.lost(file, network):
            warn(lost)
        change.to(network, file=path, backend=taken)
        _await_socket(state)
        hooks.run(file.post_up, interface, variables, say)
        _warn_of_loops(network, state, mark, interface, warn)
        record = hooks.record(file, endpoints, said, device_change)
        change.do(
            f"wiresnake events --hooks {path} {interface}" if record.hooks else "",
            lambda: applied.save(interface, keeper.restart(record, path, interface)),
            lambda: keeper.stop(applied.load(interface), interface),
        )


def _resolved(file: QuickConfig, path: str, change: Change, past: int, warn: Say) -> DeviceChange:
    """Returns the change with the names of endpoints resolved.

    `past` is the mark that bypasses what outlived the interface and holds its traffic back, or 0.
    Names are first looked up without opening the tunnel, because name servers on this host and in
    its own networks can be reached. If they do not know a name, the tunnel is opened for a few
    attempts.
    """

    if not past:
        return _change(file, path, resolver())
    near = resolver(0, lambda address: observe.route_device(address, past) is not None)
    try:
        return _change(file, path, near)
    except ConfigError as error:
        warn(str(error))
    with change.opened(warn):
        return _change(file, path, resolver(_SHORT_RETRIES))


def _change(file: QuickConfig, path: str, resolve: Resolve) -> DeviceChange:
    return wg.parse(file.wg, resolve, name=path, append=True, scanned=file.lines)


def _await_socket(state: InterfaceState) -> None:
    """Raises HostError if the device has no socket, for example because another program has the
    port. A kernel device then refuses to come up. Our daemon opens its socket a moment later, or
    reports why it has none. Other daemons cannot be asked."""
    deadline = time.monotonic() + _PATIENCE
    one = state.peers[0].public_key if state.peers else None  # Other reports are not needed.
    while True:
        report = read_report(state.name, one)
        if report is None or report.device.bound:
            return
        if time.monotonic() > deadline:
            raise _no_socket(state, report.device.bind_error)
        time.sleep(0.005)


def _no_socket(state: InterfaceState, number: int) -> HostError:
    port = f"UDP port {state.listen_port}" if state.listen_port else "a UDP port"
    if number == errno.EADDRINUSE:
        what = (
            f"{port} is in use: choose another ListenPort, or stop the program that uses it (ss"
            " -lunp)"
        )
    elif number:
        what = f"{state.name}'s daemon cannot open {port}: {os.strerror(number)}"
    else:
        what = f"{state.name}'s daemon has not opened {port} within a second"
    return HostError(number or errno.ETIMEDOUT, what)


def _warn_of_loops(
    network: Network, state: InterfaceState, mark: int, interface: str, warn: Say
) -> None:
    """Warns about routing loops. They are not errors, because a rule of the administrator's may
    lead past the tunnel; wg-quick does not mention them."""
    endpoints = {one.public_key: one.endpoint for one in state.peers if one.endpoint}
    # The mark bypasses a default route that uses rules.
    passed = mark if network.policy else None
    prefixes = (route.prefix for route in network.routes if route.table != passed)
    for found in routing_loops.find(interface, endpoints, mark, prefixes):
        warn(found)


def _assert_unheld(mark: int, interface: str) -> None:
    """Raises HostError for the mark of a tunnel whose daemon is dead: what holds its traffic back
    would belong to this interface, and disappear with it."""
    if other := observe.holder(mark, interface):
        raise HostError(
            errno.EBUSY,
            f"FwMark {mark} holds back the traffic of {other}, whose daemon is dead: `wiresnake up"
            f" {other}' or `wiresnake down {other}' first, or choose another FwMark",
        )


def set_mark(device: Interface, say: Say) -> int:
    """Gives the device the mark that wg-quick would choose: the number of an unused table."""
    mark = observe.free_table(device.name)
    say(f"wg set {device.name} fwmark {mark}")
    device.change(DeviceChange(fwmark=mark))
    return mark
