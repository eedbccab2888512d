"""Hands name servers to resolvconf or systemd-resolved, whichever this host has."""

import os
import re
from pathlib import Path
from typing import Literal

from wiresnake.errors import HostError
from wiresnake.linux import programs
from wiresnake.model import Dns

Manager = Literal["resolvconf", "resolvectl"]

_ORDER = Path("/etc/resolvconf/interface-order")
_RECORDS = Path("/etc/resolvconf/run/interface")
_RESOLVED = Path("/run/systemd/resolve")
_EVERYTHING = "~."
"""The routing domain that sends all names here."""


def manager() -> Manager | None:
    """Returns the program that manages this host's name servers. Debian's resolvconf may be a
    symlink to resolvectl."""
    program = programs.find("resolvconf")
    if program and os.path.basename(os.path.realpath(program)) != "resolvectl":
        return "resolvconf"
    return "resolvectl" if programs.find("resolvectl") and _RESOLVED.exists() else None


def require(dns: Dns) -> None:
    """Raises HostError if no program accepts name servers."""
    if dns.servers and manager() is None:
        raise HostError(
            f"DNS = {', '.join(dns.servers)}: this host has neither resolvconf nor"
            " systemd-resolved. Install one (apt-get install openresolv), or remove the DNS line"
        )


def command(interface: str, dns: Dns) -> str:
    """Returns the command that is run, on one line."""
    return _commands(interface, dns)[0]


def replace(interface: str, dns: Dns) -> str | None:
    """Sets the interface's name servers; none removes them. Returns a warning if the program that
    could remove them is gone."""
    require(dns)
    if manager() is None:
        return (
            "neither resolvconf nor systemd-resolved is left to remove the name servers of"
            f" {interface}: check /etc/resolv.conf"
        )
    lines = [f"nameserver {server}\n" for server in dns.servers]
    if dns.search:
        lines.append(f"search {' '.join(dns.search)}\n")
    for one in _commands(interface, dns):
        programs.run(*one.split(), text="".join(lines))
    return None


def read(interface: str) -> Dns:
    """Returns what the manager knows about the interface."""
    kind = manager()
    if kind == "resolvconf":
        record = _RECORDS / _record(interface)
        text = programs.output("resolvconf", "-l", _record(interface))
        if not text:
            text = record.read_text("utf-8", "replace") if record.exists() else ""
        return Dns(
            tuple(re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)),
            tuple(" ".join(re.findall(r"^search\s+(.+)", text, re.MULTILINE)).split()),
        )
    if kind == "resolvectl":
        servers, domains = (_resolved(verb, interface) for verb in ("dns", "domain"))
        return Dns(servers, tuple(one for one in domains if one != _EVERYTHING))
    return Dns()


def repeats() -> bool:
    """Returns whether an empty answer of `read` means that nothing is set. Many versions of
    resolvconf only know -a and -d; one that lists anything can be trusted."""
    if manager() == "resolvectl":
        return True
    return _RECORDS.is_dir() or bool(programs.output("resolvconf", "-l"))


def _commands(interface: str, dns: Dns) -> list[str]:
    if manager() == "resolvectl":
        if not dns.servers:
            return [f"resolvectl revert {interface}"]
        return [
            f"resolvectl dns {interface} {' '.join(dns.servers)}",
            f"resolvectl domain {interface} {' '.join([*dns.search, _EVERYTHING])}",
            f"resolvectl default-route {interface} yes",
        ]
    if not dns.servers:
        return [f"resolvconf -d {_record(interface)} -f"]
    return [f"resolvconf -a {_record(interface)} -m 0 -x"]


def _resolved(verb: str, interface: str) -> tuple[str, ...]:
    """Parses a line such as `Link 5 (wg0): 10.0.0.1 fd00::1`."""
    return tuple((programs.output("resolvectl", verb, interface) or "").partition(": ")[2].split())


def _record(interface: str) -> str:
    """Returns resolvconf's name for the interface, with the first prefix in its interface order."""
    try:
        found = re.search(
            r"^([A-Za-z0-9-]+)\*$", _ORDER.read_text("utf-8", "replace"), re.MULTILINE
        )
    except OSError:
        found = None
    return f"{found[1]}.{interface}" if found else interface
