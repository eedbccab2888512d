"""`make bench`: every WireGuard on this machine in turns, on the same cable, with the same traffic.

Both ends of each tunnel run on this machine, so the figures hold for this machine only. Trust in
this order: CPU seconds of the tunnel's processes per GB, the ratio within one round, Gbit/s.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

from bench import (
    handshakes,
    instructions,
    null,
    operator_tool,
    record,
    report,
    rootless,
    scale,
    scenarios,
)
from bench.plan import ROOTLESS, TOOL, Part, Plan
from bench.record import Record
from bench.subjects import DAEMONS, LABELS, NULL, ROOT, STOCK, subjects, version
from lab import hosts
from lab.hosts import LabError

PARTS: tuple[Part, ...] = (
    scenarios.PART,
    handshakes.PART,
    scale.PART,
    instructions.PART,
    operator_tool.PART,
    rootless.PART,
)
PAGES = {
    "bench-operator.md": (TOOL, "Measured: the operator's tool"),
    "bench-rootless.md": (ROOTLESS, "Measured: tunnels without root"),
}
"""The pages in docs/ of parts that are also published by themselves."""
PROGRAMS = ("ip", "wg", "wg-quick", "iperf3", "sockperf", "ethtool", "ping")


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    plot = arguments.publish and not arguments.read and not _has_page(arguments.only)
    if plot and importlib.util.find_spec("matplotlib") is None:
        print("bench: matplotlib is missing, for the plot: tools/setup plot", file=sys.stderr)
        return 1
    if arguments.read:
        kept = record.read(arguments.read)
        print(report.text(kept))
    else:
        if os.geteuid() != 0:
            print("bench: needs root, for network namespaces: sudo make bench", file=sys.stderr)
            return 1
        if missing := hosts.missing_programs(*PROGRAMS):
            print(f"bench: missing: {', '.join(missing)}: tools/setup packages", file=sys.stderr)
            return 1
        kept = _run(arguments)
    if arguments.publish:
        _publish(kept)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 5 minutes instead of 30")
    parser.add_argument("--rounds", type=int, help="how often each is measured (5; quick: 2)")
    parser.add_argument("--seconds", type=int, help="of one measurement (3; quick: 2)")
    names = [name for part in PARTS for name in part.scenarios]
    parser.add_argument(
        "--only", metavar="TEXT,TEXT", help=f"scenarios that hold a text, of: {'; '.join(names)}"
    )
    parser.add_argument(
        "--subjects", metavar="NAME,NAME", help=f"these, in all rounds: {', '.join(DAEMONS)}"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="report on a run that was kept")
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"write docs/bench.md and docs/bench.svg, or one of {', '.join(PAGES)}",
    )
    arguments = parser.parse_args(argv)
    part = arguments.quick or arguments.subjects or arguments.only
    wanted = arguments.only.lower().split(",") if arguments.only else [""]
    arguments.only = frozenset(
        name for name in names if any(text in name.lower() for text in wanted)
    )
    if not arguments.only:
        parser.error(f"no such scenario; there are: {'; '.join(names)}")
    if _has_page(arguments.only):
        part = arguments.quick or arguments.subjects
    if arguments.publish and part and not arguments.read:
        parser.error("only a whole run is published: without --quick, --only and --subjects")
    arguments.subjects = arguments.subjects.split(",") if arguments.subjects else None
    if unknown := set(arguments.subjects or ()) - set(DAEMONS):
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    return arguments


def _has_page(scenarios: frozenset[str]) -> bool:
    return any(scenarios == frozenset(names) for names, _ in PAGES.values())


def _run(arguments: argparse.Namespace) -> Record:
    quick = arguments.quick
    plan = Plan(
        arguments.rounds or (2 if quick else 5),
        arguments.seconds or (2 if quick else 3),
        quick,
        arguments.only,
        sparing=arguments.subjects is None,
    )
    asked = arguments.subjects or DAEMONS
    load = os.getloadavg()[0]  # before we build anything
    if NULL in asked and any(map(plan.wants, scenarios.PART.scenarios)):
        print("building wiresnake without encryption", flush=True)
        null.build()
    present, absent = subjects()
    chosen = [subject for subject in present if subject.name in asked]
    kept = Record(
        {subject.name: subject.version for subject in chosen if subject.version}
        | {STOCK: version("wg")},
        {name: why for name, why in absent.items() if name in asked},
        load=load,
    )
    for name, why in kept.absent.items():
        print(f"not measured: {LABELS[name]}; {why}", flush=True)
    print(f"{kept.machine}; load before the run {kept.load:.1f}", flush=True)
    started = time.monotonic()
    try:
        for part in PARTS:
            if any(map(plan.wants, part.scenarios)):
                part.run(chosen, plan, kept)
    finally:  # Also of a run that was interrupted.
        if kept.results:
            print(f"\n{report.text(kept)}")
            print(f"{time.monotonic() - started:.0f} s; kept in {kept.write().relative_to(ROOT)}")
    return kept


def _publish(kept: Record) -> None:
    """Writes the page and the plot in docs/, or a part's own page if only that ran."""
    ran = {result.scenario for result in kept.results}
    for page, (names, title) in PAGES.items():
        if ran <= set(names):
            (ROOT / "docs" / page).write_text(f"# {title}\n\n{report.markdown(kept)}")
            print(f"written: docs/{page}")
            return
    from bench import plot  # Only this needs matplotlib.

    (ROOT / "docs/bench.md").write_text(f"# Measured speed\n\n{report.markdown(kept)}")
    plot.draw(kept, ROOT / "docs/bench.svg")
    print("written: docs/bench.md docs/bench.svg")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
