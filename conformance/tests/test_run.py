"""The suite in real use, on devices that work and on devices that fail in every way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = [sys.executable, "-m", "wiresnake_conformance"]
DEVICES = Path(__file__).with_name("devices.py")


def suite(*words: str, seconds: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SUITE, *words], capture_output=True, text=True, timeout=seconds, check=False
    )


def need(program: str, hint: str) -> None:
    """Skips the test with the missing requirement; in CI it fails."""
    root = os.geteuid() == 0
    if root and shutil.which(program):
        return
    reason = f"{program} is missing: {hint}" if root else "needs root, for network namespaces"
    if os.environ.get("CI"):
        pytest.fail(f"CI must have everything: {reason}")
    pytest.skip(reason)


def need_device() -> None:
    need("wireguard-go", "apt-get install wireguard-go")


def test_list_explains_each_item_with_its_source() -> None:
    done = suite("--list", "--item", "34", "--item", "5")
    assert done.returncode == 0
    assert "34 " in done.stdout
    assert "cookies_are_bound_to_the_address_and_port: " in done.stdout
    assert "source: " in done.stdout
    assert "cannot be seen from outside" in done.stdout  # item 5
    everything = suite("--list").stdout
    assert all(f"\n{number:3} " in f"\n{everything}" for number in range(1, 107))


@pytest.mark.parametrize(
    "words, why",
    [
        ([], "name what to test"),
        (["--daemon", "wg", "--item", "107"], "no item 107"),
        (["--daemon", "wg", "--item", "5"], "cannot be seen from outside"),
        (["--daemon", "no-such-program"], "no program no-such-program"),
        (["--daemon", "wg", "--daemon", "wg"], "the same label"),
        (["--daemon", "wg", "--judge", "other"], "no tested implementation has that label"),
        (["--daemon", ""], "it has no command"),
        (["--daemon", "wg '"], "No closing quotation"),
        (["--interface", "no-such"], "no interface no-such"),
        (["--daemon", "wg", "--quick", "--item", "63"], "item 63 waits: --quick leaves it out"),
        (["--daemon", "wg", "--json", "/proc/none/x"], "cannot write /proc/none/x"),
        (["--daemon", "wg", "--beside", "/dev/null"], "it is not a file of --json"),
    ],
)
def test_a_users_mistake_is_said_in_one_line(words: list[str], why: str) -> None:
    need("wg", "apt-get install wireguard-tools")
    done = suite(*words)
    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_devices_that_fail_are_results(tmp_path: Path) -> None:
    """Devices that exit, never get ready, never answer, answer nonsense or die are reported as
    such, and a good one beside them passes."""
    need_device()
    written = tmp_path / "results.json"
    ways = ("exits", "idles", "mute", "nonsense", "dies")
    daemons = [f"--daemon={way}={sys.executable} {DEVICES} {way}" for way in ways]
    done = suite("--item", "9", "--daemon", "wireguard-go", *daemons, "--json", str(written))
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 1
    (item,) = json.loads(written.read_text())["items"]
    results = {label: each["result"] for label, each in item["results"].items()}
    assert results == {"wireguard-go": "pass"} | dict.fromkeys(ways, "failed"), done.stdout
    reasons = {
        label: next((one["reason"] for one in each["checks"] if one["result"] == "failed"), "")
        for label, each in item["results"].items()
    }
    assert "exit code 1: nothing works here" in reasons["exits"]
    assert "could not be started" in reasons["idles"]
    assert "could not be started" in reasons["mute"]
    assert "could not be" in reasons["nonsense"]
    assert reasons["dies"].startswith("died or hangs after item 9: ")
    assert reasons["dies"].endswith("out of luck")


def test_only_the_judged_one_decides(tmp_path: Path) -> None:
    need_device()
    bad = f"bad={sys.executable} {DEVICES} exits"
    words = ["--item", "9", "--daemon", "wireguard-go", "--daemon", bad]
    assert suite(*words, "--judge", "wireguard-go").returncode == 0
    assert suite(*words, "--judge", "bad").returncode == 1


def test_a_configured_interface_keeps_its_configuration() -> None:
    """Peers are added and removed again, even if the suite is killed. Existing ones stay, and
    checks that would change them are not applicable."""
    need_device()
    script = f"""
    set -e
    mount -t tmpfs tmpfs /run
    ip link set lo up
    wireguard-go wg0
    wg genkey >/run/key
    wg set wg0 private-key /run/key listen-port 51820 peer $(wg genkey | wg pubkey) \\
        allowed-ips 10.7.0.0/24
    ip link set wg0 up
    wg showconf wg0 >/run/before
    {" ".join(SUITE)} --interface wg0 --item 9 --item 103
    wg showconf wg0 >/run/after
    cmp /run/before /run/after

    {" ".join(SUITE)} --interface wg0 --item 66 &
    until wg showconf wg0 | grep -q 198.18.; do sleep 0.1; done
    kill -9 $!
    sleep 1
    wg showconf wg0 >/run/after
    cmp /run/before /run/after
    """
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wg0: 9 timestamps_must_grow: pass" in done.stdout
    assert "wg0: 103 own_key_as_peer: not applicable" in done.stdout
