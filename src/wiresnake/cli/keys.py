"""`wiresnake genkey`, `genpsk` and `pubkey`: keys as `wg` makes them, wiped once written."""

import os
import stat
import sys
from typing import TYPE_CHECKING

from wiresnake._native import PresharedKey, PrivateKey
from wiresnake.cli.invoked_as import program
from wiresnake.conffile.schema import WHITESPACE
from wiresnake.text import base64_text, wipe

if TYPE_CHECKING:
    from wiresnake.arguments import Parser

_WARNING = """\
Warning: writing to world accessible file.
Consider setting the umask to 077 and trying again."""
_LENGTH = 44
_IGNORED = WHITESPACE.encode() + b"\0"
_CLAMPED_ZERO = b"A" * 40 + b"AEA="
"""What X25519 takes the key of zeros for."""


def main(argv: list[str]) -> int:
    """Exits with 0, or 1 if the words or the key are wrong."""
    command, *words = argv
    if words:
        print(f"Usage: {program()} {command}", file=sys.stderr)
        return 1
    if command == "pubkey":
        return _pubkey()
    status = os.fstat(1)
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
        print(_WARNING, file=sys.stderr)
    key = PrivateKey.generate() if command == "genkey" else PresharedKey.generate()
    text = bytearray(_LENGTH + 1)
    try:
        key.write_base64(text, 0)
        text[_LENGTH:] = b"\n"
        return _write(text)
    finally:
        wipe(text)


def _pubkey() -> int:
    text = bytearray(1 << 12)
    try:
        length = 0
        while length < _LENGTH and (count := os.readv(0, [memoryview(text)[length:]])):
            length += count
        if length < _LENGTH:
            return _refuse("Key is not the correct length or format")
        rest = memoryview(text)[_LENGTH:length]
        if bytes(rest).strip(_IGNORED) or _more_than_whitespace():
            return _refuse("Trailing characters found after key")
        try:
            with memoryview(text)[:_LENGTH] as digits:
                private = PrivateKey.from_base64(digits) or PrivateKey.from_base64(_CLAMPED_ZERO)
        except ValueError:
            return _refuse("Key is not the correct length or format")
        assert private is not None
        return _write(bytearray(f"{base64_text(private.public)}\n", "ascii"))
    finally:
        wipe(text)


def _more_than_whitespace() -> bool:
    while more := os.read(0, 1 << 12):
        if more.strip(_IGNORED):
            return True
    return False


def _write(line: bytearray) -> int:
    try:
        os.write(1, line)
    except OSError as error:
        return _refuse(f"cannot write the key: {error.strerror}")
    return 0


def _refuse(what: str) -> int:
    print(f"{program()}: {what}", file=sys.stderr)
    return 1


def parser(command: str) -> "Parser":
    from wiresnake.arguments import Parser

    return Parser(
        prog=f"wiresnake {command}",
        description=_DESCRIPTION[command],
        epilog=_EPILOG[command],
    )


_DESCRIPTION = {
    "genkey": "Print a new private key.",
    "genpsk": "Print a new preshared key, which two peers share besides their key pairs.",
    "pubkey": "Read a private key from standard input and print its public key.",
}
_EPILOG = {
    "genkey": """\
examples:
  (umask 077; wiresnake genkey >private.key)

exit codes: 0 done; 1 a word is wrong, or the key could not be written""",
    "genpsk": """\
examples:
  (umask 077; wiresnake genpsk >preshared.key)

exit codes: 0 done; 1 a word is wrong, or the key could not be written""",
    "pubkey": """\
examples:
  wiresnake pubkey <private.key
  wiresnake genkey | tee private.key | wiresnake pubkey

exit codes: 0 done; 1 what was read is not a key""",
}
