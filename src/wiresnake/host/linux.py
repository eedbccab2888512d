"""A Linux host's network, as far as one interface goes: reads it, creates and deletes links."""

from wiresnake.host.model import Network


def read(interface: str, mark: int = 0) -> Network | None:
    """What is there now; None without such an interface. `mark`: the interface's fwmark if known,
    whose rules are its own (they are found by its routes too)."""
    raise NotImplementedError


def exists(interface: str) -> bool:
    raise NotImplementedError


def create(interface: str) -> None:
    """A link of the kernel's WireGuard; HostError with errno EOPNOTSUPP where the kernel has none."""
    raise NotImplementedError


def delete(interface: str) -> None:
    raise NotImplementedError


def free_table(first: int = 51820) -> int:
    """The first table from there without a route of either version."""
    raise NotImplementedError


def route_mtu(endpoints: list[str]) -> int:
    """The least MTU on the way to these IP addresses (the route's, else the device's), else of the
    default route, else 1500. wg-quick's guess is 80 less."""
    raise NotImplementedError


def route_device(address: str, mark: int = 0) -> str | None:
    """The device that a datagram to the address, with that mark, leaves by; None: no route."""
    raise NotImplementedError


def covered(prefix: str, addresses: tuple[str, ...]) -> bool:
    """Whether the connected network of an address leads there already, so that wg-quick adds no
    route (`ip route show dev IF match PREFIX`)."""
    raise NotImplementedError
