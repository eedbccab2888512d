"""The parsers of all subcommands: one shape of help, of complaints and of exit codes."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

EXIT_CODES = {
    0: "success",
    1: "failure, also of a wrong command line, as of wg(8): nothing was changed, or all was undone"
    " but what hooks did",
    2: "`reload --diff`: the running interface differs from its file",
    3: "`why`: the peer is not talking, or packets of it are dropped",
    129: "hung up (SIGHUP)",
    130: "interrupted (SIGINT)",
    141: "whoever read the output went away (SIGPIPE)",
    143: "ended (SIGTERM)",
}
"""All that a subcommand may return, but for `up` and `down` the code of a hook that failed.
argparse's own 2 for a wrong command line would hide what `reload --diff` says with it."""


class Parser(argparse.ArgumentParser):
    """argparse's, whose complaints say in one line what is wrong and where to look, exit code 1.

    Options cannot be abbreviated: a script's abbreviation would change its meaning once another
    option begins with the same letters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}; `{self.prog} --help` says what it takes\n")

    def add_config(self, what: str = "friendly names are") -> None:
        """The option of all that tell of peers by their names."""
        self.add_argument(
            "--config",
            metavar="FILE",
            type=Path,
            help=f"where {what} read (the file of `up`, or /etc/wireguard/IFACE.conf)",
        )
