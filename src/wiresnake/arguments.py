"""The argument parser of all subcommands, with the same help, errors and exit codes."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

EXIT_CODES = {
    0: "success",
    1: "failure, or a wrong command line, as for wg(8): nothing was changed, or everything was"
    " undone except what hooks did",
    2: "`reload --diff`: the running interface differs from its file",
    3: "`why`: the peer is not talking, or its packets are dropped",
    129: "hung up (SIGHUP)",
    130: "interrupted (SIGINT)",
    141: "the reader of the output went away (SIGPIPE)",
    143: "ended (SIGTERM)",
}
"""Every exit code of a subcommand. `up` and `down` may also return a failed hook's own code.
argparse's own 2 for a wrong command line would be mistaken for `reload --diff`."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake in one line with exit code 1. Options cannot be
    abbreviated: an abbreviation in a script would change its meaning once another option begins
    with the same letters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}; `{self.prog} --help` says what it takes\n")

    def add_config(self, what: str = "friendly names are") -> None:
        """Adds --config, the option of every subcommand that shows names of peers."""
        self.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            help=f"the file from which {what} read (default: the file of `up`, or"
            " /etc/wireguard/IFACE.conf)",
        )
