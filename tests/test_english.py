"""The list of words as a test: what a stranger has to read twice does not come back.

Whatever a person reads is looked at: documents, docstrings, comments, messages, names of faults.
"""

import ast
import collections
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import wiresnake

ROOT = Path(__file__).parents[1]

PLAINER = {
    r"mend(s|ed|ing)?": "fix, repair, recover, clean up",
    r"whence": "from which",
    r"shall": "must, will",
    r"but for": "except for",
    r"of (ours|theirs|yours|his|hers)": "put the owner first: our file",
    r"(?<!there )(is|are|was|were) no (?!longer|more|less|different|better|worse|other)\w+": (
        "is not a"
    ),
    r"told": "reported, said, given",
    r"tells of": "reports",
    r"(?<=[a-z0-9`'\"] )behind (it|them|the (key|word|option|name|end|slash|colon))": "after",
    r"for ever": "forever",
    r"all that (is|there is)": "everything, or name the things",
    r"what there is": "name the things",
    r"as it is by then": "its present state",
    r"anew": "again",
    r"in vain": "without an answer, without success",
    r"how manieth": "which number",
    r"(nought|naught|thereof|therein|hereby|thereby|hitherto|henceforth|whither)": (
        "the everyday word"
    ),
}
"""Old words and habits, as patterns of whole words, and what to write instead."""

LIST = re.compile("|".join(rf"(?P<w{n}>\b(?:{words})\b)" for n, words in enumerate(PLAINER)), re.I)

READ: tuple[str, ...] = (
    ".md",
    ".py",
    ".pyi",
    ".rs",
    ".toml",
    ".yml",
    ".service",
    ".conf",
    ".target",
    "Makefile",
)
READ += (".bash", ".fish", ".zsh", ".ci/run")
READ += tuple(f"tools/{name}" for name in ("setup", "cross", "wheels", "other_systems", "uml"))
GENERATED = {"docs/conformance-table.md", "LICENSE-APACHE", "LICENSE-MIT", "tests/test_english.py"}
ALLOWED: set[tuple[str, str]] = set()
"""Words that a contract or another project says, by file."""


def tracked(*endings: str) -> list[str]:
    said = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if said.returncode:  # Not a checkout, such as a source distribution.
        return [name for name in ("README.md", "ARCHITECTURE.md") if (ROOT / name).exists()]
    names = said.stdout.split("\0")
    return [name for name in names if name.endswith(endings) and name not in GENERATED]


def prose(name: str) -> Iterator[tuple[int, str]]:
    """What a person reads of a file, by line."""
    text = (ROOT / name).read_text()
    if name.endswith((".py", ".pyi")):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value
    elif name.endswith(".rs"):
        for found in re.finditer(r'//[^\n]*|"(?:\\.|[^"\\])*"', text):
            yield text.count("\n", 0, found.start()) + 1, found[0]
    else:
        yield 1, text


def habits(text: str) -> Iterator[tuple[int, str, str]]:
    """Where, what, and what to write instead."""
    for found in LIST.finditer(text):
        plainer = list(PLAINER.values())[int(str(found.lastgroup)[1:])] if found.lastgroup else ""
        yield text.count("\n", 0, found.start()), found[0], plainer


@pytest.mark.parametrize("name", tracked(*READ))
def test_plain_english(name: str) -> None:
    found = [
        f"{name}:{line + below}: {word!r}: rather {plainer}"
        for line, text in prose(name)
        for below, word, plainer in habits(text)
        if (name, word.lower()) not in ALLOWED
    ]
    assert not found, "\n".join(found)


PUBLIC: dict[str, Sequence[str]] = collections.defaultdict(tuple)
"""The public names of each module."""
for home, names in {**wiresnake._HOMES, "events": wiresnake.__all__}.items():
    PUBLIC[home.rpartition(".")[2]] = names


FRAGMENTS = ("Of ", "What ", "Whether ", "Those ", "Who ", "Whose ", "As ", "By ", "From ", "Less ")


def public_docstrings() -> Iterator[tuple[str, str]]:
    """Those of the library's names and of their public methods and properties, from the source."""
    homes = {*(ROOT / "src/wiresnake").rglob("*.py"), ROOT / "src/wiresnake/_native.pyi"}
    found = set()
    for path in homes:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in wiresnake.__all__:
                if path.suffix == ".py" and node.name not in PUBLIC[path.stem]:
                    continue
                found.add(node.name)
                yield node.name, ast.get_docstring(node) or ""
                functions = ast.FunctionDef | ast.AsyncFunctionDef
                for member in (one for one in node.body if isinstance(one, functions)):
                    if not member.name.startswith("_") and path.suffix == ".py":
                        yield f"{node.name}.{member.name}", ast.get_docstring(member) or ""
    assert found == {*wiresnake.__all__} - {"CLEAR", "Event"}, "a name has no class"


def test_public_docstrings_begin_with_a_full_sentence() -> None:
    for name, text in public_docstrings():
        first = " ".join(text.partition("\n\n")[0].split())
        assert first.endswith((".", ":")), f"{name}: {first!r}"
        assert len(first.split()) > 2 and not first.startswith(FRAGMENTS), f"{name}: {first!r}"
