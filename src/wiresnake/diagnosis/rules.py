"""Why a peer is not talking: a table of rules, the first that holds is the reason.

They stand in the order in which a packet would fail: this host's interface and routes, then the
way out, then what came back. The rules of "here" and "there" are pure functions of the facts.
"""

from wiresnake.diagnosis import here, there
from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.verdict import Rule, Verdict

RULES: tuple[Rule, ...] = (
    here.interface_down,
    here.no_private_key,
    here.no_peer,
    here.not_routed,
    there.rejected_sources,
    there.not_forwarded,
    there.talking,
    here.clock_unset,
    there.psk_differs,
    here.unresolved,
    here.endpoint_in_tunnel,
    here.cannot_send,
    here.no_route,
    here.no_socket,
    there.clock_behind,
    there.stranger,
    there.answers_lost,
    here.no_endpoint,
    there.endpoint_moved,
    here.no_inner_route,
    there.under_load,
    there.no_answer,
    there.idle,
)
_ALONE = frozenset(
    ("talking", "idle", "interface_down", "no_such_peer", "not_in_allowed_ips", "no_answer")
)
"""Reasons that leave nothing to add, and add nothing to another."""


def diagnose(facts: Facts) -> list[Verdict]:
    """The reason, and behind it what else was found."""
    first, *others = [verdict for rule in RULES if (verdict := rule(facts))]
    if first.reason in _ALONE:
        return [first]
    return [first, *(verdict for verdict in others if verdict.reason not in _ALONE)]
