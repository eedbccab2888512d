"""`make bench`: TCP through a tunnel, ours and the newest wireguard-go in turns.

Both ends of each tunnel run on this machine, so the figures hold for this machine only. Trust in
this order: CPU seconds of the tunnel's processes per GB, the ratio within one round, Gbit/s.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from wiresnake.cli import lab
from wiresnake.cli.lab import Host, LabError

ROOT = Path(__file__).parents[1]
OURS = Path(sys.executable).with_name("wiresnaked")
THEIRS = ROOT / ".tools/wireguard-go-new"
SUBJECTS = {"wiresnake": OURS, "wireguard-go": THEIRS}
SCENARIOS = {"1 stream": "", "4 streams": "-P 4", "bidirectional": "--bidir"}
IPERF_PORT = 5201


@dataclass(frozen=True)
class Result:
    subject: str
    scenario: str
    round: int
    gbit: float
    """Gbit/s that arrived; both directions together."""
    cpu_per_gb: float
    """CPU seconds of both daemons for each GB that arrived."""
    retransmits: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one stream only, and shorter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, help="of each measurement")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root, for network namespaces: sudo make bench", file=sys.stderr)
        return 1
    scenarios = dict(list(SCENARIOS.items())[:1]) if arguments.quick else SCENARIOS
    seconds = arguments.seconds or (3 if arguments.quick else 5)
    results: list[Result] = []
    print(f"{machine()}; inner MTU 1420, {seconds} s each\n")
    print(f"{'':15}{'round':>6} {'subject':14}{'Gbit/s':>8}{'CPU s/GB':>10}{'resent':>8}")
    for scenario, options in scenarios.items():
        for number in range(1, arguments.rounds + 1):
            for subject in SUBJECTS:
                result = measure(subject, scenario, options, number, seconds)
                results.append(result)
                print(
                    f"{scenario:15}{number:6} {subject:14}{result.gbit:8.2f}"
                    f"{result.cpu_per_gb:10.2f}{result.retransmits:8}",
                    flush=True,
                )
        report(scenario, [result for result in results if result.scenario == scenario])
    keep(results)
    return 0


def measure(subject: str, scenario: str, options: str, number: int, seconds: int) -> Result:
    """One tunnel, one iperf3, and all of it gone again."""
    with Host("a") as a, Host("b") as b:
        pids = tunnel(SUBJECTS[subject], a, b)
        a.run("ping -c 3 -i 0.1 -W 2 10.9.0.2")
        listener = b.start(f"iperf3 -s -1 -p {IPERF_PORT}")
        try:
            lab.wait_for("iperf3 to listen", lambda: lab.listens(b, IPERF_PORT))
            before = sum(map(lab.cpu_seconds, pids))
            command = f"iperf3 -c 10.9.0.2 -p {IPERF_PORT} -t {seconds} -J {options}"
            done = a.run(command, "--connect-timeout", "3000", timeout=seconds + 15)
            used = sum(map(lab.cpu_seconds, pids)) - before
        finally:
            listener.stop()
    end = json.loads(done.stdout)["end"]
    directions = [end[name] for name in end if name.startswith("sum_received")]
    arrived = sum(direction["bytes"] for direction in directions)
    return Result(
        subject,
        scenario,
        number,
        sum(direction["bits_per_second"] for direction in directions) / 1e9,
        used / (arrived / 1e9),
        sum(end[name].get("retransmits", 0) for name in end if name.startswith("sum_sent")),
    )


def tunnel(daemon: Path, a: Host, b: Host) -> list[int]:
    """Joins both hosts by a cable and a tunnel over it; returns the daemons' pids."""
    devices = lab.cable(a, b)
    keys = [lab.keypair(), lab.keypair()]
    pids = []
    for index, host in enumerate((a, b)):
        lab.address(host, devices[index], f"192.0.2.{index + 1}/24")
        host.run(daemon, "wg0")
        (pid,) = host.processes(daemon.name)
        pids.append(pid)
        text = (
            f"[Interface]\nPrivateKey = {keys[index][0]}\nListenPort = 51820\n"
            f"[Peer]\nPublicKey = {keys[1 - index][1]}\nAllowedIPs = 10.9.0.0/24\n"
            f"Endpoint = 192.0.2.{2 - index}:51820\n"
        )
        host.run("wg setconf wg0 /dev/stdin", text=text)
        lab.address(host, "wg0", f"10.9.0.{index + 1}/24")
        host.run("ip link set wg0 mtu 1420 up")
    lab.await_tunnel(a, b)
    return pids


def report(scenario: str, results: list[Result]) -> None:
    """The ratio of each round, and the medians."""
    ours, theirs = (
        [result for result in results if result.subject == subject] for subject in SUBJECTS
    )
    speed = [mine.gbit / other.gbit for mine, other in zip(ours, theirs, strict=True)]
    work = [other.cpu_per_gb / mine.cpu_per_gb for mine, other in zip(ours, theirs, strict=True)]
    print(f"{'':15}       ratio of Gbit/s {listed(speed)}")
    print(f"{'':15}       ratio of CPU    {listed(work)}\n", flush=True)


def listed(ratios: list[float]) -> str:
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{each}, median {statistics.median(ratios):.2f}"


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def keep(results: list[Result]) -> None:
    """A file of this run, outside of git: figures in the documents name the run they are from."""
    folder = ROOT / "bench/results"
    folder.mkdir(exist_ok=True)
    commit = subprocess.run(
        lab.words("git rev-parse --short HEAD"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    file = folder / time.strftime("%Y%m%d-%H%M%S.json")
    record = {
        "machine": machine(),
        "commit": commit.stdout.strip(),
        "results": [asdict(result) for result in results],
    }
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(f"kept in {file.relative_to(ROOT)}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"bench: {error}")
