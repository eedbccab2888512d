"""Starts a change; first restores the device's mark and port if an earlier change was killed.

With a new mark and the old rules, a full tunnel's datagrams would go into the tunnel. Keys and
peers are left to the next `reload`, because the journal holds no secrets.
"""

from contextlib import AbstractContextManager
from functools import partial

from wiresnake.devices.interface import open_interface
from wiresnake.errors import HostError
from wiresnake.model import DeviceChange
from wiresnake.network import transaction
from wiresnake.network.journal import DeviceBefore
from wiresnake.network.transaction import Change, Say


def begin(interface: str, say: Say, warn: Say) -> AbstractContextManager[Change]:
    """`transaction.begin`."""
    return transaction.begin(interface, say, warn, partial(_restore, interface, say, warn))


def recover(interface: str, say: Say, warn: Say) -> bool:
    """`transaction.recover`."""
    return transaction.recover(interface, say, warn, partial(_restore, interface, say, warn))


def _restore(interface: str, say: Say, warn: Say, before: DeviceBefore) -> None:
    """Restores the mark first, because another program may have the port by now."""
    warn(f"a change of {interface} was killed: undoing what it left behind")
    for word, value, back in (
        ("fwmark", before.mark, DeviceChange(fwmark=before.mark)),
        ("listen-port", before.port, DeviceChange(listen_port=before.port)),
    ):
        if value is None:
            continue
        say(f"wg set {interface} {word} {value}")
        try:
            open_interface(interface).change(back)
        except HostError as error:
            warn(f"could not be undone: {word} {value}: {error.strerror}")
