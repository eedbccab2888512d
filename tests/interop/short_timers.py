"""Our daemon with timers forty times as fast: `python short_timers.py INTERFACE`.

No flag and no environment variable of the daemon changes its timers. This program is the only
way, and the tests' own.
"""

import sys

from wiresnake.daemon import main
from wiresnake.protocol.constants import SECOND, Timing

TIMING = Timing(
    rekey_after_time=3 * SECOND,
    reject_after_time=8 * SECOND,
    rekey_timeout=SECOND // 2,
    keepalive_timeout=SECOND,
)

if __name__ == "__main__":
    main.run(sys.argv[1], timing=TIMING)
