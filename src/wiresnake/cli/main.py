"""`wiresnake`: `wg` and `wg-quick` in one command, and more."""

import os
import sys

from wiresnake._native import protect_memory
from wiresnake.cli.commands import COMMANDS, module_of
from wiresnake.cli.invoked_as import STOCK, keep_to_absolute_folders, program
from wiresnake.errors import in_one_line
from wiresnake.linux import streams


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; `arguments.EXIT_CODES` says what each means."""
    name = program()
    keep_to_absolute_folders()
    if argv is None:
        streams.start_anew_in_utf8()
    streams.prepare()
    try:
        code = _run(name, sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        streams.give_output_up()
        return 141
    except Exception as error:
        if os.environ.get("WIRESNAKE_DEBUG") == "1":
            raise
        try:
            sys.stdout.flush()
        except OSError:
            streams.give_output_up()
        print(f"{name}: {in_one_line(error)}", file=sys.stderr)
        return 1


def _run(name: str, argv: list[str]) -> int:
    protect_memory()
    groups = [STOCK[name]] if name in STOCK else list(COMMANDS)
    words = [word for group in groups for word in COMMANDS[group]]
    word = argv[0] if argv else "show"
    if word in words:
        module = module_of(word)
        assert module is not None
        try:
            if argv[1:] in (["-h"], ["--help"]):
                module.parser(word).print_help()
                return 0
            code: int = module.main(argv or ["show"])
            return code
        except SystemExit as end:  # This is how argparse returns.
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    from wiresnake.cli import help

    return help.answer(name, words, argv)


if __name__ == "__main__":
    sys.exit(main())
