"""wg-quick's firewall for a default route, as stock makes it: either takes away the other's.

Nothing from outside may reach the interface's addresses past the tunnel, and datagrams that answer
marked ones get their mark back for the reverse path filter.
"""

import json
import re
from collections.abc import Iterator

from wiresnake.linux import programs
from wiresnake.network.model import Guard

_FAMILY = {4: "ip", 6: "ip6"}
_IPTABLES = {4: "iptables", 6: "ip6tables"}


def command(version: int) -> str:
    """What is run, or "" where there is nothing to run."""
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
    """Makes the interface's firewall of that IP version this one; None removes it. `before` is what
    is there. Returns a warning if nothing here can have it.

    A program may be here though this kernel has no tables for it, so what one refuses is asked of
    the other one. Only what stands there already must not be left to a program that fails.
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
        _remove(interface, version)  # One of its tables may be there, and done.
    lost = "packets from outside to the tunnel's addresses are not dropped. To have that,"
    if said:
        why = "; ".join(said)
        return f"{lost} this kernel must have nf_tables, or raw and mangle of iptables ({why})"
    return f"neither nft nor {_IPTABLES[version]}: {lost} install nftables"


def _remove(interface: str, version: int) -> None:
    """Whichever program made it. One that refuses is believed if nothing is to be seen."""
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
    """One transaction; it does not matter to it whether the table exists."""
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
    """What iptables has of ours: `*TABLE` and `-A ...` lines."""
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
    # Each was inserted before the others.
    return Guard(version, int(mark[1], 16) if mark else 0, tuple(reversed(addresses)))
