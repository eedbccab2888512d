"""Takes an interface down and undoes what our `up` or wg-quick's did."""

import os
from typing import NamedTuple

from wiresnake.conffile import files, wg_quick
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import applied, hooks, keeper, recovery
from wiresnake.lifecycle.save import assert_wireguard, save
from wiresnake.network import journal, observe
from wiresnake.network.transaction import Say
from wiresnake.text import wipe


class _Wishes(NamedTuple):
    """What the file asks for, besides removing everything."""

    variables: hooks.Variables
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    to_save: tuple[str, QuickConfig] | None = None
    """The file."""


def down(argument: str, say: Say, warn: Say) -> None:
    """Takes an interface down; HostError, ConfigError or HookFailed. It also cleans up after a
    killed `up` or `down`."""
    interface, wishes = _find(argument, warn)
    if recovery.recover(interface, say, warn) and not observe.exists(interface):
        applied.forget(interface)
        return
    with recovery.begin(interface, say, warn) as change:
        _assert_ours(interface)
        hooks.run(wishes.pre_down, interface, wishes.variables, say)
        if wishes.to_save:
            _save(interface, *wishes.to_save, say)
        keeper.stop(applied.load(interface), interface)
        change.dns = wishes.variables.dns
        change.to(None)
        applied.forget(interface)
    # Hooks are not undone, because the interface cannot come back.
    hooks.run(wishes.post_down, interface, wishes.variables, say)


def _assert_ours(interface: str) -> None:
    """Raises HostError if this is not a WireGuard interface, with a remedy if it has taken the name
    of an interface whose traffic is still held back."""
    try:
        assert_wireguard(interface)
    except HostError as error:
        known = journal.read(interface)
        if known is None or known.index in (0, observe.index(interface)) or not known.marks:
            raise
        what = (
            f"{error.strerror}: another program has made it since the daemon died, and traffic is"
            f" still held back. Remove it (`ip link delete dev {interface}') or rename it, then"
            f" run `wiresnake down {interface}' again"
        )
        raise HostError(error.errno, what) from None


def _find(argument: str, warn: Say) -> tuple[str, _Wishes]:
    """Returns the interface and what its file asks for. If the file has gone or has mistakes, the
    interface still comes down, using what `up` recorded."""
    interface = os.path.basename(argument).removesuffix(".conf")
    known = journal.read(interface) if files.is_name(interface) else None
    try:
        interface, path = wg_quick.find(argument)
    except HostError:
        if known is None or (argument != interface and os.path.realpath(argument) != known.file):
            raise
        path = known.file
    try:
        file = wg_quick.load(path)
    except (ConfigError, HostError) as error:
        record = applied.load(interface)
        if known is None or (record is None and observe.exists(interface) and not known.changing):
            raise  # Another program has made it since.
        if record and record.save and isinstance(error, ConfigError):
            # Going on would lose the device's state, which can be saved once the file is fixed.
            raise
        warn(f"{error.message}; using what `up` recorded")
        found = hooks.Variables(path)
        if known and known.network:
            network = known.network
            found = found._replace(addresses=network.addresses, dns=network.dns)
        if record is None:
            return interface, _Wishes(found)
        return interface, _Wishes(found, record.pre_down, record.post_down)
    wipe(file.wg)
    found = hooks.Variables.of(file, path)
    to_save = (path, file) if file.save else None
    return interface, _Wishes(found, file.pre_down, file.post_down, to_save)


def _save(interface: str, path: str, file: QuickConfig, say: Say) -> None:
    try:
        save(interface, path, file, say)
    except HostError as error:
        what = f"{error.strerror}. To take {interface} down without it, remove SaveConfig there"
        raise HostError(error.errno, what) from None
