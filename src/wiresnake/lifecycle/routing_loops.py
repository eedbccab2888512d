"""Finds endpoints whose datagrams would be routed into the tunnel that they carry."""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping

from wiresnake.network import observe
from wiresnake.text import host_of


def find(
    interface: str,
    endpoints: Mapping[str, str],
    mark: int,
    prefixes: Iterable[str],
    asked: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yields a message for each. `endpoints` are by public key; the kernel is asked about those in
    one of the prefixes, and about the peers in `asked`."""
    cover = _Cover(prefixes)
    for key, endpoint in endpoints.items():
        host = host_of(endpoint)
        suspect = key in asked or cover.holds(host)
        if suspect and observe.route_device(host, mark) == interface:
            yield (
                f"{host}, the endpoint of peer {(names or {}).get(key, key)}, would be reached"
                f" through {interface} itself; leave it out of AllowedIPs, or add a route to it"
            )


class _Cover:
    """A set of networks with a fast lookup of addresses."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self._networks: dict[tuple[int, int], set[int]] = {}
        for one in map(ipaddress.ip_network, prefixes):
            shift = one.max_prefixlen - one.prefixlen
            known = self._networks.setdefault((one.version, shift), set())
            known.add(int(one.network_address) >> shift)

    def holds(self, host: str) -> bool:
        if not self._networks:
            return False
        address = ipaddress.ip_address(host)
        return any(
            version == address.version and int(address) >> shift in known
            for (version, shift), known in self._networks.items()
        )
