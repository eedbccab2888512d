"""The interface moves into another namespace, and the sockets stay where they were born."""

import shutil
import stat
import sys
from pathlib import Path

from interop.harness import (
    ROOT,
    End,
    Implementation,
    MakeHost,
    assert_pings,
    assert_tcp,
    configuration,
    ends,
    unavailable,
)

from wiresnake.cli import lab
from wiresnake.cli.lab import Host


def moved(make_host: MakeHost, ours: Implementation) -> tuple[End, End, Host]:
    """A tunnel whose interface lives in a host without any other network; `wg` stays outside."""
    a, b = ends(make_host("outside"), make_host("peer"))
    container = make_host("container")
    for end, other, version in ((a, b, 4), (b, a, None)):
        ours.start(end.host)
        text = configuration(end, other, outer=version)
        end.wg("setconf", "wg0", "/dev/stdin", text=text)
    b.up()
    # In no host's process namespace: there the container's pid would be another.
    lab.tool(f"nsenter --target {a.host.pid} --net ip link set wg0 netns {container.pid}")
    inner = End(container, "none", a.outer, a.inner, private=a.private, public=a.public)
    inner.up()
    return inner, b, a.host


def test_moved_interface_carries_traffic(make_host: MakeHost, ours: Implementation) -> None:
    inner, b, outside = moved(make_host, ours)
    assert "wg0" in inner.host.output("ip -br link")
    assert "wg0" not in outside.output("ip -br link")
    assert_pings(inner, b)
    assert_tcp(inner, b, 4)
    assert_tcp(b, inner, 6)
    assert b.peer_endpoint() == inner.endpoint(4)
    assert outside.output("wg show wg0 listen-port") == f"{inner.port}\n"


def test_moved_interface_follows_its_link(make_host: MakeHost, ours: Implementation) -> None:
    """Down, up, another MTU and deletion are noticed over there too."""
    inner, b, outside = moved(make_host, ours)
    assert_pings(inner, b)
    inner.host.run("ip link set wg0 down")
    inner.host.run("ip link set wg0 mtu 1300 up")
    lab.address(inner.host, "wg0", f"{inner.inner[6]}/64")  # the kernel took it when down
    assert_pings(inner, b)
    assert_tcp(inner, b)
    inner.host.run("ip link delete wg0")
    program = Path(ours.program).name
    lab.wait_for("the daemon to end", lambda: not outside.processes(program), timeout=1)
    assert outside.output("wg show interfaces") == ""


# A device node of our own on a tmpfs; the machine's is never touched.
OWN_NODE = """
set -e
mkdir -p /run/dev
mount -t tmpfs -o dev tmpfs /run/dev
mknod /run/dev/tun c 10 200
chmod {mode} /run/dev/tun
mkdir -p /dev/net 2>/dev/null || true
mount --bind /run/dev/tun /dev/net/tun
"""

# An ordinary user must be able to read Python and this tree, wherever they lie (in root's home,
# say): a closed folder on the way gets an open one on top that holds just the needed parts.
OPEN_FOLDER = """
set -e
n=0
for needed in {needed}; do
    n=$((n + 1)); mkdir -p /run/keep/$n; mount --bind "$needed" /run/keep/$n
done
mount -t tmpfs -o mode=755 tmpfs {closed}
n=0
for needed in {needed}; do
    n=$((n + 1)); mkdir -p "$needed"; mount --bind /run/keep/$n "$needed"
done
"""
USER = "65534"


def as_user(host: Host, mode: str) -> list[str]:
    """A host whose /dev/net/tun has that mode, and the command that becomes a user in it."""
    host.run("sh -c", OWN_NODE.format(mode=mode))
    needed = [str(ROOT), str(Path(sys.base_prefix).resolve())]
    closed: dict[str, list[str]] = {}
    for path in needed:
        for parent in reversed(Path(path).parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(str(parent), []).append(path)
                break
    for folder, parts in closed.items():
        host.run("sh -c", OPEN_FOLDER.format(closed=folder, needed=" ".join(parts)))
    command = lab.words(f"setpriv --reuid {USER} --regid {USER} --clear-groups")
    if host.run(*command, sys.executable, "-c", "import wiresnake", check=False).returncode:
        unavailable("an ordinary user cannot read this tree: its files are closed to others")
    return [*command, *lab.words("unshare --user --map-root-user --net --mount")]


# What a user does in namespaces of his own: /run is his, and so is the network.
USER_SESSION = """
set -e
mount -t tmpfs tmpfs /run
{daemon} wg0
wg set wg0 listen-port 51820 fwmark 7
wg show wg0 dump
ip link set wg0 up
ip link delete wg0
"""


def test_without_root(make_host: MakeHost, ours: Implementation) -> None:
    """An ordinary user with an open device node runs the daemon in a user namespace."""
    host = make_host()
    become = as_user(host, "666")
    if host.run(*become, "true", check=False).returncode:
        unavailable("user namespaces are closed here: sysctl kernel.unprivileged_userns_clone")
    program = shutil.which(ours.program) or ours.program
    done = host.run(*become, "sh", "-c", USER_SESSION.format(daemon=program), check=False)
    assert (done.returncode, done.stdout) == (0, "(none)\t(none)\t51820\t0x7\n"), done.stderr


def test_refused_device_node(make_host: MakeHost, ours: Implementation) -> None:
    """No permission for the node: one line that says what and where, and no interface."""
    host = make_host()
    program = shutil.which(ours.program) or ours.program
    done = host.run(*as_user(host, "600"), program, "wg0", check=False)
    assert done.returncode == 1
    assert "/dev/net/tun" in done.stderr
    assert "ermission" in done.stderr or "denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_no_privilege_at_all(make_host: MakeHost, ours: Implementation) -> None:
    """The node is open but the network is not ours: the same, in other words."""
    host = make_host()
    become = as_user(host, "666")
    become = become[: become.index("unshare")]
    program = shutil.which(ours.program) or ours.program
    done = host.run(*become, program, "wg0", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
