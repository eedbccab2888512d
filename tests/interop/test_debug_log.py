"""What the daemon says of handshakes at LOG_LEVEL=debug."""

import functools
import re
import signal
import sys
from pathlib import Path

from interop.harness import End, MakeHost, configuration, ends

from lab import hosts

DAEMON = f"{sys.executable} -m wiresnake.daemon.main -f wg0"


def answers(end: End) -> bool:
    return "wg0" in end.wg("show", "interfaces")


def test_each_step_of_a_handshake_is_in_the_log(make_host: MakeHost, tmp_path: Path) -> None:
    left, right = ends(make_host(), make_host())
    daemons = []
    for number, end in enumerate((left, right)):
        command = f"exec {DAEMON} 2>{tmp_path}/log{number}"
        daemons.append(end.host.start("sh -c", command, env={"LOG_LEVEL": "debug"}))
        hosts.wait_for("wg0", functools.partial(answers, end))
    for end, other, outer in ((left, right, 4), (right, left, None)):
        text = configuration(end, other, outer=outer)
        end.wg("setconf", "wg0", "/dev/stdin", text=text)
        end.up()
    left.host.run(f"ping -c 1 -W 5 {right.inner[4]}")
    for daemon in daemons:
        assert daemon.stop(signal.SIGTERM)[0] == 0
    begun, answered = (Path(tmp_path, f"log{number}").read_text() for number in (0, 1))
    key = right.public
    at = f"wg0: peer({key[:4]}…{key[39:43]}) at {right.outer[4]}:{right.port}: "
    said = [line.partition(at)[2] for line in begun.splitlines() if at in line]
    assert said[:5] == [
        "initiation sent, number=1",
        "response received",
        "session made",
        "handshake completed, initiator=True",
        "connected",
    ]
    assert said[-1] == "disconnected, reason=removed" or "disconnected" not in begun
    steps = ("initiation received", "session made", "response sent", "connected")
    assert tuple(re.findall("|".join(steps), answered)) == steps
    for text in (begun, answered):
        assert left.public not in text and right.public not in text
