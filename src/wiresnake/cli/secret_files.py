"""Reads files with secrets, also from pipes, into memory that can be wiped."""

import os

from wiresnake.conffile.scanner import WHITESPACE
from wiresnake.text import wipe

_KEY_LENGTH = 44


class BadKeyFile(Exception):
    """The file does not hold a key; the text is that of `wg`."""


def read(path: str) -> bytearray:
    """Returns the whole file, which the caller wipes. OSError if it cannot be read."""
    with open(path, "rb", buffering=0) as file:
        return _read(file.fileno())


def read_key(path: str) -> bytearray | None:
    """Returns the 44 characters of a key, which the caller wipes; None if the file is empty. An
    empty pipe is an error, because a failed command leaves one. OSError, BadKeyFile.
    """
    with open(path, "rb", buffering=0) as file:
        text = _read(file.fileno())
        if not text and file.seekable():
            return None
    key = text[:_KEY_LENGTH]
    rest = bytes(text[_KEY_LENGTH:].strip(WHITESPACE))
    wipe(text)
    if len(key) == _KEY_LENGTH and not rest:
        return key
    wipe(key)
    if rest:
        raise BadKeyFile(f"Found trailing character in key file: `{chr(rest[0])}'")
    raise BadKeyFile("Invalid length key in key file")


def _read(fd: int) -> bytearray:
    buffer = bytearray(1 << 16)
    length = 0
    try:
        while count := os.readv(fd, [memoryview(buffer)[length:]]):
            length += count
            if length == len(buffer):
                buffer, full = bytearray(2 * length), buffer
                buffer[:length] = full
                wipe(full)
    except BaseException:
        wipe(buffer)
        raise
    del buffer[length:]
    return buffer
