"""The manual is what the parsers say, and good roff."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interop.harness import unavailable

from lab import hosts

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "packaging/data/share/man/man8").glob("*.8"))


def run(*options: str) -> list[str]:
    command = [sys.executable, str(ROOT / "tools/man_pages.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == bool(done.stdout) and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_pages_are_up_to_date() -> None:
    assert PAGES
    assert run("--check") == []


def test_what_is_out_of_date_is_found(tmp_path: Path) -> None:
    def check() -> list[str]:
        return run("--check", "--root", str(tmp_path))

    assert len(check()) == len(PAGES)
    assert run("--root", str(tmp_path)) == check() == []
    page = next(tmp_path.rglob("wiresnake.8"))
    page.with_name("wiresnake-old.8").write_text(page.read_text())
    page.write_text("")
    assert [Path(line.split()[0]).name for line in check()] == ["wiresnake.8", "wiresnake-old.8"]
    assert run("--root", str(tmp_path)) == check() == []


@pytest.mark.parametrize("tool", ["mandoc -T lint -W warning", "man -l --warnings=w -E UTF-8"])
def test_they_are_good_roff(tool: str) -> None:
    program, *options = tool.split()
    if hosts.missing_programs(program):
        unavailable(f"{program} is missing: apt-get install mandoc man-db groff")
    for page in PAGES:  # `man` takes one at a time
        done = subprocess.run(
            [program, *options, page],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"MANPAGER": "cat", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""},
        )
        complaints = done.stderr if program == "man" else done.stdout
        assert (done.returncode, complaints) == (0, ""), page.name
