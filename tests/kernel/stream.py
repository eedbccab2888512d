"""One end of a TCP connection with random bytes both ways. Prints a hash of each direction.

`stream.py listen|call ADDRESS BYTES`: first what was sent, then what was received.
"""

import hashlib
import os
import socket
import sys
import time
from threading import Thread

PORT = 5300


def main(role: str, address: str, size: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with connection(role, address, family) as stream:
        stream.settimeout(20)
        data = os.urandom(size)
        sender = Thread(target=send, args=(stream, data))
        sender.start()
        received = hashlib.sha256()
        while part := stream.recv(1 << 16):
            received.update(part)
        sender.join()
    print(hashlib.sha256(data).hexdigest(), received.hexdigest())


def connection(role: str, address: str, family: socket.AddressFamily) -> socket.socket:
    if role == "call":
        return call(address)
    with socket.create_server((address, PORT), family=family) as listener:
        listener.settimeout(20)
        return listener.accept()[0]


def call(address: str) -> socket.socket:
    """Connects, with several attempts, as the listener may still be starting."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection((address, PORT), timeout=60)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def send(stream: socket.socket, data: bytes) -> None:
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
