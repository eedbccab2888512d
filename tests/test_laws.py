"""The laws of the code base (ARCHITECTURE.md), each a test."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from wiresnake.conffile import schema

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/wiresnake"
RUST = ROOT / "rust"
PLANE = RUST / "plane/src"
BINDINGS = RUST / "python/src"
CIPHER = RUST / "chapoly/src"
STACK = RUST / "stack/src"

PURE = ("protocol", "uapi")
IMPURE_MODULES = {"socket", "os", "asyncio", "time", "random", "secrets", "logging"}
UNSAFE_FILES = {PLANE / name for name in ("sockets.rs", "udp.rs")} | {
    CIPHER / name for name in ("lib.rs", "registers.rs", "avx512/mod.rs", "avx512/vector.rs")
}
CORE = ("protocol", "uapi", "tunnel", "daemon", "linux", "errors.py", "model.py")
"""What a running daemon consists of, and the libraries that it stands on."""
REPORTS = [PLANE / name for name in ("uapi.rs", "drops.rs")]
"""Files of the plane that report to the operator."""
PORTABLE = [PLANE / name for name in ("portable.rs", "system.rs")]
"""Files of the plane that other systems have instead of Linux's own, and the choice."""
BUDGETS = {
    "WireGuard itself": 4000,
    "bindings and reports": 900,
    "portable plane": 150,
    "the stack": 2480,
}
"""Code lines of what meets hostile bytes; ARCHITECTURE.md says what each has and why."""
NOUNS = "modules"
FOLDERS = {
    "adapters": 290,
    "cli": 2700,
    "conffile": 3350,
    "daemon": 590,
    "devices": 680,
    "diagnosis": 1280,
    "lifecycle": 1630,
    "linux": 1370,
    "network": 1240,
    "protocol": 900,
    "proxy": 1200,
    "sockets": 1560,
    "tunnel": 680,
    "uapi": 590,
    NOUNS: 530,
}
"""Code lines of each folder in src/wiresnake, and of the modules beside them."""


def python_files(*names: str) -> list[Path]:
    found = [path for name in names for path in sorted((PACKAGE / name).rglob("*.py"))]
    return found + [PACKAGE / name for name in names if (PACKAGE / name).is_file()]


def rust_files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.rs"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides what it leads to"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# Rust read just well enough: comments, strings and characters are one token each, so that a
# brace or a word inside of them does not count.
RUST_TOKEN = re.compile(
    r"""
      //[^\n]* | /\*.*?\*/
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)
    | b?"(?:\\.|[^"\\])*"
    | b?'(?:\\.[^']*|[^'\\])'
    | \#!?\[ | \w+ | \s+ | .
    """,
    re.DOTALL | re.VERBOSE,
)
TEST_ONLY = re.compile(r"#\[cfg\((?:all\(\s*)?test\b[^\]]*\]")


def rust_tokens(text: str) -> Iterator[tuple[int, str]]:
    for match in RUST_TOKEN.finditer(text):
        yield match.start(), match[0]


def without_tests(text: str) -> str:
    """Rust source without the items that only tests compile."""
    while match := TEST_ONLY.search(text):
        text = text[: match.start()] + text[_item_end(text, match.end()) :]
    return text


def _item_end(text: str, start: int) -> int:
    """Behind the item at `start`: its semicolon, or the brace that closes its body."""
    depth = 0
    for at, token in rust_tokens(text[start:]):
        if token in ("{", "(", "[", "#["):
            depth += 1
        elif token in ("}", ")", "]"):
            depth -= 1
        if not depth and token in ("}", ";"):
            end = start + at + 1
            return end + text.startswith(";", end)  # as in `use a::{b, c};`
    return len(text)


def test_without_tests_reads_rust() -> None:
    text = """fn a() { let c = '{'; let s = "}"; }
#[cfg(test)]
#[allow(dead_code)]
mod tests {
    const RAW: &str = r#"}"}"#; // }
    fn b<'a>(x: &'a str) -> char { '}' }
}
#[cfg(test)]
use x::{y, z};
fn c() {}
"""
    assert without_tests(text) == """fn a() { let c = '{'; let s = "}"; }\n\n\nfn c() {}\n"""


@pytest.mark.parametrize("path", python_files(*PURE), ids=lambda path: path.stem)
def test_pure_code_imports_nothing_of_the_world(path: Path) -> None:
    """Law 1."""
    assert not {name.partition(".")[0] for name in imports(path)} & IMPURE_MODULES


def test_only_the_crate_python_knows_pyo3() -> None:
    """Law 2: the rest of the Rust side could serve another language."""
    crates = [path.parent for path in RUST.glob("*/Cargo.toml")]
    assert {crate.name for crate in crates} == {"plane", "python", "chapoly", "stack"}
    for crate in crates:
        depends = "pyo3" in (crate / "Cargo.toml").read_text()
        names = any(
            token == "pyo3"
            for path in rust_files(crate)
            for _, token in rust_tokens(path.read_text())
        )
        assert (depends, names) == (crate.name == "python",) * 2, crate
    assert "pyo3" not in (RUST / "Cargo.toml").read_text()


@pytest.mark.parametrize(
    "path",
    rust_files(PLANE, BINDINGS, CIPHER, STACK),
    ids=lambda path: path.relative_to(RUST).as_posix(),
)
def test_unsafe_has_its_place_and_its_reason(path: Path) -> None:
    """Law 2: in two files of the plane and four of the cipher, and each with a SAFETY comment
    above or at its beginning."""
    text = path.read_text()
    lines = text.splitlines()
    for at, token in rust_tokens(text):
        if token != "unsafe":
            continue
        assert path in UNSAFE_FILES, f"unsafe in {path.name}"
        number = text.count("\n", 0, at)
        assert _explained(lines, number), f"{path.name}:{number + 1}: unsafe without // SAFETY:"


def test_no_file_is_allowed_unsafe_for_nothing() -> None:
    """Law 2: nor do the documents name one that has none."""
    for path in UNSAFE_FILES:
        assert any(token == "unsafe" for _, token in rust_tokens(path.read_text())), path


def _explained(lines: list[str], number: int) -> bool:
    """A comment may stand above the statement that the block belongs to, or begin the block."""
    if "SAFETY:" in lines[number] or "SAFETY:" in "".join(lines[number + 1 : number + 2]):
        return True
    above = number - 1
    while above >= 0 and not re.search(r"[;{}]\s*(//.*)?$", lines[above]):
        if "SAFETY:" in lines[above]:
            return True
        above -= 1
    return False


@pytest.mark.item(44)
def test_all_chance_is_of_the_operating_system() -> None:
    """Of getrandom(2), which waits until the kernel's generator is seeded; ring asks it again for
    every byte. So before that nothing is created and no handshake is made."""
    chance = {"SystemRandom", "getrandom", "OsRng", "ThreadRng", "thread_rng", "StdRng", "urandom"}
    for path in rust_files(PLANE, BINDINGS, STACK):
        naming = chance & {token for _, token in rust_tokens(without_tests(path.read_text()))}
        assert naming <= ({"SystemRandom"} if path.name == "secret.rs" else set()), path
    for path in python_files(*CORE):
        assert not {"random", "secrets", "uuid"} & set(imports(path)), path
        assert not re.search(r"\b(urandom|getrandom)\b", path.read_text()), path


def code_lines(folder: Path, files: Iterable[Path]) -> int:
    """As cloc counts them, without tests."""
    for path in files:
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        copy.write_text(without_tests(text) if path.suffix == ".rs" else text)
    command = ["cloc", "--json", "--skip-uniqueness", str(folder)]
    counted = json.loads(subprocess.check_output(command, text=True))
    return sum(counted[name]["code"] for name in ("Python", "Rust") if name in counted)


def need_cloc() -> None:
    if shutil.which("cloc") is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("cloc is missing: apt-get install cloc")


def test_core_stays_small(tmp_path: Path) -> None:
    """Law 6: each part of all that it takes to be WireGuard has a budget of its own."""
    need_cloc()
    plane = [path for path in rust_files(PLANE) if path not in REPORTS + PORTABLE]
    parts = {
        "WireGuard itself": [*python_files("protocol"), *plane],
        "bindings and reports": [BINDINGS / "lib.rs", *REPORTS],
        "the stack": [*rust_files(STACK), BINDINGS / "stack.rs"],
        "portable plane": PORTABLE,
    }
    lines = {name: code_lines(tmp_path / name, files) for name, files in parts.items()}
    print(f"core: {lines} of {BUDGETS}, {sum(lines.values())} in all")
    assert all(lines[name] < BUDGETS[name] for name in BUDGETS), lines


def test_folders_stay_small(tmp_path: Path) -> None:
    """Law 6: none grows unnoticed, and none is without a budget."""
    need_cloc()
    folders = {path.parent.name: python_files(path.parent.name) for path in PACKAGE.glob("*/*.py")}
    folders[NOUNS] = list(PACKAGE.glob("*.py"))
    assert folders.keys() == FOLDERS.keys()
    lines = {name: code_lines(tmp_path / name, files) for name, files in folders.items()}
    print(f"folders: {lines} of {FOLDERS}, {sum(lines.values())} in all")
    assert all(lines[name] < FOLDERS[name] for name in FOLDERS), lines


RAW = re.compile(r"\b(ctypes|fcntl|ioctl|AF_NETLINK)\b")


def test_only_linux_touches_what_the_kernel_has_no_python_for() -> None:
    """Law 8: fcntl, ioctl, ctypes and netlink sockets are in one folder."""
    found = {path for path in PACKAGE.rglob("*.py") if RAW.search(path.read_text())}
    assert {path.parent.name for path in found} == {"linux"}, found


FLOORS = (
    {"__main__"},
    {"cli"},
    {"adapters", "pytest_plugin"},
    {"lifecycle", "sockets"},
    {"daemon", "diagnosis", "network", "proxy"},
    {"devices", "tunnel"},
    {"conffile"},
    {"protocol", "uapi"},
    {"linux"},
    {"events", "model", "text"},
    {"arguments", "errors"},
    {"_native"},
)


def test_each_layer_imports_only_those_below_it() -> None:
    """Law 8: and none beside it."""
    floors = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if own == "__init__":
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("wiresnake.")}
        for name in used - {own}:
            assert floors[own] < floors[name], f"{path}: {name}"


CODE = ("src", "conformance/src", "bench", "mutants", "lab", "tools")


def modules(root: Path) -> dict[str, Path]:
    """Returns all our modules except tests, by the name under which they are imported."""
    found = {}
    for path in (path for folder in CODE for path in (root / folder).rglob("*.py")):
        _, _, name = f"/{path.relative_to(root).with_suffix('')}".rpartition("/src/")
        found[name.strip("/").replace("/", ".").removesuffix(".__init__")] = path
    return found


def loaded(name: str, known: dict[str, Path]) -> set[str]:
    """Those of the known modules that a module imports outside of functions, types included."""
    found, nodes = set(), list[ast.AST]([ast.parse(known[name].read_text())])
    package = name.split(".")[: None if known[name].name == "__init__.py" else -1]
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            inner = (f"{source}.{alias.name}" for alias in node.names)
            found |= {name if name in known else source for name in inner}
    return found & known.keys()


def circle(root: Path) -> list[str]:
    """Modules each of which is imported by the next; none if no import goes round."""
    known = modules(root)
    try:
        TopologicalSorter({name: loaded(name, known) for name in known}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_goes_round() -> None:
    """Law 8: nor one for types alone, as neither module can be understood without the other."""
    assert circle(ROOT) == []


def test_an_import_that_goes_round_is_found(tmp_path: Path) -> None:
    package = tmp_path / "src/p"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from p import a")  # a face is not a part of what it shows
    (package / "a.py").write_text("if TYPE_CHECKING:\n    from .b import B")
    (package / "b.py").write_text("def later():\n    from . import a")
    assert circle(tmp_path) == []
    (package / "b.py").write_text("from . import a")
    assert {*circle(tmp_path)} == {"p.a", "p.b"}


SCHEMA = PACKAGE / "conffile/schema.py"
OTHER_FORMATS = ("networkd.py", "networkmanager.py")
"""Some of their keys have the same names as ours."""
PLAIN_WORDS = {"address", "dns", "endpoint", "fwmark", "mtu", "table"}
"""Names of keys that are words for other things, too."""


@pytest.mark.parametrize(
    "path", sorted({*PACKAGE.rglob("*/*.py")} - {SCHEMA}), ids=lambda path: path.stem
)
def test_no_list_of_keys_but_the_schema(path: Path) -> None:
    """Law 9: a key of configuration files is one row there. Neither a container or a `match`
    elsewhere has two of them, nor has a file two in lower case, as it would look for them."""
    names = {key.name for key in schema.KEYS}
    lower = {name.lower() for name in names}
    tree = ast.parse(path.read_text())
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert len(found & (lower - PLAIN_WORDS)) < 2
    if path.name in OTHER_FORMATS:
        return
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = [*node.elts]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key]
        elif isinstance(node, ast.Match):
            parts = [one for case in node.cases for one in ast.walk(case.pattern)]
        words = {one.value for one in parts if isinstance(one, ast.Constant)}
        assert len(words & (names | lower) - PLAIN_WORDS) < 2, (
            f"{path.name}:{getattr(node, 'lineno', 0)}"
        )


HEAVY = {"argparse", "asyncio", "importlib.metadata", "json", "pyroute2", "rich", "subprocess"}


def test_show_imports_nothing_that_it_does_not_need() -> None:
    """Law 8: it is to be there at once, whatever other commands need."""
    script = "import sys; from wiresnake.cli import main; main.main(['show', 'x'])"
    said = subprocess.run(
        [sys.executable, "-c", f"{script}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "wiresnake.cli.show" in said.stdout.split()
    assert not HEAVY & set(said.stdout.split())


def test_stub_tells_the_truth() -> None:
    """`_native.pyi` against the extension itself: names, parameters, kinds."""
    command = [sys.executable, "-m", "mypy.stubtest", "wiresnake._native", "--concise"]
    allowed = ROOT / "tests/stubtest-allowed.txt"
    done = subprocess.run(
        [*command, "--allowlist", str(allowed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


WAYS = ("split", "partition", "find", "index")
SPLITTING = {"compile", *WAYS, *(f"r{way}" for way in WAYS)}
GRAMMAR = ("conffile/generate.py", "conffile/values.py", "conffile/wg.py")
"""They judge what a person has written, which may be no endpoint at all."""


def splits_at_a_colon(tree: ast.AST) -> bool:
    """Whether code looks for a colon in text, by a method of the text or by `re`."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    for call in calls:
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        values = {one.value for one in given if isinstance(one, ast.Constant)}
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if method in SPLITTING and values & {":", b":", "[:]", b"[:]"}:
            return True
    return False


def test_one_place_takes_endpoints_apart() -> None:
    """Law 9: brackets, zones and names without a port have one reader."""
    for text in ('e.split(":")', 'e.partition(sep=":")', 're.split(":", e)', 'e.rfind(b":")'):
        assert splits_at_a_colon(ast.parse(text))
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        splits = splits_at_a_colon(ast.parse(path.read_text()))
        assert splits <= (name in ("text.py", *GRAMMAR)), name


def test_one_version() -> None:
    project, workspace = (
        tomllib.loads((ROOT / name).read_text()) for name in ("pyproject.toml", "rust/Cargo.toml")
    )
    assert project["project"]["version"] == workspace["workspace"]["package"]["version"]
    for path in RUST.glob("*/Cargo.toml"):
        assert tomllib.loads(path.read_text())["package"]["version"] == {"workspace": True}, path


def test_no_path_of_one_machine() -> None:
    """Files must not know where they lie, nor whose home that is."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    homes = (str(ROOT) + "/", str(Path.home()) + "/.")
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            assert not any(home in text for home in homes), name
