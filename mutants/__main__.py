"""Plants each fault of `mutants/*.toml` in a copy of the tree and runs its tests (`make mutants`).

The tests must fail there and pass without the fault; any other result is reported as such. A fault
that no test can see on this machine is skipped, counted, and shown with what it needs.

--quick (`make mutants QUICK=1`) skips the black-box suite: it plants the faults in Python, each
with its tests in tests/unit and tests/sim, which take a second or two.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from threading import Semaphore
from typing import Literal

from mutants import runs
from mutants.faults import Fault, FaultError, load
from mutants.needs import lacking
from mutants.runs import Outcome, Pace, argument, kind, pace
from mutants.trees import Builder, Tree

_WAITING = 12
"""How many items of the black-box suite run at a time if they mostly wait, for minutes."""


Word = Literal["killed", "skipped", "survived", "broken", "baseline red"]
Baselines = dict[tuple[bool, str], Future[dict[str, Outcome]]]
"""Results without a fault. The key is whether the extension was built, as for a fault in Rust."""


@dataclass(frozen=True, slots=True)
class Verdict:
    fault: Fault
    word: Word
    note: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="run the faults whose name begins with NAME"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 2, metavar="N")
    parser.add_argument("--list", action="store_true", help="list the faults without planting them")
    arguments = parser.parse_args()
    faults = load()
    for name in arguments.names:
        if not name or not any(fault.name.startswith(name) for fault in faults):
            parser.error(f"no fault's name begins with {name!r}")
    if arguments.names:
        faults = [fault for fault in faults if fault.name.startswith(tuple(arguments.names))]
    if arguments.quick:
        faults = quick(faults)
    if arguments.list:
        for fault in faults:
            print(f"{fault.name}\n    {fault.fault}\n    {', '.join(fault.kills)}")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # running tests end with this process
    began = time.monotonic()
    verdicts = judge(faults, arguments.jobs)
    return report(verdicts, time.monotonic() - began)


def quick(faults: Iterable[Fault]) -> list[Fault]:
    kept = []
    for fault in faults:
        kills = tuple(k for k in fault.kills if k.startswith(("tests/unit/", "tests/sim/")))
        if kills and not fault.rust:
            kept.append(replace(fault, kills=kills))
    return kept


def judge(faults: list[Fault], jobs: int = 2) -> list[Verdict]:
    """Plants all faults, some at a time, and prints a line for each result at once."""
    runner = Runner(jobs)
    verdicts = {}
    for fault in faults:
        if what := lacking(fault.needs):
            verdicts[fault.name] = Verdict(fault, "skipped", f"needs {what}", 0)
            print(f"{'skipped':12} {fault.name}  needs {what}", flush=True)
    can = [fault for fault in faults if fault.name not in verdicts]
    alone = [fault for fault in can if slowest(fault) == "alone"]
    others = [fault for fault in can if fault not in alone]
    with ThreadPoolExecutor(jobs) as working, ThreadPoolExecutor(_WAITING) as waiting:
        verdicts |= runner.judge_all(others, {"working": working, "waiting": waiting})
    with ThreadPoolExecutor(1) as pool:
        verdicts |= runner.judge_all(alone, dict.fromkeys(runs.PACES, pool))
    return [verdicts[fault.name] for fault in faults]


def slowest(fault: Fault) -> Pace:
    return max(map(pace, fault.kills), key=runs.PACES.index)


class Runner:
    def __init__(self, jobs: int) -> None:
        self._builder = Builder()
        self._processors = Semaphore(jobs)

    def judge_all(
        self, faults: list[Fault], pools: Mapping[Pace, ThreadPoolExecutor]
    ) -> dict[str, Verdict]:
        baselines: Baselines = {}
        for built in (False, True):
            kills = sorted(
                {kill for fault in faults if fault.rust is built for kill in fault.kills}
            )
            tests = [kill for kill in kills if kind(kill) != "conformance"]
            for group in filter(None, (tests, *([kill] for kill in kills if kill not in tests))):
                future = pools[pace(group[0])].submit(self.baseline, built, group)
                baselines |= {(built, kill): future for kill in group}
        futures = [pools[slowest(fault)].submit(self.judge, fault, baselines) for fault in faults]
        try:
            for done in as_completed(futures):
                verdict = done.result()
                line = f"{verdict.word:12} {verdict.fault.name}  {verdict.note}"
                print(line.rstrip(), flush=True)
        except KeyboardInterrupt:
            for waiting in futures:
                waiting.cancel()
            runs.stop()
            raise
        return {future.result().fault.name: future.result() for future in futures}

    def baseline(self, built: bool, kills: list[str]) -> dict[str, Outcome]:
        """Runs tests without a fault, with a built extension or the one of this tree."""
        name = re.sub("[^a-z0-9]+", "-", kills[0])
        with Tree(f"baseline-{'built' if built else 'own'}-{name}", {}) as tree:
            return self._run(tree, built, kills)

    def judge(self, fault: Fault, baselines: Baselines) -> Verdict:
        began = time.monotonic()
        try:
            with Tree(fault.name, fault.texts()) as tree:
                outcomes = self._run(tree, fault.rust, list(fault.kills))
        except FaultError as error:
            return Verdict(fault, "broken", str(error), time.monotonic() - began)
        seconds = time.monotonic() - began
        before = {kill: baselines[fault.rust, kill].result()[kill] for kill in fault.kills}
        for each in before, outcomes:
            if void := [f"{kill}: {o.note}" for kill, o in each.items() if o.state == "void"]:
                return Verdict(fault, "broken", "; ".join(void), seconds)
        if red := [f"{kill}: {o.note}" for kill, o in before.items() if o.state == "red"]:
            return Verdict(fault, "baseline red", "; ".join(red), seconds)
        if green := [kill for kill, outcome in outcomes.items() if outcome.state == "green"]:
            return Verdict(fault, "survived", f"in spite of {', '.join(green)}", seconds)
        return Verdict(fault, "killed", "", seconds)

    def _run(self, tree: Tree, built: bool, kills: list[str]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        nodes = [kill for kill in kills if kind(kill) == "pytest"]
        crates = ("cargo", "chapoly", "stack")
        words = {crate: [kill for kill in kills if kind(kill) == crate] for crate in crates}
        items = [kill for kill in kills if kind(kill) == "conformance"]
        with self._processors:
            if built and (nodes or items):
                self._builder.extension(tree)
            if nodes:
                outcomes |= runs.run_pytest(tree, nodes)
            for crate in filter(words.get, crates):
                with self._builder.rust_tests(tree, crate) as program:
                    tests = words[crate]
                    outcomes |= {k: runs.run_cargo(tree, program, argument(k)) for k in tests}
        return outcomes | {kill: runs.run_conformance(tree, argument(kill)) for kill in items}


def report(verdicts: list[Verdict], seconds: float) -> int:
    """Prints a table of all results, then those that are wrong. Returns the exit code."""
    print(f"\n{'':13}{'seconds':>8}  fault")
    for verdict in verdicts:
        print(f"{verdict.word:13}{verdict.seconds:8.1f}  {verdict.fault.name}")
    skipped = [verdict for verdict in verdicts if verdict.word == "skipped"]
    wrong = [verdict for verdict in verdicts if verdict.word not in ("killed", "skipped")]
    for verdict in skipped + wrong:
        print(f"\n{verdict.word}: {verdict.fault.name}\n    {verdict.fault.fault}")
        print(f"    {verdict.note}")
    counts = Counter(verdict.word for verdict in verdicts)
    print(f"\n{', '.join(f'{n} {word}' for word, n in counts.items())}; {seconds:.0f} s")
    return 1 if wrong or not verdicts else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FaultError as error:
        sys.exit(f"mutants: {error}")
    except KeyboardInterrupt:
        sys.exit("mutants: interrupted")
