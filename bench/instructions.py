"""Counts the instructions per packet of each step with callgrind, which load does not affect.

valgrind knows no AVX-512, so cryptography runs what it has for AVX2. Each figure is the difference
of two runs that prepare the same and take different numbers of packets.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.plan import Part, Plan
from bench.record import FAILURES, Record
from bench.subjects import ROOT, WIRESNAKE, Subject
from lab import hosts
from lab.hosts import LabError

SCENARIOS = {
    "seal 1420 B": ("seal", 1420),
    "seal 64 B": ("seal", 64),
    "open 1420 B": ("open", 1420),
    "open 64 B": ("open", 64),
    "split 1420 B": ("split", 1420),
    "split 64 B": ("split", 64),
    "coalesce 1420 B": ("coalesce", 1420),
    "coalesce 64 B": ("coalesce", 64),
    "look up a receiver index": ("index", 0),
    "look up an allowed IP": ("allowed", 0),
    "look up among 1 prefix length": ("lengths", 1),
    "look up among 24 prefix lengths": ("lengths", 24),
    "look up among 129 prefix lengths": ("lengths", 129),
}
"""Steps of rust/plane/benches/packets.rs; bytes of the inner packet, or the number of lengths."""
FEW, MANY = 512, 1024

_BUILD = (
    "cargo bench --quiet --locked --bench packets --no-run --message-format=json --manifest-path"
)


def run(subjects: Sequence[Subject], plan: Plan, record: Record) -> None:
    ours = next((subject for subject in subjects if subject.name == WIRESNAKE), None)
    wanted = [name for name in SCENARIOS if plan.wants(name)]
    if ours is None or not wanted:
        return
    try:
        program = build()
    except FAILURES as error:
        return record.fail(ours, wanted[0], 1, error)
    for name in wanted:
        record.measure(ours, name, 1, partial(measure, program, *SCENARIOS[name]))


def measure(program: Path, step: str, size: int) -> Mapping[str, float]:
    few, many = (count(program, step, size, packets) for packets in (FEW, MANY))
    return {"instructions": (many - few) / (MANY - FEW)}


def build() -> Path:
    """Builds the bench binary, whose name contains a hash. LabError if that fails."""
    if hosts.missing_programs("valgrind"):
        raise LabError("valgrind is missing: apt-get install valgrind")
    return executable(hosts.tool(_BUILD, ROOT / "rust/plane/Cargo.toml"))


def executable(messages: str) -> Path:
    """Returns the program in cargo's messages, which are lines of JSON."""
    for line in messages.splitlines():
        if (program := json.loads(line).get("executable")) is not None:
            return Path(program)
    raise LabError("cargo built no packets bench")


def count(program: Path, step: str, size: int, packets: int) -> int:
    """Counts the instructions of a whole run."""
    command = "valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-fd=1"
    return collected(hosts.tool(command, program, step, str(size), str(packets)))


def collected(report: str) -> int:
    """Returns the total in callgrind's report."""
    found = re.search(r"Collected : (\d+)$", report, re.MULTILINE)
    if found is None:
        raise LabError(f"callgrind reported no total: {report.strip()[-500:]}")
    return int(found[1])


PART = Part(tuple(SCENARIOS), run)
