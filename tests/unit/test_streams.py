"""Standard streams: whatever encoding the locale has, and whichever of them were closed."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from interop.harness import unavailable

from wiresnake._native import PrivateKey
from wiresnake.cli import qr
from wiresnake.daemon import main
from wiresnake.linux import streams

PROGRAM = os.fsencode(Path(sys.executable).with_name("wiresnake"))
NAME = "Zoë\u2019s Händy 東京".encode() + b" la\xe4tin1"
SHOWN = NAME.decode("utf-8", "replace").encode()
HOOK = "echo grüße 東京".encode() + b" \xe4"
PUBLIC = base64.b64encode(PrivateKey.generate().public)
CONFIGURATION = b"""[Interface]
PrivateKey = QKvGX2aTIK1yBBFxKgJmyJhIFm4jiNQzyMCNQTHmsXI=
Address = 10.7.0.1/24
ListenPort = 51820
# endpoint = vpn.example.org:51820
PostUp = %s
[Peer]
# friendly_name = %s
PublicKey = %s
AllowedIPs = 10.7.0.9/32
""" % (HOOK, NAME, PUBLIC)

ENVIRONMENTS = {
    "UTF-8": {"LC_ALL": "en_US.UTF-8"},
    "Latin-1": {"LC_ALL": "en_US.ISO-8859-1"},
    "C": {"LC_ALL": "C"},
    "C as it is": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII for Python": {"LC_ALL": "en_US.UTF-8", "PYTHONIOENCODING": "ascii"},
}
CLOSED = ["".join(some) for many in range(4) for some in itertools.combinations("012", many)]


@pytest.fixture(scope="session")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine may have none of them: they are made in a folder of the tests."""
    folder = tmp_path_factory.mktemp("locales")
    for name in ("UTF-8", "ISO-8859-1"):
        made = folder / f"en_US.{name}"
        program = shutil.which("localedef")
        if program:
            subprocess.run(
                [program, "-i", "en_US", "-f", name, made], capture_output=True, check=False
            )
        if not (made / "LC_CTYPE").exists():
            unavailable("no locales can be made: apt-get install locales")
    return folder


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest, locales: Path) -> dict[str, str]:
    return {**os.environ, "LOCPATH": str(locales), **ENVIRONMENTS[request.param]}


def run(
    folder: Path, environment: dict[str, str], *words: bytes | str, code: int = 0
) -> tuple[bytes, bytes]:
    done = subprocess.run(
        [PROGRAM, *words], capture_output=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    assert b"internal error" not in done.stderr
    return done.stdout, done.stderr


def test_what_is_printed_is_what_stands_in_the_file(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Every command that needs no interface; `test_operator_watch` has the others."""
    folder = os.fsencode(tmp_path) + b"/\xe4 \xc3\xb6"
    os.mkdir(folder)
    path = folder + b"/wg0.conf"
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(CONFIGURATION)

    said, _ = run(tmp_path, environment, "check", path)
    assert said == b""
    os.chmod(path, 0o644)
    os.chmod(folder, 0o755)
    said, _ = run(tmp_path, environment, "check", path)
    assert said.startswith(path + b":1:1: warning: ") and said.endswith(
        b"chmod 600 " + path + b"\n"
    )
    said, _ = run(tmp_path, environment, "check", "--json", path)
    assert os.fsencode(json.loads(said)[0]["file"]) == path
    assert (
        b"cannot read " + path + b"x: " in run(tmp_path, environment, "qr", path + b"x", code=1)[1]
    )

    said, complaint = run(tmp_path, environment, "export", "--to", "android", path)
    assert (
        b"# friendly_name = " + NAME + b"\n" in said and path + b":6: left out PostUp" in complaint
    )
    said, _ = run(tmp_path, environment, "import", path)
    assert b"PostUp = " + HOOK + b"\n" in said
    assert b"# friendly_name = " + NAME + b"\n" in said
    copy = folder + b"/copy.conf"
    assert run(tmp_path, environment, "import", path, "-o", copy)[1].endswith(
        b"wrote " + copy + b"\n"
    )
    with open(copy, "rb") as file:
        assert file.read() == said

    said, _ = run(tmp_path, environment, "qr", "--force", path)
    assert (b"\xe2\x96\x88" in said) == (environment["LC_ALL"] != "en_US.ISO-8859-1")
    said, _ = run(
        tmp_path, environment, "new", "peer", "phone", "--server", path, "-o", "phone.conf"
    )
    assert said.splitlines()[-2].startswith(b"wrote phone.conf: 10.7.0.2/32; added to " + path)
    assert said.splitlines()[-1].endswith(b"wiresnake up " + path)
    with open(path, "rb") as file:
        assert file.read().startswith(CONFIGURATION)
    said, _ = run(tmp_path, environment, "new", "server", "--dir", folder, "--name", "wg9")
    assert b"wrote " + folder + b"/wg9.conf: " in said
    assert b"no peer" not in run(tmp_path, environment, "help")[0]
    assert run(tmp_path, environment, NAME, code=1)[1].startswith(b"Invalid subcommand: `" + NAME)


def test_a_qr_code_for_a_terminal_without_blocks() -> None:
    """The same modules, each two spaces of its colour, and nothing that is not ASCII."""
    text = CONFIGURATION.decode("utf-8", "surrogateescape")
    drawn = qr.ascii_terminal(text)
    assert all(line.isascii() for line in drawn)
    cells = [
        "".join(
            ("\u2588" if colour == "16" else " ") * (len(spaces) // 2)
            for colour, spaces in re.findall("\033\\[48;5;(16|231)m( +)", line)
        )
        for line in drawn
    ]
    halves = {"\u2588": "11", " ": "00", "\u2580": "10", "\u2584": "01"}
    blocks = qr.terminal(text)
    rows = ["".join(halves[one][half] for one in line) for line in blocks for half in (0, 1)]
    wanted = [row.replace("1", "\u2588").replace("0", " ") for row in rows]
    assert cells == wanted[: len(cells)] and len(wanted) - len(cells) in (0, 1)


@pytest.mark.parametrize("closed", CLOSED)
def test_what_was_closed_is_open_in_every_child(closed: str) -> None:
    """Else the next file that a program opens takes the place of its output."""
    script = (
        "import subprocess, sys; from wiresnake.linux import streams; streams.prepare()\n"
        "look = 'for n in 0 1 2; do [ -e /proc/$$/fd/$n ] || exit 9; done; exit 7'\n"
        "sys.exit(subprocess.run(['sh', '-c', look]).returncode)"
    )
    redirected = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirected}', sys.executable, script]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 7


@pytest.mark.parametrize("output", [">&-", ">/dev/full", "| true"])
def test_files_that_are_written_are_no_failure(output: str, tmp_path: Path) -> None:
    """`new` prints when all is done, and 1 would say that no file has changed."""
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    path.write_bytes(CONFIGURATION)
    program = os.fsdecode(PROGRAM)
    for words in ("peer phone --server ./wg0.conf", "server --dir . --name wg9"):
        script = f"set -o pipefail; {program} new {words} {output}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lost = "the files are written, but the output is lost: "
        assert (lost in done.stderr) == (output != "| true")
    assert "friendly_name = phone" in path.read_text("utf-8", "replace")
    assert (tmp_path / "phone.conf").exists() and (tmp_path / "wg9.conf").exists()


def test_an_inherited_descriptor_is_above_them() -> None:
    """The daemon has /dev/null at 0 to 2: a TUN device that came there would be lost."""
    with open(os.devnull, "rb") as file:
        kept = os.dup(0)
        try:
            os.dup2(file.fileno(), 0)
            found = main._descriptor({"WG_TUN_FD": "0"}, "WG_TUN_FD")
        finally:
            os.dup2(kept, 0)
            os.close(kept)
        assert found is not None and found > 2
        assert os.path.samestat(os.fstat(found), os.fstat(file.fileno()))
        os.close(found)


def test_a_stream_of_somebodys_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        encoding = "ascii"

    monkeypatch.setattr(sys, "stdout", Own())
    streams.prepare()
    assert sys.stdout.encoding == "ascii"
