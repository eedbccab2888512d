"""`wiresnake completion SHELL`: prints a script with which a shell completes our commands.

The scripts only ask `wiresnake completion words LINE...`, which prints one candidate per line, a
tab and its meaning. So all shells offer the same: the parsers' options, and the interfaces, files
and peers that exist. A last line of `:` asks the shell for file names.

Names of peers are foreign text. zsh and fish quote what they insert. bash inserts it unquoted and
splits words by its own rules, so `wiresnake completion line LINE BREAKS` does both for it.
"""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from wiresnake.arguments import Parser
from wiresnake.cli.commands import COMMANDS, module_of
from wiresnake.cli.invoked_as import STOCK
from wiresnake.conffile import schema
from wiresnake.errors import WiresnakeError

FILES = ":"

SCRIPTS = {
    path.suffix[1:]: path
    for path in sorted(Path(__file__).with_name("completions").glob("wiresnake.*"))
}

_EPILOG = """\
examples:
  source <(wiresnake completion bash)                    # for this shell
  wiresnake completion bash >/etc/bash_completion.d/wiresnake
  wiresnake completion fish >~/.config/fish/completions/wiresnake.fish

exit codes: 0 success; 1 a wrong command line"""


def parser(_: str) -> Parser:
    made = Parser(
        prog="wiresnake completion",
        description="Print a script that completes this command's words in a shell.",
        epilog=_EPILOG,
    )
    made.add_argument("shell", choices=[*SCRIPTS], help="which shell the script is for")
    return made


def main(argv: list[str]) -> int:
    if argv[1:2] == ["words"]:
        for word, meaning in candidates(argv[2:]):
            print(f"{word}\t{meaning}" if meaning else word)
        return 0
    if argv[1:2] == ["line"]:
        for word in for_bash(argv[2], argv[3] if argv[3:] else ""):
            print(word)
        return 0
    print(SCRIPTS[parser(argv[0]).parse_args(argv[1:]).shell].read_text("utf-8"), end="")
    return 0


def for_bash(line: str, breaks: str) -> Iterator[str]:
    """Yields what bash inserts in place of the last word of a line, quoted in the way that word
    begins. `breaks` is COMP_WORDBREAKS: after an unquoted one of these bash begins a new word, so
    the text before it is not repeated."""
    words, quote, kept = _split(line, breaks)
    for word, _ in candidates(words):
        yield word if word == FILES else _quoted(word[kept:], quote)


def _split(line: str, breaks: str) -> tuple[list[str], str, int]:
    """Returns a line's words as bash reads them, the quote that is open at its end, and the length
    of the part of the last word that bash takes for another word."""
    words, quote, kept = [""], "", 0
    begun = escaped = False
    for one in line:
        if escaped:
            # Within double quotes a backslash before other letters stands for itself.
            words[-1] += one if not quote or one in _WITHIN_DOUBLE else f"\\{one}"
            escaped = False
        elif one == "\\" and quote != "'":
            escaped = begun = True
        elif quote:
            words[-1], quote = (words[-1], "") if one == quote else (words[-1] + one, quote)
        elif one in ("'", '"'):
            quote, begun = one, True
        elif one in " \t\n":
            if begun:
                words.append("")
            begun, kept = False, 0
        else:
            words[-1] += one
            begun = True
            if one in breaks:
                kept = len(words[-1])
    return words, quote, kept


def _quoted(word: str, quote: str) -> str:
    if quote == "'":
        return word.replace("'", "'\\''")
    if quote:
        word = re.sub(f"([{re.escape(_WITHIN_DOUBLE)}])", r"\\\1", word)
        return word.replace("!", '"\\!"')  # Double quotes do not stop history expansion.
    return re.sub(r"([^\w./%+,:=@-])", r"\\\1", word)


_WITHIN_DOUBLE = '$`"\\'


def candidates(line: list[str]) -> Iterator[tuple[str, str]]:
    """Yields what can complete the last word of the line, with its meaning. The first word is the
    program's name."""
    if len(line) < 2:
        return
    prefix = line[-1]
    for word, meaning in _all(line):
        if word.startswith(prefix) or word == FILES:
            yield word, meaning


def _all(line: list[str]) -> Iterator[tuple[str, str]]:
    name, *words = line
    groups = [STOCK[Path(name).name]] if Path(name).name in STOCK else [*COMMANDS]
    commands = {word: text for group in groups for word, (_, text) in COMMANDS[group].items()}
    if len(words) == 1 or (words[0] == "help" and len(words) == 2):
        yield from commands.items()
        if len(words) == 1:
            yield "help", "explain this command and its subcommands"
        return
    module = module_of(words[0])
    if module is None or words[0] not in commands:
        return
    if words[0] == "set":
        yield from _set(words[1:])
    else:
        yield from _parsed(module.parser(words[0]), words[1:])


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[tuple[str, str]]:
    """Follows all words except the last through the parser."""
    *before, prefix = words
    positionals = _positionals(parser)
    waiting: argparse.Action | None = None
    taken: list[str] = []
    for word in before:
        if waiting is not None:
            waiting = None
        elif word.startswith("-"):
            option = parser._option_string_actions.get(word)
            waiting = option if option is not None and option.nargs is None else None
        else:
            taken.append(word)
            action = positionals[0] if positionals else None
            if isinstance(action, argparse._SubParsersAction):
                if (found := action.choices.get(word)) is None:
                    return
                parser, positionals = found, _positionals(found)
            elif action is not None and action.nargs in (None, "?"):
                positionals = positionals[1:]
    if waiting is not None:
        yield from _values(waiting, taken)
    elif prefix.startswith("-"):
        for option in parser._actions:
            for string in option.option_strings:
                yield string, _meaning(option)
    else:
        for action in positionals:
            yield from _values(action, taken)
            if action.nargs not in ("?", "*"):
                return


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _meaning(action: argparse.Action) -> str:
    text = action.help if action.help and action.help is not argparse.SUPPRESS else ""
    return text.partition(";")[0].replace("%%", "%")


def _values(action: argparse.Action, taken: list[str]) -> Iterator[tuple[str, str]]:
    if isinstance(action, argparse._SubParsersAction):
        for choice in action._choices_actions:
            yield choice.dest, _meaning(choice)
    elif action.choices is not None:
        for choice in action.choices:
            yield str(choice), ""
    else:
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest
        if kind := _KINDS.get(metavar.upper()):
            yield from kind(taken)


def _interfaces(_: list[str]) -> Iterator[tuple[str, str]]:
    from wiresnake.devices.interface import interface_names

    with contextlib.suppress(WiresnakeError, OSError):
        for name in interface_names():
            yield name, "interface"


def _configurations(_: list[str]) -> Iterator[tuple[str, str]]:
    """Files outside /etc/wireguard are named by a path, which has a slash."""
    from wiresnake.conffile.files import FOLDER

    with contextlib.suppress(OSError):
        for path in sorted(FOLDER.glob("*.conf")):
            yield path.stem, str(path)
    yield FILES, ""


def _peers(taken: list[str]) -> Iterator[tuple[str, str]]:
    """Peers of the interface that the line names, or of all."""
    from wiresnake.devices.interface import interface_names, open_interface

    with contextlib.suppress(WiresnakeError, OSError):
        for name in interface_names():
            if not taken or taken[0] == name or taken[0] not in interface_names():
                for peer in open_interface(name).read().peers:
                    yield peer.public_key, f"peer of {name}"


def _named(taken: list[str]) -> Iterator[tuple[str, str]]:
    """Yields peers by their names; a peer without a name by its key."""
    from wiresnake.devices.interface import interface_names
    from wiresnake.lifecycle.labels_file import of_interface

    with contextlib.suppress(WiresnakeError, OSError):
        names = interface_names()
        notes = [of_interface(name).of for name in names]
        for key, meaning in _peers(taken):
            found = [of(key).name for of in notes if of(key).name]
            yield (found[0] if found else key), meaning


def _files(_: list[str]) -> Iterator[tuple[str, str]]:
    yield FILES, ""


_KINDS: dict[str, Callable[[list[str]], Iterator[tuple[str, str]]]] = {
    "IFACE": _interfaces,
    "INTERFACE": _interfaces,
    "FILE-OR-NAME": _configurations,
    "FILE|NAME": _configurations,
    "NAME|FILE": _configurations,
    "PEER": _named,
    "FILE": _files,
    "OUT": _files,
}
"""Completers, by the name of an argument in the help."""


def _set(words: list[str]) -> Iterator[tuple[str, str]]:
    """Completes `set`, which has the grammar of wg(8): words with values, without options."""
    before = words[-2] if len(words) > 1 else ""
    if len(words) == 1:
        yield from _interfaces([])
    elif not (key := schema.WORDS.get(before)):
        yield from _set_words("peer" if "peer" in words[:-1] else "interface")
    elif key is schema.PUBLIC_KEY:
        yield from _peers(words[:1])
    elif key.secret:
        yield FILES, ""


def _set_words(section: str) -> Iterator[tuple[str, str]]:
    for word, key in schema.WORDS.items():
        if key.word and key.section == section and key is not schema.PUBLIC_KEY:
            yield word, key.word.meaning
    if section == "peer":
        yield from (("peer", "the next peer's public key"), ("remove", "remove the peer"))
    else:
        yield "peer", "the public key of a peer"
