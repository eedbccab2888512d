"""Builds wiresnake without encryption, to measure the cost of everything else."""

import json
import os
import shutil
import subprocess

from bench.subjects import NULL_TREE, ROOT, TOOLS

_CRATE = ROOT / "rust/python/Cargo.toml"
_TARGET = TOOLS / "null/target"
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.so")


def build() -> None:
    """Builds the subject `null` from this tree. If it does not compile, it is left out."""
    shutil.rmtree(NULL_TREE, ignore_errors=True)
    done = subprocess.run(
        [
            *("cargo", "build", "--release", "--locked", "--quiet"),
            *("--manifest-path", _CRATE, "--target-dir", _TARGET),
            *("--message-format", "json-render-diagnostics"),
        ],
        env=os.environ | {"RUSTFLAGS": "--cfg null_crypto"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return
    made = [json.loads(line) for line in done.stdout.splitlines()]
    (library,) = (
        file
        for item in made
        if item.get("manifest_path") == str(_CRATE)
        for file in item["filenames"]
        if file.endswith(".so")
    )
    shutil.copytree(ROOT / "src/wiresnake", NULL_TREE / "wiresnake", ignore=_SKIPPED)
    shutil.copy2(library, NULL_TREE / "wiresnake/_native.abi3.so")
