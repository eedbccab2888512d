#!/usr/bin/env python3
"""Writes docs/conformance.md: every item of the conformance list with the tests that check it.

With --check it writes nothing, and fails if the page is out of date, an item has neither a test
nor a reason, or a test has a number without an item.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path("conformance/src/wiresnake_conformance")
NOTES = Path("docs/conformance.toml")
PAGE = Path("docs/conformance.md")

INTRODUCTION = """\
# Conformance

The 106 requirements for an implementation of WireGuard, and the tests that check them here. The
kernel's module is the reference: where implementations differ, its behaviour is right.

*BB* can be seen from outside, with only datagrams and `wg`; *WB* only from inside, with a simulated
clock and randomness. A test in Python is marked with the numbers of its items
(`@pytest.mark.item(41)`), one in Rust has them at the start of its name (`c041_`), and a check of
the black box is registered with its number.

`tools/conformance_page.py` makes this page from the items in
`{items}`, from the tests, and from `{notes}`
for everything else. `tests/test_conformance.py` keeps it up to date.

Of {count} items, {tested} have their own tests, {open} of these with something left open, and
{checked} have a check of the black box.
"""

RUST_TEST = re.compile(r"#\[test\]\s*(?:#\[[^\]]*\]\s*)*fn (\w+)")
NUMBERED = re.compile(r"(?:c\d+_)+")


class Test(NamedTuple):
    """A test function. `numbers` are the items that it checks."""

    place: str
    name: str
    numbers: tuple[int, ...]


class Conformance(NamedTuple):
    sections: dict[str, str]
    items: list[dict[str, Any]]
    notes: dict[str, Any]
    tests: list[Test]
    checks: list[Test]

    def of(self, number: int, tests: list[Test]) -> list[Test]:
        return [test for test in tests if number in test.numbers]


def read(root: Path) -> Conformance:
    data = tomllib.loads((root / PACKAGE / "items.toml").read_text())
    notes = tomllib.loads((root / NOTES).read_text())
    tests = sorted({*_python_tests(root), *_rust_tests(root)})
    checks = sorted(set(_checks(root)))
    return Conformance(data["sections"], data["item"], notes, tests, checks)


def problems(found: Conformance) -> Iterator[str]:
    """Yields everything that is wrong, except the page itself."""
    numbers = [item["number"] for item in found.items]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "items.toml: the numbers do not count from 1"
    for item in found.items:
        number, reason = item["number"], str(item["number"]) in found.notes["open"]
        checks = found.of(number, found.checks) if "BB" in item["kind"] else []
        if not (found.of(number, found.tests) or checks or reason):
            yield f"item {number} ({item['title']}) has neither a test nor a reason in {NOTES}"
    for test in found.tests + found.checks:
        for number in sorted(set(test.numbers) - set(numbers)):
            yield f"{test.place}: {test.name}: there is no item {number}"
    noted = [int(number) for number in found.notes["open"]]
    noted += [number for one in found.notes["difference"] for number in one["items"]]
    for number in sorted(set(noted) - set(numbers)):
        yield f"{NOTES}: there is no item {number}"
    known = {test.name for test in found.tests}
    texts = [one["ours"] for one in found.notes["limit"]] + list(found.notes["soak"].values())
    for name in re.findall(r"`(\w+)`", " ".join(texts)):
        if name not in known:
            yield f"{NOTES}: there is no test {name}"


def page(found: Conformance) -> str:
    numbers = [item["number"] for item in found.items]
    tested = [number for number in numbers if found.of(number, found.tests)]
    lines = [
        INTRODUCTION.format(
            items=PACKAGE / "items.toml",
            notes=NOTES,
            count=len(numbers),
            tested=len(tested),
            open=sum(str(number) in found.notes["open"] for number in tested),
            checked=sum(bool(found.of(number, found.checks)) for number in numbers),
        )
    ]
    for letter, title in found.sections.items():
        lines += [f"## {letter}. {title}\n", "| | what | | checked by |", "|--:|---|---|---|"]
        for item in found.items:
            if item["section"] == letter:
                lines.append(_row(found, item))
        lines.append("")
    lines += ["## Intended differences\n", "| items | difference |", "|--:|---|"]
    for one in found.notes["difference"]:
        lines.append(f"| {', '.join(map(str, one['items']))} | {one['what']} |")
    lines += ["", "## Limits\n", "| what | kernel | wiresnake |", "|---|---|---|"]
    lines += [
        f"| {one['what']} | {one['kernel']} | {one['ours']} |" for one in found.notes["limit"]
    ]
    lines += ["", "## Soak and chaos\n", "| | state |", "|--:|---|"]
    lines += [f"| {name} | {text} |" for name, text in found.notes["soak"].items()]
    return "\n".join(lines) + "\n"


def _row(found: Conformance, item: dict[str, Any]) -> str:
    number = item["number"]
    held = []
    for place in sorted({test.place for test in found.of(number, found.tests)}):
        names = [test.name for test in found.of(number, found.tests) if test.place == place]
        held.append(f"{place.removeprefix('tests/')}: " + ", ".join(f"`{name}`" for name in names))
    if checks := found.of(number, found.checks):
        held.append("black box: " + ", ".join(f"`{check.name}`" for check in checks))
    if reason := found.notes["open"].get(str(number)):
        held.append(f"*{reason}*")
    what = f"{item['title']} <sub>{item['source']}</sub>"
    return f"| {number} | {what} | {item['kind']} | {'<br>'.join(held)} |"


def _python_tests(root: Path) -> Iterator[Test]:
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node
            if function and function.name.startswith("test_"):
                numbers = [n for each in function.decorator_list for n in _marked(each)]
                yield Test(str(path.relative_to(root)), function.name, tuple(numbers))


def _marked(decorator: ast.expr) -> list[int]:
    """Returns the numbers of @pytest.mark.item(NUMBER, ...)."""
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.item":
        return [ast.literal_eval(argument) for argument in decorator.args]
    return []


def _rust_tests(root: Path) -> Iterator[Test]:
    for path in sorted((root / "rust/plane").rglob("*.rs")):
        for name in RUST_TEST.findall(path.read_text()):
            match = NUMBERED.match(name)
            numbers = re.findall(r"\d+", match[0]) if match else []
            yield Test(str(path.relative_to(root)), name, tuple(map(int, numbers)))


def _checks(root: Path) -> Iterator[Test]:
    """Yields the functions decorated with @check(NUMBER), or @check(NUMBER, "case")."""
    for path in sorted((root / PACKAGE / "checks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in filter(None, map(_registered, node.decorator_list)):
                    yield Test(str(path.relative_to(root)), node.name, (number,))


def _registered(decorator: ast.expr) -> int | None:
    if isinstance(decorator, ast.Call) and decorator.args:
        name, first = decorator.func, decorator.args[0]
        called = name.id if isinstance(name, ast.Name) else getattr(name, "attr", None)
        if called == "check" and isinstance(first, ast.Constant) and isinstance(first.value, int):
            return first.value
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the tree")
    options = parser.parse_args()
    found = read(options.root)
    wrong = list(problems(found))
    text = page(found)
    target = options.root / PAGE
    if not options.check:
        target.write_text(text)
    elif not target.exists() or target.read_text() != text:
        wrong.append(f"{PAGE} is out of date: run tools/conformance_page.py")
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
