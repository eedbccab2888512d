"""`wiresnake events`: what happens to peers, as it happens; and the hooks of peers."""

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
One line an event: time, interface, the peer's friendly name or public key, what happened, details.

  handshake      a handshake made a session where there was none (initiator: was it we?)
  connected      follows it
  rekey          a handshake made a new session for a connected peer (initiator)
  disconnected   no session any more; reason=expired: unused for 9 minutes, no_answer, removed, down
  roamed         the peer sends from another endpoint (old_endpoint)
  unreachable    reason=no_answer (initiations), or reason=send_error (errno)
  rejected_source  a packet came from an address that is none of its allowed IPs (source, count)
  lost           we were too slow for so many events (count)

A device of wiresnaked tells them itself. The kernel's devices and other daemons tell nothing: they
are looked at once a second, which is said at the start and in each JSON line ("source"), and what
a look cannot see (rejected_source, who began a handshake) is missing.

hooks: OnUp = COMMAND and OnDown = COMMAND in a [Peer] section run by `bash -c` when that peer
connects and disconnects, with WIRESNAKE_INTERFACE, WIRESNAKE_PEER (its key), WIRESNAKE_NAME,
WIRESNAKE_ENDPOINT and WIRESNAKE_EVENT (connected, disconnected) in the environment, and %i
replaced by the interface. `wiresnake up` starts this command with --hooks where a file has any.
Who is connected when it starts gets OnUp at once; when the interface ends, or this command by
SIGTERM or Ctrl-C, all that are connected get OnDown. The hooks of one peer run one after the
other; one that takes more than 60 s is ended. The file is read anew when it changes. What goes
wrong is reported on stderr and in the syslog.

examples:
  wiresnake events                       of all interfaces that there are
  wiresnake events wg0 --json | jq -r 'select(.event == "connected").name'
  wiresnake events --hooks /etc/wireguard/wg0.conf wg0

exit codes: 0 when the interfaces have ended, or at Ctrl-C; 1 if there is none to follow"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Prints what happens to peers, as it happens, until the interfaces end.",
        epilog=_EPILOG,
    )
    made.add_argument("interfaces", metavar="IFACE", nargs="*", help="all if left out")
    made.add_argument("--json", action="store_true", help="a JSON object a line")
    made.add_argument(
        "--hooks",
        metavar="FILE",
        type=Path,
        help="run OnUp and OnDown of the peers in this file, and print no events",
    )
    made.add_config()
    return made


def main(argv: list[str]) -> int:
    made = parser(argv[0])
    arguments = made.parse_args(argv[1:])
    if arguments.hooks and len(arguments.interfaces) != 1:
        made.error("--hooks FILE needs the one interface that the file is for")
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
            f"wiresnake: {interface} tells no events: watching, by a look every second",
            file=sys.stderr,
            flush=True,
        )
    return following


def _joined(sources: list[Iterable["Reported"]]) -> Iterable["Reported"]:
    """The events of all, as they come, until all have ended."""
    queue: SimpleQueue[Reported | BaseException | None] = SimpleQueue()

    def pass_on(source: Iterable["Reported"]) -> None:
        try:
            for event in source:
                queue.put(event)
        except BaseException as error:  # Raised where it can be said.
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
