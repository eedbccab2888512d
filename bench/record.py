"""Keeps the results of a run as they come, and writes them to a JSON file."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import FIGURES
from bench.subjects import ROOT, Subject
from lab import hosts
from lab.hosts import LabError
from wiresnake._native import cipher

FOLDER = ROOT / "bench/results"
FAILURES = (
    LabError,
    OSError,
    ArithmeticError,
    LookupError,
    ValueError,
    subprocess.SubprocessError,
)


@dataclass(frozen=True)
class Result:
    subject: str
    scenario: str
    round: int
    figures: Mapping[str, float]
    """By the names of `FIGURES`."""
    failed: str = ""
    """The reason if there are no figures."""


@dataclass
class Record:
    versions: Mapping[str, str]
    absent: Mapping[str, str]
    """The subjects that could not be measured, each with the reason."""
    results: list[Result] = field(default_factory=list)
    machine: str = field(default_factory=lambda: machine())
    commit: str = field(default_factory=lambda: _commit())
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """How busy others kept the machine before the run."""
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))

    def measure(
        self, subject: Subject, scenario: str, number: int, take: Callable[[], Mapping[str, float]]
    ) -> None:
        """Calls `take` and keeps its figures. A failure is kept, too, and the run goes on."""
        try:
            result = Result(subject.name, scenario, number, take())
        except FAILURES as error:
            result = _failure(subject, scenario, number, error)
        self._add(result)

    def fail(self, subject: Subject, scenario: str, number: int, error: Exception) -> None:
        self._add(_failure(subject, scenario, number, error))

    def write(self) -> Path:
        FOLDER.mkdir(exist_ok=True)
        file = FOLDER / time.strftime("%Y%m%d-%H%M%S.json")
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return file

    def _add(self, result: Result) -> None:
        self.results.append(result)
        print(
            f"{result.scenario:26} round {result.round:<3} {result.subject:14}"
            f" {result.failed or said(result.figures)}",
            flush=True,
        )


def read(file: Path) -> Record:
    text: dict[str, Any] = json.loads(file.read_text())
    return Record(**text | {"results": [Result(**result) for result in text["results"]]})


def said(figures: Mapping[str, float]) -> str:
    return ", ".join(
        f"{value:.{FIGURES[name].digits}f} {FIGURES[name].label}" for name, value in figures.items()
    )


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    series = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} x {model}, Linux {series}, cipher of wiresnake: {cipher()[0]}"


def _failure(subject: Subject, scenario: str, number: int, error: Exception) -> Result:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return Result(subject.name, scenario, number, {}, f"failed: {why}")


def _commit() -> str:
    """Returns the commit, with a plus if files differ from it."""
    try:
        return hosts.tool("git -C", ROOT, "describe", "--always", "--dirty=+")
    except (LabError, OSError):
        return "unknown"
