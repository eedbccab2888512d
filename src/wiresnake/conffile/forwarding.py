"""Commands in a server's file that forward its peers' packets: to each other, or (`nat`) to
everything that the server reaches. `down` removes what they added to firewalls."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv6Interface

from wiresnake.errors import ConfigError

_ANSWERS = "-o %i -m conntrack --ctstate RELATED,ESTABLISHED"
_NFT_ANSWERS = 'oifname "%i" ct state established,related'
_TOOLS = {4: "iptables", 6: "ip6tables"}


def nat(name: str, addresses: Sequence[IPv4Interface | IPv6Interface]) -> list[str]:
    """Returns lines for [Interface] with which peers reach what the server reaches, using its
    address."""
    if not _fits(name):
        raise ConfigError(f"--nat: nft cannot name a table after '{name}'; use letters and digits")
    rules = "".join(
        f" add rule inet nat-%i out {'ip' if one.version == 4 else 'ip6'} saddr {one.network}"
        ' oifname != "%i" masquerade;'
        for one in addresses
    )
    chain = "add chain inet nat-%i out { type nat hook postrouting priority srcnat; };"
    versions: set[int] = {one.version for one in addresses}
    forward = ["net.ipv4.ip_forward=1"] * (4 in versions)
    forward += ["net.ipv6.conf.all.forwarding=1"] * (6 in versions)
    return [
        "# Forwarding stays on, because others may need it by now.",
        *_advertisements(versions),
        f"PostUp = sysctl -q -w {' '.join(forward)}",
        f"PostUp = nft 'add table inet nat-%i; {chain}{rules}'",
        "PostDown = nft 'delete table inet nat-%i'",
        *_past_others(versions, [("-i %i", 'iifname "%i"'), (_ANSWERS, _NFT_ANSWERS)]),
    ]


def among_peers(name: str, addresses: Sequence[IPv4Interface | IPv6Interface]) -> list[str]:
    """Returns lines for [Interface] with which peers reach each other through the server, and
    nothing else. Empty if nft cannot name a table after the interface."""
    if not _fits(name):
        return []
    versions: set[int] = {one.version for one in addresses}
    table = "inet peers-%i"
    chain = f"add chain {table} forward {{ type filter hook forward priority filter; }}"
    rule = f'add rule {table} forward iifname "%i" oifname != "%i" drop'
    steps = [f"nft 'add table {table}; {chain}; {rule}'"]
    # For IPv4 Linux checks the interface where a packet comes in; for IPv6 only since 6.17.
    if 4 in versions:
        steps.append("echo 1 >/proc/sys/net/ipv4/conf/%i/forwarding")
    if 6 in versions:
        own = "/proc/sys/net/ipv6/conf/%i/force_forwarding"
        every = "/proc/sys/net/ipv6/conf/all/forwarding"
        steps.append(f"if [ -e {own} ]; then echo 1 >{own}; else echo 1 >{every}; fi")
    return [
        "# Peers reach each other, and nothing else beyond this host. Without the next lines they",
        "# reach only this host.",
        *_advertisements(versions),
        f"PostUp = {{ {' && '.join(steps)}; }} || {_SAID}",
        f"PostDown = nft 'delete table {table}' || true",
        *_past_others(versions, [("-i %i -o %i", 'iifname "%i" oifname "%i"')]),
    ]


_SAID = 'echo "%i: peers reach only this host, because forwarding cannot be switched on here" >&2'


def _fits(name: str) -> bool:
    return re.fullmatch("[a-zA-Z0-9_.-]+", name) is not None


def _advertisements(versions: set[int]) -> Iterator[str]:
    """Keeps the IPv6 default route: a host that forwards IPv6 drops the one that a router
    announced."""
    if 6 in versions:
        yield (
            "# With IPv6 forwarding, Linux accepts router advertisements only where accept_ra = 2."
        )
        files = "/proc/sys/net/ipv6/conf/*/accept_ra"
        yield f"PostUp = for f in {files}; do ! grep -qx 1 $f || echo 2 >$f; done || true"


def _past_others(versions: set[int], matches: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Returns rules for other programs' chains that may drop: a table cannot accept what another
    table drops. `matches` are the same match in the syntax of iptables and of nft."""
    tools = " ".join(tool for version, tool in _TOOLS.items() if version in versions)
    marked = f'-m comment --comment "{_COMMENT}" -j ACCEPT'
    add = "; ".join(f"$t -w -I FORWARD {match} {marked}" for match, _ in matches)
    remove = "; ".join(f"$t -w -D FORWARD {match} {marked}" for match, _ in matches)
    drops = """s=$($t -w -S FORWARD 2>/dev/null) && [ "$s" != '-P FORWARD ACCEPT' ]"""
    rules = (f'{match} accept comment "{_COMMENT}"' for _, match in matches)
    insert = " ".join(f'print "insert rule", t, c, "{_quoted(rule)}";' for rule in rules)
    chain = r"""/^table/ {t = $2 " " $3} /^\tchain/ {c = $2}"""
    mine = _quoted(f'comment "{_COMMENT}"')
    delete = f'index($0, "{mine}") {{print "delete rule", t, c, "handle", $NF}}'
    # Tables of iptables in nf_tables must be changed by iptables, if that iptables is installed.
    known = "".join(f'-v {t}="$({t} -V 2>&1 | grep nf_tables)" ' for t in tools.split())
    theirs = " || ".join(
        f't == "{family} filter"' + f" && {_TOOLS[version]}" * (version in versions)
        for version, family in ((4, "ip"), (6, "ip6"))
    )
    others = f'/hook forward .*policy drop/ && !(c == "FORWARD" && ({theirs}))'
    yield "# Docker, ufw and others drop what no rule in their own chains accepts."
    yield f"PostUp = for t in {tools}; do if {drops}; then {add}; fi; done"
    program = f"{known}'{chain} {others} {{{insert}}}'"
    yield f"PostUp = nft list chains | awk {program} | nft -f - || true"
    yield f"PostDown = for t in {tools}; do {remove}; done 2>/dev/null || true"
    yield f"PostDown = nft -a list ruleset | awk '{chain} {delete}' | nft -f - || true"


def _quoted(text: str) -> str:
    """Quotes text for a string in awk."""
    return text.replace('"', r"\"")


_COMMENT = "forwarded for %i"
