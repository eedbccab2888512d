"""`why`, `events`, `monitor` and `metrics` on real tunnels: each fault is made, and named."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from interop.harness import (
    GO_DEBIAN,
    WIRESNAKE,
    End,
    Implementation,
    MakeHost,
    assert_pings,
    configuration,
    ends,
    move,
)
from prometheus_client.parser import text_string_to_metric_families
from sim import forge

from lab import hosts
from lab.hosts import Host, Process
from wiresnake._native import PrivateKey
from wiresnake.protocol.noise import tai64n

RUNNER = Path(__file__).with_name("short_timers.py")
UDP_OUT = "type filter hook output priority 0;"
UDP_IN = "type filter hook input priority 0;"
NOT_TALKING = 3


@dataclass
class Tunnel:
    """Two of our devices with short timers, set up again for each fault."""

    a: End
    b: End

    def reset(self, *, psk: str | None = None, endpoint: str | None = None, **changes: str) -> None:
        """Both ends forget what was. `a` knows where `b` is, or is given another endpoint."""
        a, b = self.a, self.b
        for end in (a, b):
            end.wg("set", "wg0", "peer", (b if end is a else a).public, "remove")
            end.host.run("nft flush ruleset")
        text = configuration(a, b, outer=4, psk=psk, **changes)
        if endpoint is not None:
            text = re.sub(r"Endpoint = .*", f"Endpoint = {endpoint}" if endpoint else "", text)
        a.wg("setconf", "wg0", "/dev/stdin", text=text)
        b.wg("setconf", "wg0", "/dev/stdin", text=configuration(b, a))

    def knock(self, end: End | None = None, target: str = "") -> None:
        """A packet for the other end, whose answer nobody waits for."""
        end = end or self.a
        other = self.b if end is self.a else self.a
        end.host.run("ping -n -q -c 1 -W 0.05", target or other.inner[4], check=False)


@pytest.fixture
def pair(make_host: MakeHost, ours: Implementation) -> Iterator[Tunnel]:
    a, b = ends(make_host("a"), make_host("b"))
    for end in (a, b):
        daemon = end.host.start(Path(sys.executable), RUNNER, "wg0")
        hosts.wait_for("the daemon", Path(f"/proc/{daemon.pid}/root/run/wireguard/wg0.sock").exists)
    tunnel = Tunnel(a, b)
    tunnel.reset()
    for end in (a, b):
        end.up()
        hosts.await_tunnel(end.host)
    yield tunnel


def why(end: End, peer: str, *more: str | Path) -> dict[str, Any]:
    """The answer; its exit code must agree with it."""
    done = end.host.run(WIRESNAKE, "why", "--json", *more, peer, check=False)
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if answer["talking"] else NOT_TALKING)
    return answer


def finds(end: End, peer: str, reason: str, *more: str | Path) -> str:
    """Asks until it is the reason, as what makes it may take a moment; returns everything that it
    says."""
    for _ in range(8):
        answer = why(end, peer, *more)
        if answer["reason"] == reason:
            break
        time.sleep(0.3)
    assert answer["reason"] == reason, json.dumps(answer, indent=1)
    return " ".join([answer["says"], *answer["evidence"], answer["remedy"] or ""])


def block(end: End, chain: str, rule: str) -> None:
    end.host.run("nft add table inet f")
    end.host.run("nft", f"add chain inet f c {{ {chain} }}")
    end.host.run("nft", f"add rule inet f c {rule}")


def test_why_on_this_host(pair: Tunnel) -> None:
    a, b = pair.a, pair.b
    assert_pings(a, b)
    for wanted in (b.public, b.public[:6], b.inner[4], b.inner[6]):
        assert why(a, wanted)["reason"] == "talking"

    said = finds(a, "10.8.0.1", "not_in_allowed_ips")
    assert f"10.9.0.2/32 of {b.public}" in said
    assert "ENETUNREACH" not in said

    finds(a, hosts.keypair()[1], "no_such_peer")

    a.wg("set", "wg0", "peer", b.public, "allowed-ips", f"{b.inner[4]}/32,10.77.0.0/24")
    assert "no route to 10.77.0.1" in finds(a, "10.77.0.1", "not_routed")
    a.host.run(f"ip route add 10.77.0.0/24 dev {a.device}")
    assert f"leave through {a.device}, not through wg0" in finds(a, "10.77.0.1", "not_routed")
    a.host.run("ip route delete 10.77.0.0/24")

    pair.reset()
    assert "no packet" not in finds(a, b.public, "idle")
    finds(b, a.public, "no_endpoint")

    pair.reset(endpoint="203.0.113.1:51820")
    pair.knock()
    assert "ENETUNREACH" in finds(a, b.public, "no_route")

    pair.reset(endpoint="10.9.0.99:51820")
    pair.knock()
    assert "10.9.0.99 through wg0" in finds(a, b.public, "endpoint_in_tunnel")

    pair.reset(allowed="0.0.0.0/0")
    for command in (
        "wg set wg0 fwmark 51820",
        "ip route add 0.0.0.0/0 dev wg0 table 51820",
        "ip rule add not fwmark 51820 table 51820",
    ):
        a.host.run(command)
    block(b, UDP_IN, "udp dport 51820 drop")
    pair.knock()
    finds(a, b.public, "udp_filtered")
    a.wg("set", "wg0", "fwmark", "off")
    finds(a, b.public, "endpoint_in_tunnel")
    a.host.run("ip rule delete not fwmark 51820 table 51820")

    pair.reset()
    block(a, UDP_OUT, "udp dport 51820 drop")
    pair.knock()
    assert "EPERM: a firewall on this host" in finds(a, b.public, "blocked_here")

    pair.reset(endpoint="")
    file = Path("/run/wg0.conf")
    for host, expected in (("vpn.invalid", "endpoint_unresolved"), ("192.0.2.2", "no_endpoint")):
        text = f"[Peer]\n# friendly_name = b\nPublicKey = {b.public}\nEndpoint = {host}:51820\n"
        a.host.run(f"tee {file}", text=text)
        said = finds(a, "b", expected, "--config", file)
        assert host in said

    a.host.run("ip link set wg0 down")
    finds(a, b.public, "interface_down")


def test_why_of_a_peer_that_reaches_this_host_alone(pair: Tunnel) -> None:
    """It calls `b`, which does not forward, or drops, or has no address for it."""
    a, b = pair.a, pair.b
    b.host.run("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    assert_pings(a, b)
    assert "does not forward IPv4 and IPv6 for it" in finds(b, a.public, "talking")
    b.host.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    assert "this host's address (masquerade)" in finds(b, a.public, "talking")
    b.host.run("iptables -P FORWARD DROP")
    said = finds(b, a.public, "talking")
    assert "FORWARD in iptables' table filter, whose policy is DROP" in said
    b.host.run("nft add table ip mask")
    b.host.run("nft add chain ip mask out { type nat hook postrouting priority srcnat ; }")
    b.host.run("nft add rule ip mask out masquerade")
    assert "FORWARD in iptables' table filter" in finds(b, a.public, "not_forwarded")
    b.host.run("iptables -I FORWARD -i wg0 -j ACCEPT")
    assert "dropped" not in finds(b, a.public, "talking")
    block(b, "type filter hook forward priority 0; policy drop;", "iifname eth7 accept")
    assert "c in nft's table inet f, whose policy is DROP" in finds(b, a.public, "not_forwarded")


def test_why_of_a_wrong_server_key(pair: Tunnel) -> None:
    """The commonest mistake of all, and the server's end alone can be sure."""
    a, b = pair.a, pair.b
    _, wrong = hosts.keypair()
    a.wg("set", "wg0", "peer", b.public, "remove")
    a.wg("set", "wg0", "peer", wrong, "endpoint", b.endpoint(4), "allowed-ips", "10.9.0.2/32")
    pair.knock()
    said = finds(a, wrong, "udp_filtered")
    assert "PublicKey here is not the peer's" in said
    assert f"must print {wrong}" in said
    b.wg("set", "wg0", "peer", hosts.keypair()[1], "allowed-ips", "10.77.0.1/32")
    assert "Handshakes do arrive at UDP port 51820" in finds(b, a.public, "no_endpoint")


def test_why_of_what_comes_back(pair: Tunnel) -> None:
    a, b = pair.a, pair.b
    block(b, UDP_IN, "udp dport 51820 drop")
    pair.knock()
    said = finds(a, b.public, "udp_filtered")
    assert re.search(r"\d initiations? sent, the first \d", said)
    assert "192.0.2.2, or the router in front of it, answers pings" in said
    file = Path("/run/wg0.conf")
    text = f"[Peer]\nPublicKey = {b.public}\nEndpoint = localhost:51820\n"
    a.host.run(f"tee {file}", text=text)
    said = finds(a, b.public, "endpoint_moved", "--config", file)
    assert "localhost is" in said and "sends to 192.0.2.2:51820" in said

    pair.reset(endpoint="192.0.2.2:9")
    pair.knock()
    assert "ECONNREFUSED" in finds(a, b.public, "nobody_listens")

    pair.reset(endpoint="192.0.2.77:51820")
    pair.knock()
    finds(a, b.public, "no_answer")

    pair.reset(psk=hosts.tool("wg genpsk"))
    pair.knock()
    assert "This host has a preshared key for it." in finds(a, b.public, "key_or_psk_differs")
    finds(b, a.public, "answers_lost")

    pair.reset()
    assert_pings(a, b)
    b.wg("set", "wg0", "peer", a.public, "allowed-ips", f"10.7.0.0/24,{a.inner[6]}/128")
    pair.knock(a)
    said = finds(b, a.public, "source_not_allowed")
    assert f"from {a.inner[4]}" in said and "10.7.0.0/24" in said
    assert why(a, b.public)["talking"], "the end that is right cannot know"

    pair.reset()
    b.wg("set", "wg0", "peer", a.public, "endpoint", a.endpoint(4))
    private, public = hosts.keypair()
    a.wg("set", "wg0", "private-key", "/dev/stdin", text=private)
    pair.knock(a)
    pair.knock(b)
    assert f"by {public} from 192.0.2.1:51820" in finds(b, a.public, "public_key_differs")
    assert public in finds(a, b.public, "our_public_key_differs")


def test_why_of_a_clock_that_was_set_back(make_host: MakeHost, ours: Implementation) -> None:
    """The peer is the test's: no process can have a wall clock of its own."""
    a, b = ends(make_host("a"), make_host("b"))
    ours.start(a.host)
    a.wg("setconf", "wg0", "/dev/stdin", text=configuration(a, b, outer=4))
    a.up()
    hosts.await_tunnel(a.host)
    private = PrivateKey.from_base64(b.private.encode())
    assert private is not None
    with hosts.udp_socket(b.host, socket.AF_INET, b.port) as out:
        for index, seconds in enumerate((2_000_000_000, 1_900_000_000, 1_900_000_060), 1):
            stamp, ephemeral = tai64n(seconds * 10**9), PrivateKey.generate()
            message = forge.initiation(private, b64decode(a.public), ephemeral, stamp, index)[1]
            out.sendto(message, (a.outer[4], a.port))
            time.sleep(0.06)
        said = finds(a, b.public, "clock_behind")
    assert "2 initiations with an earlier time" in said


def lines(process: Process, count: int, seconds: float = 5) -> list[str]:
    """The next lines that it prints."""
    assert process.popen.stdout is not None
    stream = process.popen.stdout
    os.set_blocking(stream.fileno(), False)
    text, deadline = "", time.monotonic() + seconds
    while text.count("\n") < count and time.monotonic() < deadline:
        select.select([stream], [], [], 0.1)
        text += os.read(stream.fileno(), 1 << 16).decode() if _ready(stream) else ""
    assert text.count("\n") >= count, text
    return text.splitlines()


def _ready(stream: Any) -> bool:
    return bool(select.select([stream], [], [], 0)[0])


HOOKS = """\
[Interface]
[Peer]
# friendly_name = laptop
PublicKey = {public}
OnUp = echo up $WIRESNAKE_NAME $WIRESNAKE_EVENT $WIRESNAKE_ENDPOINT %i >>/run/log  # not cut
OnUp = false
OnDown = echo down $WIRESNAKE_PEER $WIRESNAKE_INTERFACE >>/run/log
"""


def test_events_and_hooks(pair: Tunnel) -> None:
    a, b = pair.a, pair.b
    b.host.run("tee /run/hooks.conf", text=HOOKS.format(public=a.public))
    told = b.host.start(WIRESNAKE, "events", "--json", "wg0", "--config", "/run/hooks.conf")
    plain = a.host.start(WIRESNAKE, "events")
    hooks = b.host.start(WIRESNAKE, "events", "--hooks", "/run/hooks.conf", "wg0")
    hosts.wait_for("three that listen", lambda: _subscribers(a.host) + _subscribers(b.host) == 3)
    assert_pings(a, b)
    old = a.endpoint(4)
    events = [json.loads(line) for line in lines(told, 2)]
    assert [event["event"] for event in events] == ["handshake", "connected"]
    assert events[0] | {"time": 0} == {
        "time": 0,
        "interface": "wg0",
        "public_key": a.public,
        "name": "laptop",
        "event": "handshake",
        "source": "device",
        "endpoint": old,
        "initiator": False,
    }
    assert abs(events[0]["time"] - time.time()) < 30
    (first, second) = lines(plain, 2)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} wg0 "
        + re.escape(f"{b.public} handshake endpoint={b.endpoint(4)} initiator=true"),
        first,
    )
    assert " connected " in second
    move(a, 4)
    pair.knock(a)
    (roamed,) = (json.loads(line) for line in lines(told, 1))
    assert roamed["event"] == "roamed"
    assert (roamed["old_endpoint"], roamed["endpoint"]) == (old, a.endpoint(4))
    b.wg("set", "wg0", "peer", a.public, "remove")
    (gone,) = (json.loads(line) for line in lines(told, 1))
    assert (gone["event"], gone["reason"]) == ("disconnected", "removed")
    log = f"up laptop connected {old} wg0\ndown {a.public} wg0\n"
    hosts.wait_for("OnDown", lambda: b.host.run("cat /run/log", check=False).stdout == log)
    a.host.run("ip link delete wg0")
    b.host.run("ip link delete wg0")
    assert plain.wait(5)[0] == 0, "it ends with the interface"
    assert told.wait(5)[0] == 0
    code, said = hooks.wait(5)
    assert code == 0
    assert said == "wiresnake: wg0: OnUp 2 of laptop exited with 1\n"


def test_hooks_end_with_their_process(pair: Tunnel) -> None:
    """Who was connected before gets OnUp, and OnDown when the process is ended."""
    a, b = pair.a, pair.b
    assert_pings(a, b)
    a.host.run("tee /run/hooks.conf", text=HOOKS.format(public=b.public))
    hooks = a.host.start(WIRESNAKE, "events", "--hooks", "/run/hooks.conf", "wg0")
    up = f"up laptop connected {b.endpoint(4)} wg0\n"
    hosts.wait_for("OnUp", lambda: a.host.run("cat /run/log", check=False).stdout == up)
    assert hooks.stop()[0] == 0
    assert a.host.output("cat /run/log") == f"{up}down {b.public} wg0\n"


def test_up_starts_the_hooks_and_names_the_peers(make_host: MakeHost, ours: Implementation) -> None:
    """A reload leaves their process alone, which reads the new file by itself."""
    a, b = ends(make_host("a"), make_host("b"))
    for end, other in ((a, b), (b, a)):
        text = (
            f"[Interface]\nAddress = {end.inner[4]}/24, {end.inner[6]}/64\n"
            + configuration(end, other, outer=4).removeprefix("[Interface]\n")
            + "# friendly_name = far\n"
            + ("OnUp = echo up >>/run/log\nOnDown = echo down >>/run/log\n" if end is a else "")
        )
        end.host.run("sh -c", "umask 077; cat >/run/wg0.conf", text=text)
        end.host.run(WIRESNAKE, "up", "--backend", "user", "/run/wg0.conf")
    (process,) = a.host.processes("--hooks")
    assert_pings(a, b)
    hosts.wait_for("OnUp", lambda: a.host.run("cat /run/log", check=False).stdout == "up\n")
    a.host.run("sed -i s/down/later/ /run/wg0.conf")
    a.host.run(WIRESNAKE, "reload", "/run/wg0.conf")
    assert a.host.processes("--hooks") == [process]
    assert why(a, "far")["name"] == "far"
    a.host.run(WIRESNAKE, "down", "/run/wg0.conf")
    hosts.wait_for("OnDown", lambda: a.host.output("cat /run/log") == "up\nlater\n")
    hosts.wait_for("its end", lambda: not a.host.processes("--hooks"))


def _subscribers(host: Host) -> int:
    """Connections to the daemon's socket, which was bound by another name than the one it has."""
    table = host.output("cat /proc/net/unix").splitlines()
    return sum("/wireguard/wg0." in line and line.split()[5] == "03" for line in table)


def test_events_end_quietly(pair: Tunnel) -> None:
    told = pair.a.host.start(WIRESNAKE, "events", "wg0")
    hosts.wait_for("a subscriber", lambda: _subscribers(pair.a.host) == 1)
    assert told.stop(signal.SIGINT) == (0, "")
    hosts.wait_for("no subscriber", lambda: _subscribers(pair.a.host) == 0)
    told = pair.a.host.start("bash -c", f"set -o pipefail; {WIRESNAKE} events | head -n 1")
    for _ in range(20):  # A connection is not a subscription yet.
        assert_pings(pair.a, pair.b)
        time.sleep(0.2)
        if _ready(told.popen.stdout):
            break
        pair.reset()
    (first,) = lines(told, 1)
    assert first.split()[2] == "wg0"
    pair.reset()
    assert told.wait(5) == (0, "")
    none = pair.a.host.run(WIRESNAKE, "events", "wg9", check=False)
    assert (none.returncode, none.stdout) == (1, "")
    assert none.stderr.startswith("wiresnake: ")
    assert none.stderr.count("\n") == 1


def test_metrics_are_what_prometheus_reads(pair: Tunnel) -> None:
    a, b = pair.a, pair.b
    assert_pings(a, b)
    a.host.run("tee /run/wg0.conf", text=HOOKS.format(public=b.public))
    once = a.host.output(WIRESNAKE, "metrics", "--config", "/run/wg0.conf")
    figures = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(once)
        for sample in family.samples
    }
    labels, received = figures["wireguard_received_bytes_total"]
    assert labels == {
        "interface": "wg0",
        "public_key": b.public,
        "allowed_ips": "10.9.0.2/32,fd09::2/128",
        "friendly_name": "laptop",
    }
    assert 0 < received <= a.transfer()[0]
    assert figures["wireguard_latest_handshake_seconds"][1] == a.handshake()
    assert figures["wiresnake_session_live"][1] == 1
    assert figures["wiresnake_send_errors_total"][1] == 0
    assert "wiresnake_bad_responses" not in figures
    assert figures["wiresnake_up"] == ({"interface": "wg0"}, 1)
    for secret in (a.private, b64decode(a.private).hex()):
        assert secret not in once

    a.host.run(WIRESNAKE, "metrics", "--output", "/run/x.prom")
    assert "wireguard_received_bytes_total" in a.host.output("cat /run/x.prom")
    assert a.host.output("stat -c %a /run/x.prom") == "644\n"
    gone = a.host.run(WIRESNAKE, "metrics", "wg7", "--output", "/run/x.prom", check=False)
    assert gone.returncode == 1
    assert "wireguard_received_bytes_total" in a.host.output("cat /run/x.prom")

    server = a.host.start(WIRESNAKE, "metrics", "wg0", "--listen", "9586")
    hosts.wait_for("the server", lambda: hosts.listens(a.host, 9586))
    served = a.host.inside(lambda: _http(9586))
    assert "200 OK" in served
    assert 'wireguard_sent_bytes_total{allowed_ips="10.9.0.2/32,fd09::2/128"' in served
    with pytest.raises(OSError):
        b.host.inside(lambda: socket.create_connection((a.outer[4], 9586), 1))
    server.stop()


def _http(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


def test_monitor(pair: Tunnel) -> None:
    a, b = pair.a, pair.b
    assert_pings(a, b)
    a.host.run("tee /run/wg0.conf", text=HOOKS.format(public=b.public))
    config = ("--config", "/run/wg0.conf")
    traffic = a.host.start("ping -q -i 0.02 -s 1000", b.inner[4])
    once = a.host.output(WIRESNAKE, "monitor", "--once", *config)
    title, header, row = once.splitlines()
    assert re.match(r"wg0: port 51820, 1 of 1 peers live, [\d.]+ KiB/s in, ", title)
    assert header.split()[:3] == ["peer", "health", "endpoint"]
    assert row.split()[:3] == ["laptop", "live", "192.0.2.2:51820"]

    with Terminal(a.host, "monitor", "--interval", "0.3", *config) as terminal:
        terminal.shows("laptop", "live", "192.0.2.2:51820", "1 of 1 peers", "KiB", "\x1b[32m")
        assert "received" in terminal.text
        terminal.resize(60)

        def narrow() -> bool:
            terminal.read()
            header = terminal.text.rpartition("health")[2]
            return "handshake" in header and "endpoint" not in header

        hosts.wait_for("fewer columns", narrow)
        traffic.stop()
        terminal.write("q")
        assert terminal.code() == 0
    nowhere = a.host.run(WIRESNAKE, "monitor", "wg7", check=False)
    assert "no daemon answers at /var/run/wireguard/wg7.sock" in nowhere.stderr
    assert terminal.text.endswith("\x1b[?25h") or "\x1b[?1049l" in terminal.text


class Terminal:
    """Runs our command in a pseudo-terminal."""

    def __init__(self, host: Host, *command: str) -> None:
        self.fd, far = pty.openpty()
        self.resize(120)
        enter = hosts.words(f"nsenter --target {host.pid} --net --mount --root --")
        environment = os.environ | {"TERM": "xterm-256color"}
        for size in ("COLUMNS", "LINES"):  # They would count more than the terminal's own.
            environment.pop(size, None)
        self.popen = subprocess.Popen(
            [*enter, str(WIRESNAKE), *command],
            stdin=far,
            stdout=far,
            stderr=far,
            env=environment,
        )
        os.close(far)
        self.text = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        os.close(self.fd)

    def shows(self, *parts: str) -> None:
        deadline = time.monotonic() + 8
        while not all(part in self.text for part in parts) and time.monotonic() < deadline:
            self.read()
        for part in parts:
            assert part in self.text

    def resize(self, columns: int) -> None:
        termios.tcsetwinsize(self.fd, (30, columns))

    def write(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def code(self) -> int:
        deadline = time.monotonic() + 5
        while self.popen.poll() is None and time.monotonic() < deadline:
            self.read()
        return self.popen.wait(1)

    def read(self) -> None:
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.text += os.read(self.fd, 1 << 16).decode(errors="replace")
            except OSError:  # EIO once the far side is closed.
                time.sleep(0.05)


def test_a_daemon_that_tells_nothing_is_watched(make_host: MakeHost, ours: Implementation) -> None:
    GO_DEBIAN.need()
    a, b = ends(make_host("a"), make_host("b"))
    GO_DEBIAN.start(a.host)
    ours.start(b.host)
    for end, other, outer in ((a, b, None), (b, a, 4)):
        end.wg("setconf", "wg0", "/dev/stdin", text=configuration(end, other, outer=outer))
        end.up()
        hosts.await_tunnel(end.host)
    told = a.host.start(WIRESNAKE, "events", "--json", "wg0")
    (notice,) = lines(told, 1)
    assert notice == "wiresnake: wg0 reports no events, so it is polled every second"
    answer = why(a, b.public)
    assert answer["reason"] == "no_endpoint"
    assert "This interface's daemon does not report" in answer["not_known"]
    assert_pings(b, a)
    events = [json.loads(line) for line in lines(told, 2)]
    assert [(one["event"], one["source"]) for one in events] == [
        ("handshake", "watching"),
        ("connected", "watching"),
    ]
    assert why(a, b.public)["talking"]
    a.host.run("ip link delete wg0")
    (gone,) = (json.loads(line) for line in lines(told, 1))
    assert (gone["event"], gone["reason"]) == ("disconnected", "down")
    assert told.wait(5)[0] == 0
