"""Our daemon with timers forty times as fast: `python short_timers.py INTERFACE [portable]`.

No flag and no environment variable of the daemon changes its timers, or gives it the portable
plane. This program is the only way, and the tests' own.
"""

import os
import sys

from wiresnake.daemon import main
from wiresnake.protocol.constants import SECOND, Timing
from wiresnake.tunnel import portable
from wiresnake.tunnel.host import Host

TIMING = Timing(
    rekey_after_time=3 * SECOND,
    reject_after_time=8 * SECOND,
    rekey_timeout=SECOND // 2,
    keepalive_timeout=SECOND,
)

if __name__ == "__main__":
    if sys.argv[2:] == ["portable"]:
        os.environ["WIRESNAKE_OFFLOADS"] = "none"
        plane, host = portable.make_plane(), portable.machine(Host())
        main.run(sys.argv[1], timing=TIMING, plane=plane, host=host)
    else:
        main.run(sys.argv[1], timing=TIMING)
