"""Decides which of the kernel's offloads are used: those that it has, except those known to be
broken in its release. WIRESNAKE_OFFLOADS changes either."""

import re
from enum import StrEnum

from wiresnake.errors import ConfigError


class Offload(StrEnum):
    """Something that the kernel does for many packets at once."""

    SEGMENT = "segment"
    """Many datagrams in one send (UDP_SEGMENT)."""
    GRO = "gro"
    """Many datagrams in one receive (UDP_GRO)."""
    TSO = "tso"
    """Super-packets of TCP are read from the TUN device."""
    USO = "uso"
    """Super-packets of UDP are read from the TUN device."""
    TCP_MERGE = "tcp-merge"
    """Packets of TCP are merged before they are written to the TUN device."""
    UDP_MERGE = "udp-merge"
    """Packets of UDP are merged before they are written to the TUN device."""


ALL = frozenset(Offload)
TUN = ALL - {Offload.SEGMENT, Offload.GRO}
"""The offloads of the TUN device, which all need a virtio header before each frame."""


def choose(release: str, wanted: str = "") -> frozenset[Offload]:
    """Returns the offloads to use on a kernel of this release (`uname -r`), as changed by `wanted`.

    `wanted` is WIRESNAKE_OFFLOADS, a list with commas: `-NAME` switches an offload off, `+NAME` on
    in spite of the release, and `none` all off. ConfigError for anything else. What the kernel
    lacks is found when it is requested.
    """
    chosen = ALL - _wrong_in(_numbers(release))
    for word in filter(None, wanted.split(",")):
        sign, name = word[0], word[1:]
        if word == "none":
            chosen = frozenset()
        elif sign in "+-" and name in ALL:
            chosen = chosen | {Offload(name)} if sign == "+" else chosen - {Offload(name)}
        else:
            raise ConfigError(
                f"WIRESNAKE_OFFLOADS: {word!r} is not valid: use 'none', -NAME or +NAME with a"
                f" NAME of {', '.join(Offload)}"
            )
    return chosen


def _wrong_in(release: tuple[int, ...]) -> frozenset[Offload]:
    wrong = set()
    if release < (5, 12):  # A merged datagram may lose its PKTINFO.
        wrong.add(Offload.GRO)
    if (6, 2) <= release < (6, 8, 5):
        # Merged UDP that goes into VXLAN, or another kernel tunnel, is dropped there:
        # tailscale/tailscale#11026. Some of these releases have the fix backported.
        wrong.add(Offload.UDP_MERGE)
    return frozenset(wrong)


def _numbers(release: str) -> tuple[int, ...]:
    """Returns (6, 8, 4) for 6.8.4-31-generic; () if there is no version, which is older than all
    others."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    return tuple(int(number or 0) for number in found.groups()) if found else ()
