"""Who is measured: ours, ours without encryption, the other implementations, and no tunnel; and
what the operator's tool is measured beside."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import hosts

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".tools"
NULL_TREE = TOOLS / "null/src"

RAW = "raw"
NULL = "null"
WIRESNAKE = "wiresnake"
WIREGUARD_GO = "wireguard-go"
BORINGTUN = "boringtun"
GOTATUN = "gotatun"
DEBIAN = "debian"
STOCK = "stock"
PYTHON = "python"
INTERFACE = "interface"
EXEC = "exec"
EXEC_ROOT = "exec-root"
KERNEL = "kernel"
USER = "user"
NETSTACK = "netstack"
ONETUN = "onetun"


@dataclass(frozen=True)
class Subject:
    name: str
    """A word for the command line and for machines."""
    label: str
    """For people."""
    command: tuple[str, ...] = ()
    """Starts the daemon, which goes to the background, once an interface's name is added. No
    command: no tunnel, the bare cable."""
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    @property
    def program(self) -> str:
        """The word by which `Host.processes` finds the daemon."""
        return Path(self.command[0]).name


# All but the first two are started as they come: boringtun with its 4 threads, for one. Logs go to
# /run, which is a host's own.
_WIRESNAKED = str(Path(sys.executable).with_name("wiresnaked"))
_BORINGTUN = (str(TOOLS / "boringtun-cli"), "--disable-drop-privileges", "--log=/run/boringtun")
_GOTATUN = (str(TOOLS / "gotatun"), "--disable-drop-privileges", "--log=/run/gotatun")
_ALL = (
    (Subject(RAW, "no tunnel"), ""),
    # PYTHONPATH comes before the editable install of this tree.
    (
        Subject(NULL, "wiresnake, no crypto", (_WIRESNAKED,), {"PYTHONPATH": str(NULL_TREE)}),
        "it was not built",
    ),
    (Subject(WIRESNAKE, "wiresnake", (_WIRESNAKED,)), "tools/setup native"),
    (
        Subject(WIREGUARD_GO, "wireguard-go", (str(TOOLS / "wireguard-go-new"),)),
        "tools/setup wireguard_go",
    ),
    (Subject(BORINGTUN, "boringtun (4 threads)", _BORINGTUN), "tools/setup boringtun"),
    (Subject(GOTATUN, "gotatun", _GOTATUN), "tools/setup gotatun"),
    (Subject(DEBIAN, "wireguard-go of Debian", ("wireguard-go",)), "tools/setup packages"),
)
COMMANDS = (Subject(PYTHON, "python -c pass"), Subject(STOCK, "wg, wg-quick"))
"""Commands that have no tunnel of their own."""
_NETSTACK, _ONETUN = str(TOOLS / "netstack"), str(TOOLS / "onetun")
ROOTLESS = (
    Subject(INTERFACE, "interface of root"),
    Subject(EXEC, "wiresnake exec, ordinary user"),
    Subject(EXEC_ROOT, "wiresnake exec, root"),
    Subject(KERNEL, "wiresnake, kernel stack"),
    Subject(USER, "wiresnake, user stack"),
    Subject(NETSTACK, "wireguard-go, gVisor's netstack", (_NETSTACK,)),
    Subject(ONETUN, "onetun", (_ONETUN,)),
)
"""What carries a tunnel without root, and the interface that it is measured beside. A command leads
ports into a tunnel, each with arguments of its own."""
DAEMONS = tuple(subject.name for subject, _ in _ALL)
LABELS = {
    subject.name: subject.label for subject in (*COMMANDS, *(each for each, _ in _ALL), *ROOTLESS)
}
"""All subjects in the order of the tables."""


def subjects() -> tuple[list[Subject], dict[str, str]]:
    """Those present, in the order of the tables; and of each absent one what would bring it."""
    present: list[Subject] = []
    absent: dict[str, str] = {}
    for subject, remedy in _ALL:
        if not subject.command:
            present.append(subject)
        elif not shutil.which(subject.command[0], path=hosts.program_path()):
            absent[subject.name] = f"{subject.program} is missing: {remedy}"
        elif subject.name == NULL and not (NULL_TREE / "wiresnake").exists():
            absent[subject.name] = remedy
        else:
            present.append(replace(subject, version=version(subject.command[0])))
    return present, absent


def version(program: str) -> str:
    """The word with digits in the first line that `--version` prints."""
    first = hosts.tool("sh -c", 'exec "$0" --version 2>&1', program).partition("\n")[0]
    return next((word for word in first.split() if any(map(str.isdigit, word))), first)
