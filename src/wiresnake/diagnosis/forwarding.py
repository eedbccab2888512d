"""Examines what happens to a peer's packets to other hosts: whether Linux forwards them, which
firewall chain drops them, and whether they get this host's address."""

import ipaddress
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from wiresnake.diagnosis.facts import Forwarding
from wiresnake.linux import programs

_SAVES = {
    4: ("iptables-save", "iptables-legacy-save"),
    6: ("ip6tables-save", "ip6tables-legacy-save"),
}
_DEPTH = 16
"""The depth of chains in chains, as in the kernel."""
_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


def forwarding(interface: str, prefixes: Sequence[str]) -> Forwarding:
    """Examines forwarding of packets from these prefixes that arrive on the interface. It only
    reads."""
    packets = _packets(interface, prefixes)
    off = tuple(version for version in packets if not _forwards(interface, version))
    if os.geteuid():
        return Forwarding(off, unread=True)
    dropped: list[str] = []
    masked = False
    ruleset = programs.output("nft", "-j", "list", "ruleset") or "{}"
    for version, packet in packets.items():
        saved = [programs.output(name) or "" for name in _SAVES[version]]
        chains = [*chains_of_iptables(saved), *chains_of_nft(ruleset, version, saved)]
        dropped += (said for said in dropping(chains, packet) if said not in dropped)
        masked |= masks(chains, packet)
    return Forwarding(off, tuple(dropped), masked)


def refusing(interface: str, prefixes: Sequence[str]) -> list[str]:
    """Returns descriptions of nft's chains with policy accept and a rule that drops the packet.
    Only a rule in such a chain, from its owner, can help. It only reads."""
    ruleset = (programs.output("nft", "-j", "list", "ruleset") if not os.geteuid() else "") or "{}"
    found: list[str] = []
    for version, packet in _packets(interface, prefixes).items():
        chains = chains_of_nft(ruleset, version, ())
        for chain in chains:
            # The server's file adds its own rules to the others and to those of iptables.
            if chain.policy == "drop" or chain.name == "FORWARD":
                chain.policy = ""
        found += (said for said in dropping(chains, packet) if said not in found)
    return found


def _forwards(interface: str, version: int) -> bool:
    """Returns whether Linux forwards. For IPv4 it checks the interface where a packet arrives; for
    IPv6 the whole host, or since 6.17 also the interface
    (Documentation/networking/ip-sysctl.rst)."""
    names = (
        [f"ipv4/conf/{interface}/forwarding"]
        if version == 4
        else ["ipv6/conf/all/forwarding", f"ipv6/conf/{interface}/force_forwarding"]
    )
    return any(_sysctl(name) == "1" for name in names)


def _sysctl(name: str) -> str:
    try:
        with open(f"/proc/sys/net/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class _Packet:
    """The first packet of a flow."""

    interface: str
    sources: Sequence[str]

    def is_from(self, network: str) -> bool:
        """Returns whether all its sources are in the network."""
        try:
            wanted = ipaddress.ip_network(network, strict=False)
            given = [ipaddress.ip_network(one, strict=False) for one in self.sources]
        except ValueError:
            return False
        return all(
            one.version == wanted.version and one.subnet_of(wanted)  # type: ignore[arg-type]
            for one in given
        )


def _packets(interface: str, prefixes: Iterable[str]) -> dict[int, _Packet]:
    """Returns packets by IP version, for the versions of the prefixes."""
    sources: dict[int, list[str]] = {4: [], 6: []}
    for prefix in prefixes:
        sources[6 if ":" in prefix else 4].append(prefix)
    return {version: _Packet(interface, own) for version, own in sources.items() if own}


@dataclass(slots=True)
class Rule:
    """The parts of a rule that matter for a packet with a known interface and source."""

    verdict: str = ""
    """accept, drop, or the next chain."""
    interfaces: list[str] | None = None
    """Interface names with `*` as in shells; None: any."""
    sources: list[str] | None = None
    narrow: bool = False
    """Whether it has further conditions, which are unknown here."""
    later: bool = False
    """Whether it is for flows that were accepted before."""
    masks: bool = False


@dataclass(slots=True)
class Chain:
    table: str
    name: str
    policy: str = ""
    """accept or drop for a chain that every forwarded packet passes, or else empty."""
    rules: list[Rule] = field(default_factory=list)


def dropping(chains: Sequence[Chain], packet: _Packet) -> Iterator[str]:
    """Yields descriptions of the chains that drop the packet."""
    known = {(chain.table, chain.name): chain for chain in chains}
    for chain in chains:
        if chain.policy:
            said = _walk(known, chain, packet, 0)
            if said == "drop":
                yield f"a rule of {chain.name} in {chain.table}"
            elif not said and chain.policy == "drop":
                yield f"{chain.name} in {chain.table}, whose policy is DROP"


def masks(chains: Sequence[Chain], packet: _Packet) -> bool:
    """Returns whether a rule gives it an address of this host. Docker's rules, which are for its
    own networks, do not."""
    return any(rule.masks and _fits(rule, packet) for chain in chains for rule in chain.rules)


def _walk(known: dict[tuple[str, str], Chain], chain: Chain, packet: _Packet, depth: int) -> str:
    """Returns accept, drop, or an empty string if no rule decides."""
    for rule in chain.rules:
        if rule.later or not _fits(rule, packet):
            continue
        verdict = rule.verdict
        if (further := known.get((chain.table, verdict))) and depth < _DEPTH:
            verdict = _walk(known, further, packet, depth + 1)
        named = rule.interfaces is not None or rule.sources is not None
        if verdict == "accept" and (named or not rule.narrow):
            return "accept"
        if verdict == "drop" and not rule.narrow:
            return "drop"
        if verdict == "return" and not rule.narrow:
            return ""
    return ""


def _fits(rule: Rule, packet: _Packet) -> bool:
    if rule.interfaces is not None and not any(
        fnmatchcase(packet.interface, one) for one in rule.interfaces
    ):
        return False
    return rule.sources is None or any(packet.is_from(one) for one in rule.sources)


def chains_of_iptables(saved: Iterable[str]) -> list[Chain]:
    """Parses the output of iptables-save."""
    found: dict[tuple[str, str], Chain] = {}
    for text in saved:
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":") and table in ("filter", "nat"):
                name, policy, *_ = line[1:].split()
                asked = policy.lower() if (table, name) == ("filter", "FORWARD") else ""
                found.setdefault((table, name), Chain(f"iptables' table {table}", name, asked))
                if asked == "drop":
                    found[table, name].policy = asked
            elif line.startswith("-A ") and table in ("filter", "nat"):
                _, name, *words = line.split()
                found[table, name].rules.append(_iptables_rule(words))
    return list(found.values())


_IPTABLES_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}


def _iptables_rule(words: list[str]) -> Rule:
    rule = Rule()
    negated = False
    rest = iter(words)
    for word in rest:
        match word:
            case "!":
                negated = rule.narrow = True
                continue
            case "-i" if not negated:
                rule.interfaces = [next(rest, "").replace("+", "*")]
            case "-s" if not negated:
                rule.sources = [next(rest, "")]
            case "-j" | "-g":
                target = next(rest, "")
                rule.verdict = _IPTABLES_VERDICTS.get(target, target)
                rule.masks = target in ("MASQUERADE", "SNAT")
                break  # The rest are the target's own options.
            case "--ctstate" | "--state":
                states = set(next(rest, "").split(","))
                rule.later |= not negated and "NEW" not in states
                rule.narrow = True
            case "-m" if next(rest, "") == "comment":
                pass
            case "--comment":
                _skip_quoted(rest)
            case _:
                rule.narrow = True
        negated = False
    return rule


def _skip_quoted(rest: Iterator[str]) -> None:
    word = next(rest, "")
    if word.startswith('"'):
        while not re.search(r'(?<!\\)"$', word[1:] if len(word) > 1 else ""):
            word = " " + next(rest, '"')


def chains_of_nft(ruleset: str, version: int, saved: Iterable[str]) -> list[Chain]:
    """Parses `nft -j list ruleset`, without the tables that iptables-save has printed."""
    theirs = {line[1:] for text in saved for line in text.splitlines() if line.startswith("*")}
    found: dict[tuple[str, str, str], Chain] = {}
    for item in json.loads(ruleset).get("nftables", ()):
        kind, about = next(iter(item.items()))
        family, table = about.get("family"), about.get("table")
        if kind not in ("chain", "rule") or family not in _FAMILIES[version]:
            continue
        if family != "inet" and table in theirs:
            continue
        if kind == "chain":
            asked = about.get("policy", "accept") if about.get("hook") == "forward" else ""
            title = f"nft's table {family} {table}"
            found[family, table, about["name"]] = Chain(title, about["name"], asked)
        elif chain := found.get((family, table, about.get("chain"))):
            chain.rules.append(_nft_rule(about.get("expr", ())))
    return list(found.values())


def _nft_rule(expressions: Iterable[dict[str, Any]]) -> Rule:
    rule = Rule()
    for expression in expressions:
        kind, about = next(iter(expression.items()))
        match kind:
            case "match":
                _nft_match(rule, about)
            case "accept" | "drop" | "return":
                rule.verdict = kind
            case "reject":
                rule.verdict = "drop"
            case "jump" | "goto":
                rule.verdict = about["target"]
            case "masquerade" | "snat":
                rule.masks = True
            case "counter" | "log" | "comment":
                pass
            case _:
                rule.narrow = True
    return rule


def _nft_match(rule: Rule, about: dict[str, Any]) -> None:
    left, right, equal = about["left"], about["right"], about["op"] in ("==", "in")
    values = right.get("set", [right]) if isinstance(right, dict) else right
    values = values if isinstance(values, list) else [values]
    if equal and left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "iif"}}):
        rule.interfaces = [str(one) for one in values]
    elif equal and left.get("payload", {}).get("field") == "saddr":
        rule.sources = [_nft_network(one) for one in values]
    elif equal and left == {"ct": {"key": "state"}}:
        rule.later |= "new" not in values
        rule.narrow = True
    else:
        rule.narrow = True


def _nft_network(value: Any) -> str:
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return str(value)
