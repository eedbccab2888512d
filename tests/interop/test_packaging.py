"""What the wheel brings beside Python: units that systemd takes, and whom they call."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from interop.harness import ROOT, MakeHost, unavailable

from lab import hosts
from lab.hosts import Host
from wiresnake.cli import completion

UNITS = ROOT / "packaging/data/lib/systemd/system"
INSTALLED = """
set -e
mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
ln -s {wiresnake} /usr/local/bin/wiresnake
mkdir /run/units
cp -r {units}/* /run/units
cp /lib/systemd/system/wg-quick* /run/units
"""


@pytest.fixture
def systemd(make_host: MakeHost) -> Host:
    """A host with our units beside those of wireguard-tools."""
    if hosts.missing_programs("systemd-analyze"):
        unavailable("systemd-analyze is missing: apt-get install systemd")
    host = make_host()
    program = Path(sys.executable).with_name("wiresnake")
    host.run("sh -c", INSTALLED.format(wiresnake=program, units=UNITS))
    return host


def verify(host: Host, unit: str) -> str:
    done = host.run(
        f"systemd-analyze verify --man=no --recursive-errors=no /run/units/{unit}",
        check=False,
        env={"SYSTEMD_UNIT_PATH": "/run/units:"},
    )
    return done.stderr if done.returncode or done.stderr else ""


def test_units_are_good(systemd: Host) -> None:
    for unit in ("wiresnake@wg0.service", "wiresnake.target", "wg-quick@wg0.service"):
        name = unit.replace("wg0", "")
        if name != unit:
            systemd.run(f"ln -s {name} /run/units/{unit}")
        assert verify(systemd, unit) == "", unit


def test_a_bad_unit_is_found(systemd: Host) -> None:
    systemd.run("sh -c", "sed -i 's/=wiresnake up/=wiresnale up/' /run/units/wiresnake@.service")
    systemd.run("ln -s wiresnake@.service /run/units/wiresnake@wg0.service")
    assert "wiresnale" in verify(systemd, "wiresnake@wg0.service")


def test_a_unit_is_up_when_it_says_so(systemd: Host) -> None:
    """The very commands of the unit, with our socket in systemd's place."""
    unit = (UNITS / "wiresnake@.service").read_text()
    unit = unit.replace("\\\n", "").replace("%i", "wg0").replace("$$", "$")
    start, reload, after = (
        re.findall(f"^{key}=-?(.*)", unit, re.MULTILINE)[0]
        for key in ("ExecStart", "ExecReload", "ExecStopPost")
    )

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind("\0notify")  # An abstract name is the network's own.
        made.settimeout(10)
        return made

    (private, _), (_, public) = hosts.keypair(), hosts.keypair()
    systemd.run("mount -t tmpfs -o mode=700 tmpfs /etc/wireguard")
    text = f"[Interface]\nPrivateKey = {private}\nAddress = 10.9.0.1/24\n"
    text += f"[Peer]\n# friendly_name = laptop\nPublicKey = {public}\n"
    systemd.run("sh -c", "cat >/etc/wireguard/wg0.conf", text=text)
    with systemd.inside(listen) as manager:
        service = systemd.start(start, env={"NOTIFY_SOCKET": "@notify"})
        assert b"READY=1" in manager.recv(4096).splitlines()
        assert "10.9.0.1/24" in systemd.output("ip address show wg0")
        for line, word in {
            "show": "wg0",
            "up": "wg0",
            "why wg0": "laptop",
            "set wg0 peer": public,
        }.items():
            words = f"wiresnake completion words wiresnake {line} ''"
            offered = systemd.output(words).splitlines()
            assert word in {one.partition("\t")[0] for one in offered}, line
        systemd.run("sed -i s/10.9.0.1/10.9.0.7/ /etc/wireguard/wg0.conf")
        systemd.run(reload)
        assert "10.9.0.7/24" in systemd.output("ip address show wg0")
        code, said = service.stop()
        assert code == 0, said
        assert b"STOPPING=1" in manager.recv(4096).splitlines()
        # Killed, it leaves an interface behind; the next start must not find it.
        service = systemd.start(start, env={"NOTIFY_SOCKET": "@notify"})
        assert b"READY=1" in manager.recv(4096).splitlines()
        os.kill(service.pid, signal.SIGKILL)
        service.wait(10)
        systemd.run(*shlex.split(after), env={"EXIT_CODE": "exited"})
        assert "10.9.0.7/24" in systemd.output("ip address show wg0")
        systemd.run(*shlex.split(after), env={"EXIT_CODE": "killed"})
        assert "wg0" not in systemd.output("ip link")
        service = systemd.start(start, env={"NOTIFY_SOCKET": "@notify"})
        assert b"READY=1" in manager.recv(4096).splitlines()
        assert service.stop()[0] == 0
    assert "wg0" not in systemd.output("ip link")
    assert not systemd.processes("wiresnaked")


def test_the_drop_in_replaces_every_command_of_wg_quick() -> None:
    """An ExecReload that is left is stock's syncconf, which takes the mark from a full tunnel."""

    def commands(text: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key.startswith("Exec"):
                found[key] = [*found.get(key, []), value] if value else []
        return found

    stock = Path("/lib/systemd/system/wg-quick@.service")
    if not stock.exists():
        unavailable("the units of wireguard-tools are missing: apt-get install wireguard-tools")
    ours = (UNITS / "wg-quick@.service.d/wiresnake.conf").read_text()
    together = commands(stock.read_text() + ours)
    assert together.keys() == commands(ours).keys()
    assert all(len(value) == 1 and "wg-quick" not in value[0] for value in together.values())


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "bash-completion/completions/wiresnake"),
        ("zsh", "zsh/site-functions/_wiresnake"),
        ("fish", "fish/vendor_completions.d/wiresnake.fish"),
    ],
)
def test_completions_are_installed_where_shells_look(shell: str, file: str) -> None:
    installed = ROOT / "packaging/data/share" / file
    assert os.path.samefile(installed, completion.SCRIPTS[shell])


def test_a_wheel_can_be_made_of_the_source_distribution(tmp_path: Path) -> None:
    """It has all that a build reads, man pages and units included."""
    made = [str(Path(sys.executable).with_name("maturin")), "sdist", "--out", str(tmp_path)]
    subprocess.run(made, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as found:
        names = {name.partition("/")[2] for name in found.getnames()}
    needed = [path for path in (ROOT / "packaging").rglob("*") if path.is_file()]
    assert needed
    assert {str(path.relative_to(ROOT)) for path in needed} <= names
    assert {"rust/Cargo.lock", "src/wiresnake/_native.pyi"} <= names
