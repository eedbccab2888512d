"""What a fault may need of the machine, for its tests to be able to see it."""

import platform
from pathlib import Path

NEEDS = {"avx512": "a CPU with AVX-512 (F, BW, IFMA, VBMI2)"}
"""What a fault's `needs` may say, and that in words."""

_AVX512 = {"avx512f", "avx512bw", "avx512ifma", "avx512_vbmi2"}
_CPU = Path("/proc/cpuinfo")


def lacking(need: str) -> str:
    """What this machine lacks, in words; nothing if it has what is needed, or nothing is."""
    if not need or (platform.machine() == "x86_64" and _flags() >= _AVX512):
        return ""
    return NEEDS[need]


def _flags() -> set[str]:
    lines = _CPU.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
