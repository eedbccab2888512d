"""In containers /proc/sys is often read-only: the tunnel works, and says so once."""

import os
import signal
from pathlib import Path

from interop.harness import Implementation, MakeHost, assert_pings, assert_tcp, configure, ends

from lab import hosts

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"


def test_a_read_only_proc_sys(make_host: MakeHost, ours: Implementation) -> None:
    a, b = ends(make_host("a"), make_host("b"))
    ours.start(b.host)
    a.host.run("sh -c", READ_ONLY)
    assert a.host.run("sysctl -w net.ipv4.conf.all.send_redirects=0", check=False).returncode
    daemon = a.host.start(Path(ours.program), "-f", a.interface, env={"LOG_LEVEL": "verbose"})
    path = Path(f"/proc/{a.host.pid}/root/run/wireguard/{a.interface}.sock")
    hosts.wait_for("the daemon's socket", path.exists)
    configure(a, b)
    assert_pings(a, b)
    a.host.run("ip link set wg0 down")
    a.host.run("ip link set wg0 mtu 1380")
    a.host.run("ip link set wg0 up")
    hosts.await_tunnel(a.host)
    hosts.address(a.host, "wg0", f"{a.inner[6]}/64")  # it went with the link
    assert_pings(a, b)
    assert_tcp(a, b, size=1 << 20)
    (pid,) = a.host.processes(Path(ours.program).name)
    os.kill(pid, signal.SIGTERM)
    code, output = daemon.wait(5)
    assert code == 0, output
    named = [line for line in output.splitlines() if "/proc/sys" in line]
    assert len(named) == 1, output
