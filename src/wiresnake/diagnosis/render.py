"""Verdicts as sentences for people, and as JSON for scripts."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.units import ago, duration, size
from wiresnake.diagnosis.verdict import Verdict

_WIDTH = 100
_BLIND = (
    " how many handshakes were tried, why answers were rejected, which sources were rejected and"
    " whether datagrams could be sent. A device of wiresnaked reports these."
)
_UNKNOWN = {
    "ours": "",
    "kernel": "A kernel device does not report" + _BLIND,
    "foreign": "This interface's daemon does not report" + _BLIND,
}


def as_text(facts: Facts, verdicts: Sequence[Verdict], name: str) -> str:
    """Returns the reason, the figures and what to do, for a terminal."""
    first, *others = verdicts
    lines = [*_wrap(first.says)]
    lines += ["", f"{_who(facts, name)}:"]
    for said in (*first.evidence, *_numbers(facts)):
        lines += _wrap(said, "  - ")
    if first.remedy:
        lines += ["", "What to do:", *_wrap(first.remedy, "  - ")]
    if others:
        lines += ["", "Also:"]
        for verdict in others:
            lines += _wrap(" ".join((verdict.says, *verdict.evidence)), "  - ")
    if unknown := _UNKNOWN[facts.kind]:
        lines += ["", *_wrap(unknown)]
    return "\n".join(lines)


def as_json(facts: Facts, verdicts: Sequence[Verdict], name: str) -> str:
    first, *others = verdicts
    return json.dumps(
        {
            "interface": facts.state.name,
            "public_key": facts.peer.public_key if facts.peer else None,
            "name": name or None,
            "talking": first.talking,
            **_verdict(first),
            "numbers": list(_numbers(facts)),
            "state": asdict(facts.report) if facts.report else None,
            "also": [_verdict(verdict) for verdict in others],
            "not_known": _UNKNOWN[facts.kind] or None,
        },
        indent=2,
        ensure_ascii=False,
    )


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "reason": verdict.reason,
        "says": verdict.says,
        "evidence": verdict.evidence,
        "remedy": verdict.remedy or None,
    }


def _who(facts: Facts, name: str) -> str:
    if facts.peer is None:
        return facts.state.name
    key = facts.peer.public_key
    return f"{facts.state.name}, {f'{name} ({key})' if name else f'peer {key}'}"


def _numbers(facts: Facts) -> Iterator[str]:
    peer, report = facts.peer, facts.report
    if peer is None:
        return
    age = facts.handshake_age
    yield f"Endpoint: {peer.endpoint or 'none'}."
    yield f"Last handshake: {'never' if age is None else f'{duration(age)} ago'}."
    if report:
        heard, spoke = ago(report.received_age_ms), ago(report.sent_age_ms)
        yield f"Last received: {heard}. Last sent: {spoke}."
    yield f"In total {size(peer.received)} received, {size(peer.sent)} sent."


def _wrap(said: str, bullet: str = "") -> list[str]:
    return textwrap.wrap(
        said,
        _WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
