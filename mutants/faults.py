"""Reads the planted faults from the files in this folder, `mutants/*.toml`.

    [[fault]]
    name = "trap-16-from-last-sent"      # unique, in lower case letters, digits and hyphens
    fault = "what is wrong, in one line, for people"
    file = "src/wiresnake/protocol/peer.py"
    old = "a text that occurs once in the file"
    new = "its replacement"
    kills = ["tests/sim/test_traps.py::test_...", "cargo window", "conformance 9"]

A fault with several edits has `edits = [{file = ..., old = ..., new = ...}, ...]` instead. Each of
`kills` must fail: a pytest node (any case of a parametrised test, unless the node names one), the
Rust tests whose path contains the word (`cargo` for the plane, `chapoly` for the cipher, `stack`
for the stack's core), or an item of the black-box suite. With `needs = "avx512"` a machine without
it skips the fault and reports that, as no test there can see it.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutants.needs import NEEDS

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent
_CRATES = ("rust/plane/src/", "rust/python/src/", "rust/chapoly/src/", "rust/stack/src/")
_OWN = ("src/wiresnake/", *_CRATES, "packaging/", "docs/")


class FaultError(Exception):
    """A fault cannot be planted as it is written."""


@dataclass(frozen=True, slots=True)
class Edit:
    file: str
    """The path from the root of the tree."""
    old: str
    new: str

    def apply(self, text: str) -> str:
        if (found := text.count(self.old)) != 1:
            raise FaultError(f"{self.file} has this {found} times, not once: {self.old.strip()}")
        if self.old == self.new:
            raise FaultError(f"{self.file} does not change")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    fault: str
    edits: tuple[Edit, ...]
    kills: tuple[str, ...]
    needs: str = ""
    """A key of `NEEDS`, or empty."""

    @property
    def rust(self) -> bool:
        """True if the extension must be built for it."""
        return any(edit.file.endswith(".rs") for edit in self.edits)

    def texts(self, root: Path = ROOT) -> dict[str, str]:
        """Returns the changed files with the fault planted. FaultError if it does not fit."""
        texts: dict[str, str] = {}
        for edit in self.edits:
            if not edit.file.startswith(_OWN):
                raise FaultError(f"{edit.file} is not a file of wiresnake")
            try:
                text = texts.get(edit.file) or (root / edit.file).read_text()
            except OSError as error:
                raise FaultError(f"{edit.file}: {error.strerror}") from None
            texts[edit.file] = edit.apply(text)
        return texts


def load(folder: Path = FOLDER) -> list[Fault]:
    """Reads all faults in the order of their files. FaultError if one is not valid."""
    faults: list[Fault] = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["fault"]:
            try:
                fault = _fault(entry)
            except (KeyError, TypeError, FaultError) as error:
                raise FaultError(f"{path.name}: {entry.get('name')}: {error}") from None
            if any(fault.name == other.name for other in faults):
                raise FaultError(f"{path.name}: two faults have the name {fault.name}")
            faults.append(fault)
    return faults


def _fault(entry: Mapping[str, Any]) -> Fault:
    plain = dict(entry)
    name, fault, kills = plain.pop("name"), plain.pop("fault"), plain.pop("kills")
    needs = plain.pop("needs", "")
    edits = tuple(Edit(**edit) for edit in plain.pop("edits", [])) or (Edit(**plain),)
    if not re.fullmatch("[a-z0-9-]+", name) or not fault or "\n" in fault or not kills:
        raise FaultError("a fault needs a name in lower case, one line of text and a test")
    if needs and needs not in NEEDS:
        raise FaultError(f"needs must be one of {', '.join(NEEDS)}, not {needs!r}")
    return Fault(name, fault, edits, tuple(kills), needs)
