"""`wiresnake exec`: programs of an ordinary user, and of root, in a tunnel and nowhere else."""

import contextlib
import json
import os
import pty
import re
import signal
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.harness import MakeHost, unavailable
from interop.joined import write_files
from interop.ordinary import HOME, PYTHON, USER, User

from lab import hosts
from lab.hosts import Process, wait_for

EXEC = (PYTHON, "-m", "wiresnake", "exec")
FILE = HOME / "near.conf"
DNS = "DNS = 10.0.0.1, corp.example\n"

SERVER = """
import socket
listeners = [socket.create_server((host, 80), family=family)
             for family, host in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1"))]
print("listens", flush=True)
while True:
    for each in listeners:
        each.accept()[0].sendall(b"far")
"""
"""Answers IPv4 and IPv6 in turn."""


def made(host: hosts.Host, number: int = USER) -> User:
    user = User(host, number)
    write_files(user.home, near=DNS)
    for path in user.home.iterdir():
        os.chown(path, number, number)
        path.chmod(0o600)
    return user


@pytest.fixture
def user(make_host: MakeHost) -> User:
    """An ordinary user, with the files of two ends."""
    return made(make_host())


@pytest.fixture(params=[USER, 0], ids=["user", "root"])
def each_user(make_host: MakeHost, request: pytest.FixtureRequest) -> User:
    """An ordinary user, and root, each in a host of its own."""
    return made(make_host(), request.param)


@contextlib.contextmanager
def running(user: User, *command: str | Path) -> Iterator[Process]:
    """Runs a command that says something once it is ready."""
    process = user.start(*command)
    try:
        assert process.popen.stdout
        assert process.popen.stdout.readline(), process.popen.wait()
        yield process
    finally:
        if process.popen.poll() is None:
            process.stop()


def left(user: User) -> list[object]:
    """Processes and files of tunnels, and mounts and interfaces of the host."""
    output = user.host.output
    folders = output("sh -c", "ls -d /run/wiresnake/* /tmp/wiresnake-*/* 2>/dev/null; true")
    return [user.host.processes("exec"), folders, output("cat /proc/mounts"), output("ip -o link")]


@contextlib.contextmanager
def leaving_nothing(user: User) -> Iterator[None]:
    before = left(user)
    assert before[:2] == [[], ""]
    yield
    wait_for("everything is as it was before", lambda: left(user) == before)


def test_exit_codes_are_those_of_the_command(each_user: User) -> None:
    """And those of env(1) if it cannot be executed."""
    user = each_user
    with leaving_nothing(user):
        for code, command, said in (
            (0, "true", ""),
            (7, "sh -c 'exit 7'", ""),
            (-signal.SIGKILL, "sh -c 'kill -9 $$'", ""),
            (127, "nosuch", "wiresnake exec: nosuch: No such file or directory\n"),
            (127, "./nosuch", "wiresnake exec: ./nosuch: No such file or directory\n"),
            (126, "/etc/passwd", "wiresnake exec: /etc/passwd: Permission denied\n"),
        ):
            done = user.run(*EXEC, FILE, "--", *hosts.words(command))
            assert (done.returncode, done.stdout, done.stderr) == (code, "", said), command


def test_a_folder_that_may_not_be_read_hides_no_command(user: User) -> None:
    """What is in none of the folders that can be seen is missing, not forbidden."""
    user.host.run("mkdir -m 700 /run/secret /run/home/seen")
    os.chown(user.home / "seen", USER, USER)
    (user.home / "seen/text").write_text("no program")
    path = {"PATH": f"/run/secret:{HOME}/seen:/usr/bin:/bin"}
    for command, code in ("nosuch", 127), ("text", 126), ("true", 0):
        done = user.run(*EXEC, FILE, "--", command, env=path)
        assert done.returncode == code, (command, done.stderr)


def test_a_signal_ends_the_command_and_the_tunnel(each_user: User) -> None:
    with (
        leaving_nothing(each_user),
        running(each_user, *EXEC, FILE, "--", "sh", "-c", "echo; exec sleep 999") as one,
    ):
        assert left(each_user)[0] != []
        assert one.stop(signal.SIGTERM) == (-signal.SIGTERM, "")


def test_standard_streams_and_environment_pass_through(user: User) -> None:
    data = "".join(f"{number}\n" for number in range(100_000))
    with leaving_nothing(user):
        done = user.run(*EXEC, FILE, "--", "cat", text=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, data, "")
        said = user.run(
            *EXEC, FILE, "sh", "-c", 'echo "$ONE $(pwd) $(id -u)"; echo x >&2', env={"ONE": "two"}
        )
        assert (said.stdout, said.stderr) == (f"two {HOME} {USER}\n", "x\n")
        ignored = ("grep", "SigIgn", "/proc/self/status")
        assert user.run(*EXEC, FILE, "--", *ignored).stdout == user.run(*ignored).stdout


SERVICES = """
import os, selectors, socket
listeners = selectors.DefaultSelector()
for family, address in (
    (socket.AF_INET, ("0.0.0.0", 8000)),
    (socket.AF_UNIX, "\\0host"),
    (socket.AF_UNIX, "/run/nscd/socket"),
    (socket.AF_UNIX, "/run/systemd/resolve/io.systemd.Resolve"),
):
    one = socket.socket(family)
    if str(address).startswith("/"):
        os.makedirs(os.path.dirname(address), exist_ok=True)
    one.bind(address)
    if str(address).startswith("/"):
        os.chmod(address, 0o666)
    one.listen()
    listeners.register(one, selectors.EVENT_READ)
print("listens", flush=True)
while True:
    for key, _ in listeners.select():
        key.fileobj.accept()[0].sendall(b"host")
"""

INSIDE = """
import json, os, socket
def connects(family, address):
    with socket.socket(family) as one:
        one.settimeout(20)
        try:
            one.connect(address)
            return one.recv(10).decode()
        except OSError as error:
            return type(error).__name__
try:
    info = [each[4][0] for each in socket.getaddrinfo("www", 80, type=socket.SOCK_STREAM)]
except OSError as error:
    info = str(error)
print(json.dumps({
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "resolv.conf": open("/etc/resolv.conf").read(),
    "4": connects(socket.AF_INET, ("10.0.0.1", 80)),
    "6": connects(socket.AF_INET6, ("fd00::1", 80)),
    "host": [connects(socket.AF_INET, (host, 8000)) for host in ("127.0.0.1", "192.0.2.1")],
    "abstract": connects(socket.AF_UNIX, "\\0host"),
    "resolver": [connects(socket.AF_UNIX, path) for path in
                 ("/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve")],
    "www": info,
    "ids": [os.getuid(), os.getgid()],
}))
"""


def test_the_command_has_the_tunnel_and_nothing_else(each_user: User) -> None:
    """It reaches the far end by addresses of both kinds and by names, which it asks there; and
    none of the host's addresses, services and resolvers."""
    if hosts.missing_programs("dnsmasq"):
        unavailable("dnsmasq is missing: apt-get install dnsmasq-base")
    user = each_user
    host = user.host
    host.run("ip address add 192.0.2.1/32 dev lo")
    dns = (
        "dnsmasq -d -C /dev/null -R -h -x '' -u root -a 10.0.0.1 -z --local=/example/"
        " --host-record=www.corp.example,10.0.0.1,fd00::1"
    )
    far = (*EXEC, HOME / "far.conf", "--", "sh", "-c", f'{dns} >/dev/null 2>&1 & exec "$@"', "sh")
    with contextlib.ExitStack() as opened:
        opened.enter_context(leaving_nothing(user))
        services = host.start(PYTHON, "-c", SERVICES)
        opened.callback(services.stop)
        assert services.popen.stdout and services.popen.stdout.readline() == "listens\n"
        outside = json.loads(user.python(INSIDE))
        assert outside["host"] == ["host"] * 2 and outside["resolver"] == ["host"] * 2
        assert outside["abstract"] == "host"
        opened.enter_context(running(user, *far, PYTHON, "-c", SERVER))
        opened.callback(host.run, "pkill dnsmasq")
        done = user.run(*EXEC, FILE, "--", PYTHON, "-c", INSIDE)
        assert done.stderr == ""
        assert json.loads(done.stdout) == {
            "interfaces": ["lo", "wg0"],
            "resolv.conf": "nameserver 10.0.0.1\nsearch corp.example\n",
            "4": "far",
            "6": "far",
            "host": ["ConnectionRefusedError", "OSError"],
            "abstract": "ConnectionRefusedError",
            "resolver": ["FileNotFoundError"] * 2,
            "www": ["fd00::1", "10.0.0.1"],
            "ids": [user.number] * 2,
        }


def test_others_join_a_tunnel(each_user: User) -> None:
    """A second one of the same file is refused, with a hint how to join. It ends with the last."""
    user = each_user
    with leaving_nothing(user):
        none = user.run(*EXEC, "--join", FILE, "--", "true")
        assert none.returncode == 1
        hint = "is open: start it with `wiresnake exec` without --join"
        assert none.stderr == f"wiresnake: no tunnel of {FILE} {hint}\n"
        net = ("readlink", "/proc/self/ns/net")
        with running(
            user, *EXEC, FILE, "sh", "-c", "readlink /proc/self/ns/net; exec sleep 999"
        ) as one:
            second = user.run(*EXEC, FILE, "true")
            said = f"wiresnake: the tunnel of {FILE} is open already: use --join\n"
            assert (second.returncode, second.stderr) == (1, said)
            joined = [user.run(*EXEC, "--join", path, *net) for path in (FILE, "./near.conf")]
            assert joined[0].stdout == joined[1].stdout != user.run(*net).stdout, joined
            show = ("sh", "-c", "cat /etc/resolv.conf; echo; exec sleep 999")
            with running(user, *EXEC, "--join", FILE, *show) as other:
                one.stop()
                assert user.run(*EXEC, "--join", FILE, "ls", "/sys/class/net/").returncode == 0
                assert user.run(*EXEC, "--join", FILE, *net).stdout == joined[0].stdout
                other.stop()


def test_ports_lead_into_the_tunnel_and_out_of_it(user: User) -> None:
    """-L and -R, as for `wiresnake proxy`, for as long as the tunnel lives."""
    forwards = ("-L", "8001:10.0.0.1:80", "-L", "8003:[fd00::1]:80", "-R", "8002:127.0.0.1:8003")
    ask = "import socket; print(socket.create_connection((%r, %d), 20).recv(9))"
    with (
        leaving_nothing(user),
        running(user, *EXEC, HOME / "far.conf", PYTHON, "-uc", SERVER),
        running(user, *EXEC, *forwards, FILE, "sh", "-c", "echo ready; exec sleep 999"),
    ):
        assert user.python(ask % ("127.0.0.1", 8001)) == "b'far'\n"
        inside = user.run(*EXEC, "--join", FILE, PYTHON, "-c", ask % ("10.0.0.2", 8002))
        assert inside.stdout == "b'far'\n", inside.stderr
        refused = user.run(*EXEC, "--join", "-L", "1:a:2", FILE, "true")
        assert refused.returncode == 1 and "give -L and -R to the command" in refused.stderr
        wrong = user.run(*EXEC, "-L", "nonsense", FILE, "true")
        assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)


HIDES_ITS_MEMORY = """
import ctypes, os, time
if child := os.fork():
    print(child)
else:
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    os.setsid()
    for number in 0, 1, 2:
        os.close(number)
    time.sleep(999)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("sh", "-c", "sleep 999 >/dev/null 2>&1 </dev/null & echo $!"),
        (PYTHON, "-c", HIDES_ITS_MEMORY),
    ],
    ids=["shell", "hides its memory"],
)
def test_a_process_in_the_background_keeps_the_tunnel(
    user: User, command: tuple[str | Path, ...]
) -> None:
    """Nobody waits for it, not even who reads all that the command said; also one like ssh-agent,
    whose files in /proc are root's."""
    with leaving_nothing(user):
        done = user.run(*EXEC, FILE, "--", *command)
        assert (done.returncode, done.stderr) == (0, "")
        for _ in range(3):
            assert "wg0" in user.run(*EXEC, "--join", FILE, "cat", "/proc/self/net/dev").stdout
        user.host.run(f"kill {done.stdout}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, f"cannot read {FILE}: No such file or directory"),
        ("[Interface]\nPrivateKey = nonsense\n", "PrivateKey"),
        (f"[Interface]\nPrivateKey = {'A' * 42}E=\n", "a tunnel needs Address = "),
        ("nonsense\n", "near.conf"),
    ],
    ids=["missing", "wrong key", "no address", "nonsense"],
)
def test_a_file_that_is_wrong_is_one_line(user: User, text: str | None, said: str) -> None:
    with leaving_nothing(user):
        (user.home / "near.conf").unlink()
        if text is not None:
            (user.home / "near.conf").write_text(text)
        done = user.run(*EXEC, FILE, "--", "true")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("wiresnake: ") and said in line, line


def keeper_and_helper(user: User) -> list[int]:
    """The first is in the host's network."""
    here = os.readlink(f"/proc/{user.host.pid}/ns/net")
    found = user.host.processes("exec")
    return sorted(found, key=lambda pid: os.readlink(f"/proc/{pid}/ns/net") != here)


def memory(pid: int) -> bytes:
    """All that a process has written."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]
            if rights.startswith("rw"):
                with contextlib.suppress(OSError, OverflowError):
                    file.seek(int(begin, 16))
                    found += file.read(int(end, 16) - int(begin, 16))
    return bytes(found)


def test_only_the_keeper_has_the_key(user: User) -> None:
    """Whose memory other programs of the user cannot read. Those of the helper may be read."""
    text = (user.home / "near.conf").read_text().split("PrivateKey = ")[1].split()[0]
    with running(user, *EXEC, FILE, "sh", "-c", "echo; exec sleep 999") as one:
        keeper, helper = keeper_and_helper(user)
        holders = {
            pid
            for pid in (keeper, helper, one.pid)
            if any(key in memory(pid) for key in (b64decode(text), text.encode()))
        }
        assert holders == {keeper}
        status = Path(f"/proc/{keeper}/status").read_text()
        (inner,) = re.findall(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)
        assert "Permission denied" in user.run("cat", f"/proc/{inner}/mem").stderr


def test_a_helper_that_was_killed_costs_nothing(user: User) -> None:
    """The tunnel is open already: others join it, and it ends with the last."""
    with (
        leaving_nothing(user),
        running(user, *EXEC, FILE, "sh", "-c", "echo; exec sleep 999") as one,
    ):
        _, helper = keeper_and_helper(user)
        os.kill(helper, signal.SIGKILL)
        with running(user, *EXEC, "--join", FILE, "sh", "-c", "echo; exec sleep 999"):
            one.stop()
            assert "wg0" in user.run(*EXEC, "--join", FILE, "cat", "/proc/self/net/dev").stdout


TERMINAL = """
import os, signal, socket, sys, time
count = 0
def interrupted(*_):
    global count
    count += 1
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, interrupted)
print(*map(os.isatty, range(3)), os.ttyname(0), os.tcgetpgrp(0) == os.getpgrp(), flush=True)
input()
print(count, *[name for _, name in socket.if_nameindex()], flush=True)
signal.signal(signal.SIGINT, signal.SIG_DFL)
time.sleep(60)
"""


def test_a_terminal_passes_through(machine: None, tmp_path: Path) -> None:
    """The command may read it, and Ctrl-C interrupts the command once and nothing else."""
    files = write_files(tmp_path)
    child, terminal = pty.fork()
    if not child:
        words = ["-m", "wiresnake", "exec", str(files.near), "--", sys.executable, "-c", TERMINAL]
        os.execv(sys.executable, [sys.executable, *words])
    with open(terminal, "r+b", 0) as both:

        def line() -> list[str]:
            text = b""
            while not text.endswith(b"\n"):
                text += both.read(1)
            return text.decode().replace("^C", "").split()

        said = line()
        assert said == ["True"] * 3 + [os.readlink(f"/proc/{child}/fd/0"), "True"]
        both.write(b"\x03")
        assert line() == ["interrupted"]
        both.write(b"\n")
        assert line() == []  # The echo.
        assert line() == ["1", "lo", "wg0"]
        both.write(b"\x03")
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGINT


DEFECT = """
from wiresnake.linux.processes import detach
def action():
    raise KeyError("a secret")
detach(action)
"""


@pytest.mark.parametrize("debug", [False, True])
def test_a_defect_is_one_line_without_what_it_says(user: User, debug: bool) -> None:
    """Of a process that nobody waits for."""
    env = {"WIRESNAKE_DEBUG": "1"} if debug else {}
    done = user.run(PYTHON, "-c", DEFECT, env=env)
    assert ("Traceback" in done.stderr and "a secret" in done.stderr) is debug
    if not debug:
        assert done.stderr.startswith("wiresnake: internal error, please report it: KeyError")
        assert "secret" not in done.stderr and done.stderr.count("\n") == 1
