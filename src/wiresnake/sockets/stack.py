"""What a tunnel needs from a TCP/IP stack, and the choice of one."""

import logging
from collections.abc import Callable, Sequence
from socket import socket
from typing import Literal, Protocol

from wiresnake.errors import ConfigError, HostError
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.sockets.kernel import KernelStack
from wiresnake.tunnel.host import Plane

Name = Literal["kernel", "user"]

_log = logging.getLogger(__name__)


class Stack(Protocol):
    """The TCP/IP stack of one tunnel, with an interface that has the tunnel's addresses."""

    @property
    def name(self) -> Name: ...

    def open(self, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]) -> Tun:
        """Makes the stack and its interface, whose descriptor the caller closes.

        HostError says what the host refuses.
        """

    def attach(self, plane: Plane, device: Tun) -> None:
        """Connects the interface with the plane."""

    def socket(self, family: int, type: int, proto: int) -> socket:
        """Opens a socket whose packets go through the tunnel and nowhere else."""

    def close(self) -> None:
        """Ends the stack. It is safe to call twice."""


STACKS: dict[Name, Callable[[], Stack]] = {"kernel": KernelStack}
"""In the order in which they are tried."""


def open_stack(
    wanted: Name | Stack | None, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]
) -> tuple[Stack, Tun]:
    """Opens the wanted stack, or the first that the host allows, and its interface.

    HostError if the host allows none; ConfigError if there is no such stack.
    """
    if wanted is not None and not isinstance(wanted, str):
        return wanted, wanted.open(addresses, mtu, offloads)
    names = list(STACKS) if wanted is None else [wanted]
    if not STACKS.keys() >= {*names}:
        raise ConfigError(f"no stack {wanted!r}: choose one of {', '.join(STACKS)}")
    for name in names:
        stack = STACKS[name]()
        try:
            return stack, stack.open(addresses, mtu, offloads)
        except HostError as error:
            stack.close()
            if name == names[-1]:
                raise
            _log.info("no %s stack: %s", name, error.message)
    raise AssertionError("unreachable")
