"""Two hosts, a cable, and a subject's tunnel over it, for the time of the measurements."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.subjects import Subject
from lab import hosts
from lab.hosts import Host

FAR = "10.9.0.2"
FAR6 = "fd09::2"
"""Where `b` is, from `a`: through the tunnel, or on the cable where there is none."""
_NIC_LIKE = "gso off tso off tx-udp-segmentation off gro on"
_AS_IT_WAS = "gso on tso on tx-udp-segmentation on gro off"


@dataclass(frozen=True)
class Network:
    a: Host
    b: Host
    devices: tuple[str, str]
    """The ends of the cable."""
    pids: tuple[int, ...]
    """The daemons; empty on the bare cable."""

    @property
    def hosts(self) -> tuple[Host, Host]:
        return self.a, self.b


@contextmanager
def network(subject: Subject) -> Iterator[Network]:
    """Makes a cable of 1500 bytes with a tunnel of 1420. All is removed at the end."""
    with Host("a") as a, Host("b") as b:
        devices = hosts.cable(a, b)
        pids = _tunnel(subject, a, b, devices) if subject.command else ()
        for index, host in enumerate((a, b)):
            device = "wg0" if pids else devices[index]
            hosts.address(host, device, f"10.9.0.{index + 1}/24", f"fd09::{index + 1}/64")
        for far in (FAR, FAR6):
            # The first packet makes the session. Not every daemon keeps packets that wait for it.
            a.run("ping -q -c 1 -w 8", far, timeout=10)
        yield Network(a, b, devices, pids)


@contextmanager
def plain(_: Network) -> Iterator[None]:
    """Leaves the cable unchanged: it carries whole super-packets."""
    yield


@contextmanager
def nic_like(net: Network) -> Iterator[None]:
    """Between two machines the sender's kernel cuts super-packets into packets for the wire, and
    the receiver's driver joins them again (GRO)."""
    _features(net, _NIC_LIKE)
    try:
        yield
    finally:
        _features(net, _AS_IT_WAS)


@contextmanager
def jumbo(net: Network) -> Iterator[None]:
    """Makes the cable 9000 bytes and the tunnel 8920."""
    _mtu(net, 9000, 8920)
    try:
        yield
    finally:
        _mtu(net, 1500, 1420)


def _tunnel(subject: Subject, a: Host, b: Host, devices: tuple[str, str]) -> tuple[int, ...]:
    keys = [hosts.keypair(), hosts.keypair()]
    pids = []
    for index, host in enumerate((a, b)):
        hosts.address(host, devices[index], f"192.0.2.{index + 1}/24")
        host.run(*subject.command, "wg0", env=subject.env)
        pids.append(_daemon(subject, host))
        text = (
            f"[Interface]\nPrivateKey = {keys[index][0]}\nListenPort = 51820\n"
            f"[Peer]\nPublicKey = {keys[1 - index][1]}\nAllowedIPs = 10.9.0.0/24, fd09::/64\n"
            f"Endpoint = 192.0.2.{2 - index}:51820\n"
        )
        host.run("wg setconf wg0 /dev/stdin", text=text)
        host.run("ip link set wg0 mtu 1420 up")
    hosts.await_tunnel(a, b)
    return tuple(pids)


def _daemon(subject: Subject, host: Host) -> int:
    """Returns the pid. For a moment the background process has a parent with the same name."""
    hosts.wait_for(f"one {subject.program}", lambda: len(host.processes(subject.program)) == 1)
    (pid,) = host.processes(subject.program)
    return pid


def _features(net: Network, features: str) -> None:
    for host, device in zip(net.hosts, net.devices, strict=True):
        host.run(f"ethtool -K {device} {features}")


def _mtu(net: Network, outer: int, inner: int) -> None:
    for host, device in zip(net.hosts, net.devices, strict=True):
        host.run(f"ip link set {device} mtu {outer}")
        if net.pids:
            host.run(f"ip link set wg0 mtu {inner}")
