"""What many peers cost."""

import subprocess
import sys

PEERS = 20_000
MEASURE = """
import gc, os, sys
from pathlib import Path
from wiresnake._native import Endpoint, Entropy, Plane
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.protocol.device import Device
from wiresnake.protocol.timers import Now

def resident():
    gc.collect()
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) << 10

device, peers = Device(Plane(), Entropy()), int(sys.argv[1])
before = resident()
for number in range(peers):
    allowed = ((True, Prefix(number.to_bytes(4), 32)),)
    peer = PeerChange(os.urandom(32), endpoint=Endpoint("192.0.2.1", 5), allowed_ips=allowed)
    list(device.configure(DeviceChange(peers=(peer,)), lambda: Now(1, 1)))
print((resident() - before) // peers)
"""


def test_an_idle_peer_takes_less_than_2_kib() -> None:
    """Of both languages together; the kernel's takes 1.8 KiB."""
    command = [sys.executable, "-c", MEASURE, str(PEERS)]
    used = int(subprocess.check_output(command, text=True))
    print(f"{used} bytes a peer")
    assert 500 < used < 2048
