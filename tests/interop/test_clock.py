"""Which clock counts: in a time namespace that has slept for weeks, and run for hours."""

import shutil
import subprocess
import sys

import pytest
from interop.harness import unavailable

ASLEEP = 5_000_000
ASK = """
import select, time
from wiresnake._native import Plane
from wiresnake.tunnel.host import now
plane = Plane()
peer = plane.add_peer()
plane.send(peer, b"stamped")
stamp = plane.stamps(peer)[4]
plane.set_timer(stamp + 20_000_000)
fires = bool(select.select([plane.timer_fd], [], [], 2)[0])
late = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - stamp
print(stamp, now().boot, time.monotonic_ns(), fires, late)
"""


@pytest.mark.item(73)
def test_stamps_deadlines_and_ages_are_of_the_boot_clock() -> None:
    command = ["unshare", "--time", "--boottime", str(ASLEEP)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        unavailable("time namespaces are refused here: they take root and Linux 5.6")
    said = subprocess.check_output([*command, sys.executable, "-c", ASK], text=True).split()
    stamp, boot, monotonic, late = (int(said[at]) for at in (0, 1, 2, 4))
    asleep = ASLEEP * 10**9
    assert asleep < stamp - monotonic + 10 * 10**9 < asleep * 2
    assert stamp < boot < stamp + 10 * 10**9
    assert said[3] == "True" and 20_000_000 <= late < 2 * 10**9
