"""`why`, `events` and `metrics` with a kernel device, which reports nothing and is polled."""

import json
import sys
from pathlib import Path

from interop.harness import Implementation, MakeHost, assert_pings
from kernel.harness import connect
from kernel.uml import Uml
from prometheus_client.parser import text_string_to_metric_families

from lab import hosts

WIRESNAKE = Path(sys.executable).with_name("wiresnake")


def test_a_kernels_device_is_watched(
    kernel: Uml, make_host: MakeHost, ours: Implementation
) -> None:
    our, their = connect(make_host("ours"), kernel, ours)
    events = kernel.start("sh -c", f"exec {WIRESNAKE} events --json wg0 >/tmp/events 2>/tmp/notice")

    def why() -> dict[str, object]:
        done = kernel.run(WIRESNAKE, "why", "--json", our.inner[4], check=False)
        answer: dict[str, object] = json.loads(done.stdout)
        assert done.returncode == (0 if answer["talking"] else 3)
        return answer

    answer = why()
    assert answer["reason"] == "no_endpoint"
    assert str(answer["not_known"]).startswith("A kernel device does not report")
    hosts.wait_for("the watcher", lambda: "watching" in kernel.output("cat /tmp/notice"))

    assert_pings(our, their)
    assert why()["reason"] == "talking"
    hosts.wait_for("events", lambda: "connected" in kernel.output("cat /tmp/events"))

    text = kernel.run(WIRESNAKE, "metrics").stdout
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (received,) = families["wireguard_received_bytes"].samples
    assert received.labels["public_key"] == our.public
    assert 0 < received.value <= their.transfer()[0]
    (handshake,) = families["wireguard_latest_handshake_seconds"].samples
    assert handshake.value == their.handshake()

    kernel.run(f"wg set wg0 peer {our.public} endpoint 192.0.2.1:9")
    hosts.wait_for("a roamed peer", lambda: "roamed" in kernel.output("cat /tmp/events"))
    kernel.run("ip link set wg0 down")
    assert why()["reason"] == "interface_down"
    hosts.wait_for("the end of it", lambda: "disconnected" in kernel.output("cat /tmp/events"))
    kernel.run("ip link delete wg0")
    assert events.wait(30)[0] == 0
    told = [json.loads(line) for line in kernel.output("cat /tmp/events").splitlines()]
    assert [one["event"] for one in told] == ["handshake", "connected", "roamed", "disconnected"]
    assert all(one["source"] == "watching" for one in told)
    assert told[-1]["reason"] == "down"
