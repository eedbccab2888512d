"""The inner kernel itself: programs really run in it, and nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from interop.harness import ROOT
from kernel.uml import LINUX

from lab import hosts

TOOL = ROOT / "tools/uml"


def test_a_command_and_its_exit_code(inner_kernel: None, tmp_path: Path) -> None:
    script = (
        f"uname -r; echo kept >{tmp_path}/kept; echo lost >{tmp_path.parent}/lost;"
        " ip link add wg0 type wireguard && wg show wg0 >&2; exit 7"
    )
    done = subprocess.run(
        [TOOL, "--out", tmp_path, "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.strip() not in ("", os.uname().release)
    assert done.stderr == "interface: wg0\n"
    assert (tmp_path / "kept").read_text() == "kept\n"
    assert not (tmp_path.parent / "lost").exists()


def test_hosts_of_our_own_inside(inner_kernel: None) -> None:
    """Namespaces, cables and this project's Python work inside as they do outside."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from lab import hosts\n"
        "with hosts.Host('a') as a, hosts.Host('b') as b:\n"
        "    for number, (host, device) in enumerate(zip((a, b), hosts.cable(a, b)), start=1):\n"
        "        hosts.address(host, device, f'192.0.2.{number}/24')\n"
        "        host.run('ip link add wg0 type wireguard')\n"
        "    print(a.output('ping -q -c1 -W2 192.0.2.2'))\n"
    )
    done = subprocess.run(
        [TOOL, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 packets transmitted, 1 received" in done.stdout


def test_the_kernel_ends_with_its_owner(inner_kernel: None) -> None:
    """It ends even if its owner cannot clean up."""
    before = kernels()
    owner = subprocess.Popen([TOOL, "sh", "-c", "echo up; sleep 60"], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner, owner.stdout:
        assert owner.stdout.readline() == b"up\n"
        assert kernels() - before
        owner.send_signal(signal.SIGKILL)
    hosts.wait_for("the kernel's end", lambda: not kernels() - before)


def kernels() -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == str(LINUX):
                found.add(entry.name)
        except OSError:
            continue  # gone, or a thread of the kernel
    return found
