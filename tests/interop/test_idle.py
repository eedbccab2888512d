"""An idle tunnel is silent on the wire and asleep in the machine."""

import pytest
from interop.harness import Idle, assert_pings


@pytest.mark.slow
def test_c066_c096_idle_is_silent(idle: Idle) -> None:
    """A minute, from 30 s after the last packet: no datagram, no context switch, on either end."""
    switches, packets = idle.watched()
    assert switches == [0, 0]
    assert packets == []
    assert_pings(*idle.ends)
