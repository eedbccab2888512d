"""What the tests of a fault may need of the machine."""

import platform
from pathlib import Path

NEEDS = {"avx512": "a CPU with AVX-512 (F, BW, IFMA, VBMI2)"}
"""The possible values of a fault's `needs`, with a description."""

_AVX512 = {"avx512f", "avx512bw", "avx512ifma", "avx512_vbmi2"}
_CPU = Path("/proc/cpuinfo")


def lacking(need: str) -> str:
    """Returns a description of what this machine lacks; empty if it lacks nothing."""
    if not need or (platform.machine() == "x86_64" and _flags() >= _AVX512):
        return ""
    return NEEDS[need]


def _flags() -> set[str]:
    lines = _CPU.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
