"""`wiresnake why`: why a peer is not talking."""

from wiresnake.cli.arguments import Parser
from wiresnake.cli.progress import progress

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
To a silent peer's endpoint a ping and an empty datagram are sent.

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
    made.add_argument("--json", action="store_true", help="the answer as JSON")
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    from wiresnake.control.interface import interface_names, open_interface
    from wiresnake.diagnosis import telling
    from wiresnake.diagnosis.gather import gather
    from wiresnake.diagnosis.rules import diagnose
    from wiresnake.diagnosis.target import Named, find
    from wiresnake.errors import HostError
    from wiresnake.quick import names

    chosen = [arguments.interface] if arguments.interface else interface_names()
    if not chosen:
        raise HostError(0, "there is no WireGuard interface; `wiresnake up FILE` makes one")
    target = find(
        arguments.peer,
        [
            Named(open_interface(name).read(), names.of_interface(name, arguments.config).all())
            for name in chosen
        ],
    )
    with progress(f"looking into {arguments.peer}"):
        facts = gather(target)
    verdicts = diagnose(facts)
    tell = telling.as_json if arguments.json else telling.as_text
    print(tell(facts, verdicts, target.name))
    return TALKING if verdicts[0].talking else NOT_TALKING
