"""`state=1` and `events=1` over the daemon's socket, beside stock `wg` and another WireGuard."""

import ast
import base64
import contextlib
import errno
import socket
import sys
import time
from collections.abc import Iterator
from typing import Self

from interop.harness import (
    GO_DEBIAN,
    ROOT,
    End,
    Implementation,
    MakeHost,
    assert_answered,
    assert_pings,
    configuration,
    move,
    ping,
    tunnel,
)

from lab import hosts
from lab.hosts import Host

GET_KEYS = set(
    """private_key listen_port fwmark public_key preshared_key protocol_version endpoint tx_bytes
    rx_bytes last_handshake_time_sec last_handshake_time_nsec persistent_keepalive_interval
    allowed_ip errno""".split()  # noqa: SIM905
)

Block = dict[str, str]


class Client:
    """A connection to the socket of a host's wg0."""

    def __init__(self, host: Host) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(f"/proc/{host.pid}/root/run/wireguard/wg0.sock")
        self._file = self._socket.makefile()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\n" for line in (*lines, "")).encode())

    def ask(self, *lines: str) -> list[Block]:
        """The reply: the device, then the peers; errno in the last."""
        self.send(*lines)
        parts: list[Block] = [{}]
        for key, value in self._lines():
            if key == "public_key":
                parts.append({})
            parts[-1][key] = value
        return parts

    def event(self) -> Block:
        """The next one; nothing at the end."""
        return dict(self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        while (line := self._file.readline().rstrip("\n")) != "":
            key, _, value = line.partition("=")
            yield key, value


def state(host: Host) -> list[Block]:
    with Client(host) as client:
        return client.ask("state=1")


def peer_state(host: Host) -> Block:
    """Of a host with one peer."""
    _, one = state(host)
    return one


def digits(key: str) -> str:
    return base64.b64decode(key).hex()


def example_of_the_page() -> str:
    page = (ROOT / "docs/uapi.md").read_text()
    return page.partition("```python\n")[2].partition("```")[0]


def next_of(client: Client, *kinds: str) -> Block:
    """The next event that is one of these; others come in between when they like."""
    while event := client.event():
        if event["event"] in kinds:
            return event
    raise AssertionError(f"the events ended before {kinds}")


def test_what_goes_on_is_told_and_stock_sees_nothing_new(
    make_host: MakeHost, ours: Implementation
) -> None:
    GO_DEBIAN.need()
    a, b = tunnel(make_host("a"), make_host("b"), ours, GO_DEBIAN)
    key = digits(b.public)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Client(a.host)) for _ in range(100)]
        for one in idle:  # They never read.
            one.send("events=1")
        events = stack.enter_context(Client(a.host))
        assert events.ask("events=1") == [{"errno": "0"}]

        assert peer_state(a.host)["session"] == "none"
        assert_pings(a, b)
        told = [events.event() for _ in range(2)]
        assert [event["event"] for event in told] == ["handshake", "connected"]
        assert told[0]["initiator"] == "true"
        for event in told:
            assert (event["public_key"], event["endpoint"]) == (key, b.endpoint(4))
            assert abs(int(event["time_sec"]) - time.time()) < 60

        device, peer = state(a.host)
        assert device.pop("cipher") in ("own", "ring") and "segment" in device.pop("offloads")
        assert device == {"up": "true", "bound": "true"}
        assert (peer["public_key"], peer["session"]) == (key, "live")
        assert (int(peer["rx_bytes"]), int(peer["tx_bytes"])) == a.transfer()
        assert int(peer["last_handshake_time_sec"]) == a.handshake()
        assert int(peer["sent_age_ms"]) <= int(peer["session_age_ms"]) < 60_000
        assert "initiations" not in peer

        with Client(a.host) as stock:
            got = stock.ask("get=1")
            assert {name for part in got for name in part} <= GET_KEYS
            both = stock.ask("state=1", f"public_key={key}")
            assert [part.get("public_key") for part in both] == [None, key]
            assert stock.ask("state=1", f"public_key={'1' * 64}") == [{"errno": str(errno.ENOENT)}]

        old = b.endpoint(4)
        move(b, 4)
        b.host.start("ping -n -q -c 1", a.inner[4]).wait(10)
        roamed = next_of(events, "roamed")
        assert (roamed["old_endpoint"], roamed["endpoint"]) == (old, b.endpoint(4))
        assert a.peer_endpoint() == b.endpoint(4)

        hosts.address(b.host, "wg0", "10.66.0.1/32")
        ping(b.host, a.inner[4], "-I", "10.66.0.1", wait=0.2)
        rejected = next_of(events, "rejected_source")
        # A peer that has just roamed is reported once per second: more may have come by then.
        assert rejected["source"] == "10.66.0.1" and 1 <= int(rejected["count"]) <= 3
        peer = peer_state(a.host)
        assert (peer["rejected_sources"], peer["rejected_source"]) == ("3", "10.66.0.1")

        a.host.run("ip route add 10.77.0.0/16 dev wg0")
        ping(a.host, "10.77.1.2", wait=0.2)
        device, _ = state(a.host)
        assert device["no_peer_destination"] == "10.77.1.2"

        a.host.run(f"ip link set {a.device} down")
        ping(a.host, b.inner[4], wait=0.2)
        unreachable = next_of(events, "unreachable")
        assert unreachable["reason"] == "send_error"
        assert unreachable["errno"] == peer_state(a.host)["send_error"] == str(errno.ENETUNREACH)
        a.host.run(f"ip link set {a.device} up")

        a.wg("set", "wg0", "peer", b.public, "remove")
        removed = next_of(events, "disconnected")
        assert (removed["reason"], removed["public_key"]) == ("removed", key)
        assert len(state(a.host)) == 1
        assert a.wg("show", "wg0", "peers") == ""


def test_wrong_keys_are_reported_as_what_they_are(
    make_host: MakeHost, ours: Implementation
) -> None:
    """A stranger, another key, another preshared key: each as an operator has them wrong."""
    GO_DEBIAN.need()
    a, b = tunnel(make_host("a"), make_host("b"), ours, GO_DEBIAN)

    def again(end: End, other: End, key: str, psk: str | None = None) -> list[Block]:
        """Starts again, with a peer that never existed, until `a` says something of it."""
        configure(end, other, psk)
        found = list[Block]()

        def said() -> bool:
            ping(end.host, other.inner[4], count=1, wait=0.1)
            found[:] = state(a.host)
            return any(key in part for part in found)

        hosts.wait_for(key, said)
        return found

    def configure(end: End, other: End, psk: str | None = None) -> None:
        text = configuration(end, other, outer=4, psk=psk)
        end.wg("setconf", "wg0", "/dev/stdin", text=text)

    a.wg("set", "wg0", "peer", b.public, "remove")
    device, *_ = again(b, a, "unknown_initiator")
    assert device["unknown_initiator"] == digits(b.public)
    assert device["unknown_initiator_endpoint"] == b.endpoint(4)
    assert int(device["unknown_initiations"]) >= 1

    psk = hosts.tool("wg genpsk").strip()
    configure(a, b, psk)
    _, peer = again(b, a, "unconfirmed_responses")
    assert int(peer["unconfirmed_responses"]) >= 1
    _, peer = again(a, b, "bad_responses", psk)
    assert int(peer["bad_responses"]) >= 1 and int(peer["initiations"]) >= 1
    assert int(peer["staged"]) >= 1

    _, peer = again(a, b, "session_age_ms")
    assert_answered(a.host, b.inner[4])
    assert peer["session"] == "live" and "bad_responses" not in peer

    a.wg("set", "wg0", "private-key", "/dev/stdin", text=hosts.keypair()[0])
    device, _ = again(b, a, "invalid_mac1")
    assert device["invalid_mac1_endpoint"] == b.endpoint(4)


def test_down_and_the_end_of_the_interface_are_told(
    make_host: MakeHost, ours: Implementation
) -> None:
    a, b = tunnel(make_host("a"), make_host("b"), ours, ours)
    example = b.host.start(sys.executable, "-u", "-c", example_of_the_page())
    assert example.popen.stdout is not None
    assert example.popen.stdout.readline() == "{'errno': '0'}\n"
    with Client(b.host) as events:
        assert events.ask("events=1", f"public_key={digits(a.public)}") == [{"errno": "0"}]
        ping(a.host, b.inner[4], count=1)
        handshake = events.event()
        assert (handshake["event"], handshake["initiator"]) == ("handshake", "false")
        assert events.event()["event"] == "connected"
        b.host.run("ip link set wg0 down")
        assert events.event()["reason"] == "down"
        device, _ = state(b.host)
        assert (device["up"], device["bound"]) == ("false", "false")
        b.host.run("ip link delete wg0")
        assert events.event() == {}
    code, output = example.wait(5)
    assert code == 0, output
    kinds = [ast.literal_eval(line)["event"] for line in output.splitlines()]
    assert kinds == ["handshake", "connected", "disconnected"]


def test_another_implementation_closes_the_connection(make_host: MakeHost) -> None:
    """So a client learns that there is nothing but `get`."""
    GO_DEBIAN.need()
    host = make_host()
    GO_DEBIAN.start(host)
    for operation in ("state=1", "events=1"):
        with Client(host) as client:
            assert client.ask(operation) == [{}]
    with Client(host) as client:
        assert client.ask("get=1")[0]["errno"] == "0"
