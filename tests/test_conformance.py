"""docs/conformance.md is up to date, and so are the numbers that the tests name."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "conformance/src/wiresnake_conformance"
MARK = "@pytest.mark.item({})\n"
ITEM = '[[item]]\nnumber = {}\nsection = "A"\nkind = "{}"\ntitle = "x"\nsource = "y"\n'


def run(root: Path, *options: str) -> list[str]:
    """What is wrong with the tree."""
    tool = ROOT / "tools/conformance_page.py"
    command = [sys.executable, str(tool), "--root", str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == bool(done.stdout) and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_page_tells_the_truth() -> None:
    assert run(ROOT, "--check") == []


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    notes = "difference = []\nlimit = []\n[soak]\n[open]\n"
    rust = "#[test]\n#[cfg(unix)]\nfn c002_in_rust() {}\nfn c009_not_a_test() {}\n"
    items = '[sections]\nA = "a"\n' + ITEM.format(1, "WB") + ITEM.format(2, "BB/WB")
    good = {
        f"{PACKAGE}/items.toml": items + ITEM.format(3, "BB") + ITEM.format(4, "WB"),
        f"{PACKAGE}/checks/a.py": '@check(3, "first")\n@check(3)\ndef third(): pass\n',
        "docs/conformance.toml": notes + '4 = "hard"\n',
        "tests/unit/test_a.py": f"{MARK.format('1, 2')}def test_a(): pass\n"
        f"{MARK.format(1)}@slow\nasync def test_b(): pass\n",
        "rust/plane/src/a/b.rs": rust,
    }
    write(tmp_path, good)
    stale = ["docs/conformance.md is out of date: run tools/conformance_page.py"]
    assert run(tmp_path, "--check") == stale
    assert run(tmp_path) == run(tmp_path, "--check") == []
    page = (tmp_path / "docs/conformance.md").read_text()
    for name in ("c002_in_rust", "test_a", "test_b", "third", "hard"):
        assert name in page
    assert "c009" not in page

    none = "has neither a test nor a reason in docs/conformance.toml"
    for changed, complaint in [
        ({"tests/unit/test_a.py": f"{MARK.format(2)}def test_x(): pass\n"}, f"item 1 (x) {none}"),
        ({f"{PACKAGE}/checks/a.py": "@check(4)\ndef third(): pass\n"}, f"item 3 (x) {none}"),
        ({f"{PACKAGE}/checks/a.py": "@check(9)\ndef ninth(): pass\n"}, f"item 3 (x) {none}"),
        ({"docs/conformance.toml": notes}, f"item 4 (x) {none}"),
        (
            {"tests/test_b.py": "class A:\n    @pytest.mark.item(107)\n    def test_b(): pass\n"},
            "tests/test_b.py: test_b: there is no item 107",
        ),
        (
            {"rust/plane/src/c.rs": "#[test]\nfn c000_c001_none() {}\n"},
            "rust/plane/src/c.rs: c000_c001_none: there is no item 0",
        ),
        (
            {"docs/conformance.toml": notes + '4 = "hard"\n5 = "harder"\n'},
            "docs/conformance.toml: there is no item 5",
        ),
        (
            {"docs/conformance.toml": notes.replace("[open]", 'S1 = "`test_x`"\n[open]\n4 = ""')},
            "docs/conformance.toml: there is no test test_x",
        ),
    ]:
        write(tmp_path, changed)
        assert complaint in run(tmp_path, "--check")
        for name in changed:
            (tmp_path / name).unlink()
        write(tmp_path, good)
        assert run(tmp_path, "--check") == []
