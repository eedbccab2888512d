"""The first two pages as a stranger follows them: the README's installation, the first tunnel."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from interop import pages
from interop.harness import ROOT

README = (ROOT / "README.md").read_text()
PAGE = ROOT / "docs/first-tunnel.md"
PLACES = ("/opt", "/usr/local/bin")
"""Folders that the installation writes to, besides the checkout."""


def installation() -> str:
    """Returns the README's commands, except the one for packages, which a machine with tests
    has."""
    (block,) = re.findall(r"```\n([^`]*make wheel\n[^`]*)```", README)
    return "".join(line for line in block.splitlines(True) if not line.startswith("apt-get "))


@pytest.fixture(scope="module")
def installed(machine: None, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """The folders that the installation has filled, each with its place on a host."""
    folder = tmp_path_factory.mktemp("installed")
    mounts = {folder / place.strip("/").replace("/", "-"): place for place in PLACES}
    for copy, place in mounts.items():
        shutil.copytree(place, copy, symlinks=True, ignore=shutil.ignore_patterns("wiresnake*"))
    binds = "".join(f"mount --bind {copy} {place}\n" for copy, place in mounts.items())
    script = f"set -e\n{binds}{installation()}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return mounts


def test_a_stranger_has_a_tunnel_by_the_first_two_pages(installed: dict[Path, str]) -> None:
    """It goes up, is changed while it runs, and says why a peer is silent."""
    text = PAGE.read_text()
    assert "docs/first-tunnel.md" in README
    assert all(f"wiresnake {word}" in text for word in ("up", "reload", "why", "down"))
    pages.run(pages.read(text), Path("/usr/local/bin"), installed)


def test_a_stranger_has_both_commands(installed: dict[Path, str]) -> None:
    page = """<!-- hosts
server 192.0.2.1
-->
```console
# on the server
$ command -v wiresnake wiresnaked
/usr/local/bin/wiresnake
/usr/local/bin/wiresnaked
$ wiresnaked wg0 && wiresnake show interfaces
wg0
$ python3 -c 'import wiresnake' 2>/dev/null || /opt/wiresnake/bin/python -c 'import wiresnake'
```
"""
    pages.run(pages.read(page), Path("/usr/local/bin"), installed)
