"""A tunnel to another WireGuard with each cipher that this CPU can run, as `state` says."""

from pathlib import Path

import pytest
from interop.harness import (
    GO_NEW,
    Implementation,
    MakeHost,
    assert_pings,
    assert_tcp,
    configure,
    ends,
)
from interop.test_uapi_extensions import state


@pytest.mark.parametrize("name", ["own", "ring"])
def test_a_tunnel_with(make_host: MakeHost, ours: Implementation, name: str) -> None:
    GO_NEW.need()
    a, b = ends(make_host("a"), make_host("b"))
    environment = {"WIRESNAKE_CIPHER": name}
    done = a.host.run(Path(ours.program), a.interface, env=environment, check=False)
    if "it needs a CPU" in done.stderr:
        pytest.skip(done.stderr[done.stderr.index("WIRESNAKE") :].partition(";")[0])
    assert done.returncode == 0, done.stderr
    GO_NEW.start(b.host)
    configure(a, b)
    assert_pings(a, b)
    assert_tcp(a, b, size=1 << 20)
    assert state(a.host)[0]["cipher"] == name
