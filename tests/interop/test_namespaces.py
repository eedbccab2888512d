"""The interface moves into another namespace, and the sockets stay where they were born."""

import re
import shutil
from pathlib import Path

import pytest
from interop.harness import (
    End,
    Implementation,
    MakeHost,
    as_user,
    assert_pings,
    assert_tcp,
    configuration,
    ends,
    move_interface,
    unavailable,
)

from lab import hosts
from lab.hosts import Host


def moved(make_host: MakeHost, ours: Implementation) -> tuple[End, End, Host]:
    """A tunnel whose interface lives in a host without any other network; `wg` stays outside."""
    a, b = ends(make_host("outside"), make_host("peer"))
    container = make_host("container")
    for end, other, version in ((a, b, 4), (b, a, None)):
        ours.start(end.host)
        text = configuration(end, other, outer=version)
        end.wg("setconf", "wg0", "/dev/stdin", text=text)
    b.up()
    move_interface("wg0", a.host, container)
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
    hosts.address(inner.host, "wg0", f"{inner.inner[6]}/64")  # the kernel took it when down
    assert_pings(inner, b)
    assert_tcp(inner, b)
    inner.host.run("ip link delete wg0")
    program = Path(ours.program).name
    hosts.wait_for("the daemon to end", lambda: not outside.processes(program))
    assert outside.output("wg show interfaces") == ""


# What a user does in his own namespaces: /run belongs to him, and so does the network.
USER_SESSION = """
set -e
mount -t tmpfs tmpfs /run
{daemon} wg0
wg set wg0 listen-port 51820 fwmark 7
wg show wg0 dump
ip link set wg0 up
ip link delete wg0
"""


NAMESPACES = hosts.words("unshare --user --map-root-user --net --mount")


def test_without_root(make_host: MakeHost, ours: Implementation) -> None:
    """An ordinary user with an open device node runs the daemon in a user namespace."""
    host = make_host()
    become = [*as_user(host, "666"), *NAMESPACES]
    if host.run(*become, "true", check=False).returncode:
        unavailable("user namespaces are closed here: sysctl kernel.unprivileged_userns_clone")
    program = shutil.which(ours.program) or ours.program
    done = host.run(*become, "sh", "-c", USER_SESSION.format(daemon=program), check=False)
    assert (done.returncode, done.stdout) == (0, "(none)\t(none)\t51820\t0x7\n"), done.stderr


@pytest.mark.parametrize("mode", ["600", "666"], ids=["closed-node", "no-capability"])
def test_refused(make_host: MakeHost, ours: Implementation, mode: str) -> None:
    """A closed node, or no right to a network device: a line that says what and where."""
    host = make_host()
    program = shutil.which(ours.program) or ours.program
    done = host.run(*as_user(host, mode), program, "wg0", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.fullmatch(r"wiresnaked: wg0: .*(permi|root).*\n", done.stderr), done.stderr
    assert ("/dev/net/tun" in done.stderr) == (mode == "600")
