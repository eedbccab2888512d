#!/usr/bin/env python3
"""Writes the tables of docs/uapi.md from the vocabulary (`wiresnake.uapi.vocabulary`)."""

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from wiresnake.uapi.vocabulary import DEVICE_KEYS, PEER_KEYS, DeviceReport, Key, PeerReport

PAGE = Path(__file__).parents[1] / "docs/uapi.md"


def configuration(keys: dict[str, Key]) -> Iterable[str]:
    """Yields the table of `get` and `set`."""
    yield "| key | get | set | what |"
    yield "|---|---|---|---|"
    for name, key in keys.items():
        yield f"| `{name}` | {'✓' * key.get} | {'✓' * key.set} | {key.meaning} |"


def report(kind: type[DeviceReport | PeerReport]) -> Iterable[str]:
    """Yields the table of `state`. Keys that share a meaning share a line."""
    yield "| key | what |"
    yield "|---|---|"
    lines: list[tuple[list[str], str]] = []
    for field in fields(kind):
        if meaning := field.metadata["meaning"]:
            lines.append(([], meaning))
        lines[-1][0].append(f"`{field.name}`")
    for names, meaning in lines:
        yield f"| {', '.join(names)} | {meaning} |"


TABLES: dict[str, list[str]] = {
    "get and set, device": [*configuration(DEVICE_KEYS)],
    "get and set, peer": [*configuration(PEER_KEYS)],
    "state, device": [*report(DeviceReport)],
    "state, peer": [*report(PeerReport)],
}


def page(text: str) -> str:
    """Replaces the tables of the page. ValueError if one has no place in it, or several."""
    for name, lines in TABLES.items():
        pieces = re.split(rf"(?<=<!-- table: {name} -->\n).*?(?=\n<!-- end -->)", text, flags=re.S)
        if len(pieces) != 2:
            raise ValueError(f"{PAGE.name} has no place for the table of {name}, or several")
        text = "\n".join(lines).join(pieces)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    before = arguments.page.read_text()
    after = page(before)
    if before == after:
        return 0
    if arguments.check:
        print(f"docs/{PAGE.name} is out of date: run .venv/bin/python tools/uapi_page.py")
        return 1
    arguments.page.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
