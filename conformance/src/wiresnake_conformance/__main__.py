"""The command line of `wiresnake-conformance`."""

import argparse
import datetime
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

from . import checks, items
from .report import Report
from .run import WAITING, Outcome, run
from .stand import Subject
from .verdict import CHECKS, Check, Result

EXAMPLES = """
examples:
  wiresnake-conformance --daemon wireguard-go
  wiresnake-conformance --daemon "boringtun=boringtun-cli --disable-drop-privileges" --item 34
  wiresnake-conformance --daemon wireguard-go --daemon wiresnaked --markdown table.md
  wiresnake-conformance --interface wg0      (adds peers of its own, and takes them away again)
  wiresnake-conformance --kernel

exit code: 0 nothing differs, 1 something does, 2 it could not run
"""


def main() -> int:
    try:
        return _main()
    except KeyboardInterrupt:
        return _cannot("interrupted")
    except BrokenPipeError:  # nobody reads on, as behind `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="wiresnake-conformance",
        description="Checks from outside what a WireGuard must do, item by item.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--daemon",
        action="append",
        default=[],
        metavar="[LABEL=]COMMAND",
        help="a daemon; the name of its interface is put behind the command",
    )
    parser.add_argument("--kernel", action="store_true", help="this machine's kernel")
    parser.add_argument("--interface", metavar="NAME", help="an interface that is configured")
    parser.add_argument(
        "--item", action="append", type=int, default=[], metavar="N", help="only that one"
    )
    parser.add_argument("--list", action="store_true", help="explain each item, with its source")
    for form in ("json", "junit", "markdown"):
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write {form} too")
    parser.add_argument(
        "--beside", type=Path, metavar="FILE", help="put the columns of another run's JSON beside"
    )
    parser.add_argument("--judge", metavar="LABEL", help="let only that one decide the exit code")
    parser.add_argument(
        "--known",
        action="append",
        type=int,
        default=[],
        metavar="N",
        help="a difference in that item is known and does not decide the exit code",
    )
    parser.add_argument("--quick", action="store_true", help="without the checks that wait")
    parser.add_argument("--verbose", action="store_true", help="the evidence of what passes, too")
    arguments = parser.parse_args()

    checks.load()
    known = items.load()
    if unknown := [number for number in arguments.item if number not in known]:
        return _cannot(f"no item {unknown[0]}; --list shows them")
    chosen = [one for one in CHECKS if not arguments.item or one.number in arguments.item]
    if arguments.quick:
        chosen = [one for one in chosen if one.seconds <= WAITING]
    if arguments.list:
        _list(known, chosen, arguments.item)
        return 0
    if not chosen:
        return _cannot(
            f"item {arguments.item[0]} cannot be seen from outside, so nothing checks it"
        )
    subjects = [_daemon(text) for text in arguments.daemon]
    if arguments.kernel:
        subjects.append(Subject("kernel", "kernel"))
    if arguments.interface:
        subjects.append(Subject(arguments.interface, "interface", (), arguments.interface))
    if not subjects:
        return _cannot("name what to test: --daemon COMMAND, --kernel or --interface NAME")
    if len({subject.label for subject in subjects}) < len(subjects):
        return _cannot("two implementations have the same label: write --daemon LABEL=COMMAND")
    if arguments.judge and arguments.judge not in (subject.label for subject in subjects):
        return _cannot(f"--judge {arguments.judge}: none of what is tested has that label")
    try:
        other = arguments.beside.read_text() if arguments.beside else ""
    except OSError as error:
        return _cannot(f"--beside {arguments.beside}: {error.strerror}")
    if os.geteuid():
        return _cannot("needs root, for network namespaces and packet sockets")
    if missing := [name for name in ("wg", "ip", "mount") if not shutil.which(name)]:
        packages = "wireguard-tools iproute2 mount"
        return _cannot(f"missing: {', '.join(missing)} (Debian: apt-get install {packages})")
    for subject in subjects:
        if subject.command and not shutil.which(subject.command[0]):
            return _cannot(f"{subject.label}: no program {subject.command[0]}")

    outcomes = run(chosen, subjects, lambda outcome: _tell(outcome, arguments.verbose))
    report = Report(
        sorted(outcomes, key=lambda outcome: (outcome.number, outcome.check)),
        chosen,
        known,
        {subject.label: subject.version() for subject in subjects},
        datetime.date.today().isoformat(),
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
    )
    if other:
        report = report.beside(other)
    print()
    print(report.text())
    for form in ("json", "junit", "markdown"):
        if path := getattr(arguments, form):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(getattr(report, form)())
    judged = [
        outcome
        for outcome in outcomes
        if arguments.judge in (None, outcome.subject) and outcome.number not in arguments.known
    ]
    results = {outcome.result for outcome in judged}
    if Result.ERROR in results:
        return 2
    return int(bool(results & {Result.DIFFERS, Result.FAILED}))


def _daemon(text: str) -> Subject:
    label, equals, command = text.partition("=")
    if not equals or not label.replace("-", "").replace(".", "").isalnum():
        label, command = "", text
    words = tuple(shlex.split(command))
    return Subject(label or Path(words[0]).name, "daemon", words)


def _tell(outcome: Outcome, verbose: bool) -> None:
    reason = f": {outcome.reason}" if outcome.reason else ""
    print(
        f"{outcome.subject}: {outcome.number} {outcome.check}: {outcome.result}"
        f" ({outcome.seconds:.1f} s){reason}",
        flush=True,
    )
    if verbose:
        for line in outcome.evidence:
            print(f"    {line}")


def _list(known: dict[int, items.Item], chosen: list[Check], numbers: list[int]) -> None:
    for number, item in known.items():
        if numbers and number not in numbers:
            continue
        print(f"{number:3} {item.title}\n    source: {item.source}")
        found = [one for one in chosen if one.number == number]
        for one in found:
            print(f"    {one.name}: {one.meaning}")
        if not found:
            print("    cannot be seen from outside, so nothing here checks it")


def _cannot(why: str) -> int:
    print(f"wiresnake-conformance: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
