"""`wiresnake monitor`: shows a live view of interfaces and peers."""

import argparse
import heapq
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.cli.extras import needed_by
from wiresnake.cli.progress import progress
from wiresnake.devices.activity import Activity, Meter
from wiresnake.devices.interface import interface_names, none_found, read_state
from wiresnake.diagnosis.units import duration, size
from wiresnake.errors import HostError
from wiresnake.lifecycle import labels_file
from wiresnake.linux import streams
from wiresnake.uapi.snapshot import InterfaceState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_COLOURS = {"live": "green", "idle": "cyan", "silent": "yellow", "no answer": "red", "never": "dim"}
_COLUMNS = ("peer", "health", "endpoint", "handshake", "in/s", "out/s", "received", "sent")
_NUMBERS = frozenset(("handshake", "in/s", "out/s", "received", "sent"))
_WIDE = {"endpoint": 72, "received": 100, "sent": 100}
"""Columns that are shown on terminals of at least this width."""
_HEADER_LINES = 3
_CALM = 6
"""After reading many peers it rests for so many times as long, which keeps it under a fifth of a
CPU."""
_GLANCE = 0.2
"""Seconds until a key or a new size of the terminal is noticed."""

_EPILOG = """\
health of a peer:
  live       it has a session
  idle       it has no session, and needs none
  silent     it has not answered for 15 s or longer
  no answer  it has never answered
  never      neither end has tried

The busiest peers come first, as many as fit. `q` or Ctrl-C ends it. Without a terminal it prints
plain lines. Names are the friendly names in the interface's file (# friendly_name = X). `wiresnake
why PEER` says why a peer is not live.

examples:
  wiresnake monitor                  all interfaces, including later ones
  wiresnake monitor wg0 --interval 5
  wiresnake monitor --once           one table, rates over one second

exit codes: 0 ended, 1 no such interface"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Shows rates, handshakes and health of peers.",
        epilog=_EPILOG,
    )
    made.add_argument("interfaces", metavar="IFACE", nargs="*", help="default: all")
    made.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="seconds between updates (default: 1)",
    )
    made.add_argument("--once", action="store_true", help="print one table and exit")
    made.add_config()
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    view = View(arguments.interfaces, arguments.config)
    with streams.until_interrupted():
        with progress("looking"):
            view.look()
        if arguments.once or not sys.stdout.isatty():
            _plain(view, arguments.interval, arguments.once)
        else:
            _live(view, arguments.interval)
    return 0


class View:
    """The latest state of all interfaces."""

    def __init__(self, interfaces: list[str], config: Path | None) -> None:
        self._chosen = interfaces
        self._config = config
        self._meters: dict[str, Meter] = {}
        self._files: dict[str, labels_file.LabelsFile] = {}
        self.seen: dict[str, tuple[InterfaceState, list[Activity]]] = {}

    def look(self) -> None:
        """Reads all interfaces. HostError if there are none, or none any more."""
        gone = none_found()
        seen = {}
        for name in self._chosen or interface_names():
            try:
                state = read_state(name)
            except HostError as error:
                gone = error
                continue
            meter = self._meters.setdefault(name, Meter())
            seen[name] = state, meter.look(state, time.time(), time.monotonic())
            if name not in self._files:
                self._files[name] = labels_file.of_interface(name, self._config)
        if not seen:
            raise gone
        self.seen = seen

    def title(self, name: str) -> str:
        state, peers = self.seen[name]
        live = sum(peer.health == "live" for peer in peers)
        received = size(sum(peer.received_rate for peer in peers))
        sent = size(sum(peer.sent_rate for peer in peers))
        kind = " (kernel)" if state.backend == "kernel" else ""
        said = f"{name}{kind}: port {state.listen_port}, {live} of {len(peers)} peers live"
        return f"{said}, {received}/s in, {sent}/s out"

    def cells(self, name: str, peer: Activity) -> tuple[str, ...]:
        public_key = peer.peer.public_key
        return (
            self._files[name].of(public_key).name or public_key,
            peer.health,
            peer.peer.endpoint or "-",
            "-" if peer.handshake_age is None else duration(peer.handshake_age),
            size(peer.received_rate),
            size(peer.sent_rate),
            size(peer.peer.received),
            size(peer.peer.sent),
        )

    def rows(self, name: str, most: int | None = None) -> list[Activity]:
        """Returns the peers, the busiest first."""
        peers = self.seen[name][1]
        notes = self._files[name].all()

        def order(peer: Activity) -> tuple[object, ...]:
            noted = notes.get(peer.peer.public_key)
            return *peer.order, noted.name if noted else "", peer.peer.public_key

        return sorted(peers, key=order) if most is None else heapq.nsmallest(most, peers, key=order)


def _plain(view: View, interval: float, once: bool) -> None:
    """Prints lines for a file or a pipe. The first reading has no rates yet."""
    while True:
        time.sleep(min(interval, 1.0) if once else interval)
        view.look()
        if not once:
            print(datetime.now().isoformat(" ", "seconds"))
        for name in view.seen:
            rows = [_COLUMNS, *(view.cells(name, peer) for peer in view.rows(name))]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            print(view.title(name))
            for row in rows:
                cells = [
                    cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
                    for cell, width, column in zip(row, widths, _COLUMNS, strict=True)
                ]
                print("  " + "  ".join(cells).rstrip())
        sys.stdout.flush()
        if once:
            return


def _live(view: View, interval: float) -> None:
    with needed_by("`wiresnake monitor` on a terminal"):
        from rich.console import Console
        from rich.live import Live

    console = Console()
    with _Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            begun = time.process_time()
            view.look()
            cost = time.process_time() - begun
            due = time.monotonic() + max(interval, _CALM * cost)
            drawn = None
            while (left := due - time.monotonic()) > 0:
                if console.size != drawn:
                    drawn = console.size
                    live.update(_draw(view, console), refresh=True)
                if keys.pressed(min(left, _GLANCE)) in ("q", "Q", "\x03", "\x04"):
                    return


def _draw(view: View, console: "Console") -> "RenderableType":
    from rich.console import Group

    parts: list[RenderableType] = []
    room = console.size.height - 1
    for number, name in enumerate(view.seen):
        share = room // (len(view.seen) - number)
        drawn = list(_table(view, name, share - _HEADER_LINES, console.size.width))
        room -= len(view.rows(name, max(share - _HEADER_LINES, 0))) + _HEADER_LINES
        parts += drawn
    return Group(*parts, "[dim]q: quit[/]")


def _table(view: View, name: str, most: int, width: int) -> "Iterator[RenderableType]":
    from rich.table import Table
    from rich.text import Text

    rows = view.rows(name, max(most, 0))
    more = len(view.seen[name][1]) - len(rows)
    yield Text(view.title(name), style="bold", no_wrap=True, overflow="ellipsis")
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    shown = [column for column in _COLUMNS if _WIDE.get(column, 0) <= width]
    for column in shown:
        number = column in _NUMBERS
        table.add_column(
            column,
            justify="right" if number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=None if number or column == "health" else 1,
        )
    for peer in rows:
        cells = dict(zip(_COLUMNS, view.cells(name, peer), strict=True))
        health = Text(peer.health, _COLOURS[peer.health])
        table.add_row(*(health if one == "health" else Text(cells[one]) for one in shown))
    yield table
    yield Text(f"  and {more} less busy peers" if more else "", style="dim")


class _Keys:
    """Reads single keys from the terminal, without Enter and without an echo."""

    def __enter__(self) -> "_Keys":
        import termios
        import tty

        self._before = None
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, seconds: float) -> str:
        """Returns the next key, or an empty string when the time is up."""
        import select

        if self._before is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode("latin1") if ready else ""


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"must be between 0.1 and 3600, not {text!r}")
    return value
