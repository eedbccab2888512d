"""Makes private copies of this tree, each with one fault, and builds the extension for them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from mutants.faults import ROOT, FaultError

WORK = ROOT / ".tools/mutants"
_EXTENSION = "src/wiresnake/_native.abi3.so"
_FOLDERS = ("src", "tests", "rust", "packaging", "docs")
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.so", "target", ".hypothesis")


class Tree:
    """A copy of the files that tests need, some with other texts. Leaving it deletes it."""

    def __init__(self, name: str, texts: Mapping[str, str]) -> None:
        self.path = WORK / "trees" / name
        self.texts = texts
        self.extension = self.path / _EXTENSION
        """A link to the extension of this tree, until another one is built."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in _FOLDERS:
            shutil.copytree(ROOT / folder, self.path / folder, ignore=_SKIPPED)
        shutil.copy2(ROOT / "pyproject.toml", self.path)
        (self.path / ".tools").symlink_to(ROOT / ".tools")
        self.extension.symlink_to(ROOT / _EXTENSION)
        for file, text in texts.items():
            (self.path / file).write_text(text)
        self.daemon = self.path / "wiresnaked"
        """A script that starts the daemon of this copy, in any environment."""
        self.daemon.write_text(
            f"#!/bin/sh\nPYTHONPATH={self.path}/src exec {sys.executable}"
            f' {Path(sys.executable).with_name("wiresnaked")} "$@"\n'
        )
        self.daemon.chmod(0o755)

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """Returns an environment in which PYTHONPATH comes before the editable install."""
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        python_path = f"{self.path}/src:{ROOT}"
        return os.environ | {"PATH": path, "PYTHONPATH": python_path}


class Builder:
    """Builds all faults in the same place, so that cargo only builds the differences."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._plain: dict[str, bytes] = {}
        """The result of each crate without a fault."""

    def extension(self, tree: Tree) -> None:
        """Builds the tree's extension. FaultError if it does not compile or does not change."""
        with self._lock:
            built = self._build("build", "python", tree.texts)
            tree.extension.unlink()  # Only the link, not this tree's own extension.
            shutil.copy2(built, tree.extension)

    @contextmanager
    def rust_tests(self, tree: Tree, crate: str) -> Iterator[Path]:
        """Builds the Rust tests of the plane ("cargo"), of `chapoly` or of `stack`, and yields the
        program.

        The program is not a copy: a file that one thread still writes while another one forks
        cannot be started.
        """
        with self._lock:
            folder = "plane" if crate == "cargo" else crate
            tests = "--test core" if crate == "stack" else "--lib"
            yield self._build(f"test {tests} --no-run", folder, tree.texts)

    def _build(self, command: str, crate: str, texts: Mapping[str, str]) -> Path:
        changed = {file: text for file, text in texts.items() if file.startswith("rust/")}
        plain = self._plain.get(crate)
        if plain is None:
            plain = self._plain[crate] = self._run(command, crate, {}).read_bytes()
        built = self._run(command, crate, changed)
        if changed and built.read_bytes() == plain:
            raise FaultError("it compiles to the same code as before")
        return built

    def _run(self, command: str, crate: str, texts: Mapping[str, str]) -> Path:
        """Runs cargo for the crate with these texts and returns its result."""
        self._lay_out(texts)
        manifest = WORK / "rust" / crate / "Cargo.toml"
        done = subprocess.run(
            [
                *("cargo", *command.split(), "--locked", "--quiet", "--profile", "mutants"),
                *("--manifest-path", manifest, "--target-dir", WORK / "target"),
                *("--message-format", "json-render-diagnostics"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
            raise FaultError(f"it does not compile: {(errors or [done.stderr])[0]}")
        for line in reversed(done.stdout.splitlines()):
            made = json.loads(line)
            if made.get("manifest_path") == str(manifest):
                return Path(made["executable"] or _library(made["filenames"]))
        raise FaultError("cargo made nothing")

    def _lay_out(self, texts: Mapping[str, str]) -> None:
        """Writes only files that differ, since cargo looks at their times."""
        for source in (ROOT / "rust").rglob("*"):
            name = source.relative_to(ROOT)
            if source.suffix in (".rs", ".toml", ".lock") and "target" not in name.parts:
                text = texts.get(str(name)) or source.read_text()
                path = WORK / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists() or path.read_text() != text:
                    path.write_text(text)


def _library(files: list[str]) -> str:
    return next(file for file in files if file.endswith(".so"))
