"""wiresnake: `wg` and `wg-quick` in one word, and more."""

import os
import sys

from wiresnake._native import protect_memory
from wiresnake.cli.commands import COMMANDS, module_of
from wiresnake.cli.program import STOCK, keep_to_absolute_folders, program
from wiresnake.errors import WiresnakeError

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; `arguments.EXIT_CODES` says what each means."""
    name = program()
    keep_to_absolute_folders()
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_standard_streams()
    try:
        code = _run(name, sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _give_output_up()
        return 141
    except Exception as error:
        if os.environ.get("WIRESNAKE_DEBUG") == "1":
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _give_output_up()
        print(f"{name}: {_said(error)}", file=sys.stderr)
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
        except SystemExit as end:  # argparse's way to return
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    from wiresnake.cli import help

    return help.answer(name, words, argv)


def _give_output_up() -> None:
    """As Python's manual has it: it would flush again as it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_streams() -> None:
    """Of those that were closed when we began: the next file that is opened would take the place
    of one, and get what is meant for a reader. To write to one that is closed is an error still,
    but for stderr, where nobody could be told."""
    for number, (name, flags) in enumerate(
        (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    ):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _said(error: Exception) -> str:
    """An error in one line. A defect's own text may hold a secret: where it was will do."""
    if isinstance(error, WiresnakeError | OSError):
        what = getattr(error, "strerror", None) or str(error)
        file = getattr(error, "filename", None)
        return f"{file}: {what}" if file else what
    trace, at = error.__traceback__, ""
    while trace:
        code = trace.tb_frame.f_code
        if code.co_filename.startswith(_PACKAGE):
            at = f" at {os.path.basename(code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    what = f"internal error, please report it: {type(error).__name__}{at}"
    return f"{what} (WIRESNAKE_DEBUG=1 shows all of it)"


if __name__ == "__main__":
    sys.exit(main())
