"""The table of subcommands. Each module is imported when it is called."""

from importlib import import_module
from types import ModuleType

COMMANDS = {
    # group: {word: (module of wiresnake.cli with `main(argv) -> int`, summary)}
    "as wg": {
        "show": ("show", "show interfaces and their peers"),
        "showconf": ("show", "print an interface's configuration as a file"),
        "set": ("set", "change an interface and its peers"),
        "setconf": ("set", "replace an interface's configuration with a file"),
        "addconf": ("set", "add a file to an interface's configuration"),
        "syncconf": ("set", "change an interface to match a file, keeping sessions"),
        "genkey": ("keys", "make a new private key"),
        "genpsk": ("keys", "make a new preshared key"),
        "pubkey": ("keys", "compute the public key of a private key"),
    },
    "as wg-quick": {
        "up": ("quick", "bring up an interface, its addresses, routes and DNS"),
        "down": ("quick", "take an interface down and undo what up did"),
        "reload": ("quick", "apply an edited file to a running interface, without losing a packet"),
        "save": ("quick", "write an interface's current state to its file"),
        "strip": ("quick", "print a file without the keys that only wg-quick reads"),
    },
    "what is going on": {
        "check": ("check", "find mistakes in configuration files"),
        "why": ("why", "say why a peer is not talking"),
        "events": ("events", "print what happens to peers, as it happens"),
        "monitor": ("monitor", "show a live view of interfaces and peers"),
        "metrics": ("metrics", "export metrics for Prometheus"),
    },
    "configurations": {
        "new": ("new", "make working configurations for a server and its peers"),
        "remove": ("remove", "remove a peer from a server"),
        "qr": ("qr", "show a configuration as a QR code"),
        "import": ("convert", "read a file of another WireGuard program"),
        "export": ("convert", "write a file for another WireGuard program"),
    },
    "without root": {
        "exec": ("exec", "run a command inside a tunnel"),
    },
    "more": {
        "completion": ("completion", "print a completion script for a shell"),
    },
}
"""Every subcommand's module has `main(argv) -> int`, where argv begins with the subcommand, and
`parser(command) -> ArgumentParser`, from which help, completion and man pages are made."""


def module_of(word: str) -> ModuleType | None:
    """Returns the module that runs a subcommand, or None."""
    for group in COMMANDS.values():
        if word in group:
            return import_module(f"wiresnake.cli.{group[word][0]}")
    return None
