"""Runs a command inside a tunnel: whatever program, without root.

Three processes take part:

    command    this process, once the tunnel is open: it enters the namespaces and executes the
               command, so exit code, signals and terminal are the command's own
    keeper     carries the tunnel, in the host's namespace, until the last command has ended
    helper     owns the namespaces: see `helper`

The network namespace has nothing but loopback and the tunnel, so there is no other way out. Local
services that would resolve names outside of the tunnel are hidden, as they are sockets in files.
"""

import errno
import json
import os
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wiresnake.errors import HostError
from wiresnake.linux import namespace
from wiresnake.linux.namespace import Kind
from wiresnake.linux.processes import detach, let_go
from wiresnake.model import Dns
from wiresnake.sockets import helper
from wiresnake.sockets.meeting import folder, meeting_point

if TYPE_CHECKING:
    from wiresnake.sockets.keeper import Services

_MESSAGE_BYTES = 1 << 16
_RESOLV_CONF = "/etc/resolv.conf"
_RESOLVERS = ("/run/systemd/resolve", "/run/nscd", "/var/run/nscd", "/run/avahi-daemon")
"""Folders with the sockets of local resolvers, which would ask outside of the tunnel."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes, as of env(1)."""


def run(file: Path, command: Sequence[str], services: "Services | None" = None) -> NoReturn:
    """Opens the tunnel of a file and becomes the command, inside of it.

    This process must have one thread. ConfigError or HostError say why not. The tunnel ends with
    the last command that uses it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    to_helper, helpers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        for each in ours, theirs, to_helper:
            each.close()
        let_go(2)
        helper.main(str(helpers.detach()))

    def keep() -> None:
        ours.close()
        helpers.close()
        from wiresnake.sockets import keeper  # While the helper starts.

        keeper.run(file, services, to_helper, theirs)

    # The helper first: it knows no secret, and so may let others look at its memory.
    detach(serve)
    detach(keep)
    for each in theirs, to_helper, helpers:
        each.close()
    with ours:
        _become(ours, command)


def join(file: Path, command: Sequence[str]) -> NoReturn:
    """Becomes the command inside the tunnel that `run` opened for the same file.

    HostError if there is none.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(meeting_point(file)))
    except OSError:
        what = f"no tunnel of {file} is open: start it with `wiresnake exec` without --join"
        raise HostError(errno.ENOENT, what) from None
    with connection:
        _become(connection, command)


def _become(keeper: socket.socket, command: Sequence[str]) -> NoReturn:
    """Enters the namespaces that the keeper passes, and executes the command."""
    data, descriptors, _, _ = socket.recv_fds(keeper, _MESSAGE_BYTES, 2)
    said: dict[str, Any] = json.loads(data) if data else {"error": "the tunnel could not be opened"}
    if "error" in said:
        raise HostError(said.get("errno") or errno.EIO, said["error"])
    try:
        user, network = descriptors
        with helper.naming_the_alternative():
            _enter(user, network, Dns(tuple(said["servers"]), tuple(said["search"])))
    except OSError as error:
        what = f"cannot enter the tunnel's namespaces: {error.strerror}"
        raise HostError(error.errno, what) from None
    for number in signal.SIGPIPE, signal.SIGXFSZ:  # Python ignores them, which would be inherited.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        # A folder in PATH that may not be read has no say in what it holds.
        hidden = "/" not in command[0] and shutil.which(command[0], os.F_OK) is None
        missing = hidden or isinstance(error, FileNotFoundError)
        print_error(f"{command[0]}: {os.strerror(errno.ENOENT) if missing else error.strerror}")
        os._exit(_NOT_FOUND if missing else _NOT_EXECUTABLE)


def print_error(what: str) -> None:
    os.write(2, f"wiresnake exec: {what}\n".encode())


def _enter(user: int, network: int, dns: Dns) -> None:
    if os.fstat(user).st_ino != os.stat("/proc/self/ns/user").st_ino:
        namespace.enter(user, Kind.USER)
    namespace.enter(network, Kind.NETWORK)
    os.close(user)
    os.close(network)
    namespace.unshare(Kind.MOUNT)
    namespace.keep_mounts_private()
    for hidden in {os.path.realpath(each) for each in _RESOLVERS if os.path.isdir(each)}:
        namespace.mount_empty(hidden)
    _replace_resolv_conf(dns)


def _replace_resolv_conf(dns: Dns) -> None:
    """Gives this mount namespace a resolv.conf with the tunnel's name servers alone."""
    text = "".join(f"nameserver {server}\n" for server in dns.servers)
    text += f"search {' '.join(dns.search)}\n" if dns.search else ""
    target = os.path.realpath(_RESOLV_CONF)
    if not os.path.exists(target):  # It was a link into one of the hidden folders, or is missing.
        try:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).touch()
        except OSError:
            return  # There is none, and nobody reads any.
    source = folder() / f"resolv.conf-{os.getpid()}"
    source.write_text(text)
    try:
        namespace.bind(str(source), target)
    finally:
        source.unlink()
