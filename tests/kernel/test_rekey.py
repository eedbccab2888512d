"""Sessions in real time: the initiator renews a session after two minutes without a loss."""

import pytest
from interop.harness import count_pings
from kernel.harness import COOKIE, INITIATION, RESPONSE, Lasting
from wiresnake_conformance.machine import PIECES, Watch


@pytest.mark.slow
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_the_initiator_renews_the_session(
    lasting: dict[str, Lasting], watch: Watch, first: str
) -> None:
    run = lasting[first]
    for process in run.pings:
        pings = count_pings(process.wait(600)[1])
        assert pings == (run.COUNT, run.COUNT)
    begins, answers = run.begins.outer[4], run.answers.outer[4]
    seen = [(one.source, one.kind) for one in run.tap.datagrams() if one.kind <= COOKIE]
    assert seen == [(begins, INITIATION), (answers, RESPONSE)] * 2
    late = PIECES * watch.since(run.start).worst
    for end in (run.begins, run.answers):
        assert 120 <= end.handshake() - run.handshake <= 122 + late
