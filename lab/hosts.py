"""Private hosts on one machine: namespaces, joined by virtual cables.

The demonstration, the interop tests and the benchmark run in such hosts, so they do not touch the
machine's own network. A host has its own network, processes, /run and /sys. It exists as long as
its first process, which ends with this one, so nothing is left behind.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from wiresnake.linux.namespace import visit

T = TypeVar("T")

# The first process. It ignores SIGCHLD, so that orphans leave no zombies, and reads a pipe from
# this process. When that closes, it ends, and the kernel ends every process of its namespace.
FIRST_PROCESS = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys 2>/dev/null || true
ip link set lo up
sysctl -q -w net.ipv4.conf.all.promote_secondaries=1
sysctl -q -w net.ipv6.conf.default.accept_dad=0
echo ready
exec env --ignore-signal=CHLD cat
"""

# Stock wg-quick uses the kernel's WireGuard if there is one. To use another, a host must have none:
# this replaces `ip`, and an empty directory replaces /sys/module.
NO_KERNEL_WIREGUARD = """
set -e
ip=$(readlink -f "$(command -v ip)")
cat "$ip" >/run/real-ip
cat >/run/ip <<'END'
#!/bin/sh
case "$*" in
*"link add"*"type wireguard"*) echo "Error: Unknown device type." >&2; exit 2 ;;
esac
exec /run/real-ip "$@"
END
chmod 755 /run/ip /run/real-ip
mount --bind /run/ip "$ip"
[ ! -e /sys/module/wireguard ] || mount -t tmpfs tmpfs /sys/module
"""


class LabError(Exception):
    """A command in a host failed, or the machine refuses namespaces."""


def program_path() -> str:
    """Returns PATH with the administrator's folders, which ordinary users often lack."""
    return (os.environ.get("PATH") or os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"


def words(line: str | Path, *more: str | Path) -> list[str]:
    """Makes a command: a string is split at spaces, as in a shell; other arguments are not."""
    first = [str(line)] if isinstance(line, Path) else shlex.split(line)
    return [*first, *map(str, more)]


def missing_programs(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name, path=program_path()) is None]


class Process:
    """A running program in a host. `pid` is the program's own, as seen from outside."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.pid = _only_child(popen)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 5) -> tuple[int, str]:
        """Ends the program. Returns its exit code and its output."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)
        return self.wait(timeout)

    def wait(self, timeout: float) -> tuple[int, str]:
        try:
            output, _ = self.popen.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            output, _ = self.popen.communicate()
            raise LabError(f"{self.popen.args!r} did not end in {timeout} s: {output}") from None
        return self.popen.returncode, output or ""


class Host:
    """A private host. Use it as a context manager, or call `close`."""

    def __init__(self, name: str, *, kernel_wireguard: bool = True) -> None:
        self.name = name
        self.devices = 0
        unshare = "unshare --net --mount --pid --fork --kill-child --mount-proc sh -c"
        self._first = subprocess.Popen(
            words(unshare, FIRST_PROCESS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
        )
        assert self._first.stdout is not None
        assert self._first.stderr is not None
        if self._first.stdout.readline() != "ready\n":
            raise LabError(f"no private namespaces here: {self._first.stderr.read().strip()}")
        self.pid = _only_child(self._first)
        if not kernel_wireguard:
            self.run("sh -c", NO_KERNEL_WIREGUARD)

    def close(self) -> None:
        """Ends every process in the host, and with them the host."""
        assert self._first.stdin is not None
        self._first.stdin.close()
        try:
            self._first.wait(5)
        except subprocess.TimeoutExpired:
            self._first.kill()
            self._first.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        text: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the host (see `words` for its form). `text` is its input."""
        popen = self._popen(command, env, stdin=text is not None, merge=False)
        try:
            output, errors = popen.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, LabError):
                os.kill(_only_child(popen), signal.SIGKILL)
            popen.kill()
            raise LabError(f"{self.name}: {_said(command)} took over {timeout} s") from None
        if check and popen.returncode:
            raise LabError(
                f"{self.name}: {_said(command)} exited with {popen.returncode}: {errors}{output}"
            )
        return subprocess.CompletedProcess(popen.args, popen.returncode, output, errors)

    def start(self, *command: str | Path, env: Mapping[str, str] | None = None) -> Process:
        """Starts a command in the background. Its errors go to its output."""
        return Process(self._popen(command, env, stdin=False, merge=True))

    def output(self, *command: str | Path) -> str:
        return self.run(*command).stdout

    def inside(self, function: Callable[[], T]) -> T:
        """Calls the function in the host's network. Sockets that it opens stay there."""
        return inside(self.pid, function)

    def processes(self, name: str) -> list[int]:
        """Returns the outer pids of the host's processes with that word in their command line."""
        found = []
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == own:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if any(Path(os.fsdecode(word)).name == name for word in words):
                        found.append(int(entry.name))
        return found

    def _popen(
        self,
        command: tuple[str | Path, ...],
        env: Mapping[str, str] | None,
        stdin: bool,
        merge: bool,
    ) -> subprocess.Popen[str]:
        # Without --root what enters would leave a chroot that we are in; env leaves our directory.
        enter = f"nsenter --target {self.pid} --net --mount --pid --root -- env --chdir=/"
        return subprocess.Popen(
            words(enter, *words(*command)),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            text=True,
            env=self._environment() | dict(env or {}),
        )

    @staticmethod
    def _environment() -> dict[str, str]:
        return os.environ | {"PATH": program_path(), "LC_ALL": "C.UTF-8"}


def inside(pid: int, function: Callable[[], T]) -> T:
    """Calls the function in the network of that process, in a temporary thread."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        return visit(namespace.fileno(), function)


def cable(a: Host, b: Host, *, mtu: int = 1500) -> tuple[str, str]:
    """Joins two hosts. Returns the names of the two new devices, which are up."""
    ends = []
    for host in (a, b):
        ends.append(f"eth{host.devices}")
        host.devices += 1
    tool(
        f"ip link add {ends[0]} mtu {mtu} netns {a.pid} type veth"
        f" peer name {ends[1]} mtu {mtu} netns {b.pid}"
    )
    for host, device in zip((a, b), ends, strict=True):
        host.run(f"ip link set {device} up")
    return ends[0], ends[1]


def address(host: Host, device: str, *addresses: str) -> None:
    for item in addresses:
        host.run(f"ip address add {item} dev {device}{' nodad' if ':' in item else ''}")


def wait_for(what: str, condition: Callable[[], object], timeout: float = 30) -> None:
    """Waits until the condition holds. The limit is long, as a busy machine takes many times as
    long as an idle one."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(0.01)


def listens(host: Host, port: int, protocol: str = "tcp") -> bool:
    """Returns whether something in the host accepts TCP, or has bound UDP, at the port."""
    state = {"tcp": "0A", "udp": "07"}[protocol]
    tables = host.output(f"cat /proc/net/{protocol} /proc/net/{protocol}6")
    rows = (line.split() for line in tables.splitlines() if "local_address" not in line)
    return any(row[3] == state and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def await_tunnel(*hosts: Host, port: int = 51820) -> None:
    """Waits for the socket, which a daemon opens a moment after `ip link set up`. An earlier
    initiation would be lost, and the next one come 5 s later."""
    wait_for("the tunnels' sockets", lambda: all(listens(host, port, "udp") for host in hosts))


def keypair() -> tuple[str, str]:
    """Makes a private and a public key in base64 with stock `wg`."""
    private = tool("wg genkey")
    return private, tool("wg pubkey", text=private)


def cpu_seconds(pid: int) -> float:
    """Returns the CPU seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def udp_socket(host: Host, family: socket.AddressFamily, port: int = 0) -> socket.socket:
    """Opens a bound UDP socket in the host."""

    def make() -> socket.socket:
        new = socket.socket(family, socket.SOCK_DGRAM)
        new.bind(("", port))
        return new

    return host.inside(make)


def tool(line: str, *more: str | Path, text: str | None = None) -> str:
    """Runs a command outside any host and returns its output."""
    command = words(line, *more)
    env = Host._environment()
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise LabError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def _said(command: tuple[str | Path, ...]) -> str:
    return " ".join(words(*command))


def _only_child(popen: subprocess.Popen[str]) -> int:
    """Returns the process that unshare or nsenter made, as both fork before the program starts."""
    children = Path(f"/proc/{popen.pid}/task/{popen.pid}/children")
    for _ in range(500):
        with contextlib.suppress(OSError):
            if pids := children.read_text().split():
                return int(pids[0])
        if popen.poll() is not None:
            break
        time.sleep(0.002)
    return popen.pid
