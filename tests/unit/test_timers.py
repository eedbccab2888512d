"""The timer table."""

from hypothesis import given
from hypothesis import strategies as st

from wiresnake.protocol.timers import Timer, Timers


def test_the_next_deadline_comes_with_its_reason() -> None:
    timers = Timers()
    assert timers.next() is None
    timers.set(1, Timer.ZERO_KEYS, 50)
    timers.set(2, Timer.PERSISTENT_KEEPALIVE, 20)
    assert timers.next() == (20, "persistent keepalive")
    timers.cancel(2, Timer.PERSISTENT_KEEPALIVE)
    assert timers.next() == (50, "zero keys")


def test_a_deadline_set_again_is_moved() -> None:
    timers = Timers()
    timers.set(1, Timer.KEEPALIVE, 10)
    timers.set(1, Timer.KEEPALIVE, 30)
    assert list(timers.expired(20)) == []
    timers.set(1, Timer.KEEPALIVE, 15)
    assert list(timers.expired(20)) == [(1, Timer.KEEPALIVE)]
    assert timers.next() is None


def test_a_deadline_that_is_set_in_the_past_does_not_spin() -> None:
    timers = Timers()
    timers.set(1, Timer.RETRANSMIT, 10)
    seen = 0
    for peer, timer in timers.expired(20):
        timers.set(peer, timer, 5)
        seen += 1
    assert seen == 1


def test_the_heap_stays_as_small_as_what_is_alive() -> None:
    timers = Timers()
    for deadline in range(100_000):
        timers.set(1, Timer.ZERO_KEYS, deadline + 1_000_000)
    assert len(timers._heap) < 100


operation = st.tuples(
    st.sampled_from(["set", "cancel", "expire"]),
    st.integers(1, 3),
    st.sampled_from(Timer),
    st.integers(0, 100),
)


@given(st.lists(operation, max_size=200))
def test_like_a_plain_dictionary(operations: list[tuple[str, int, Timer, int]]) -> None:
    timers = Timers()
    model: dict[tuple[int, Timer], int] = {}
    for what, peer, timer, moment in operations:
        if what == "set":
            timers.set(peer, timer, moment)
            model[peer, timer] = moment
        elif what == "cancel":
            timers.cancel(peer, timer)
            model.pop((peer, timer), None)
        else:
            due = {key for key, deadline in model.items() if deadline <= moment}
            assert set(timers.expired(moment)) == due
            for key in due:
                del model[key]
        found = timers.next()
        assert (None if found is None else found[0]) == min(model.values(), default=None)
        assert all(timers.is_set(*key) for key in model)
