"""Runs commands inside the inner kernel for anyone who connects. init.sh starts it.

Each connection is one command. It gets a line of JSON and returns frames of output, the last one
with the exit code. If a connection closes earlier, its command is ended with all its children.
"""

import json
import os
import selectors
import signal
import socketserver
import struct
import subprocess
from contextlib import suppress
from threading import Thread
from typing import IO

PORT = 4000
FRAME = struct.Struct(">BI")
EXIT, STDOUT, STDERR = 0, 1, 2
CANNOT_START = 127
OUTSIDE = ["nsenter", "--net=/proc/1/ns/net", "--"]  # the agent's network is its own


class Command(socketserver.StreamRequestHandler):
    """One command, from the start of its connection to the end."""

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        text = request["text"]
        process = subprocess.Popen(
            [*OUTSIDE, *request["command"]],
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | request["env"],
            cwd=request["directory"],
            start_new_session=True,
        )
        if text is not None:
            Thread(target=_feed, args=(process.stdin, text.encode())).start()
        try:
            self._pass_on(process)
        except OSError:  # nobody listens any more
            os.killpg(process.pid, signal.SIGKILL)
        finally:
            code = process.wait()
        with suppress(OSError):
            self._send(EXIT, str(code if code >= 0 else 128 - code).encode())

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        """Passes on output as it comes, until both pipes are closed."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
            selector.register(process.stdout, selectors.EVENT_READ, STDOUT)
            selector.register(process.stderr, selectors.EVENT_READ, STDERR)
            selector.register(self.connection, selectors.EVENT_READ, EXIT)
            while len(selector.get_map()) > 1:
                for key, _ in selector.select():
                    if key.data == EXIT:
                        signum = self.connection.recv(1)
                        if not signum:
                            raise ConnectionResetError
                        with suppress(ProcessLookupError):
                            os.killpg(process.pid, signum[0])
                    elif data := os.read(key.fd, 1 << 16):
                        self._send(key.data, data)
                    else:
                        selector.unregister(key.fileobj)

    def _send(self, kind: int, data: bytes) -> None:
        self.connection.sendall(FRAME.pack(kind, len(data)) + data)


class Agent(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def _feed(stdin: IO[bytes], data: bytes) -> None:
    with suppress(BrokenPipeError), stdin:
        stdin.write(data)


if __name__ == "__main__":
    with Agent(("", PORT), Command) as agent:
        print("ready", flush=True)
        agent.serve_forever()
