"""`tools/setup` on machines that have this and lack that: made up by programs in a PATH."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEED = next(
    line.split('"')[1]
    for line in (ROOT / "rust/Cargo.toml").read_text().splitlines()
    if line.startswith("rust-version")
)
OLD, NEW = "1.63.0", "1.96.0"
WEB = "cargo-web rustc-web rustfmt-web rust-web-clippy"
PLAIN = "cargo rustc rustfmt rust-clippy"


class Machine:
    """Programs that answer as the test wants, and record how apt-get was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bash", "sed", "cut", "sort", "dirname", "cat", "chmod"):
            real = shutil.which(name)
            assert real is not None
            (folder / name).symlink_to(real)
        self.calls = folder / "calls"
        self.calls.write_text("")

    def program(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        path.chmod(0o755)

    def cargo(self, version: str) -> None:
        self.program("cargo", f"echo 'cargo {version} (abc 2026-01-01)'")

    def debian(self, *, root: bool, brings: str = "", **candidates: str) -> None:
        """With apt, which offers these versions and brings a cargo of that one."""
        self.program("id", f"echo {0 if root else 1000}")
        cases = "".join(
            f"{name.replace('_', '-')}) echo '  Candidate: {version}' ;;\n"
            for name, version in candidates.items()
        )
        self.program("apt-cache", f"case $2 in\n{cases}*) echo '  Candidate: (none)' ;;\nesac")
        self.program(
            "apt-get",
            f"""echo "$*" >>{self.calls}
            if [ "$1" = install ] && [ -n "{brings}" ]; then
                echo "echo 'cargo {brings} (abc 2026-01-01)'" >{self.folder}/new
                cat {self.folder}/shebang {self.folder}/new >{self.folder}/cargo
                chmod 755 {self.folder}/cargo
            fi""",
        )
        (self.folder / "shebang").write_text(f"#!{shutil.which('bash')}\n")

    def setup(self, part: str = "rust") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bash", ROOT / "tools/setup", part],
            capture_output=True,
            text=True,
            env={"PATH": str(self.folder), "HOME": os.devnull},
            check=False,
        )

    @property
    def installed(self) -> list[str]:
        """What apt-get was to install, call by call."""
        told = [line.split() for line in self.calls.read_text().splitlines()]
        return [
            " ".join(word for word in words[1:] if not word.startswith("-"))
            for words in told
            if words[0] == "install"
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("version", [NEED + ".0", NEW, "1.100.0", "2.0.0"])
def test_a_rust_that_is_new_enough_is_left_alone(machine: Machine, version: str) -> None:
    machine.cargo(version)
    machine.debian(root=True, cargo_web=NEW)
    done = machine.setup()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls.read_text() == ""


@pytest.mark.parametrize("old", ["", OLD])
@pytest.mark.parametrize(
    "offers, brought",
    [
        ({"cargo_web": f"{NEW}+dfsg1-1~deb12u2", "cargo": "0.66.0+ds1-1"}, WEB),
        ({"cargo_web": f"{NEW}+dfsg1-1~deb13u1+b1", "cargo": "1.85.1+dfsg1-1"}, WEB),
        ({"cargo": "1.97.1+dfsg1-1"}, PLAIN),  # the next Debian
    ],
)
def test_debian_brings_rust_to_root(
    machine: Machine, old: str, offers: dict[str, str], brought: str
) -> None:
    """With what `make lint` needs, after a look at the newest lists."""
    if old:
        machine.cargo(old)
    machine.debian(root=True, brings=NEW, **offers)
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert machine.installed == [brought]
    assert machine.calls.read_text().startswith("update\n")


def test_an_ordinary_user_is_told_the_line(machine: Machine) -> None:
    machine.debian(root=False, cargo_web=NEW)
    done = machine.setup()
    assert done.returncode == 1
    assert f"as root: apt-get install -y --no-install-recommends {WEB}" in done.stderr
    assert f"cargo {NEED} or newer is needed; found: none." in done.stderr
    assert machine.calls.read_text() == ""


@pytest.mark.parametrize("debian", [False, True])
def test_elsewhere_rustup_is_the_line(machine: Machine, debian: bool) -> None:
    """On no Debian, or on one whose packages are all too old, or have no versions at all."""
    machine.cargo(OLD)
    if debian:
        machine.debian(root=True, cargo_web="1.85.0+dfsg3-1~deb12u3", cargo="0.66.0+ds1-1")
    done = machine.setup()
    assert done.returncode == 1
    assert f"found: {OLD}" in done.stderr
    assert "curl -sSf https://sh.rustup.rs | sh -s -- -y" in done.stderr
    assert machine.installed == []


def test_who_has_rustup_is_asked_to_use_it(machine: Machine) -> None:
    """Debian's packages and rustup exclude each other."""
    machine.cargo(OLD)
    machine.program("rustup", "exit 0")
    machine.debian(root=True, cargo_web=NEW)
    done = machine.setup()
    assert done.returncode == 1
    assert "rustup update stable" in done.stderr
    assert machine.installed == []


def test_a_cargo_that_hides_the_new_one_is_named(machine: Machine) -> None:
    machine.cargo(OLD)
    machine.debian(root=True, cargo_web=NEW)  # it comes, but not before the old one in PATH
    done = machine.setup()
    assert done.returncode == 1
    assert machine.installed == [WEB]
    assert f"cargo is still {OLD}: another one is before it in PATH" in done.stderr


def test_a_bare_machine_gets_python_and_a_compiler(machine: Machine) -> None:
    machine.debian(root=True)
    done = machine.setup("packages")
    assert done.returncode == 0, done.stderr
    (brought,) = machine.installed
    assert {"python3", "gcc", "wireguard-tools"} <= set(brought.split())
    machine.calls.write_text("")
    machine.debian(root=False)
    done = machine.setup("packages")
    assert done.returncode == 0, "all that needs none of them still runs"
    assert "as root: apt-get install -y --no-install-recommends python3 gcc" in done.stderr
    assert machine.installed == []
