"""Shows a tunnel that needs no root at all (`make demo-user`): two programs, both of them here."""

import errno
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import wiresnake
from wiresnake.errors import in_one_line
from wiresnake.text import base64_text

SERVER, CLIENT = "10.9.0.1", "10.9.0.2"
TRANSFER = 256 << 20
FILES = """\
[Interface]
PrivateKey = {private}
{port}Address = {address}/24
[Peer]
PublicKey = {public}
AllowedIPs = {peer}/32
{endpoint}"""


class Page(http.server.BaseHTTPRequestHandler):
    """Greets, in the tunnel."""

    def do_GET(self) -> None:
        body = f"hello {self.client_address[0]}, nobody else can see this\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> int:
    """Runs the demonstration. Returns 0, or 1 with the reason on stderr if it failed."""
    try:
        with tempfile.TemporaryDirectory(prefix="wiresnake-demo-") as folder:
            _show(Path(folder))
    except (OSError, wiresnake.WiresnakeError) as error:
        print(f"make demo-user: {in_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _show(folder: Path) -> None:
    near, far = _write_files(folder)
    who = f"User {os.getuid()}" if os.getuid() else "Root, which is not needed"
    print(f"{who}: no interface on this host, and no change of it.\n")
    print(f"1. A server in one tunnel, at {SERVER}")
    began = time.monotonic()
    with wiresnake.open_tunnel(far) as server:
        (listener,) = server.listen(port=80)
        page = http.server.ThreadingHTTPServer((SERVER, 80), Page, bind_and_activate=False)
        page.socket.close()
        page.socket = listener
        threading.Thread(target=page.serve_forever, daemon=True).start()
        (sink,) = server.listen(port=9)
        threading.Thread(target=_drain, args=(sink,), daemon=True).start()

        print(f"2. A client in another, at {CLIENT}: the first request, with the handshake")
        with wiresnake.open_tunnel(near) as client:
            asked = time.monotonic()
            with client.create_connection((SERVER, 80), timeout=10) as one:
                one.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = one.makefile("rb").read().decode()
            print(f"   {answer.splitlines()[-1]}")
            print(f"   {(time.monotonic() - asked) * 1e3:.0f} ms, {client.stack} stack")

            print(f"3. {TRANSFER >> 20} MiB of TCP through it")
            rate = _transfer(client)
            print(f"   {rate / 1e9:.2f} Gbit/s, both ends on this machine")
            (peer,) = client.peers
            print(f"   {peer.sent >> 20} MiB of datagrams to {peer.endpoint}, all encrypted")
            inside = client.stack == "kernel"

        print("4. `wiresnake exec`: any program, with the tunnel as its only network")
        if inside:
            script = (
                "import urllib.request as u; print(u.urlopen('http://10.9.0.1').read().decode())"
            )
            command = [sys.executable, "-m", "wiresnake", "exec", str(near), "--"]
            said = subprocess.check_output([*command, sys.executable, "-c", script], text=True)
            print(f"   {said.strip()}")
            script = "import socket; print(*(name for _, name in socket.if_nameindex()))"
            named = subprocess.check_output([*command, sys.executable, "-c", script], text=True)
            print(f"   its interfaces: {named.strip()}")
        else:
            print("   needs user namespaces and /dev/net/tun, which this host refuses to users")
        page.shutdown()
    print(f"\nAll of it in {time.monotonic() - began:.1f} s, and nothing is left.")


def _drain(listener: socket.socket) -> None:
    """Reads everything from one connection, and then says how much it was."""
    with listener, listener.accept()[0] as one:
        read = 0
        while data := one.recv(1 << 20):
            read += len(data)
        one.sendall(b"%d" % read)


def _transfer(client: wiresnake.BlockingTunnel) -> float:
    """Returns the bits per second that arrive."""
    block = bytes(1 << 20)
    with client.create_connection((SERVER, 9), timeout=30) as one:
        began = time.monotonic()
        for _ in range(TRANSFER // len(block)):
            one.sendall(block)
        one.shutdown(socket.SHUT_WR)
        if int(one.recv(100)) != TRANSFER:
            raise wiresnake.HostError(errno.EIO, "not everything arrived")
        return TRANSFER * 8 / (time.monotonic() - began)


def _write_files(folder: Path) -> tuple[Path, Path]:
    """Writes the files of the client and the server. Only the client knows where the other is."""
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = {each: wiresnake.PrivateKey.generate() for each in (CLIENT, SERVER)}
    for own, other in (CLIENT, SERVER), (SERVER, CLIENT):
        private = bytearray(44)
        keys[own].write_base64(private, 0)
        text = FILES.format(
            private=private.decode(),
            port=f"ListenPort = {port}\n" if own == SERVER else "",
            address=own,
            public=base64_text(keys[other].public),
            peer=other,
            endpoint=f"Endpoint = 127.0.0.1:{port}\n" if own == CLIENT else "",
        )
        (folder / f"{own}.conf").write_text(text)
    return folder / f"{CLIENT}.conf", folder / f"{SERVER}.conf"


if __name__ == "__main__":
    sys.exit(main())
