"""A running WireGuard interface, from outside, whoever runs it: how to find one, what it can do."""

import errno
import os
import socket
from typing import TYPE_CHECKING, Protocol

from wiresnake.devices import uapi_client
from wiresnake.errors import HostError
from wiresnake.uapi.snapshot import Backend, InterfaceState

if TYPE_CHECKING:
    from wiresnake.model import DeviceChange


class Interface(Protocol):
    """What `open_interface` returns. Every method raises HostError with an errno."""

    name: str
    backend: Backend

    def read(self) -> InterfaceState: ...

    def change(self, change: "DeviceChange") -> None: ...


def open_interface(name: str) -> Interface:
    """A daemon's if one answers at the name's socket, else the kernel's.

    HostError: ENODEV if there is neither, EPROTONOSUPPORT if the kernel has no WireGuard.
    """
    if connection := uapi_client.connect(name):
        return uapi_client.UapiInterface(name, connection)
    from wiresnake.devices.kernel import KernelInterface

    return KernelInterface(name)


def interface_names() -> list[str]:
    """The kernel's interfaces by their number, then those of daemons that answer."""
    kernel = [name for _, name in socket.if_nameindex() if _is_wireguard(name)]
    return kernel + [name for name in uapi_client.names() if name not in kernel]


def none_found() -> HostError:
    """Where there is none to do anything with."""
    if os.geteuid():
        return HostError(errno.EACCES, "no WireGuard interface is seen; run it as root")
    return HostError(0, "there is no WireGuard interface; `wiresnake up FILE` makes one")


def _is_wireguard(name: str) -> bool:
    try:
        with open(f"/sys/class/net/{name}/uevent", "rb") as file:
            return b"DEVTYPE=wireguard\n" in file.read()
    except OSError:
        return False


def read_state(name: str) -> InterfaceState:
    """What `open_interface(name).read()` gives; its HostError says what to do."""
    try:
        return open_interface(name).read()
    except HostError as error:
        remedy = _REMEDY.get(error.errno or 0)
        raise HostError(error.errno, remedy.format(name) if remedy else error.strerror) from None


def explain(error: HostError, name: str) -> str:
    """The errno's text, as `wg` gives it, and on a second line what to do about it."""
    number = error.errno or errno.EIO
    return (
        f"{os.strerror(number)}\nwiresnake: {_REMEDY.get(number, str(error.strerror)).format(name)}"
    )


_REMEDY = {
    errno.ENODEV: "there is no interface {0}; `wiresnake show interfaces` lists those there are",
    errno.EPROTONOSUPPORT: "no daemon answers at /var/run/wireguard/{0}.sock, and this kernel has"
    " no WireGuard; start `wiresnaked {0}`",
    errno.EOPNOTSUPP: "{0} is no WireGuard interface",
    errno.EADDRINUSE: "another socket has that port; listen-port 0 takes any that is free",
    errno.ETIMEDOUT: "the daemon of {0} does not answer: is it stopped? `wiresnake down {0}`"
    " takes the interface down all the same",
    errno.EPERM: "run it as root",
    errno.EACCES: "run it as root",
}
