"""`wiresnake events`: prints what happens to peers, as it happens, and runs their hooks."""

import argparse
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.linux import streams

if TYPE_CHECKING:
    from wiresnake.conffile.labels import PeerLabels
    from wiresnake.devices.event_stream import Following
    from wiresnake.uapi.events import Reported

_EPILOG = """\
Each event is one line: time, interface, the peer's friendly name or public key, event, details.

  handshake      a handshake made a session where there was none (initiator: did we start it?)
  connected      follows a handshake that made a session
  rekey          a handshake made a new session for a connected peer (initiator)
  disconnected   no session any more; reason=expired: unused for 9 minutes, no_answer, removed, down
  roamed         the peer sends from a new endpoint (old_endpoint)
  unreachable    reason=no_answer (initiations), or reason=send_error (errno)
  rejected_source  a packet came from an address outside its allowed IPs (source, count)
  lost           this command was too slow for so many events (count)

A device of wiresnaked reports events itself. The kernel's devices and other daemons do not: they
are polled once a second, as a message and each JSON line ("source") say, and what polling cannot
see (rejected_source, who started a handshake) is missing.

hooks: OnUp = COMMAND and OnDown = COMMAND in a [Peer] section run by `bash -c` when that peer
connects and disconnects, with WIRESNAKE_INTERFACE, WIRESNAKE_PEER (its key), WIRESNAKE_NAME,
WIRESNAKE_ENDPOINT and WIRESNAKE_EVENT (connected, disconnected) in the environment, and %i replaced
by the interface. `wiresnake up` starts this command with --hooks if a file has any. OnUp runs at
once for peers that are already connected. When the interface or this command ends, OnDown runs for
all connected peers. The hooks of one peer run one after the other; a hook is ended after 60 s. The
file is read again when it changes. Errors go to stderr and to syslog.

examples:
  wiresnake events                       all interfaces
  wiresnake events wg0 --json | jq -r 'select(.event == "connected").name'
  wiresnake events --hooks /etc/wireguard/wg0.conf wg0

exit codes: 0 when the interfaces have ended, or at Ctrl-C; 1 if there is no interface to follow"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Prints what happens to peers, as it happens, until the interfaces end.",
        epilog=_EPILOG,
    )
    made.add_argument("interfaces", metavar="IFACE", nargs="*", help="default: all")
    made.add_argument("--json", action="store_true", help="print one JSON object per line")
    made.add_argument(
        "--hooks",
        metavar="FILE",
        type=Path,
        help="run OnUp and OnDown of the peers in this file, and print nothing",
    )
    made.add_config()
    return made


def main(argv: list[str]) -> int:
    made = parser(argv[0])
    arguments = made.parse_args(argv[1:])
    if arguments.hooks and len(arguments.interfaces) != 1:
        made.error("--hooks FILE needs the interface that the file belongs to")
    with streams.until_interrupted():
        if arguments.hooks:
            from wiresnake.lifecycle import keeper

            keeper.run(arguments.interfaces[0], arguments.hooks, _follow)
        else:
            _print_all(arguments)
    return 0


def _print_all(arguments: argparse.Namespace) -> None:
    from wiresnake.devices.interface import interface_names, none_found
    from wiresnake.lifecycle import labels_file

    interfaces = arguments.interfaces or interface_names()
    if not interfaces:
        raise none_found()
    files = {name: labels_file.of_interface(name, arguments.config) for name in interfaces}
    followed = {name: _follow(name) for name in interfaces}
    form = _as_json if arguments.json else _as_line
    for event in _joined([following.events for following in followed.values()]):
        notes = files[event.interface].of(event.public_key)
        print(form(event, notes, followed[event.interface].watching), flush=True)


def _follow(interface: str) -> "Following":
    from wiresnake.devices.event_stream import follow

    following = follow(interface)
    if following.watching:
        print(
            f"wiresnake: {interface} reports no events, so it is polled every second",
            file=sys.stderr,
            flush=True,
        )
    return following


def _joined(sources: list[Iterable["Reported"]]) -> Iterable["Reported"]:
    """Yields the events of all interfaces as they come, until all have ended."""
    queue: SimpleQueue[Reported | BaseException | None] = SimpleQueue()

    def pass_on(source: Iterable["Reported"]) -> None:
        try:
            for event in source:
                queue.put(event)
        except BaseException as error:  # Raised in the main thread.
            queue.put(error)
        queue.put(None)

    for source in sources:
        Thread(target=pass_on, args=(source,), daemon=True).start()
    running = len(sources)
    while running:
        got = queue.get()
        if isinstance(got, BaseException):
            raise got
        if got is None:
            running -= 1
        else:
            yield got


def _as_line(event: "Reported", notes: "PeerLabels", watching: bool) -> str:
    from wiresnake.text import word
    from wiresnake.uapi.events import details, kind_of

    time = datetime.fromtimestamp(event.time_ns / 1e9).isoformat(" ", "milliseconds")
    said = "".join(f" {key}={word(value)}" for key, value in details(event.event).items())
    who = notes.name or event.public_key or "-"
    return f"{time} {event.interface} {who} {kind_of(event.event)}{said}"


def _as_json(event: "Reported", notes: "PeerLabels", watching: bool) -> str:
    from wiresnake.uapi.events import details, kind_of

    said = {
        "time": event.time_ns / 1e9,
        "interface": event.interface,
        "public_key": event.public_key or None,
        "name": notes.name or None,
        "event": kind_of(event.event),
        "source": "watching" if watching else "device",
    }
    return json.dumps(said | details(event.event), ensure_ascii=False)
