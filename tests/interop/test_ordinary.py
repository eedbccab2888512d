"""An ordinary user's tunnels: with what a host allows, and what is said where it refuses."""

import json
import re
import shlex
from pathlib import Path

import pytest
from interop.harness import ROOT, MakeHost
from interop.joined import write_files
from interop.ordinary import HOME, PYTHON, SECCOMP, User

from lab import hosts

NEAR, FAR = HOME / "near.conf", HOME / "far.conf"

TALK = """
import os, sys, wiresnake
assert os.getuid() == 1234 and not os.access("/root", os.R_OK)
with wiresnake.open_tunnel(sys.argv[1]) as far, wiresnake.open_tunnel(sys.argv[2]) as near:
    for host in "10.0.0.1", "fd00::1":
        listener, other = far.listen(port=80)[:: -1 if ":" in host else 1]
        with near.create_connection((host, 80), timeout=20) as one, listener.accept()[0] as two:
            one.sendall(b"x")
            assert two.recv(1) == b"x"
        listener.close()
        other.close()
    print(near.stack, far.stack)
"""

CHOICE = """
import json, sys, wiresnake
with wiresnake.open_tunnel(sys.argv[1]) as tunnel:
    chosen = tunnel.stack
try:
    with wiresnake.open_tunnel(sys.argv[1], stack="kernel"):
        said = "nothing"
except wiresnake.HostError as error:
    said = error.strerror
print(json.dumps([chosen, said]))
"""


def state(user: User) -> list[str]:
    """What must stay as it is in the host."""
    watched = (
        *("ip -o address", "ip route show table all", "ip -6 route show table all", "ip rule"),
        *("nft list ruleset", "cat /proc/mounts", "ls /run /tmp /dev/net /proc/sys/net/ipv4/conf"),
    )
    return [user.host.output(each) for each in watched]


def test_a_tunnel_needs_no_privileges(make_host: MakeHost) -> None:
    """Two talk with Linux's own sockets, and nothing of the host changes."""
    user = User(make_host())
    write_files(user.home)
    before = state(user)
    assert user.python(TALK, FAR, NEAR) == "kernel kernel\n"
    assert state(user) == before


def refused(user: User, *by: str | Path) -> tuple[str, str]:
    """Asserts what holds wherever the kernel stack is refused. Returns what a program that insists
    on it gets to know, and what `wiresnake exec` says. `by` begins the commands."""
    write_files(user.home)
    for path in "near.conf", "far.conf":
        (user.home / path).chmod(0o644)
    done = user.run(*by, PYTHON, "-c", CHOICE, NEAR)
    assert done.returncode == 0, done.stderr
    chosen, said = json.loads(done.stdout)
    assert chosen == "user"
    done = user.run(*by, PYTHON, "-m", "wiresnake", "exec", NEAR, "--", "true")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == f"wiresnake: {said}; `wiresnake proxy` works without that"
    return said, line


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o600, "permission denied for /dev/net/tun: run as root, or let users open it"),
        (None, "no TUN driver at /dev/net/tun: 'modprobe tun', or give the device to the"),
    ],
)
def test_without_the_device(make_host: MakeHost, mode: int | None, said: str) -> None:
    assert said in refused(User(make_host(), tun=mode))[0]


def test_without_user_namespaces_by_seccomp(make_host: MakeHost) -> None:
    said, _ = refused(User(make_host()), PYTHON, "-c", SECCOMP)
    assert said.startswith("user namespaces are refused to ordinary users: allow them (sysctl")


def test_without_user_namespaces_by_sysctl(make_host: MakeHost) -> None:
    """The limit is that of an outer namespace, which has as many as it may have."""
    limit = "echo 1 >/proc/sys/user/max_user_namespaces; exec unshare --user --map-user=1234"
    inner = f'{limit} --map-group=1234 -- "$@"'
    by = [*shlex.split("unshare --user --map-root-user sh -c"), inner, "sh"]
    said, _ = refused(User(make_host()), *by)
    assert said.endswith("raise user.max_user_namespaces")


SERVER = """
import asyncio, sys, wiresnake

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n")
    writer.close()

async def main():
    async with wiresnake.Tunnel.from_file(sys.argv[1]) as tunnel:
        async with await tunnel.start_server(answer, port=80):
            open("ready", "w").close()
            await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("tun", [0o666, 0o600], ids=["kernel", "user"])
def test_the_first_page_word_for_word(make_host: MakeHost, tun: int) -> None:
    """The README's program and its `wiresnake exec`, on the stack that the host allows."""
    first = (ROOT / "README.md").read_text().partition("## Install")[0]
    (program,) = re.findall(r"```python\n(.*?)```", first, re.DOTALL)
    (command,) = re.findall(r"```\n(wiresnake exec .*)\n```", first)
    user = User(make_host(), tun=tun)
    write_files(user.home).near.rename(user.home / "wg0.conf")
    server = user.start(PYTHON, "-c", SERVER, FAR)
    hosts.wait_for("the server", (user.home / "ready").exists)
    assert user.python(program) == "HTTP/1.0 200 OK\nContent-Length: 6\n\nhello\n\n"
    script = f'wiresnake() {{ {PYTHON} -m wiresnake "$@"; }}; {command}'
    done = user.run("sh", "-c", script)
    if tun == 0o666:
        assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    else:
        assert done.returncode == 1 and "wiresnake proxy" in done.stderr
    server.stop()
