"""A private Linux kernel with WireGuard: User-Mode Linux on the machine's root file system.

It is an ordinary process in its own host (`lab.hosts`), so it always ends with that host. The
machine's own programs run inside: its root file system is readable, with memory on top for writes.
`tools/uml` runs one command in such a kernel.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from kernel.agent import EXIT, FRAME, PORT, STDERR, STDOUT

from lab import hosts
from lab.hosts import Host, LabError, Process

ROOT = Path(__file__).parents[2]
LINUX = ROOT / ".tools/uml/linux"
HERE, INSIDE = "198.18.0.1", "198.18.0.2"
BOOT_SECONDS = 180
"""Seconds to start. It takes 2 s on an idle machine, and much longer on a busy one."""


class Uml(Host):
    """A host with its own kernel. Commands run in it as root."""

    def __init__(
        self,
        name: str = "kernel",
        *,
        cables: int = 1,
        memory: str = "512M",
        out: Path | None = None,
    ) -> None:
        super().__init__(name)
        try:
            self._boot(cables, memory, out)
        except BaseException:
            self.close()
            raise

    def _boot(self, cables: int, memory: str, out: Path | None) -> None:
        taps = ["control", *(f"cable{number}" for number in range(cables))]
        for tap in taps:
            super().run(f"ip tuntap add {tap} mode tap")
        super().run(f"ip address add {HERE}/30 dev control")
        super().run("ip link set control up")
        line = [
            str(LINUX),
            f"mem={memory}",
            "root=/dev/root rootfstype=hostfs rootflags=/ ro",
            f"init={ROOT}/tests/kernel/init.sh",
            "random.trust_cpu=on quiet uml_dir=/run/uml/ con=null con0=null,fd:1 ssl=null",
            "dummy.numdummies=0",
            f"PYTHON={sys.executable} AGENT={ROOT}/tests/kernel/agent.py",
            f"CONTROL={INSIDE}/30 CABLES={cables} OUT={out or ''}",
            *(
                f"vec{number}:transport=tap,ifname={tap},depth=128,gro=1"
                for number, tap in enumerate(taps)
            ),
        ]
        # Its memory is a file in TMPDIR, gone with the host.
        shell = f"TMPDIR=/run exec {' '.join(line)} >/run/console 2>&1 </dev/null"
        self._linux = super().start("sh -c", shell)
        hosts.wait_for("the inner kernel", self._is_up, BOOT_SECONDS)

    def _is_up(self) -> bool:
        if self._linux.popen.poll() is not None:
            raise LabError(f"the inner kernel has ended: {self.console()}")
        return "ready\n" in self.console()

    def console(self) -> str:
        """Returns the output of the inner kernel and its first program."""
        with contextlib.suppress(FileNotFoundError):
            return Path(f"/proc/{self.pid}/root/run/console").read_text(errors="replace")
        return ""

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        text: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        words = hosts.words(*command)
        call = Call(self, words, text=text, env=env)
        try:
            code, output, errors = call.result(timeout)
        except TimeoutError:
            said = f"{self.name}: {' '.join(words)} took over {timeout} s"
            raise LabError(f"{said}: {self.console()[-2000:]}") from None
        if check and code:
            said = f"{self.name}: {' '.join(words)} exited with {code}"
            raise LabError(f"{said}: {errors}{output}")
        return subprocess.CompletedProcess(words, code, output, errors)

    def start(self, *command: str | Path, env: Mapping[str, str] | None = None) -> Process:
        return Running(Call(self, hosts.words(*command), env=env))

    def cable(self, number: int, host: Host) -> tuple[str, str]:
        """Gives the far end of cable `number` to a host. Returns the names of both devices."""
        far = f"eth{host.devices}"
        host.devices += 1
        near = f"eth{number}"
        silent = f"sysctl -q -w net.ipv6.conf.{near}.disable_ipv6"
        # The device opens its tap when it comes up; after that the tap may move. A packet before
        # the tap is up would be an error that stops the device's sending permanently.
        self.run("sh -c", f"{silent}=1 && ip link set {near} up")
        hosts.tool(
            f"nsenter --net=/proc/{self.pid}/ns/net ip link set cable{number}"
            f" name {far} netns {host.pid}"
        )
        host.run(f"ip link set {far} up")
        self.run(f"{silent}=0")
        return near, far


class Call:
    """A command in the inner kernel, from its start to its exit code."""

    def __init__(
        self,
        uml: Uml,
        command: list[str],
        *,
        text: str | None = None,
        env: Mapping[str, str] | None = None,
        directory: str = "/",
    ) -> None:
        def connect() -> socket.socket:
            return socket.create_connection((INSIDE, PORT), timeout=60)

        self.command = command
        self.connection = uml.inside(connect)
        request = {"command": command, "text": text, "env": dict(env or {}), "directory": directory}
        self.connection.sendall(json.dumps(request).encode() + b"\n")

    def frames(self, timeout: float | None = None) -> Iterator[tuple[int, bytes]]:
        """Yields output as it comes, and finally the exit code. TimeoutError if it takes longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        kind = STDERR
        while kind != EXIT:
            kind, size = FRAME.unpack(self._receive(FRAME.size, deadline))
            yield kind, self._receive(size, deadline)

    def result(self, timeout: float) -> tuple[int, str, str]:
        """Returns exit code, output and errors. A command that takes longer is ended."""
        said: dict[int, list[bytes]] = {}
        with self.connection:
            for kind, data in self.frames(timeout):
                said.setdefault(kind, []).append(data)
        output, errors = (b"".join(said.get(kind, [])).decode() for kind in (STDOUT, STDERR))
        return int(said[EXIT][0]), output, errors

    def kill(self, signum: int) -> None:
        """Sends a signal to the command and all its children."""
        self.connection.sendall(bytes([signum]))

    def _receive(self, size: int, deadline: float | None) -> bytes:
        data = b""
        while len(data) < size:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            self.connection.settimeout(left)
            more = self.connection.recv(size - len(data))
            if not more:
                raise LabError(f"the inner kernel has lost {' '.join(self.command)}")
            data += more
        return data


class Running(Process):
    """A command that is running in the inner kernel."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 30) -> tuple[int, str]:
        with contextlib.suppress(OSError):
            self.call.kill(signum)
        return self.wait(timeout)

    def wait(self, timeout: float) -> tuple[int, str]:
        try:
            code, output, errors = self.call.result(timeout)
        except TimeoutError:
            raise LabError(f"{self.call.command} did not end in {timeout} s") from None
        return code, output + errors


def main() -> int:
    """Runs `tools/uml COMMAND...`."""
    parser = argparse.ArgumentParser(
        prog="tools/uml",
        description="Runs a command as root in a Linux kernel of its own that has WireGuard. "
        "The file system is this machine's; what is written to it is forgotten.",
    )
    parser.add_argument("--memory", default="1G", metavar="SIZE", help="of the kernel (1G)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep what is written in there")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[arguments.command[:1] == ["--"] :]
    if not command:
        parser.error("no command")
    if missing := missing_parts():
        parser.exit(1, f"tools/uml: {missing}\n")
    out = arguments.out and arguments.out.resolve()
    if out and not out.is_dir():
        parser.error(f"{out} is not a directory")
    with Uml(cables=0, memory=arguments.memory, out=out) as uml:
        call = Call(uml, command, env=os.environ, directory=os.getcwd())
        code = 1
        for kind, data in call.frames():
            if kind == EXIT:
                code = int(data)
            else:
                stream = sys.stderr if kind == STDERR else sys.stdout
                stream.buffer.write(data)
                stream.flush()
        return code


def missing_parts() -> str | None:
    """Returns what is missing to start the inner kernel here, and how to get it."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if not LINUX.exists():
        return "the inner kernel is not built: make .stamps/uml"
    return None


if __name__ == "__main__":
    sys.exit(main())
