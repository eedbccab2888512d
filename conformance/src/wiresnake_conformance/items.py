"""Reads the list of items (numbers, titles, sources) from items.toml."""

import tomllib
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Item:
    number: int
    section: str
    kind: str
    """BB: can be seen from outside. WB: only from inside. BB/WB: partly from outside."""
    title: str
    source: str


def load() -> dict[int, Item]:
    text = resources.files(__package__).joinpath("items.toml").read_text()
    return {entry["number"]: Item(**entry) for entry in tomllib.loads(text)["item"]}
