"""Programs of an ordinary user, in a host where they can reach this tree and its Python."""

import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

import wiresnake
from lab.hosts import Host, Process

USER = 1234
HOME = Path("/run/home")
"""The user's folder, as the host sees it."""
PYTHON = Path("/run/python", Path(sys.executable).resolve().relative_to(sys.base_prefix))

# Copied, because links in the package may lead into folders of root; Python is bound for the same
# reason. /tmp comes last, as all of these may be in it.
_PREPARE = """
set -e
mkdir -p /run/python /run/tree {home}
mount --bind {prefix} /run/python
cp -rL {package} /run/tree/wiresnake
chmod -R a+rX /run/tree
chown {user}:{user} {home}
mount -t tmpfs tmpfs /dev/net
{tun}
mount -t tmpfs -o mode=1777 tmpfs /tmp
"""


class User:
    """Runs programs as a user of a host: an ordinary one, or root."""

    def __init__(self, host: Host, number: int = USER, tun: int | None = 0o666) -> None:
        """`tun` is the mode of /dev/net/tun; None for a host without that device."""
        self.host, self.number = host, number
        node = f"mknod -m {tun:o} /dev/net/tun c 10 200" if tun is not None else ""
        package = Path(wiresnake.__file__).parent
        text = _PREPARE.format(
            prefix=sys.base_prefix, package=package, tun=node, home=HOME, user=number
        )
        host.run("sh -c", text)

    @property
    def home(self) -> Path:
        """The user's folder, as this process sees it."""
        return Path(f"/proc/{self.host.pid}/root{HOME}")

    def words(self, *command: str | Path, env: Mapping[str, str] | None = None) -> list[str]:
        """Returns the command with its user, in an environment with nothing of this process."""
        ids = f"--reuid={self.number} --regid={self.number} --clear-groups".split()
        clean = {
            "PATH": f"{PYTHON.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(HOME),
            "LC_ALL": "C.UTF-8",
            "LD_LIBRARY_PATH": "/run/python/lib",
            "PYTHONPATH": "/run/tree",
            "PYTHONDONTWRITEBYTECODE": "1",
        } | dict(env or {})
        settings = [f"{name}={value}" for name, value in clean.items()]
        who = ["setpriv", *ids] if self.number else []
        return [*who, "env", "-i", f"--chdir={HOME}", *settings, *map(str, command)]

    def run(
        self, *command: str | Path, text: str | None = None, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Runs a command to its end, whatever that is."""
        words = quoted(self.words(*command, env=env))
        return self.host.run(*words, text=text, check=False, timeout=40)

    def start(self, *command: str | Path) -> Process:
        return self.host.start(*quoted(self.words(*command)))

    def python(self, text: str, *arguments: str | Path) -> str:
        """Runs a program, which must end well, and returns what it printed."""
        done = self.run(PYTHON, "-c", text, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


def quoted(words: list[str]) -> list[str | Path]:
    """A Host splits the first word of a command, and none of the others."""
    return [*words]


# Refuses new user namespaces as container runtimes do: with EPERM; clone3, whose flags a filter
# cannot see, does not exist.
SECCOMP = """
import ctypes, os, platform, struct, sys
unshare, clone, clone3 = {"x86_64": (272, 56, 435), "aarch64": (97, 220, 435)}[platform.machine()]
LOAD, EQUAL, ANY, RETURN, NEWUSER = 0x20, 0x15, 0x45, 0x06, 0x10000000
code = [
    (LOAD, 0, 0, 0), (EQUAL, 5, 0, unshare), (EQUAL, 5, 0, clone3), (EQUAL, 0, 2, clone),
    (LOAD, 0, 0, 16), (ANY, 1, 0, NEWUSER),
    (RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x50000 | 1), (RETURN, 0, 0, 0x50000 | 38),
]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"""
