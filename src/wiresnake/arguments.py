"""The argument parser of all commands, for one style of help, error messages and exit codes."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

EXIT_CODES = {
    0: "success",
    1: "failure, including a wrong command line, as in wg(8): nothing was changed, or everything"
    " was undone except what hooks did",
    2: "`reload --diff`: the running interface differs from its file",
    3: "`why`: the peer is not talking, or some of its packets are dropped",
    126: "`exec`: the command cannot be executed",
    127: "`exec`: the command was not found",
    129: "hung up (SIGHUP)",
    130: "interrupted (SIGINT)",
    141: "the reader of the output went away (SIGPIPE)",
    143: "ended (SIGTERM)",
}
"""Every exit code of a subcommand. `up` and `down` may also return a failed hook's own code.

A wrong command line is 1, not argparse's 2, which has a meaning for `reload --diff`."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, with a hint, and exits with code 1.

    Options cannot be abbreviated: an abbreviation in a script would change its meaning when a new
    option begins with the same letters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}; see `{self.prog} --help`\n")

    def add_config(self, what: str = "friendly names are") -> None:
        """Adds the option of the commands that show peers by name."""
        self.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            help=f"file from which {what} read (that of `up`, or /etc/wireguard/IFACE.conf)",
        )

    def add_forwards(self) -> None:
        """Adds -L and -R of the commands that open a tunnel, each a list of texts."""
        for option, what in (("-L", "from this host into"), ("-R", "out of")):
            self.add_argument(
                option,
                dest=option[1],
                metavar="FORWARD",
                action="append",
                default=[],
                help=f"lead a port {what} the tunnel; can be given again",
            )
