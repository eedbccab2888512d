"""Commands of a file: PreUp and its kind, and the process that runs OnUp and OnDown."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from wiresnake._native import PrivateKey
from wiresnake.conffile.wg_quick import QuickConfig
from wiresnake.errors import WiresnakeError
from wiresnake.lifecycle.applied import Applied, Said, SaidOfInterface
from wiresnake.linux.programs import ourselves
from wiresnake.model import DeviceChange, Dns
from wiresnake.text import base64_text

Say = Callable[[str], None]
"""Takes a line of what is done, without its `[#]`."""


class HookFailed(WiresnakeError):
    """A command did not exit with 0, and has said why itself; wg-quick exits with `code`."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}' exited with {code}")
        self.code = code


class Variables(NamedTuple):
    """What wg-quick's hooks find in its variables: they are evaluated within wg-quick itself."""

    file: str
    """Its path."""
    addresses: tuple[str, ...] = ()
    mtu: int | None = None
    dns: Dns = Dns()
    table: str = ""
    save: bool = False

    @classmethod
    def of(cls, file: QuickConfig, path: str) -> "Variables":
        """Those of a file that was read from that path."""
        return cls(path, file.addresses, file.mtu, file.dns, file.table, file.save)

    def prelude(self) -> str:
        """Sets them, and defines wg-quick's `cmd`, in one line of bash. They are the hook's alone,
        not its children's, also where whoever called has exported such a name: a program may have
        another meaning for MTU."""
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
    """Runs one after the other until one fails, each in a shell of its own, as wg-quick does."""
    shell = shutil.which("bash")
    options = ["-o", "pipefail", "-O", "extglob"] if shell else []
    start = [shell or "/bin/sh", "-e", *options, "-c"]
    prelude = variables.prelude() if shell else ""
    for command in commands:
        whole = command.replace("%i", interface)
        say(whole)
        environment = _environment(interface, variables.file)
        code = subprocess.run([*start, f"{prelude}{whole}"], env=environment).returncode
        if code:
            raise HookFailed(whole, code if code > 0 else 128 - code)


def _environment(interface: str, file: str) -> dict[str, str]:
    """With our own programs in PATH, wherever we were started from, as wg-quick has its own."""
    path = f"{os.environ.get('PATH') or os.defpath}:{os.path.dirname(sys.executable)}"
    own = {"LC_ALL": "C", "PATH": path, "INTERFACE": interface, "CONFIG_FILE": file}
    return {**os.environ, **own}


def record(
    file: QuickConfig, endpoints: dict[str, str], said: dict[str, Said], device: DeviceChange
) -> Applied:
    """What is to be remembered of a file: of its peers the endpoints as written, and all else;
    `device` is what it says of the interface itself."""
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


def restart_events(record: Applied, path: str, interface: str) -> Applied:
    """Starts what runs OnUp and OnDown, if there are any; it stands on its own feet and ends with
    the interface. One that runs already reads the changed file by itself: a second one would run
    OnUp while the first still runs OnDown."""
    if record.hooks and _runs(record.events, interface):
        return record
    stop_events(record, interface)
    if not record.hooks:
        return replace(record, events=0)
    process = subprocess.Popen(
        [*ourselves(), "wiresnake", "events", "--hooks", path, interface],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    process.returncode = 0  # It is left alone: nobody waits for it.
    return replace(record, events=process.pid)


def stop_events(record: Applied | None, interface: str) -> None:
    """Ends that process, if it is still the one."""
    if record and _runs(record.events, interface):
        with contextlib.suppress(OSError):
            os.kill(record.events, signal.SIGTERM)


def _runs(pid: int, interface: str) -> bool:
    """Whether it is the interface's: the number may have gone to another one's since."""
    if not pid:
        return False
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            said = file.read()
    except OSError:
        return False
    return b"\0events\0--hooks\0" in said and said.endswith(b"\0%b\0" % interface.encode())
