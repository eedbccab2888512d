"""The table of subcommands. Each is imported when called."""

from importlib import import_module
from types import ModuleType

COMMANDS = {
    # group: {word: (module of wiresnake.cli with `main(argv) -> int`, summary)}
    "as wg": {
        "show": ("show", "the state of interfaces and their peers"),
        "showconf": ("show", "an interface's configuration, as a file"),
        "set": ("set", "change an interface and its peers"),
        "setconf": ("set", "replace an interface's configuration by a file"),
        "addconf": ("set", "add a file to an interface's configuration"),
        "syncconf": ("set", "make an interface's configuration that of a file"),
        "genkey": ("keys", "a new private key"),
        "genpsk": ("keys", "a new preshared key"),
        "pubkey": ("keys", "the public key of a private key"),
    },
    "as wg-quick": {
        "up": ("quick", "bring up an interface, its addresses, routes and DNS"),
        "down": ("quick", "take an interface down and undo all of it"),
        "reload": ("quick", "make a running interface what its file says, without a drop"),
        "save": ("quick", "write an interface's present state to its file"),
        "strip": ("quick", "a file without what only wg-quick reads"),
    },
    "what is going on": {
        "check": ("check", "what is wrong in a configuration file, and where"),
        "why": ("why", "why a peer is not talking"),
        "events": ("events", "what happens to peers, as it happens"),
        "monitor": ("monitor", "a live view of interfaces and peers"),
        "metrics": ("metrics", "figures for Prometheus"),
    },
    "configurations": {
        "new": ("new", "a working pair of configurations: server or peer"),
        "remove": ("remove", "take a peer off a server"),
        "qr": ("qr", "a configuration as a QR code"),
        "import": ("convert", "read the file of another WireGuard"),
        "export": ("convert", "write a file for another WireGuard"),
    },
    "more": {
        "completion": ("completion", "the words of this command, for a shell"),
    },
}
"""Every subcommand's module has `main(argv) -> int`, where argv begins with the subcommand, and
`parser(command) -> ArgumentParser`, from which help, completion and man pages are made."""


def module_of(word: str) -> ModuleType | None:
    """The module that runs a subcommand."""
    for group in COMMANDS.values():
        if word in group:
            return import_module(f"wiresnake.cli.{group[word][0]}")
    return None
