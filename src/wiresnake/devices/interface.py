"""A running WireGuard interface from outside, whoever runs it."""

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
    """A running interface, returned by `open_interface`. Every method raises HostError with an
    errno."""

    name: str
    backend: Backend

    def read(self) -> InterfaceState: ...

    def change(self, change: "DeviceChange") -> None: ...


def open_interface(name: str) -> Interface:
    """Opens a daemon's interface if one answers at the name's socket, or else the kernel's.
    HostError: ENODEV if there is neither, EPROTONOSUPPORT if the kernel has no WireGuard.
    """
    if connection := uapi_client.connect(name):
        return uapi_client.UapiInterface(name, connection)
    from wiresnake.devices.kernel import KernelInterface

    return KernelInterface(name)


def interface_names() -> list[str]:
    """Returns the kernel's interfaces by index, then those of daemons that answer."""
    kernel = [name for _, name in socket.if_nameindex() if _is_wireguard(name)]
    return kernel + [name for name in uapi_client.names() if name not in kernel]


def none_found() -> HostError:
    """Returns the error for a host without an interface."""
    if os.geteuid():
        return HostError(errno.EACCES, "no WireGuard interface is visible; run it as root")
    return HostError(0, "there is no WireGuard interface; `wiresnake up FILE` makes one")


def _is_wireguard(name: str) -> bool:
    try:
        with open(f"/sys/class/net/{name}/uevent", "rb") as file:
            return b"DEVTYPE=wireguard\n" in file.read()
    except OSError:
        return False


def read_state(name: str) -> InterfaceState:
    """Returns `open_interface(name).read()`; its HostError says what to do."""
    try:
        return open_interface(name).read()
    except HostError as error:
        remedy = _REMEDY.get(error.errno or 0)
        raise HostError(error.errno, remedy.format(name) if remedy else error.strerror) from None


def explain(error: HostError, name: str) -> str:
    """Returns the errno's text, as `wg` prints it, and on a second line what to do about it."""
    number = error.errno or errno.EIO
    return (
        f"{os.strerror(number)}\nwiresnake: {_REMEDY.get(number, str(error.strerror)).format(name)}"
    )


_REMEDY = {
    errno.ENODEV: "there is no interface {0}; `wiresnake show interfaces` lists the existing ones",
    errno.EPROTONOSUPPORT: "no daemon answers at /var/run/wireguard/{0}.sock, and this kernel has"
    " no WireGuard; start `wiresnaked {0}`",
    errno.EOPNOTSUPP: "{0} is not a WireGuard interface",
    errno.EADDRINUSE: "another socket has that port; listen-port 0 takes any free port",
    errno.ETIMEDOUT: (
        "the daemon of {0} does not answer: is it stopped? `wiresnake down {0}` still takes the"
        " interface down"
    ),
    errno.EPERM: "run it as root",
    errno.EACCES: "run it as root",
}
