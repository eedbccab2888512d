"""Every command that prints of an interface, in every locale; and with standard streams closed."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.harness import OURS, WIRESNAKE, MakeHost
from prometheus_client.parser import text_string_to_metric_families
from unit.test_streams import CLOSED, ENVIRONMENTS, NAME, SHOWN, locales

from lab import hosts
from lab.hosts import Host

__all__ = ["locales"]

PRIVATE, PUBLIC = hosts.keypair()
THEIRS, OTHER = hosts.keypair()
CONFIGURATION = b"""[Interface]
PrivateKey = %s
Address = 10.9.0.1/32
ListenPort = 51820
PostUp = true %s
[Peer]
PublicKey = %s
AllowedIPs = 10.9.0.2/32
Endpoint = 127.0.0.1:51821
# friendly_name = %s
""" % (PRIVATE.encode(), NAME, OTHER.encode(), NAME)

COMMANDS = b"""
exec 2>errors
wiresnake up --backend user "$1" 2>up
wiresnake set wg0 peer "$2" persistent-keepalive 1
wiresnake events wg0 >events & listener=$!
for _ in $(seq 100); do
    [ -s events ] && break
    ip link set wg0 down
    ip link set wg0 up
    sleep 0.3
done
wiresnake monitor --once >monitor
wiresnake metrics >metrics
wiresnake why "$3" >why
wiresnake why --json wg0 "$3" >why.json
wiresnake show --json >show
wiresnake showconf wg0 >showconf
wiresnake strip "$1" >strip
wiresnake completion words wiresnake why "" >words
sed 's/^AllowedIPs.*/&, 10.9.9.0\\/24/' "$1" >edited && cat edited >"$1"
wiresnake reload --diff "$1" >diff
wiresnake reload "$1" 2>reload
wiresnake save "$1"
wiresnake down "$1"
wait $listener
"""


@pytest.mark.parametrize("name", ["UTF-8", "Latin-1", "C as it is"])
def test_names_come_out_as_they_stand_in_the_file(
    make_host: MakeHost, tmp_path: Path, locales: Path, name: str
) -> None:
    host = make_host("one", kernel_wireguard=False)
    host.run(OURS.program, "wg1")
    host.run("tee /run/key", text=THEIRS)
    host.run(f"wg set wg1 listen-port 51821 private-key /run/key peer {PUBLIC}")
    host.run("ip link set wg1 up")
    host.run("ip link set lo up")
    # No name that is not UTF-8 is in an argument here: what runs tests side by side takes none.
    path = os.fsencode(tmp_path) + b"/\xe4 \xc3\xb6/wg0.conf"
    os.mkdir(os.path.dirname(path), 0o700)
    with open(path, "wb") as file:
        file.write(CONFIGURATION)
    os.chmod(path, 0o600)
    environment = {"PATH": f"{WIRESNAKE.parent}:{hosts.program_path()}", "LOCPATH": str(locales)}
    script = tmp_path / "script"
    words = b" ".join(b"'%s'" % word for word in (path, OTHER.encode(), NAME))
    script.write_bytes(b"cd %s; set -- %s\n%s" % (os.fsencode(tmp_path), words, COMMANDS))
    host.run("sh", script, env=environment | ENVIRONMENTS[name], timeout=120)

    def said(of: str) -> bytes:
        return (tmp_path / of).read_bytes()

    assert b"internal error" not in said("errors") and b"rror" not in said("errors"), said("errors")
    assert b"[#] true " + NAME + b"\n" in said("up")
    for of in ("events", "monitor", "metrics", "why", "words", "diff", "reload"):
        assert SHOWN in said(of), of
    assert SHOWN.decode() in str(json.loads(said("why.json")))
    families = text_string_to_metric_families(said("metrics").decode())
    labels = [sample.labels for family in families for sample in family.samples]
    assert SHOWN.decode() in {one.get("friendly_name") for one in labels}
    assert OTHER.encode() in said("showconf") and OTHER in json.dumps(json.loads(said("show")))
    assert said("strip").startswith(b"[Interface]\nPrivateKey = ")
    with open(path, "rb") as written:
        saved = written.read()
    assert b"# friendly_name = " + NAME + b"\n" in saved and b"PostUp = true " + NAME in saved


@pytest.fixture(scope="module")
def host(machine: None) -> Iterator[Host]:
    with Host("closed", kernel_wireguard=False) as made:
        yield made


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams(host: Host, tmp_path: Path, closed: str) -> None:
    """As a service or a cron job may start them: neither waits forever, and what they start finds
    all three open."""
    redirected = " ".join(f"{number}>&-" for number in closed)
    path = tmp_path / "wg0.conf"
    path.touch(mode=0o600)
    look = "for n in 0 1 2; do [ -e /proc/$$/fd/$n ] || exit 9; done"
    path.write_text(f"[Interface]\nPrivateKey = {PRIVATE}\nPreUp = {look}\nPostDown = {look}\n")
    begun = time.monotonic()
    try:
        for command in (f"{WIRESNAKE} up --backend user {path}", f"{OURS.program} wg1"):
            done = _shell(host, f"exec {command} {redirected}")
            assert done.returncode == 0, done.stderr
        assert set(host.output("wg show interfaces").split()) == {"wg0", "wg1"}
        assert _shell(host, f"exec {WIRESNAKE} down {path} {redirected}").returncode == 0
        assert time.monotonic() - begun < 60
        # A failure is reported where somebody can read it, and ends too.
        failed = _shell(host, f"exec {OURS.program} wg1 {redirected}")
        assert failed.returncode == 1
        assert ("in use by another process" in failed.stderr) == ("2" not in closed)
        assert failed.stdout == ""
    finally:
        _shell(host, "ip link delete wg1; ip link delete wg0")
        hosts.wait_for("the daemons' end", lambda: not host.processes("wiresnaked"))


def _shell(host: Host, script: str) -> "subprocess.CompletedProcess[str]":
    return host.run("sh -c", script, check=False)
