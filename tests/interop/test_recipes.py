"""docs/recipes.md word for word: each recipe's programs, with real servers behind a real tunnel."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interop import pages
from interop.harness import ROOT, unavailable

from wiresnake.pytest_plugin import WireguardServer

PAGE = (ROOT / "docs/recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = Path(sys.executable).parent


class Follower:
    """Does what a section says, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = ((k, v) for k, v in os.environ.items() if not re.search("PYTEST|(?i:proxy)", k))
        self.environment = dict(kept) | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}

    def run(self, title: str) -> None:
        """Writes the files, and compares what the commands and the cells print."""
        cells, printed = "", list[str]()
        for kind, text in BLOCK.findall(SECTIONS[title]):
            name = re.match(r"# (\S+\.py)\n", text)
            if kind == "python" and name:
                (self.folder / name[1]).write_text(text)
            elif kind == "python":
                cells += text
            elif kind == "text":
                printed += text.splitlines()
            else:
                assert kind == "console"
                self._commands(text)
        if cells:
            self._compare([sys.executable, "-c", cells], printed)

    def _commands(self, text: str) -> None:
        with contextlib.ExitStack() as stack:
            for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, *lines = step.splitlines()
                if command.endswith(" &"):
                    stack.enter_context(self._beside(command.removesuffix(" &"), lines))
                else:
                    self._compare(["sh", "-c", command], lines)

    def _compare(self, command: list[str], lines: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert pages.matches(lines, done.stdout.splitlines()), done.stdout

    @contextlib.contextmanager
    def _beside(self, command: str, lines: list[str]) -> Iterator[None]:
        """Runs a command in the background once it has said these lines."""
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        try:
            for line in lines:
                assert process.stderr.readline() == f"{line}\n"
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


@pytest.fixture
def office(wireguard_server: WireguardServer, tmp_path: Path) -> WireguardServer:
    """A server whose client has the file that the page names, in the folder of the recipe."""
    (tmp_path / "office.conf").write_text(wireguard_server.file.read_text())
    (tmp_path / "office.conf").chmod(0o600)
    return wireguard_server


@pytest.fixture
def follow(tmp_path: Path) -> Callable[[str], None]:
    return Follower(tmp_path).run


def test_scrape(
    make_wireguard_server: Callable[[], WireguardServer],
    tmp_path: Path,
    follow: Callable[[str], None],
) -> None:
    (tmp_path / "tunnels").mkdir()
    for country in ("France", "Japan", "Peru"):
        inside = make_wireguard_server()
        inside.file.rename(tmp_path / "tunnels" / f"{country.lower()}.conf")
        inside.names["shop.example"] = inside.address
        inside.serve_http({f"/{n}": f"page {n} for {country}" for n in range(1, 7)})
    follow("Scrape through many tunnels in turns")


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[Path]:
    """A real PostgreSQL, as a user of its own; yields the path of its socket."""
    (programs,) = Path("/usr/lib/postgresql").glob("*/bin") or [None]
    if programs is None or not shutil.which("setpriv"):
        unavailable("PostgreSQL is missing: apt-get install postgresql")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    by = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
        shutil.chown(folder, "postgres", "postgres")
        by = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(*words: str, text: str = "") -> None:
        done = subprocess.run(
            [*by, *words], cwd=folder, input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run(str(programs / "initdb"), "-D", "data", "-A", "trust", "-U", "root", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(str(programs / "pg_ctl"), "-D", "data", "-w", "-l", "log", "-o", options, "start")
        try:
            setup = """CREATE DATABASE shop;
\\c shop
SET password_encryption = 'scram-sha-256';
CREATE USER ana PASSWORD 'gouda';
CREATE TABLE cheese (name text, number int);
INSERT INTO cheese VALUES ('Brie', 7), ('Gouda', 12);
GRANT SELECT ON cheese TO ana;
"""
            run("psql", "-q", "-h", str(folder), "-U", "root", "-d", "postgres", text=setup)
            access = "local all root trust\nlocal all all scram-sha-256\n"
            (folder / "data/pg_hba.conf").write_text(access)
            run(str(programs / "pg_ctl"), "-D", "data", "reload")
            yield folder / ".s.PGSQL.5432"
        finally:
            run(str(programs / "pg_ctl"), "-D", "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def test_database(office: WireguardServer, postgresql: Path, follow: Callable[[str], None]) -> None:
    def lead(one: socket.socket) -> None:
        """Connects the tunnel's port with the server."""
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(postgresql))
            back = threading.Thread(target=copy, args=(server, one))
            back.start()
            copy(one, server)
            back.join()

    office.names["db.internal"] = office.address6
    office.serve(lead, 5432)
    follow("Query a database from a notebook")


@pytest.fixture
def sshd(office: WireguardServer, tmp_path: Path) -> None:
    """OpenSSH's server as build.internal, with the keys that the page names."""
    program = "/usr/sbin/sshd"
    if not Path(program).exists() or not shutil.which("ssh"):
        unavailable("OpenSSH is missing: apt-get install openssh-server openssh-client")
    for name in ("host", "id_ed25519"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    host = (tmp_path / "host.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"build.internal {host}")
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/id_ed25519.pub\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)

    def handle(one: socket.socket) -> None:
        command = [program, "-i", "-e", "-f", str(config)]
        subprocess.run(
            command, stdin=one.fileno(), stdout=one.fileno(), stderr=subprocess.DEVNULL, check=False
        )

    office.names["build.internal"] = office.address
    office.serve(handle, 22)


def test_asyncssh(sshd: None, follow: Callable[[str], None]) -> None:
    follow("Run commands with asyncssh")


def test_double(follow: Callable[[str], None]) -> None:
    follow("Test a program that uses a VPN")


def test_libraries(office: WireguardServer, follow: Callable[[str], None]) -> None:
    office.names["wiki.internal"] = office.address
    office.serve_http({"/": "welcome"})
    follow("With other HTTP libraries")


def test_other_programs(office: WireguardServer, sshd: None, follow: Callable[[str], None]) -> None:
    office.names["wiki.internal"] = office.address
    office.serve_http({"/": "welcome\n"})
    follow("For programs that are not yours")


def test_no_recipe_is_without_a_test() -> None:
    text = Path(__file__).read_text()
    assert all(f'follow("{title}")' in text for title in SECTIONS), SECTIONS.keys()
