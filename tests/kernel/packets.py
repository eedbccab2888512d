"""Sends packets on an interface, or catches incoming ones, as lines of hexadecimal.

`packets.py send DEVICE PAUSE` sends them on a device; `packets.py route PAUSE` sends them by the
routes; `packets.py catch DEVICE` catches incoming packets until it is ended.
"""

import signal
import socket
import sys
import time
from contextlib import suppress

ETHERTYPE = {4: 0x0800, 6: 0x86DD}
ALL_PROTOCOLS = 3
OUTGOING = 4
SO_RCVBUFFORCE = 33


def send(device: str, pause: float) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as out:
        for line in sys.stdin:
            packet = bytes.fromhex(line)
            out.sendto(packet, (device, ETHERTYPE[packet[0] >> 4]))
            time.sleep(pause)


def route(pause: float) -> None:
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    out = {
        version: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for version, family in families.items()
    }
    for line in sys.stdin:
        packet = bytes.fromhex(line)
        version = packet[0] >> 4
        target = packet[16:20] if version == 4 else packet[24:40]
        with suppress(OSError):  # Linux's WireGuard also reports here that there is no peer
            out[version].sendto(packet, (socket.inet_ntop(families[version], target), 0))
        time.sleep(pause)


def catch(device: str) -> None:
    """Catches packets and prints them at the end, as nobody reads earlier."""
    packets = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap, suppress(SystemExit):
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        tap.bind((device, ALL_PROTOCOLS))
        while True:
            packet, (_, _, kind, *_) = tap.recvfrom(1 << 16)
            if kind != OUTGOING:
                packets.append(packet.hex())
    print("\n".join(packets))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], float(sys.argv[3]))
    elif sys.argv[1] == "route":
        route(float(sys.argv[2]))
    else:
        catch(sys.argv[2])
