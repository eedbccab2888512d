"""`wiresnake why`: why a peer is not talking."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wiresnake.arguments import Parser
from wiresnake.cli.progress import clear, progress
from wiresnake.errors import HostError, WiresnakeError

if TYPE_CHECKING:
    from wiresnake.diagnosis.target import Named

TALKING, NOT_TALKING = 0, 3

_EPILOG = """\
The reason comes first, then the numbers that it rests on, then what to do.

examples:
  wiresnake why phone               by the friendly name in the interface's file
  wiresnake why wg0 xTIB            by the beginning of its public key
  wiresnake why 10.0.0.7            by an address: "why can I not reach it?"
  wiresnake why --json wg0 phone    for a script: "reason" is one word

A name is what stands in a comment of the [Peer] section: # friendly_name = phone

Devices of wiresnaked say what happened to each handshake. The kernel's devices and other daemons
do not: then the answer rests on their counters, the routes and the resolver, and says so.
To a silent peer's endpoint a ping and an empty datagram are sent. Of a peer that calls this host
the answer says, too, whether its packets for others are forwarded here, and which chain drops them.

exit codes: 0 the peer is talking and nothing is wrong, 3 it is not, or packets of it are dropped,
1 the question cannot be answered"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Says why a peer is not talking.",
        epilog=_EPILOG,
    )
    made.add_argument("interface", metavar="IFACE", nargs="?", help="all interfaces if left out")
    made.add_argument(
        "peer", metavar="PEER", help="a name, a public key or its beginning, or an address"
    )
    made.add_config("names and endpoints are")
    made.add_argument("--json", action="store_true", help="the answer as JSON, a failure too")
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    try:
        return _explain(arguments)
    except WiresnakeError as error:
        if arguments.json:
            print(json.dumps({"error": error.message}))
        raise


def _explain(arguments: argparse.Namespace) -> int:
    from wiresnake.conffile.labels import displayed
    from wiresnake.diagnosis import render
    from wiresnake.diagnosis.gather import gather
    from wiresnake.diagnosis.rules import diagnose
    from wiresnake.diagnosis.target import find

    with progress(f"looking into {arguments.peer}"):
        target = find(displayed(arguments.peer), _interfaces(arguments.interface, arguments.config))
        facts = gather(target)
    verdicts = diagnose(facts)
    tell = render.as_json if arguments.json else render.as_text
    print(tell(facts, verdicts, target.name))
    return TALKING if verdicts[0].talking else NOT_TALKING


def _interfaces(chosen: str | None, config: Path | None) -> "list[Named]":
    """The one that is chosen, or all that can be read."""
    from wiresnake.devices.interface import interface_names, none_found, read_state
    from wiresnake.diagnosis.target import Named
    from wiresnake.lifecycle import labels_file

    gone = none_found()
    found = []
    for name in [chosen] if chosen else interface_names():
        try:
            state = read_state(name)
        except HostError as error:
            gone = error
            if not chosen:
                clear()
                print(f"wiresnake: {name} is left out: {error.strerror}", file=sys.stderr)
            continue
        found.append(Named(state, labels_file.of_interface(name, config).all()))
    if not found:
        raise gone
    return found
