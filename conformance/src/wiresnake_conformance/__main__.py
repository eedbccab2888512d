"""The command line of `wiresnake-conformance`."""

import argparse
import datetime
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from . import checks, items
from .machine import Watch
from .report import Report
from .run import WAITING, Outcome, run
from .subject import Subject
from .verdict import CHECKS, Check, Result

EXAMPLES = """
examples:
  wiresnake-conformance --daemon wireguard-go
  wiresnake-conformance --daemon "boringtun=boringtun-cli --disable-drop-privileges" --item 34
  wiresnake-conformance --daemon wireguard-go --daemon wiresnaked --markdown table.md
  wiresnake-conformance --interface wg0      (adds its own peers and removes them again)
  wiresnake-conformance --kernel

exit code: 0 nothing differs, 1 something differs, 2 it could not run, 3 no difference was found,
but this machine was too slow to check everything
"""


FORMS = ("json", "junit", "markdown")


class Mistake(Exception):
    """The user's request cannot be carried out."""


def main() -> int:
    try:
        return _main(_parser().parse_args())
    except Mistake as error:
        print(f"wiresnake-conformance: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("wiresnake-conformance: interrupted", file=sys.stderr)
    except BrokenPipeError:  # the reader is gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wiresnake-conformance",
        description="Check from outside what a WireGuard must do, item by item.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--daemon",
        action="append",
        default=[],
        metavar="[LABEL=]COMMAND",
        help="test a daemon; the name of its interface is added to the command",
    )
    parser.add_argument("--kernel", action="store_true", help="test this machine's kernel")
    parser.add_argument("--interface", metavar="NAME", help="test a configured interface")
    parser.add_argument(
        "--item", action="append", type=int, default=[], metavar="N", help="check only this item"
    )
    parser.add_argument("--quick", action="store_true", help="leave out the checks that wait")
    parser.add_argument("--list", action="store_true", help="explain each item, with its source")
    for form in FORMS:
        parser.add_argument(f"--{form}", type=Path, metavar="FILE", help=f"write {form} too")
    parser.add_argument(
        "--beside", type=Path, metavar="FILE", help="add the columns of another run's JSON"
    )
    parser.add_argument("--judge", metavar="LABEL", help="let only this one decide the exit code")
    parser.add_argument(
        "--known",
        action="append",
        type=int,
        default=[],
        metavar="N",
        help="ignore a known difference in this item for the exit code",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="also print the evidence of checks that pass"
    )
    return parser


def _main(arguments: argparse.Namespace) -> int:
    known = items.load()
    chosen = _chosen(arguments.item, arguments.quick, known)
    if arguments.list:
        _list(known, chosen, arguments.item)
        return 0
    _need_machine()
    subjects = _subjects(arguments)
    for number in set(arguments.item) - {one.number for one in chosen}:
        seen = any(one.number == number for one in CHECKS)
        why = "waits: --quick leaves it out" if seen else "cannot be seen from outside"
        raise Mistake(f"item {number} {why}")
    report = Report(
        [],
        chosen,
        known,
        dict.fromkeys((subject.label for subject in subjects), ""),
        datetime.date.today().isoformat(),
        f"Linux {'.'.join(platform.release().split('.')[:2])}, {os.cpu_count()} cores",
    )
    beside = _beside(report, arguments.beside)
    files = {form: path for form in FORMS if (path := getattr(arguments, form))}
    for path in files.values():
        _make(path)

    with Watch() as watch:
        first = watch.measure()
        print(f"This machine ends a small task {first.worst:.3f} s late.", flush=True)
        versions = {subject.label: subject.version(5 * first.stretch) for subject in subjects}
        outcomes = run(chosen, subjects, lambda outcome: _tell(outcome, arguments.verbose), watch)
        lateness = watch.since(watch.start)
    report = replace(
        beside,
        versions=beside.versions | versions,
        lateness=lateness,
        outcomes=sorted(
            [*outcomes, *beside.outcomes], key=lambda outcome: (outcome.number, outcome.check)
        ),
    )
    print()
    print(report.text())
    for form, path in files.items():
        path.write_text(getattr(report, form)())
    results = {
        outcome.result
        for outcome in outcomes
        if arguments.judge in (None, outcome.subject) and outcome.number not in arguments.known
    }
    if Result.ERROR in results:
        return 2
    if results & {Result.DIFFERS, Result.FAILED}:
        return 1
    return 3 if Result.INCONCLUSIVE in results else 0


def _chosen(numbers: list[int], quick: bool, known: dict[int, items.Item]) -> list[Check]:
    """Returns the checks of those items, or all checks."""
    checks.load()
    if unknown := [number for number in numbers if number not in known]:
        raise Mistake(f"no item {unknown[0]}; --list shows them")
    return [
        one
        for one in CHECKS
        if (not numbers or one.number in numbers) and not (quick and one.seconds > WAITING)
    ]


def _subjects(arguments: argparse.Namespace) -> list[Subject]:
    subjects = [_daemon(text) for text in arguments.daemon]
    if arguments.kernel:
        subjects.append(Subject("kernel", "kernel"))
    if arguments.interface:
        _need_interface(arguments.interface)
        subjects.append(Subject(arguments.interface, "interface", (), arguments.interface))
    labels = [subject.label for subject in subjects]
    if not subjects:
        raise Mistake("name what to test: --daemon COMMAND, --kernel or --interface NAME")
    if len(set(labels)) < len(labels):
        raise Mistake("two implementations have the same label: write --daemon LABEL=COMMAND")
    if arguments.judge and arguments.judge not in labels:
        raise Mistake(f"--judge {arguments.judge}: no tested implementation has that label")
    return subjects


def _need_interface(name: str) -> None:
    """Checks that its peers can be played over the loopback."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        raise Mistake(f"no interface {name}: `ip link` lists them") from None
    for device in ("lo", name):
        shown = subprocess.run(
            ["ip", "-j", "link", "show", device], capture_output=True, check=False
        )
        if b'"UP"' not in shown.stdout:
            raise Mistake(f"{device} is down: ip link set {device} up")
    shown = subprocess.run(["wg", "show", name, "public-key"], capture_output=True, check=False)
    if shown.returncode:
        raise Mistake(
            f"{name} is not a WireGuard interface, or its daemon is gone: `wg show {name}`"
        )
    if shown.stdout == b"(none)\n":
        raise Mistake(f"{name} has no private key: wg set {name} private-key FILE")


def _daemon(text: str) -> Subject:
    label, equals, command = text.partition("=")
    if not equals or not label.replace("-", "").replace(".", "").isalnum():
        label, command = "", text
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise Mistake(f"--daemon {text!r}: {error}") from None
    if not words:
        raise Mistake(f"--daemon {text!r}: it has no command")
    if not shutil.which(words[0]):
        raise Mistake(f"--daemon {text!r}: no program {words[0]}")
    return Subject(label or Path(words[0]).name, "daemon", words)


def _beside(report: Report, path: Path | None) -> Report:
    """Adds the columns of another run to the report, if there is one."""
    if path is None:
        return report
    try:
        return report.beside(path.read_text())
    except OSError as error:
        raise Mistake(f"--beside {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        why = "it is not a file of --json, or has a label of this run"
        raise Mistake(f"--beside {path}: {why}") from None


def _make(path: Path) -> None:
    """Checks that the file can be written, before the checks take minutes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as error:
        raise Mistake(f"cannot write {path}: {error.strerror}") from None


def _need_machine() -> None:
    if os.geteuid():
        raise Mistake("needs root, for network namespaces and packet sockets")
    if missing := [name for name in ("wg", "ip", "mount") if not shutil.which(name)]:
        packages = "wireguard-tools iproute2 mount"
        raise Mistake(f"missing: {', '.join(missing)} (Debian: apt-get install {packages})")


def _tell(outcome: Outcome, verbose: bool) -> None:
    reason = f": {outcome.reason}" if outcome.reason else ""
    print(
        f"{outcome.subject}: {outcome.number} {outcome.check}: {outcome.result}"
        f" ({outcome.seconds:.1f} s){reason}",
        flush=True,
    )
    for note in outcome.notes:
        print(f"    {note}")
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
        if not any(one.number == number for one in CHECKS):
            print("    cannot be seen from outside, so nothing here checks it")


if __name__ == "__main__":
    sys.exit(main())
