"""wg-quick's firewall for a default route, made exactly as stock does, so that each can remove the
other's.

Packets from outside cannot reach the interface's addresses except through the tunnel, and answers
to marked datagrams get the mark back for the reverse path filter.
"""

import json
import re
from collections.abc import Iterator

from wiresnake.linux import programs
from wiresnake.network.model import Guard

_FAMILY = {4: "ip", 6: "ip6"}
_IPTABLES = {4: "iptables", 6: "ip6tables"}


def command(version: int) -> str:
    """Returns the command that is run, or "" if no program is available."""
    if programs.find("nft"):
        return "nft -f -"
    tool = f"{_IPTABLES[version]}-restore"
    return f"{tool} -n" if programs.find(tool) else ""


def read(interface: str, version: int) -> Guard | None:
    found = programs.output("nft", "-j", "list", "table", *_table(interface, version).split())
    if found:
        return _read_nft(version, found)
    lines = list(_saved(interface, version))
    return _read_iptables(version, lines) if lines else None


def replace(interface: str, version: int, before: Guard | None, guard: Guard | None) -> str | None:
    """Replaces the interface's firewall for that IP version; None removes it. `before` is the
    existing one. Returns a warning if this host cannot have it.

    A program may be installed although this kernel lacks its tables, so if one refuses, the other
    is tried. An existing firewall must not be left behind by a program that fails.
    """
    if guard is None:
        _remove(interface, version)
        return None
    said = []
    try:
        if programs.find("nft"):
            programs.run("nft", "-f", "-", text=_nft(interface, version, guard))
            return None
    except programs.Refused as error:
        if before:
            raise
        said.append(f"nft: {error}")
    tool = f"{_IPTABLES[version]}-restore"
    try:
        if programs.find(tool):
            old = list(_saved(interface, version))
            programs.run(tool, "-n", text=_restore(interface, guard, old))
            return None
    except programs.Refused as error:
        if before:
            raise
        said.append(f"{tool}: {error}")
        _remove(interface, version)  # One of its tables may exist and be done.
    lost = "packets from outside to the tunnel's addresses are not dropped. To have that,"
    if said:
        why = "; ".join(said)
        return f"{lost} this kernel must have nf_tables, or raw and mangle of iptables ({why})"
    return f"neither nft nor {_IPTABLES[version]}: {lost} install nftables"


def _remove(interface: str, version: int) -> None:
    """Reads the firewall, whichever program made it. A program that refuses counts as empty if
    nothing else is found."""
    refused: programs.Refused | None = None
    try:
        if programs.find("nft"):
            programs.run("nft", "-f", "-", text=_nft(interface, version, None))
    except programs.Refused as error:
        refused = error
    try:
        if old := list(_saved(interface, version)):
            tool = f"{_IPTABLES[version]}-restore"
            programs.run(tool, "-n", text=_restore(interface, None, old))
    except programs.Refused as error:
        refused = error
    if refused and read(interface, version):
        raise refused


def _table(interface: str, version: int) -> str:
    return f"{_FAMILY[version]} wg-quick-{interface}"


def _nft(interface: str, version: int, guard: Guard | None) -> str:
    """Returns one transaction, which works whether or not the table exists."""
    table, family = _table(interface, version), _FAMILY[version]
    if guard is None:
        return f"add table {table}\ndelete table {table}\n"
    lines = [
        f"add table {table}",
        f"add chain {table} preraw {{ type filter hook prerouting priority -300; }}",
        f"add chain {table} premangle {{ type filter hook prerouting priority -150; }}",
        f"add chain {table} postmangle {{ type filter hook postrouting priority -150; }}",
        f"flush table {table}",
    ]
    lines += (
        f'add rule {table} preraw iifname != "{interface}" {family} daddr {address}'
        " fib saddr type != local drop"
        for address in guard.addresses
    )
    lines += [
        f"add rule {table} postmangle meta l4proto udp mark {guard.mark} ct mark set mark",
        f"add rule {table} premangle meta l4proto udp meta mark set ct mark",
    ]
    return "\n".join(lines) + "\n"


def _read_nft(version: int, text: str) -> Guard:
    mark = 0
    addresses: list[str] = []
    for item in json.loads(text)["nftables"]:
        for expression in item.get("rule", {}).get("expr", ()):
            match = expression.get("match", {})
            left, right = match.get("left", {}), match.get("right")
            if "payload" in left and left["payload"].get("field") == "daddr":
                addresses.append(str(right))
            elif left == {"meta": {"key": "mark"}} and isinstance(right, int):
                mark = right
    return Guard(version, mark, tuple(addresses))


def _saved(interface: str, version: int) -> Iterator[str]:
    """Returns our rules in iptables: `*TABLE` and `-A ...` lines."""
    tool = f"{_IPTABLES[version]}-save"
    if programs.find(tool):
        table = ""
        for line in (programs.output(tool) or "").splitlines():
            if line.startswith("*"):
                table = line
            elif line.startswith("-A ") and f'--comment "{_comment(interface)}"' in line:
                yield f"{table} {line}"


def _comment(interface: str) -> str:
    return f"wg-quick(8) rule for {interface}"


def _restore(interface: str, guard: Guard | None, old: list[str]) -> str:
    tables: dict[str, list[str]] = {"*raw": [], "*mangle": []}
    for line in old:
        table, _, rule = line.partition(" ")
        tables.setdefault(table, []).append("-D" + rule.removeprefix("-A"))
    marker = f'-m comment --comment "{_comment(interface)}"'
    if guard:
        tables["*raw"] += (
            f"-I PREROUTING ! -i {interface} -d {address} -m addrtype ! --src-type LOCAL -j DROP"
            f" {marker}"
            for address in guard.addresses
        )
        tables["*mangle"] += (
            f"-I POSTROUTING -m mark --mark {guard.mark} -p udp -j CONNMARK --save-mark {marker}",
            f"-I PREROUTING -p udp -j CONNMARK --restore-mark {marker}",
        )
    filled = ((table, lines) for table, lines in tables.items() if lines)
    return "".join("\n".join([table, *lines, "COMMIT\n"]) for table, lines in filled)


def _read_iptables(version: int, lines: list[str]) -> Guard:
    text = "\n".join(lines)
    addresses = re.findall(r"-d ([0-9a-f:.]+)/", text)
    mark = re.search(r"--mark 0x([0-9a-f]+)", text)
    # Each rule was inserted before the others.
    return Guard(version, int(mark[1], 16) if mark else 0, tuple(reversed(addresses)))
