"""Why a peer is not talking: a table of rules. The first that holds is the reason.

They are in the order in which a packet would fail: this host's interface and routes, the way out,
then what came back. Every rule is a pure function of the facts.
"""

from wiresnake.diagnosis import local_rules, remote_rules
from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.verdict import Rule, Verdict

RULES: tuple[Rule, ...] = (
    local_rules.interface_down,
    local_rules.no_private_key,
    local_rules.no_peer,
    local_rules.not_routed,
    remote_rules.rejected_sources,
    remote_rules.not_forwarded,
    remote_rules.talking,
    local_rules.clock_unset,
    remote_rules.psk_differs,
    local_rules.unresolved,
    local_rules.endpoint_in_tunnel,
    local_rules.cannot_send,
    local_rules.no_route,
    local_rules.no_socket,
    remote_rules.clock_behind,
    remote_rules.stranger,
    remote_rules.answers_lost,
    local_rules.no_endpoint,
    remote_rules.endpoint_moved,
    local_rules.no_inner_route,
    remote_rules.under_load,
    remote_rules.no_answer,
    remote_rules.idle,
)
_ALONE = frozenset(
    ("talking", "idle", "interface_down", "no_such_peer", "not_in_allowed_ips", "no_answer")
)
"""Reasons that stand alone: they need no others, and add nothing to others."""


def diagnose(facts: Facts) -> list[Verdict]:
    """Returns the reason, followed by what else was found."""
    first, *others = [verdict for rule in RULES if (verdict := rule(facts))]
    if first.reason in _ALONE:
        return [first]
    return [first, *(verdict for verdict in others if verdict.reason not in _ALONE)]
