"""The plot of a run: bars with their spread."""

from pathlib import Path

from bench.record import Record


def draw(record: Record, file: Path) -> None:
    raise NotImplementedError
