"""`wiresnake why`: says why a peer is not talking."""

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
The reason comes first, then its facts, then what to do.

examples:
  wiresnake why phone               by the friendly name in the interface's file
  wiresnake why wg0 xTIB            by the beginning of its public key
  wiresnake why 10.0.0.7            by an address that cannot be reached
  wiresnake why --json wg0 phone    for a script: "reason" is an identifier

The name comes from a comment in the [Peer] section: # friendly_name = phone

Devices of wiresnaked report what happened to each handshake. The kernel's devices and other daemons
do not; the answer then uses their counters, the routes and the resolver, and says so. A silent
peer's endpoint gets a ping and an empty datagram. For a peer that contacts this host, the answer
also says whether this host forwards its packets, and which chain drops them.

exit codes: 0 the peer is talking and nothing is wrong; 3 it is not, or its packets are dropped; 1
the question cannot be answered"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Says why a peer is not talking.",
        epilog=_EPILOG,
    )
    made.add_argument("interface", metavar="IFACE", nargs="?", help="default: all interfaces")
    made.add_argument(
        "peer", metavar="PEER", help="a name, the beginning of a public key, or an address"
    )
    made.add_config("names and endpoints are")
    made.add_argument(
        "--json", action="store_true", help="print the answer as JSON, also a failure"
    )
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
    """Returns the chosen interface, or all that can be read."""
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
                print(f"wiresnake: skipping {name}: {error.strerror}", file=sys.stderr)
            continue
        found.append(Named(state, labels_file.of_interface(name, config).all()))
    if not found:
        raise gone
    return found
