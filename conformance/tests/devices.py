"""Devices that fail in different ways: `python devices.py WAY INTERFACE`."""

import socket
import subprocess
import sys
import time
from pathlib import Path


def serve(interface: str, answer: bytes) -> None:
    """Makes a fake interface, with a UAPI socket that answers everything."""
    subprocess.run(["ip", "link", "add", interface, "type", "dummy"], check=True)
    path = Path(f"/var/run/wireguard/{interface}.sock")
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        clients = []
        while True:
            client, _ = listener.accept()
            client.sendall(answer)
            clients.append(client)
            if answer:
                clients.pop().close()


def die_later(interface: str, seconds: float) -> None:
    """Runs a real device that dies soon."""
    real = subprocess.Popen(["wireguard-go", "--foreground", interface])
    while not Path(f"/var/run/wireguard/{interface}.sock").exists():
        time.sleep(0.01)
    time.sleep(seconds)
    print("out of luck", flush=True)  # noqa: T201
    real.kill()
    real.wait()


way, name = sys.argv[1:]
if way == "exits":
    sys.exit("nothing works here")
if way == "idles":
    time.sleep(60)
if way == "mute":
    serve(name, b"")
if way == "nonsense":
    serve(name, b"\x00\xff hello\n\n")
if way == "dies":
    die_later(name, 1.2)
