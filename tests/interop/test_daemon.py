"""The daemon as its surroundings see it: process, socket file, interface, `wg`.

Every test makes its own network namespaces and ends its own processes; a name is used once.
"""

import base64
import contextlib
import errno
import itertools
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RUN = Path("/var/run/wireguard")
DAEMON = [sys.executable, "-m", "wiresnake.daemon.main"]
KEY = "40" * 32
PEER = "11" * 32

pytestmark = pytest.mark.usefixtures("machine")
_numbers = itertools.count()


def unique(prefix: str) -> str:
    return f"{prefix}{os.getpid() % 100_000}x{next(_numbers)}"


def run(*command: str | int | Path, check: bool = True, text: str | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=20, input=text
    )
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.returncode}: {done.stderr}")
    return done.stdout + ("" if check else done.stderr)


BUSY = 15
"""So many times as long as on a free machine may anything take on a busy one."""


def wait(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Fails unless the condition holds within the time, or `BUSY` times that."""
    end = time.monotonic() + BUSY * seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Namespace:
    """A network namespace; whatever runs in it ends with it."""

    def __init__(self) -> None:
        self.name = unique("wsd")
        run("ip", "netns", "add", self.name)
        self("ip", "link", "set", "lo", "up")

    def __call__(self, *command: str | int | Path, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.name, *command, check=check)

    def command(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def pids(self) -> list[int]:
        return [int(pid) for pid in run("ip", "netns", "pids", self.name).split()]

    def delete(self) -> None:
        if not Path("/run/netns", self.name).exists():
            return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        wait(lambda: not self.pids(), 5, "all processes end")
        run("ip", "netns", "delete", self.name)


class Daemon:
    """A daemon in the foreground, whose interface and process this test owns."""

    def __init__(self, namespace: Namespace, *options: str, **environment: str) -> None:
        self.namespace = namespace
        self.interface = unique("w")
        self.path = RUN / f"{self.interface}.sock"
        command = namespace.command(*DAEMON, "-f", *options, self.interface)
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        wait(self.answers, 10, "the socket answers")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def wg(self, *words: str | int | Path | Path, check: bool = True) -> str:
        """`wg set IFACE words`."""
        return run("wg", "set", self.interface, *words, check=check)

    def show(self, what: str) -> str:
        return run("wg", "show", self.interface, what).strip()

    def link(self, *words: str | int | Path, namespace: Namespace | None = None) -> None:
        (namespace or self.namespace)("ip", "link", "set", self.interface, *words)

    def sockets(self) -> dict[int, set[int]]:
        """Inodes of the UDP sockets of the namespace, by port."""
        found: dict[int, set[int]] = {}
        for version in ("udp", "udp6"):
            for line in self.namespace("cat", f"/proc/net/{version}").splitlines()[1:]:
                words = line.split()
                found.setdefault(int(words[1].rpartition(":")[2], 16), set()).add(int(words[9]))
        return found

    def ended(self, seconds: float) -> int:
        return self.process.wait(BUSY * seconds)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make_namespace(stack: contextlib.ExitStack) -> Callable[[], Namespace]:
    def make() -> Namespace:
        namespace = Namespace()
        stack.callback(namespace.delete)
        return namespace

    return make


@pytest.fixture
def home(make_namespace: Callable[[], Namespace]) -> Namespace:
    return make_namespace()


@pytest.fixture
def make_daemon(home: Namespace, stack: contextlib.ExitStack) -> Callable[..., Daemon]:
    def make(*options: str, namespace: Namespace = home, **environment: str) -> Daemon:
        daemon = Daemon(namespace, *options, **environment)

        def end() -> None:
            daemon.process.kill()
            daemon.process.wait()
            if daemon.process.stderr is not None:
                daemon.process.stderr.close()
            daemon.path.unlink(missing_ok=True)

        stack.callback(end)
        return daemon

    return make


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    return make_daemon()


def talk(daemon: Daemon, *operations: str | bytes) -> list[str]:
    """Sends operations one by one over one connection, and reads an answer to each."""
    answers = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(daemon.path))
        for operation in operations:
            connection.sendall(operation if isinstance(operation, bytes) else operation.encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                chunk = connection.recv(1 << 16)
                if not chunk:
                    break
                answer += chunk
            answers.append(answer.decode())
    return answers


def refused(namespace: Namespace, *words: str, **environment: str) -> str:
    """The one line that a daemon, which must not start, says."""
    done = subprocess.run(
        namespace.command(*words),
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"wiresnaked: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


# The process


def test_it_daemonises_once_the_socket_answers(home: Namespace) -> None:
    interface = unique("w")
    run(*home.command(*DAEMON, interface))
    assert run("wg", "show", interface, "listen-port") == "0\n"
    [pid] = home.pids()
    assert os.path.samefile(f"/proc/{pid}/cwd", f"/proc/{pid}/root")
    assert os.getsid(pid) == pid
    assert all(os.path.samefile(f"/proc/{pid}/fd/{fd}", os.devnull) for fd in range(3))
    home("ip", "link", "delete", interface)
    wait(lambda: not home.pids(), 1, "the daemon ends")
    assert not (RUN / f"{interface}.sock").exists()


def test_the_foreground_by_environment(make_daemon: Callable[..., Daemon]) -> None:
    interface = make_daemon(WG_PROCESS_FOREGROUND="1").interface
    assert run("wg", "show", interface, "fwmark") == "off\n"


def test_a_daemon_keeps_no_lock_of_its_parent(home: Namespace) -> None:
    reader, writer = os.pipe()
    command = home.command(*DAEMON, unique("w"))
    subprocess.run(command, check=True, pass_fds=[writer], timeout=20)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(daemon: Daemon, number: signal.Signals) -> None:
    daemon.link("up")
    daemon.process.send_signal(number)
    assert daemon.ended(2) == 0
    assert daemon.process.communicate()[1] == ""
    assert not daemon.path.exists()
    assert daemon.interface not in daemon.namespace("ip", "link")


def test_deleting_the_socket_file_ends_it(daemon: Daemon) -> None:
    daemon.path.unlink()
    assert daemon.ended(1) == 0


def test_touching_the_socket_file_does_not_end_it(daemon: Daemon) -> None:
    daemon.path.chmod(0o700)
    time.sleep(0.2)
    assert daemon.answers()


def test_a_socket_file_of_another_is_left_alone(daemon: Daemon) -> None:
    daemon.path.rename(daemon.path.with_suffix(".old"))
    daemon.path.touch()
    assert daemon.ended(1) == 0
    assert daemon.path.exists()
    daemon.path.with_suffix(".old").unlink()


@pytest.mark.parametrize("state", ["up", "down"])
def test_deleting_the_interface_ends_it(daemon: Daemon, state: str) -> None:
    daemon.link(state)
    daemon.namespace("ip", "link", "delete", daemon.interface)
    assert daemon.ended(1) == 0
    assert not daemon.path.exists()


@pytest.mark.alone
def test_it_sleeps_while_idle(daemon: Daemon) -> None:
    daemon.link("up")
    daemon.show("peers")

    def switches() -> list[str]:
        tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/status")
        return [line for task in tasks for line in task.read_text().splitlines() if "ctxt" in line]

    time.sleep(0.5)
    before = switches()
    time.sleep(2)
    assert switches() == before


@pytest.mark.item(105, 106)
def test_memory_and_descriptors_are_its_own(daemon: Daemon) -> None:
    process = Path(f"/proc/{daemon.process.pid}")
    assert re.search(r"Max core file size +0 +0 ", (process / "limits").read_text())
    for descriptor in (process / "fdinfo").iterdir():
        flags = re.search(r"flags:\s+([0-7]+)", descriptor.read_text())
        assert flags is not None
        if int(descriptor.name) > 2:
            assert int(flags[1], 8) & os.O_CLOEXEC, os.readlink(process / "fd" / descriptor.name)


@pytest.mark.item(105)
def test_no_secret_is_logged(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(LOG_LEVEL="debug")
    secret = run("wg", "genkey").strip()
    run("wg", "setconf", daemon.interface, "/dev/stdin", text=f"[Interface]\nPrivateKey={secret}\n")
    talk(daemon, f"set=1\n{KEY}\n\n", f"set=1\n{KEY}=1\n\n", f"set=1\npreshared_key={KEY}\n\n")
    daemon.process.terminate()
    log = daemon.process.communicate(timeout=5)[1]
    assert "UAPI set" in log
    assert secret[:12] not in log
    assert KEY[:12] not in log


def count_in_memory(daemon: Daemon, *needles: bytes) -> int:
    """How often any of these is in the daemon's writable memory."""
    process = Path("/proc", str(daemon.process.pid))
    found = 0
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            place, access = line.split()[:2]
            start, end = (int(number, 16) for number in place.split("-"))
            if access.startswith("rw"):
                memory.seek(start)
                with contextlib.suppress(OSError):
                    data = memory.read(end - start)
                    found += sum(map(data.count, needles))
    return found


@pytest.mark.parametrize("way", ["config", "set", "setconf"])
@pytest.mark.item(105)
def test_keys_that_are_taken_back_leave_memory(
    make_daemon: Callable[..., Daemon], tmp_path: Path, way: str
) -> None:
    private, preshared = run("wg", "genkey").strip(), run("wg", "genpsk").strip()
    peer = run("wg", "pubkey", text=run("wg", "genkey")).strip()
    file = tmp_path / "wg.conf"
    file.write_text(
        f"[Interface]\nPrivateKey={private}\n[Peer]\nPublicKey={peer}\nPresharedKey={preshared}\n"
        "Endpoint=127.0.0.1:9\nPersistentKeepalive=1\nAllowedIPs=10.0.0.0/8\n"
    )
    daemon = make_daemon(*(["--config", str(file)] if way == "config" else []))
    if way == "setconf":
        run("wg", "setconf", daemon.interface, file)
    elif way == "set":
        (tmp_path / "key").write_text(private)
        (tmp_path / "psk").write_text(preshared)
        daemon.wg("private-key", tmp_path / "key", "peer", peer, "preshared-key", tmp_path / "psk",
                  "endpoint", "127.0.0.1:9", "persistent-keepalive", 1)  # fmt: skip
    daemon.link("up")
    wait(lambda: daemon.show("transfer").split()[2] != "0", 2, "a handshake begins")
    assert preshared in run("wg", "showconf", daemon.interface)
    for key in private, preshared:
        assert count_in_memory(daemon, base64.b64decode(key)) > 0
    daemon.wg("private-key", "/dev/null", "peer", peer, "remove")
    for key in private, preshared:
        raw = base64.b64decode(key)
        assert count_in_memory(daemon, raw, raw.hex().encode(), key.encode()) == 0


@pytest.mark.skipif(Path("/sys/module/wireguard").exists(), reason="wg-quick takes the kernel's")
def test_wg_quick_takes_it(
    home: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As WG_QUICK_USERSPACE_IMPLEMENTATION, under the name by which users will give it."""
    program = tmp_path / "wiresnaked"
    program.write_text(f'#!/bin/sh\nexec {" ".join(DAEMON)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("WG_QUICK_USERSPACE_IMPLEMENTATION", str(program))
    key, interface = run("wg", "genkey").strip(), unique("w")
    file = tmp_path / f"{interface}.conf"
    file.write_text(f"[Interface]\nPrivateKey={key}\nAddress=10.7.0.1/24\nMTU=1380\n")
    file.chmod(0o600)
    home("wg-quick", "up", str(file))
    assert run("wg", "show", interface, "private-key").strip() == key
    details = home("ip", "address", "show", interface)
    assert "mtu 1380" in details
    assert re.findall("inet6? [^ ]+", details) == ["inet 10.7.0.1/24"]
    home("wg-quick", "down", str(file))
    wait(lambda: not home.pids(), 1, "the daemon ends")


# What it refuses to start with


@pytest.mark.parametrize("name", ["a/b", "..", "x" * 16, "a b", "wg%d"])
@pytest.mark.item(101)
def test_bad_names_are_refused(home: Namespace, name: str) -> None:
    assert "is not a valid interface name" in refused(home, *DAEMON, name)


@pytest.mark.parametrize("options", [[], ["-f"]], ids=["background", "foreground"])
def test_an_existing_interface(home: Namespace, options: list[str]) -> None:
    home("ip", "tuntap", "add", "mode", "tap", "name", "tap9")
    home("ip", "tuntap", "add", "mode", "tun", "multi_queue", "name", "many9")
    home("ip", "link", "add", "veth9", "type", "veth", "peer", "name", "veth10")
    for name in ("lo", "tap9", "veth9"):
        message = refused(home, *DAEMON, *options, name)
        assert "exists and is not a TUN device: choose another name" in message
        assert "delete" not in message
    assert "make it without" in refused(home, *DAEMON, *options, "many9")
    links = [line.split()[0] for line in home("ip", "-brief", "link").splitlines()]
    assert {"tap9", "many9"} <= set(links), "they are left as they were"


def test_an_interface_that_another_process_has_open(daemon: Daemon) -> None:
    message = refused(daemon.namespace, *DAEMON, daemon.interface)
    assert "in use by another process: choose another name" in message
    assert daemon.answers()


@pytest.mark.parametrize("options", [[], ["vnet_hdr"]], ids=["plain", "vnet_hdr"])
@pytest.mark.parametrize("mtu", [1500, 1300])
def test_a_tun_device_that_was_made_before_is_taken_and_left(
    home: Namespace, options: list[str], mtu: int
) -> None:
    """As wireguard-go takes it, by an owner who may do nothing else. Up it stays up."""
    name = unique("w")
    home("ip", "tuntap", "add", "mode", "tun", "user", "root", *options, "name", name)
    home("ip", "link", "set", name, "mtu", mtu, "up")
    owner = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    for rights, expected in (owner, mtu), ([], 1420 if mtu == 1500 else mtu):
        run(*home.command(*rights, *DAEMON, name))
        run("wg", "set", name, "private-key", "/dev/stdin", text=run("wg", "genkey"))
        assert int(run("wg", "show", name, "listen-port")) > 0, "it is up"
        assert f"mtu {expected} " in home("ip", "link", "show", name)
        [process] = home.pids()
        os.kill(process, signal.SIGTERM)
        wait(lambda: not home.pids(), 2, "the daemon ends")
        assert "NO-CARRIER" in home("ip", "link", "show", name)
        assert not (RUN / f"{name}.sock").exists()


@pytest.mark.item(101)
def test_a_live_socket_is_not_taken_over(
    daemon: Daemon, make_namespace: Callable[[], Namespace]
) -> None:
    assert "in use" in refused(make_namespace(), *DAEMON, daemon.interface)
    assert daemon.answers()


@pytest.mark.item(101)
def test_a_stale_socket_is_replaced(daemon: Daemon) -> None:
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.path.exists()
    again = daemon.namespace.command(*DAEMON, daemon.interface)
    subprocess.run(again, check=True, timeout=20)
    assert daemon.show("listen-port") == "0"


def test_without_permission(home: Namespace) -> None:
    unprivileged = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    for name in unique("w"), os.fsdecode(b"w\xff"):
        assert "CAP_NET_ADMIN" in refused(home, *unprivileged, *DAEMON, name)


def test_without_a_tun_driver(home: Namespace) -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    message = refused(home, "unshare", "-m", "sh", "-c", hide, "sh", *DAEMON, unique("w"))
    assert "/dev/net/tun" in message


def test_a_bad_configuration(home: Namespace, tmp_path: Path) -> None:
    file = tmp_path / "wg.conf"
    file.write_text("[Interface]\nAddress = 10.0.0.1/24\n")
    assert f"{file}:2:1: 'Address'" in refused(home, *DAEMON, "--config", str(file), unique("w"))
    assert "cannot read" in refused(home, *DAEMON, "--config", "/nonexistent", unique("w"))
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/null"):
        message = refused(home, *DAEMON, "--config", str(path), unique("w"))
        assert "not a regular file" in message or "Is a directory" in message


@pytest.mark.parametrize("name", ["WG_TUN_FD", "WG_UAPI_FD"])
@pytest.mark.parametrize("value", ["x", "-1", "999", "99999999999999", "0"])
def test_bad_descriptors(home: Namespace, name: str, value: str) -> None:
    assert name in refused(home, *DAEMON, unique("w"), **{name: value})


# Taking over what others opened


def test_descriptors_are_taken_over(home: Namespace) -> None:
    name = unique("w")
    opener = f"""
import os
from wiresnake.daemon import uapi_server
from wiresnake.linux import tun
device, listener = tun.create({name!r}), uapi_server.listen({name!r})
for fd in device.fd, listener.fileno():
    os.set_inheritable(fd, True)
os.environ.update(WG_TUN_FD=str(device.fd), WG_UAPI_FD=str(listener.fileno()))
os.execv({sys.executable!r}, {[*DAEMON, name]!r})
"""
    run(*home.command(sys.executable, "-c", opener))
    run("wg", "set", name, "listen-port", "7777")
    home("ip", "link", "set", name, "up")
    assert run("wg", "show", name, "listen-port") == "7777\n"
    home("ip", "link", "delete", name)
    wait(lambda: not (RUN / f"{name}.sock").exists(), 1, "the socket file goes")


@pytest.mark.parametrize("flags", [0x1002, 0x0001], ids=["TAP", "TUN with packet information"])
def test_a_device_that_cannot_be_taken_over(home: Namespace, flags: int) -> None:
    name = unique("w")
    opener = f"""
import fcntl, os, struct
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", {name.encode()!r}, {flags}))
os.set_inheritable(fd, True)
os.environ.update(WG_TUN_FD=str(fd))
os.execv({sys.executable!r}, {[*DAEMON, name]!r})
"""
    assert "IFF_TUN and IFF_NO_PI" in refused(home, sys.executable, "-c", opener)


def test_settings_that_cannot_be_written_are_said_once(home: Namespace) -> None:
    freeze = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"'
    name = unique("w")
    process = subprocess.Popen(
        home.command("unshare", "-m", "sh", "-c", freeze, "sh", *DAEMON, "-f", name),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait((RUN / f"{name}.sock").exists, 10)
    process.terminate()
    said = process.communicate(timeout=5)[1]
    assert said.count("\n") == 1
    assert f"cannot set /proc/sys/net/ipv6/conf/{name}/addr_gen_mode to 1: Read-only" in said


def test_a_configuration_is_applied_first(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    key = run("wg", "genkey").strip()
    (tmp_path / "wg.conf").write_text(f"[Interface]\nPrivateKey={key}\nListenPort=domain\n")
    daemon = make_daemon("--config", str(tmp_path / "wg.conf"))
    assert daemon.show("private-key") == key
    assert daemon.show("listen-port") == "53"


# The socket


@pytest.mark.item(101)
def test_the_socket_is_for_root_alone(daemon: Daemon) -> None:
    assert stat.filemode(daemon.path.stat().st_mode) == "srwx------"
    assert stat.S_IMODE(RUN.stat().st_mode) == 0o755


def test_wg_sets_and_shows(daemon: Daemon, tmp_path: Path) -> None:
    private, preshared = run("wg", "genkey").strip(), run("wg", "genpsk").strip()
    peer = run("wg", "pubkey", text=run("wg", "genkey")).strip()
    (tmp_path / "key").write_text(private)
    (tmp_path / "psk").write_text(preshared)
    daemon.wg("private-key", tmp_path / "key", "listen-port", 5000, "fwmark", "0x1f")
    daemon.wg("peer", peer, "preshared-key", tmp_path / "psk", "endpoint", "[2001:db8::1]:5",
              "persistent-keepalive", 25, "allowed-ips", "10.0.0.1/8,::/0")  # fmt: skip
    public = run("wg", "pubkey", text=private).strip()
    assert run("wg", "show", daemon.interface, "dump") == (
        f"{private}\t{public}\t5000\t0x1f\n"
        f"{peer}\t{preshared}\t[2001:db8::1]:5\t10.0.0.0/8,::/0\t0\t0\t0\t25\n"
    )
    configuration = run("wg", "showconf", daemon.interface)
    run("wg", "setconf", daemon.interface, "/dev/stdin", text=configuration)
    assert run("wg", "showconf", daemon.interface) == configuration
    daemon.wg("private-key", "/dev/null", "fwmark", "off", "peer", peer, "remove")
    assert run("wg", "show", daemon.interface, "dump") == "(none)\t(none)\t5000\toff\n"


@pytest.mark.item(80)
def test_an_endpoint_may_name_its_zone(daemon: Daemon) -> None:
    daemon.namespace("ip", "link", "add", "va", "type", "veth", "peer", "name", "vb")
    index = daemon.namespace("cat", "/sys/class/net/va/ifindex").strip()
    [answer] = talk(daemon, f"set=1\npublic_key={PEER}\nendpoint=[fe80::1%va]:5\n\n")
    assert answer == "errno=0\n\n"
    assert f"endpoint=[fe80::1%{index}]:5\n" in talk(daemon, "get=1\n\n")[0]
    assert run("wg", "show", daemon.interface, "endpoints").count("fe80::1") == 1


def test_several_operations_on_a_connection(daemon: Daemon) -> None:
    sets = "set=1\nlisten_port=7\n\n", "set=1\nlisten_port=70000\n\n", "set=1\nnonsense\n\n"
    answers = talk(daemon, *sets, "get=1\n\n", "get=1\nx\n")
    assert answers == [
        "errno=0\n\n",
        f"errno=-{errno.EINVAL}\n\n",
        f"errno=-{errno.EPROTO}\n\n",
        "listen_port=7\nerrno=0\n\n",
        f"errno={errno.EINVAL}\n\n",
    ]


@pytest.mark.parametrize(
    "operation", ["bad=1\n\n", "\n", "get=2\n\n", "set=1 \n\n", "x" * 5 + "\n"]
)
def test_an_unknown_operation_closes_silently(daemon: Daemon, operation: str) -> None:
    assert talk(daemon, operation) == [""]


@pytest.mark.item(102)
def test_a_line_too_long_is_refused(daemon: Daemon) -> None:
    with contextlib.suppress(BrokenPipeError):
        assert talk(daemon, "set=1\nlisten_port=" + "1" * 15_000 + "\n\n") == ["errno=-22\n\n"]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.path))
        with contextlib.suppress(OSError):
            connection.sendall(b"set=1\nprivate_key=" + b"1" * 1_000_000 + b"\n\n")
        assert connection.recv(100) == b"errno=-5\n\n"
    assert daemon.answers()


@pytest.mark.item(104)
def test_a_set_is_applied_whole_or_not_at_all(daemon: Daemon) -> None:
    lines = (
        f"private_key={KEY}\nlisten_port=9\nfwmark=3\npublic_key={PEER}\nallowed_ip=10.0.0.0/8\n"
    )
    empty = "errno=0\n\n"
    assert talk(daemon, f"set=1\n{lines}allowed_ip=10.0.0.0/33\n\n") == ["errno=-22\n\n"]
    assert talk(daemon, "get=1\n\n") == [empty]
    for cut in (f"set=1\n{lines}", f"set=1\n{lines[:-1]}"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(daemon.path))
            connection.sendall(cut.encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
    assert talk(daemon, "get=1\n\n") == [empty]


@pytest.mark.item(102)
def test_a_set_may_come_byte_by_byte(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.path))
        for byte in f"set=1\nprivate_key={KEY}\n\n".encode():
            connection.sendall(bytes([byte]))
        assert connection.recv(100) == b"errno=0\n\n"
    assert talk(daemon, "get=1\n\n") == [f"private_key={KEY}\nerrno=0\n\n"]


@pytest.mark.item(102)
def test_clients_that_hang_hurt_nobody(daemon: Daemon) -> None:
    with contextlib.ExitStack() as hung:
        for _ in range(300):
            connection = hung.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(daemon.path))
            connection.sendall(b"set=1\nlisten_port=1")
        begin = time.monotonic()
        assert talk(daemon, "get=1\n\n") == ["errno=0\n\n"]
        assert time.monotonic() - begin < BUSY


def test_without_descriptors_it_waits_for_better_times(daemon: Daemon) -> None:
    pid = daemon.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")), limits[1]))

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15]))

    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2 * BUSY)
        connection.connect(str(daemon.path))
        connection.sendall(b"get=1\n\n")
        before = ticks()
        time.sleep(0.5)
        assert ticks() - before < 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert connection.recv(100) == b"errno=0\n\n"


def test_a_large_set_lets_others_be_served(daemon: Daemon) -> None:
    allowed = "".join(f"allowed_ip=10.{a}.{b}.0/24\n" for a in range(250) for b in range(256))
    large = f"set=1\npublic_key={PEER}\nallowed_ip=::/0\n{allowed}\n"
    writer = threading.Thread(target=talk, args=(daemon, large))
    writer.start()
    served = 0
    while writer.is_alive():
        talk(daemon, "get=1\n\n")
        served += 1
    assert served > 3
    assert len(talk(daemon, "get=1\n\n")[0].splitlines()) > 64_000


# The port and the mark


def test_a_port_of_its_own_choice(daemon: Daemon) -> None:
    assert daemon.show("listen-port") == "0"
    daemon.link("up")
    wait(lambda: daemon.show("listen-port") != "0", 1, "a port is chosen")
    port = int(daemon.show("listen-port"))
    assert len(daemon.sockets()[port]) == 2
    daemon.link("down")
    wait(lambda: not daemon.sockets(), 1, "down closes the sockets")
    assert int(daemon.show("listen-port")) == port
    daemon.link("up")
    wait(lambda: port in daemon.sockets(), 1, "the same port again")


def test_a_port_set_while_down_is_remembered(daemon: Daemon) -> None:
    daemon.wg("listen-port", 7000)
    assert daemon.sockets() == {}
    daemon.link("up")
    wait(lambda: 7000 in daemon.sockets(), 1, "the port is bound")


@pytest.mark.item(83)
def test_the_same_port_is_not_bound_again(daemon: Daemon) -> None:
    daemon.wg("listen-port", 7000)
    daemon.link("up")
    wait(lambda: 7000 in daemon.sockets(), 1)
    before = daemon.sockets()
    daemon.wg("listen-port", 7000, "fwmark", 5)
    assert daemon.sockets() == before
    assert "fwmark:0x5" in daemon.namespace("ss", "-uane")
    daemon.wg("fwmark", "off")
    assert daemon.sockets() == before
    daemon.wg("listen-port", 7001)
    assert list(daemon.sockets()) == [7001]


@pytest.mark.item(83)
def test_any_port_anew_and_a_whole_configuration(daemon: Daemon, tmp_path: Path) -> None:
    daemon.link("up")
    wait(daemon.sockets, 1)
    port = daemon.show("listen-port")
    key = run("wg", "genkey").strip()
    (tmp_path / "wg.conf").write_text(f"[Interface]\nPrivateKey={key}\n")
    for command in ("syncconf", "setconf"):
        run("wg", command, daemon.interface, tmp_path / "wg.conf")
        assert daemon.show("listen-port") == port
    daemon.wg("listen-port", 0)
    assert daemon.show("listen-port") not in ("0", port)


def test_a_busy_port_keeps_the_old_one(daemon: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    other = make_daemon()
    for one, port in ((daemon, 7000), (other, 7001)):
        one.wg("listen-port", port)
        one.link("up")
    wait(lambda: {7000, 7001} <= daemon.sockets().keys(), 1)
    before = daemon.sockets()
    peer = run("wg", "pubkey", text=run("wg", "genkey")).strip()
    message = daemon.wg("listen-port", 7001, "fwmark", 9, "peer", peer, check=False)
    assert "Address already in use" in message
    assert daemon.sockets() == before
    state = [daemon.show(what) for what in ("listen-port", "fwmark", "peers")]
    assert state == ["7000", "off", ""]


def test_up_with_a_busy_port_waits_for_another(make_daemon: Callable[..., Daemon]) -> None:
    first, second = make_daemon(), make_daemon()
    for one in (first, second):
        one.wg("listen-port", 7000)
    first.link("up")
    wait(first.sockets, 1)
    second.link("up")
    assert "Address already in use" in second.wg("listen-port", 7000, check=False)
    second.wg("listen-port", 7001)
    assert sorted(second.sockets()) == [7000, 7001]
    second.process.terminate()
    assert "port 7000 is in use" in second.process.communicate(timeout=5)[1]


@pytest.mark.item(79)
def test_the_port_is_bound_without_ipv6(daemon: Daemon) -> None:
    with contextlib.suppress(AssertionError):
        daemon.namespace("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    daemon.wg("listen-port", 7000)
    daemon.link("up")
    wait(lambda: 7000 in daemon.sockets(), 1)


# The interface


@pytest.mark.item(98)
def test_a_new_interface_has_the_mtu_and_settings_of_a_tunnel(daemon: Daemon) -> None:
    details = daemon.namespace("ip", "-d", "link", "show", daemon.interface)
    assert "mtu 1420" in details
    assert "qlen 1000" in details
    assert "DOWN" in details
    daemon.link("up")
    assert "inet6" not in daemon.namespace("ip", "address", "show", daemon.interface)
    setting = f"/proc/sys/net/ipv4/conf/{daemon.interface}/send_redirects"
    assert daemon.namespace("cat", setting) == "0\n"


@pytest.mark.item(78)
def test_what_may_lead_elsewhere_is_heard(home: Namespace) -> None:
    """Routes, rules, next hops and links of both IP versions, and an address that goes. A new one,
    or an old one's new lifetime (SLAAC), takes no route away. Then the kernel is asked; whether
    anything is forgotten is its answer's to say (test_sticky.py)."""
    watcher = """
import asyncio, subprocess
from unittest.mock import Mock
from wiresnake.tunnel import routes
from wiresnake.tunnel.routes import Flow, Routes
def ip(words):
    subprocess.run(["ip", *words.split()], check=True)
async def main():
    routes._REST, heard = 0, []
    watch = Routes(Mock(), lambda: heard.append(1) or [], lambda: Flow(0, 7, 0))
    ip("link set lo up")
    ip("address add 10.1.1.1/32 dev lo")
    for words in (
        "address change 10.1.1.1/32 dev lo valid_lft 1000 preferred_lft 500",
        "address change 10.1.1.1/32 dev lo valid_lft 900 preferred_lft 400",
        "route add 10.1.2.0/24 dev lo",
        "-6 route add 2001:db8::/64 dev lo",
        "rule add to 10.1.2.0/24 lookup 7",
        "-6 rule add to 2001:db8::/64 lookup 7",
        "nexthop add id 7 dev lo",
        "link set lo mtu 60000",
        "address delete 10.1.1.1/32 dev lo",
    ):
        await asyncio.sleep(0.2)
        heard.clear()
        ip(words)
        await asyncio.sleep(0.2)
        print("heard", bool(heard))
    watch.close()
asyncio.run(main())
"""
    said = re.findall("heard (.*)", home(sys.executable, "-c", watcher))
    assert said == ["False", "False", *["True"] * 7]


def test_it_follows_the_interface_elsewhere(
    daemon: Daemon, make_namespace: Callable[[], Namespace]
) -> None:
    away, further = make_namespace(), make_namespace()
    daemon.wg("listen-port", 7000)
    daemon.link("up")
    wait(daemon.sockets, 1, "up at home")
    daemon.link("netns", away.name)
    wait(lambda: not daemon.sockets(), 1, "a move takes it down")
    daemon.link("up", namespace=away)
    wait(daemon.sockets, 1, "up elsewhere, sockets at home")
    assert "inet6" not in away("ip", "address", "show", daemon.interface)
    daemon.link("down", namespace=away)
    wait(lambda: not daemon.sockets(), 1, "down elsewhere")
    daemon.link("netns", further.name, namespace=away)
    daemon.link("up", "mtu", 1300, namespace=further)
    wait(daemon.sockets, 1, "up still further away")
    daemon.link("netns", daemon.namespace.name, namespace=further)
    wait(lambda: not daemon.sockets(), 1, "back home, down")
    daemon.link("up")
    wait(daemon.sockets, 1, "up at home again")
    assert daemon.process.poll() is None
    daemon.link("netns", away.name)
    away("ip", "link", "delete", daemon.interface)
    assert daemon.ended(1) == 0
    assert not daemon.path.exists()


@pytest.mark.parametrize("state", ["up", "down"])
def test_the_interface_ends_with_its_namespace(
    daemon: Daemon, make_namespace: Callable[[], Namespace], state: str
) -> None:
    away = make_namespace()
    daemon.link("netns", away.name)
    daemon.link(state, namespace=away)
    time.sleep(0.2)
    away.delete()
    assert daemon.ended(2) == 0
    assert not daemon.path.exists()


def test_following_without_permission(
    home: Namespace, make_namespace: Callable[[], Namespace]
) -> None:
    away, name = make_namespace(), unique("w")
    limited = ["setpriv", "--bounding-set", "-net_broadcast,-sys_admin"]
    process = subprocess.Popen(
        home.command(*limited, *DAEMON, "-f", name), stderr=subprocess.PIPE, text=True
    )
    wait((RUN / f"{name}.sock").exists, 10)
    run("wg", "set", name, "listen-port", "7000")
    home("ip", "link", "set", name, "netns", away.name)
    wait(lambda: "1B58" in home("cat", "/proc/net/udp"), 1, "taken as up")
    home("ip", "link", "set", "lo", "mtu", 60000)  # Another interface's event says nothing new.
    away("ip", "link", "set", name, "netns", home.name)
    wait(lambda: "1B58" not in home("cat", "/proc/net/udp"), 1, "seen again at home")
    home("ip", "link", "set", name, "netns", away.name)
    wait(lambda: "1B58" in home("cat", "/proc/net/udp"), 1, "taken as up again")
    away("ip", "link", "delete", name)
    assert process.wait(BUSY) == 0
    assert process.communicate()[1].count("cannot follow") == 2
