"""Runs the commands of a file, such as PreUp, and prepares what is remembered about them."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

from wiresnake._native import PrivateKey
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.errors import WiresnakeError
from wiresnake.lifecycle.applied import Applied, Said, SaidOfInterface
from wiresnake.model import DeviceChange, Dns
from wiresnake.network.transaction import Say
from wiresnake.text import base64_text


class HookFailed(WiresnakeError):
    """A command exited with `code` and has said why itself; wg-quick exits with that code, too."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}' exited with {code}")
        self.code = code


class Variables(NamedTuple):
    """Values that wg-quick's hooks find in its variables, because they run within wg-quick
    itself."""

    file: str
    """Its path."""
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    dns: Dns = Dns()
    table: str = ""
    save: bool = False

    @classmethod
    def of(cls, file: QuickConfig, path: str) -> "Variables":
        """Returns the variables of a file that was read from that path."""
        return cls(path, file.addresses, file.mtu, file.dns, file.table, file.save)

    def prelude(self) -> str:
        """Returns one line of bash that sets the variables and defines wg-quick's `cmd`. They are
        not exported, even if the caller has exported such a name, because a program may give MTU
        another meaning."""
        lists = {
            "ADDRESSES": self.addresses,
            "DNS": self.dns.servers,
            "DNS_SEARCH": self.dns.search,
        }
        words = {
            "MTU": str(self.mtu or ""),
            "TABLE": self.table,
            "SAVE_CONFIG": str(int(self.save)),
        }
        made = [f"{key}=({shlex.join(items)})" for key, items in lists.items()]
        made += [f"{key}={shlex.quote(value)}" for key, value in words.items()]
        names = " ".join([*lists, *words])
        return f'unset {names}; {" ".join(made)}; cmd() {{ echo "[#] $*" >&2; "$@"; }}; '


def run(commands: Iterable[str], interface: str, variables: Variables, say: Say) -> None:
    """Runs the commands one after the other until one fails, each in its own shell."""
    for command in commands:
        whole = command.replace("%i", interface)
        say(whole)
        own = {"LC_ALL": "C", "INTERFACE": interface, "CONFIG_FILE": variables.file}
        code = subprocess.run(shell(whole, variables), env=environment(own)).returncode
        if code:
            raise HookFailed(whole, code if code > 0 else 128 - code)


def shell(command: str, variables: Variables | None = None) -> list[str]:
    """Returns the command line that runs a file's command: with bash, or with sh if there is none.
    With variables it behaves as within wg-quick, which ends at the first error."""
    bash = shutil.which("bash")
    if variables is None:
        return [bash or "/bin/sh", "-c", command]
    options = ["-o", "pipefail", "-O", "extglob"] if bash else []
    prelude = variables.prelude() if bash else ""
    return [bash or "/bin/sh", "-e", *options, "-c", f"{prelude}{command}"]


def environment(own: dict[str, str]) -> dict[str, str]:
    """Returns the environment with our own programs in PATH, as wg-quick does with its own."""
    path = f"{os.environ.get('PATH') or os.defpath}:{os.path.dirname(sys.executable)}"
    return {**os.environ, "PATH": path, **own}


def record(
    file: QuickConfig, endpoints: dict[str, str], said: dict[str, Said], device: DeviceChange
) -> Applied:
    """Returns what to remember about a file: its peers with their endpoints as written, and the
    rest; `device` is what it says about the interface itself."""
    peers = tuple(
        (peer.public_key, peer.on_up, peer.on_down)
        for peer in file.peers
        if peer.on_up or peer.on_down
    )
    key = device.private_key
    interface = SaidOfInterface(
        base64_text(key.public) if isinstance(key, PrivateKey) else "",
        device.listen_port or None,
        device.fwmark if file.has_mark else None,
        file.addresses,
    )
    return Applied(
        endpoints,
        file.mtu,
        peers,
        file.pre_down,
        file.post_down,
        file.save,
        peers=said,
        interface=interface,
    )
