"""wiresnake: the command line. Each subcommand is imported only when it is called."""

import argparse
import sys
from typing import NoReturn


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 for success, 1 for any failure, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="wiresnake", description="A complete WireGuard.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="two hosts, a tunnel, real traffic, roaming: under a minute, nothing left behind",
        description="Build two hosts in network namespaces, join them by a tunnel and show it.",
    )
    demo.set_defaults(run=_demo)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _demo(_: argparse.Namespace) -> int:
    from wiresnake.cli import demo

    return demo.run()


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # 30 ms that only this needs.

        print(f"wiresnake {version('wiresnake')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
