"""The demonstration itself, as root and as an ordinary user."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from interop.harness import MakeHost, as_user, unavailable

from lab import hosts

DEMO = (sys.executable, "-m", "lab.demo")
ROOT = {"PYTHONPATH": str(Path(__file__).parents[2])}
"""`make demo` runs in that folder, these tests' hosts in '/'."""
PROGRAM = str(Path(sys.executable).with_name("wiresnake"))


@pytest.mark.alone  # It counts the pings that a busy machine loses.
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_demo(make_host: MakeHost, user: bool) -> None:
    """In a host of our own, so that nothing of the machine can be in its way or left behind."""
    host = make_host()
    become = as_user(host, "666") if user else []
    if user:
        namespaces = hosts.words("unshare --user --map-root-user true")
        if host.run(*become, *namespaces, check=False).returncode:
            unavailable("user namespaces are closed here: sysctl kernel.unprivileged_userns_clone")
    done = host.run(*become, *DEMO, env=ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"throughput +[0-9.]+ Gbit/s", done.stdout)
    assert re.search(r"stranger +0 answers to 30 datagrams", done.stdout)
    lost = re.search(r"roaming +(\d+) of 300 pings lost", done.stdout)
    assert lost is not None
    assert int(lost[1]) <= 5
    assert user == ("Not root" in done.stdout)
    assert "\033" not in done.stdout, "colours although this is not a terminal"
    assert not host.processes("wiresnaked")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_demo_cleans_up_when_ended(
    make_host: MakeHost, tmp_path: Path, number: signal.Signals
) -> None:
    demo = make_host().start(*DEMO, env=ROOT | {"TMPDIR": str(tmp_path)})
    hosts.wait_for("the demo's files", lambda: any(tmp_path.glob("*/server/wg0.conf")))
    code, said = demo.stop(number, 20)
    assert code == 1
    assert said.endswith("make demo: interrupted; nothing is left behind.\n")
    assert not any(tmp_path.iterdir())


def test_demo_with_a_closed_device_node(make_host: MakeHost) -> None:
    host = make_host()
    done = host.run(*as_user(host, "600"), *DEMO, env=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("make demo: /dev/net/tun is closed to you: run this as root")


def test_help_and_version() -> None:
    for option in ("--help", "--version"):
        assert "wiresnake" in subprocess.check_output([PROGRAM, option], text=True)


@pytest.mark.parametrize("mode", ["666", "600"], ids=["kernel", "user"])
def test_the_demo_of_users(make_host: MakeHost, mode: str) -> None:
    """With Linux's sockets, and with our own where the host refuses those."""
    host = make_host()
    command = (sys.executable, "-m", "lab.rootless")
    done = host.run(*as_user(host, mode), *command, env=ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    stack = "kernel" if mode == "666" else "user"
    assert f"{stack} stack" in done.stdout and "hello 10.9.0.2" in done.stdout
    assert ("its interfaces: lo wg0" in done.stdout) == (stack == "kernel")
    assert host.output("ip -o link").count("\n") == 1
