"""Shows a tunnel between two hosts from all sides in under a minute (`make demo`)."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lab import hosts
from lab.hosts import Host, LabError

PICTURE = """
       laptop                                            server
  +--------------+        an untrusted network      +--------------+
  |   10.9.0.1   |                                  |   10.9.0.2   |
  |   fd09::1    |   192.0.2.1        192.0.2.2     |   fd09::2    |
  |      wg0 ====|==================================|==== wg0      |
  |  wiresnaked  |      UDP, all of it encrypted    |  wiresnaked  |
  +--------------+                                  +-------+------+
                                                            |
                                             198.51.100.2   |
                                               stranger ----+
"""
PROGRAMS = {
    "ip": "iproute2",
    "wg": "wireguard-tools",
    "wg-quick": "wireguard-tools",
    "iperf3": "iperf3",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "nft": "nftables",
    "nsenter": "util-linux",
}
OURS = Path(sys.executable).parent
WIRESNAKE = OURS / "wiresnake"
PORT, NEW_PORT = 51820, 40404
LAPTOP, SERVER, NEW_LAPTOP = "192.0.2.1", "192.0.2.2", "192.0.2.99"
TCP_SECONDS = 4


@dataclass
class Site:
    """One end: a host, its configuration file, its address in the tunnel."""

    host: Host
    file: Path
    inner: str
    public: str

    @property
    def stock(self) -> bool:
        """True if stock wg-quick and wg drive the daemon, instead of wiresnake's own tool."""
        return self.host.name == "server"

    def quick(self, command: str) -> str:
        """Returns the steps that are printed."""
        if self.stock:
            env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": str(OURS / "wiresnaked")}
            return self.host.run(f"wg-quick {command}", self.file, env=env).stderr
        backend = ["--backend", "user"] if command == "up" else []
        return self.host.run(WIRESNAKE, command, *backend, self.file).stderr

    def wg(self, words: str) -> str:
        return self.host.output("wg" if self.stock else WIRESNAKE, *words.split())


def main() -> int:
    """Runs the demonstration. Returns 0, or 1 with the reason on stderr if it failed."""
    if missing := hosts.missing_programs(*PROGRAMS):
        packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
        return _fail(f"programs are missing; as root: apt-get install {packages}")
    try:
        with open("/dev/net/tun", "rb+", buffering=0):
            pass
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return _fail("/dev/net/tun is closed to you: run this as root, as in 'sudo make demo'")
        return _fail(f"no /dev/net/tun ({error.strerror}): as root, 'modprobe tun'")
    if os.geteuid() != 0:
        return _become_root_in_a_namespace()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="wiresnake-demo-") as folder:
            _show(Path(folder))
    except LabError as error:
        return _fail(f"{error}\nNothing is left behind.")
    except KeyboardInterrupt:
        return _fail("interrupted; nothing is left behind.")
    return 0


def _show(folder: Path) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        laptop, server, stranger = (
            stack.enter_context(Host(name, kernel_wireguard=name == "stranger"))
            for name in ("laptop", "server", "stranger")
        )
        device = _wire(laptop, server, stranger)
        print(_bold("wiresnake: two hosts, a tunnel, a stranger"))
        print(PICTURE)

        _heading("1. The configuration: two ordinary wg-quick files")
        near, far = _configure(folder, laptop, server)

        _heading("2. Up: the laptop by `wiresnake up`, the server by stock wg-quick and our daemon")
        for site in (near, far):
            _quote(site.host.name, site.quick("up"))
        hosts.await_tunnel(laptop, server)

        _heading("3. Ping through the tunnel")
        for target in ("10.9.0.2", "fd09::2"):
            said = laptop.output("ping -n -c 5 -i 0.1 -W 2", target).strip().splitlines()
            _quote("laptop", "\n".join([said[1], *said[-2:]]))

        _heading(f"4. Real TCP through the tunnel: iperf3, {TCP_SECONDS} s")
        speed = _iperf(laptop, server)
        print(f"  {speed / 1e9:.2f} Gbit/s from laptop to server")

        _heading("5. What `wiresnake show` and stock `wg show` say")
        for site in (near, far):
            _quote(site.host.name, site.wg("show"))

        _heading("6. The laptop moves to another address and port while packets flow")
        sent, lost = _roam(near, far, device)

        _heading("7. A stranger knocks at the server's port")
        knocks, answers = _scan(stranger)

        _heading("8. Down again")
        for site in (near, far):
            _quote(site.host.name, site.quick("down"))

    print(_bold("\nSummary"))
    print(f"  throughput   {speed / 1e9:.2f} Gbit/s TCP, both ends and iperf3 on this machine")
    print(f"  roaming      {lost} of {sent} pings lost while the laptop moved")
    print(f"  stranger     {answers} answers to {knocks} datagrams")
    print(f"  clean-up     all hosts and files are gone; {time.monotonic() - began:.0f} s in all")
    if answers:
        raise LabError("the server was not silent to a stranger")


def _wire(laptop: Host, server: Host, stranger: Host) -> str:
    """Makes cables and outer addresses. Returns the laptop's device."""
    device, other = hosts.cable(laptop, server)
    hosts.address(laptop, device, f"{LAPTOP}/24")
    hosts.address(server, other, f"{SERVER}/24")
    other, outside = hosts.cable(server, stranger)
    hosts.address(server, other, "198.51.100.1/24")
    hosts.address(stranger, outside, "198.51.100.2/24")
    return device


def _configure(folder: Path, laptop: Host, server: Host) -> tuple[Site, Site]:
    """Writes and shows both files. Only the laptop knows where the other is."""
    keys = {host.name: hosts.keypair() for host in (laptop, server)}
    sites = []
    for number, (host, other) in enumerate(((laptop, server), (server, laptop)), start=1):
        endpoint = f"Endpoint = {SERVER}:{PORT}\n" if host is laptop else ""
        text = (
            f"[Interface]\n"
            f"PrivateKey = {keys[host.name][0]}\n"
            f"ListenPort = {PORT}\n"
            f"Address = 10.9.0.{number}/24, fd09::{number}/64\n"
            f"\n[Peer]\n"
            f"PublicKey = {keys[other.name][1]}\n"
            f"AllowedIPs = 10.9.0.{3 - number}/32, fd09::{3 - number}/128\n{endpoint}"
        )
        file = folder / host.name / "wg0.conf"
        file.parent.mkdir(mode=0o700)
        file.touch(mode=0o600)
        file.write_text(text)
        _quote(f"{host.name}", re.sub("PrivateKey = .*", "PrivateKey = (hidden)", text))
        sites.append(Site(host, file, f"10.9.0.{number}", keys[host.name][1]))
    return sites[0], sites[1]


def _iperf(client: Host, server: Host) -> float:
    """Measures the bits per second that arrive."""
    listener = server.start("iperf3 -s -1 -p 5201")
    try:
        hosts.wait_for("iperf3 to listen", lambda: hosts.listens(server, 5201))
        command = f"iperf3 -c 10.9.0.2 -p 5201 -t {TCP_SECONDS} -J --connect-timeout 3000"
        report = json.loads(client.run(command, timeout=TCP_SECONDS + 10).stdout)
        return float(report["end"]["sum_received"]["bits_per_second"])
    finally:
        listener.stop()


def _roam(near: Site, far: Site, device: str) -> tuple[int, int]:
    """Pings at 100 Hz during the move. Returns how many were sent and lost."""
    before = far.wg("show wg0 endpoints").split()[1]
    pings = near.host.start("ping -n -q -i 0.01 -c 300 -W 2", far.inner)
    time.sleep(1)
    hosts.address(near.host, device, f"{NEW_LAPTOP}/24")
    near.host.run(f"ip address delete {LAPTOP}/24 dev {device}")
    near.wg(f"set wg0 listen-port {NEW_PORT}")
    _, said = pings.wait(20)
    after = far.wg("show wg0 endpoints").split()[1]
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    if found is None or after != f"{NEW_LAPTOP}:{NEW_PORT}":
        raise LabError(f"the server did not follow: it still has {after}\n{said}")
    sent, received = int(found[1]), int(found[2])
    print(f"  the server saw the laptop at {before}, and now at {after}")
    print(f"  {sent} pings at 100 a second across the move: {sent - received} lost")
    return sent, sent - received


def _scan(stranger: Host) -> tuple[int, int]:
    """Probes the tunnel's port and a closed one. Returns the number of probes and answers at the
    tunnel's port."""
    knocks = [b"", b"\0", b"hello", os.urandom(64), os.urandom(1400)]
    for kind, length in ((1, 148), (2, 92), (3, 64), (4, 32), (4, 1400)):
        knocks += [bytes([kind, 0, 0, 0]) + os.urandom(length - 4) for _ in range(5)]
    closed = sum(_knock(stranger, PORT + 1, [b"hello"]))
    answers = sum(_knock(stranger, PORT, knocks))
    print(f"  port {PORT + 1}, closed:     1 datagram,   {closed} answer (ICMP: port closed)")
    print(f"  port {PORT}, the tunnel: {len(knocks)} datagrams, {answers} answers")
    print("  Without a key the port looks like one that a firewall blocks.")
    return len(knocks), answers


def _knock(stranger: Host, port: int, knocks: list[bytes]) -> Iterator[bool]:
    """Returns for each datagram whether anything came back: data, or an ICMP error."""

    def connect() -> socket.socket:
        new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        new.connect(("198.51.100.1", port))
        new.settimeout(0.05)
        return new

    with stranger.inside(connect) as knocking:
        for knock in knocks:
            try:
                knocking.send(knock)
                knocking.recv(2048)
                yield True
            except TimeoutError:
                yield False
            except ConnectionRefusedError:
                yield True


def _become_root_in_a_namespace() -> int:
    """Becomes root in a user namespace, if the machine allows that to ordinary users."""
    command = hosts.words("unshare --user --map-root-user --net --mount")
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return _fail(
            f"user namespaces are refused here ({tried.stderr.strip()}): run this as root, as in "
            "'sudo make demo', or allow them: 'sysctl kernel.unprivileged_userns_clone=1'"
        )
    print("Not root: everything runs in a user namespace.\n", flush=True)
    os.execvp(command[0], [*command, sys.executable, "-m", "lab.demo"])


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _heading(text: str) -> None:
    print(f"\n{_bold(text)}", flush=True)


def _quote(who: str, text: str) -> None:
    """Prefixes lines of another program or file with the host's name."""
    print(textwrap.indent(text.strip(), f"  {who:7}| ", lambda line: True), flush=True)


def _bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def _fail(what: str) -> int:
    print(f"make demo: {what}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
