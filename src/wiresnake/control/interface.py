"""A running WireGuard interface, from outside, whoever runs it."""

from typing import Protocol

from wiresnake.control.state import Backend, InterfaceState
from wiresnake.model import DeviceChange


class Interface(Protocol):
    """What `control.open_interface` returns. Every method raises HostError with an errno."""

    name: str
    backend: Backend

    def read(self) -> InterfaceState: ...

    def change(self, change: DeviceChange) -> None: ...
