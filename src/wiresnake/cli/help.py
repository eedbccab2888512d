"""Help for the command as a whole, and the answer to an unknown subcommand."""

import sys

from wiresnake.cli.commands import COMMANDS, module_of
from wiresnake.cli.invoked_as import STOCK

STOCK_VERSION = "v1.0.20260223"
"""The release of wireguard-tools whose behaviour ours is compared with."""

EXAMPLES = """\
examples:
  wiresnake up wg0              # /etc/wireguard/wg0.conf, with addresses, routes and DNS
  wiresnake reload --diff wg0   # what an edited file would change
  wiresnake why phone           # why that peer is not talking"""


def answer(name: str, words: list[str], argv: list[str]) -> int:
    """Handles what is not a subcommand: a request for help or the version, or a mistake."""
    word, rest = (argv[0], argv[1:]) if argv else ("", [])
    if word in ("-v", "--version", "version"):
        print(_version(name))
        return 0
    if word in ("-h", "--help", "help"):
        if not rest:
            print(overview(name))
            return 0
        word = rest[0]
        module = module_of(word) if word in words else None
        if module is not None:
            module.parser(word).print_help()
            return 0
    if not argv:
        print(overview(name), file=sys.stderr)
        return 1
    print(f"Invalid subcommand: `{word}'", file=sys.stderr)
    import difflib

    near = difflib.get_close_matches(word, words, 1)
    meant = f"did you mean `{near[0]}'? " if near else ""
    print(f"{name}: {meant}`{name} help` lists them all", file=sys.stderr)
    return 1


def overview(name: str = "wiresnake") -> str:
    """Prints every subcommand on a line, in groups."""
    lines = [f"usage: {name} COMMAND [...], where COMMAND is one of:"]
    for title, group in COMMANDS.items():
        if STOCK.get(name, title) == title:
            lines += ["", f"{title}:"]
            lines += [f"  {word:<11} {summary}" for word, (_, summary) in group.items()]
    lines += ["", f"`{name} help COMMAND` says more."]
    return "\n".join(lines if name in STOCK else [*lines, "", EXAMPLES])


def _version(name: str) -> str:
    """Scripts read the first two words of `wg --version`: the tools' name, and what can be asked
    of them. Called as `wg` we say these, and then who speaks."""
    from importlib.metadata import version  # 30 ms that only this needs.

    own = f"wiresnake {version('wiresnake')}"
    return f"wireguard-tools {STOCK_VERSION} - by {own}" if name in STOCK else own
