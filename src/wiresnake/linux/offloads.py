"""Which of the kernel's offloads are used: those that it has, except the ones that are known to be
wrong in its release. WIRESNAKE_OFFLOADS corrects either."""

import re
from enum import StrEnum

from wiresnake.errors import ConfigError


class Offload(StrEnum):
    """One thing that the kernel does for many packets at once."""

    SEGMENT = "segment"
    """Many datagrams in one send (UDP_SEGMENT)."""
    GRO = "gro"
    """Many datagrams in one receive (UDP_GRO)."""
    TSO = "tso"
    """Super-packets of TCP are read from the TUN device."""
    USO = "uso"
    """Super-packets of UDP are."""
    TCP_MERGE = "tcp-merge"
    """Packets of TCP are merged before they are written to the TUN device."""
    UDP_MERGE = "udp-merge"
    """Packets of UDP are."""


ALL = frozenset(Offload)
TUN = ALL - {Offload.SEGMENT, Offload.GRO}
"""Those of the TUN device; all of them need a virtio header before each frame."""


def choose(release: str, wanted: str = "") -> frozenset[Offload]:
    """What may be used on a kernel of this release (`uname -r`), as `wanted` corrects it.

    `wanted` is WIRESNAKE_OFFLOADS: words with commas between them, `-NAME` for one that is not to
    be used, `+NAME` for one that is in spite of the release, `none` for all that came before.
    ConfigError if it is anything else. What the kernel lacks is found out where it is asked for.
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
                f"WIRESNAKE_OFFLOADS: {word!r} is none of its words: 'none', and -NAME or +NAME "
                f"for a NAME of {', '.join(Offload)}"
            )
    return chosen


def _wrong_in(release: tuple[int, ...]) -> frozenset[Offload]:
    wrong = set()
    if release < (5, 12):  # A merged datagram may lose its PKTINFO.
        wrong.add(Offload.GRO)
    if (6, 2) <= release < (6, 8, 5):
        # Merged UDP that goes into VXLAN, or another tunnel of the kernel's, is dropped in it:
        # tailscale/tailscale#11026. Some of these releases had the fix brought back.
        wrong.add(Offload.UDP_MERGE)
    return frozenset(wrong)


def _numbers(release: str) -> tuple[int, ...]:
    """(6, 8, 4) of 6.8.4-31-generic; () of what has none, which is older than all others."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    return tuple(int(number or 0) for number in found.groups()) if found else ()
