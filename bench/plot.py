"""Plots a run: bars of the medians, with lines from the least to the greatest value."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bench.figures import FIGURES
from bench.ratios import Spread, values
from bench.record import Record
from bench.subjects import BORINGTUN, GOTATUN, LABELS, NULL, WIREGUARD_GO, WIRESNAKE

# Only in the tables: the bare cable and Debian's old wireguard-go would flatten all other bars.
_COLOURS = {
    NULL: "#b7d3ea",
    WIRESNAKE: "#1f6fb4",
    WIREGUARD_GO: "#e08a2e",
    GOTATUN: "#8f6bb0",
    BORINGTUN: "#6f9e5b",
}
_TCP = ("TCP 1 stream", "TCP 4 streams", "TCP bidirectional", "TCP NIC-like cable")
_PANELS = (
    ("TCP: Gbit/s", [(name, "gbit") for name in _TCP]),
    ("TCP: CPU s/GB of both tunnel ends", [(name, "tunnel_cpu") for name in _TCP]),
    (
        "UDP: datagrams/s",
        [
            ("UDP 64 B overload", "delivered"),
            ("UDP 64 B lossless", "lossless"),
            ("UDP 1372 B overload", "delivered"),
            ("UDP 1372 B lossless", "lossless"),
        ],
    ),
    ("Round trip of 64 B: us", [("latency idle", "p50"), ("latency idle", "p99")]),
)


def draw(record: Record, file: Path) -> None:
    # The salt and no date: the same figures make the same file.
    style = {"svg.hashsalt": "bench", "font.size": 9, "axes.spines.top": False}
    with matplotlib.rc_context(style | {"axes.spines.right": False}):
        figure = Figure(figsize=(11, 7), layout="constrained")
        axes = figure.subplots(2, 2).flatten()
        for panel, (title, groups) in zip(axes, _PANELS, strict=True):
            _panel(panel, record, title, groups)
        handles = {
            label: handle
            for panel in axes
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=len(_COLOURS)
        )
        figure.supxlabel(f"{record.machine}, {record.date[:10]}", fontsize=8, color="#666666")
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})


def _panel(panel: Any, record: Record, title: str, groups: list[tuple[str, str]]) -> None:
    subjects = [
        name for name in _COLOURS if any(values(record.results, name, *group) for group in groups)
    ]
    width = 0.84 / max(1, len(subjects))
    for place, subject in enumerate(subjects):
        spreads = {
            at + (place - (len(subjects) - 1) / 2) * width: Spread.of(list(found.values()))
            for at, group in enumerate(groups)
            if (found := values(record.results, subject, *group))
        }
        medians = [spread.median for spread in spreads.values()]
        lines = [
            [spread.median - spread.low for spread in spreads.values()],
            [spread.high - spread.median for spread in spreads.values()],
        ]
        panel.bar(
            list(spreads), medians, width * 0.94, color=_COLOURS[subject], label=LABELS[subject]
        )
        panel.errorbar(list(spreads), medians, lines, fmt="none", ecolor="#444444", elinewidth=0.9)
    better = "more" if FIGURES[groups[0][1]].more else "less"
    panel.set_title(f"{title} ({better} is better)", loc="left", fontsize=10, fontweight="bold")
    panel.set_xticks(range(len(groups)), [_said(*group) for group in groups])
    panel.tick_params(axis="x", length=0)
    panel.grid(axis="y", color="#e6e6e6", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _said(scenario: str, figure: str) -> str:
    """Wraps the name of a scenario to the width of its group."""
    name = scenario.removeprefix("TCP ").replace("UDP ", "").replace(" B ", " B\n")
    return figure if figure.startswith("p") else name
