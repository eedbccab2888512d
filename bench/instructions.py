"""Instructions per packet of each step on its way, by callgrind: a figure that no load disturbs.

valgrind knows no AVX-512, so cryptography runs the code it has for AVX2 here. Each figure is the
difference of two runs that prepare the same and take different numbers of packets.
"""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from wiresnake.cli import lab
from wiresnake.cli.lab import LabError

ROOT = Path(__file__).parents[1]
STEPS = {
    "seal": (1420, 64),
    "open": (1420, 64),
    "split": (1420, 64),
    "coalesce": (1420, 64),
    "index": (0,),
    "allowed": (0,),
}
"""Sizes of the inner packets; what only looks something up knows none."""
FEW, MANY = 512, 1024

_BUILD = "cargo bench --quiet --locked --manifest-path rust/Cargo.toml --bench packets --no-run"


@dataclass(frozen=True)
class Instructions:
    step: str
    """A step of rust/benches/packets.rs: `index` is the receiver index, `allowed` allowed IPs."""
    size: int
    """Bytes of the inner packet; 0 where they do not matter."""
    per_packet: float


def measure() -> list[Instructions]:
    """Counts every step, and prints as it goes. LabError if that is not possible here."""
    if lab.missing_programs("valgrind"):
        raise LabError("valgrind is missing: apt-get install valgrind")
    program = build()
    print(f"\n{'instructions per packet (no AVX-512 in valgrind)':50}{'bytes':>6}")
    results = []
    for step, sizes in STEPS.items():
        for size in sizes:
            few, many = (count(program, step, size, packets) for packets in (FEW, MANY))
            result = Instructions(step, size, (many - few) / (MANY - FEW))
            print(f"{step:50}{size or '':>6}{result.per_packet:9.0f}", flush=True)
            results.append(result)
    return results


def build() -> Path:
    """The bench binary, which cargo names after a hash of its own."""
    done = subprocess.run(
        lab.words(_BUILD, "--message-format=json"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"cargo did not build the packets bench: {done.stderr.strip()}")
    return executable(done.stdout)


def executable(messages: str) -> Path:
    """The one program among cargo's messages, a line of JSON each."""
    for line in messages.splitlines():
        if (program := json.loads(line).get("executable")) is not None:
            return Path(program)
    raise LabError("cargo built no packets bench")


def count(program: Path, step: str, size: int, packets: int) -> int:
    """The instructions of a whole run."""
    command = "valgrind --tool=callgrind --callgrind-out-file=/dev/null"
    done = subprocess.run(
        lab.words(command, program, step, str(size), str(packets)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabError(f"valgrind failed with {step}: {done.stderr.strip()[-500:]}")
    return collected(done.stderr)


def collected(report: str) -> int:
    """The total of callgrind's report."""
    found = re.search(r"Collected : (\d+)$", report, re.MULTILINE)
    if found is None:
        raise LabError(f"callgrind reported no total: {report.strip()[-500:]}")
    return int(found[1])
