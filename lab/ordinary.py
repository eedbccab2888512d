"""An ordinary user in a host, with a /dev/net/tun of its own."""

import stat
import sys
from pathlib import Path

from lab import hosts
from lab.hosts import Host, LabError

USER = "65534"

_ROOT = Path(__file__).parents[1]
# On a tmpfs; the machine's is never touched.
_OWN_NODE = """
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
_OPEN_FOLDER = """
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


def as_user(host: Host, mode: str) -> list[str]:
    """Gives the host a /dev/net/tun of that mode. Returns the command that becomes a user.

    LabError if an ordinary user cannot read this tree.
    """
    host.run("sh -c", _OWN_NODE.format(mode=mode))
    needed = [str(_ROOT), str(Path(sys.base_prefix).resolve())]
    closed: dict[str, list[str]] = {}
    for path in needed:
        for parent in reversed(Path(path).parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(str(parent), []).append(path)
                break
    for folder, parts in closed.items():
        host.run("sh -c", _OPEN_FOLDER.format(closed=folder, needed=" ".join(parts)))
    command = hosts.words(f"setpriv --reuid {USER} --regid {USER} --clear-groups")
    if host.run(*command, sys.executable, "-c", "import wiresnake", check=False).returncode:
        raise LabError("an ordinary user cannot read this tree: its files are closed to others")
    return command
