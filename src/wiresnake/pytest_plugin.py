"""Fixtures for tests of other projects: WireGuard inside the test, without root.

    def test_my_program(wireguard_server):
        wireguard_server.names["intranet.example"] = wireguard_server.address
        url = wireguard_server.serve_http({"/": "hello"})
        subprocess.run(["my-program", "--tunnel", wireguard_server.file, url], check=True)

pytest finds them by the package's entry point. Nothing else is imported before one is used.
"""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from ssl import SSLContext

    from wiresnake.conffile.config import Config
    from wiresnake.sockets.blocking import BlockingTunnel

_HOST = "127.0.0.1"
_V4, _V6 = "10.77.0.{}".format, "fd77::{}".format
"""Addresses in the tunnel, which exist only in the test."""
_PATIENCE = 10.0
"""Seconds for a thread of the test's servers to end."""


class Pair(NamedTuple):
    """Two tunnels that lead to each other."""

    one: "BlockingTunnel"
    two: "BlockingTunnel"
    addresses: tuple[str, str]
    """The IPv4 address of each."""
    addresses6: tuple[str, str]
    """The IPv6 address of each."""


@dataclass
class WireguardServer:
    """A WireGuard server in a thread of the test, and what a client of it needs.

    There is one client: two tunnels at once with its configuration take each other's place.
    """

    tunnel: "BlockingTunnel"
    """The server's end, with sockets in the tunnel."""
    client_config: "Config"
    """The configuration of a client, for `wiresnake.Tunnel` or `wiresnake.open_tunnel`."""
    file: Path
    """The same as a file of wg-quick, for the program under test."""
    address: str
    address6: str
    client_address: str
    client_address6: str
    names: dict[str, str] = field(default_factory=dict)
    """Host names that exist in the tunnel, each with its address; the client's DNS knows them."""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def serve(
        self,
        handler: Callable[[socket.socket], None],
        port: int = 0,
        *,
        ssl: "SSLContext | None" = None,
    ) -> tuple[str, int]:
        """Serves TCP in the tunnel until the test ends, each connection in a thread of its own.

        `handler` gets the connection, which is closed when it returns; with `ssl` it has TLS. A
        port of 0 is any free one. Returns the server's IPv4 address and the port, which is the same
        for IPv6.
        """
        listeners = self.tunnel.listen(None, port)
        for one in listeners:
            self._stack.callback(_end, one, _begin(_accept, one, handler, ssl))
        return self.address, listeners[0].getsockname()[1]

    def serve_http(
        self,
        pages: "Mapping[str, str | bytes] | type[BaseHTTPRequestHandler]",
        port: int | None = None,
        *,
        ssl: "SSLContext | None" = None,
    ) -> str:
        """Serves HTTP in the tunnel until the test ends, and returns the URL without a path.

        `pages` are texts by their paths, or a handler class of `http.server`. With `ssl` it serves
        HTTPS. The port is that of the protocol, or another; 0 is any free one.
        """
        from http.server import BaseHTTPRequestHandler, HTTPServer

        class Pages(BaseHTTPRequestHandler):
            """Answers GET and HEAD with the texts."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page = pages.get(self.path) if isinstance(pages, Mapping) else None
                body = page.encode() if isinstance(page, str) else page or b""
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if self.command == "GET" else b"")

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        handler = Pages if isinstance(pages, Mapping) else pages
        server = HTTPServer((self.address, 0), handler, bind_and_activate=False)
        server.socket.close()

        def answer(connection: socket.socket) -> None:
            handler(connection, connection.getpeername(), server)

        usual = 443 if ssl else 80
        host, at = self.serve(answer, usual if port is None else port, ssl=ssl)
        return f"http{'s' if ssl else ''}://{host}" + ("" if at == usual else f":{at}")


@pytest.fixture
def wireguard_server(make_wireguard_server: Callable[[], WireguardServer]) -> WireguardServer:
    """A WireGuard server with one client, and a DNS server for `names`."""
    return make_wireguard_server()


@pytest.fixture
def make_wireguard_server(tmp_path: Path) -> Iterator[Callable[[], WireguardServer]]:
    """A function that makes a `wireguard_server`, for tests that need several.

    All have the same addresses in their tunnels. The files are client.conf, client-2.conf ...
    """
    from wiresnake.conffile.config import Config
    from wiresnake.sockets.blocking import open_tunnel

    with contextlib.ExitStack() as stack:
        count = itertools.count(1)

        def make() -> WireguardServer:
            ours, theirs = _Key(), _Key()
            tunnel = stack.enter_context(open_tunnel(Config.parse(_text(1, ours, theirs))))
            endpoint = f"{_HOST}:{tunnel.status.listen_port}"
            text = _text(2, theirs, ours, endpoint, f"DNS = {_V4(1)}\n")
            number = next(count)
            file = tmp_path / ("client.conf" if number == 1 else f"client-{number}.conf")
            file.touch(0o600)
            file.write_text(text)
            config, places = Config.parse(text), (_V4(1), _V6(1), _V4(2), _V6(2))
            server = WireguardServer(tunnel, config, file, *places, _stack=stack)
            resolver = tunnel.socket(socket.AF_INET, socket.SOCK_DGRAM)
            resolver.bind((server.address, 53))
            stack.callback(_end, resolver, _begin(_resolve, resolver, server.names))
            return server

        yield make


@pytest.fixture
def wireguard_pair() -> Iterator[Pair]:
    """Two tunnels that lead to each other."""
    from wiresnake.conffile.config import Config
    from wiresnake.sockets.blocking import open_tunnel

    ours, theirs = _Key(), _Key()
    with open_tunnel(Config.parse(_text(1, ours, theirs))) as one:
        text = _text(2, theirs, ours, f"{_HOST}:{one.status.listen_port}")
        with open_tunnel(Config.parse(text)) as two:
            yield Pair(one, two, (_V4(1), _V4(2)), (_V6(1), _V6(2)))


class _Key:
    """A key pair as text, for one test."""

    def __init__(self) -> None:
        from wiresnake._native import PrivateKey
        from wiresnake.text import base64_text

        key, text = PrivateKey.generate(), bytearray(44)
        key.write_base64(text, 0)
        self.private, self.public = text.decode(), base64_text(key.public)


def _text(number: int, own: _Key, peer: _Key, endpoint: str = "", more: str = "") -> str:
    """Returns the file of an end. The one with an endpoint sends everything to the other."""
    address, address6, other, other6 = _V4(number), _V6(number), _V4(3 - number), _V6(3 - number)
    allowed = "0.0.0.0/0, ::/0" if endpoint else f"{other}/32, {other6}/128"
    return (
        f"[Interface]\nPrivateKey = {own.private}\nAddress = {address}/24, {address6}/64\n{more}\n"
        f"[Peer]\nPublicKey = {peer.public}\nAllowedIPs = {allowed}\n"
    ) + (f"Endpoint = {endpoint}\nPersistentKeepalive = 25\n" if endpoint else "")


def _begin(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _end(one: socket.socket, thread: threading.Thread) -> None:
    """Wakes a thread that waits for a socket, and closes it when the thread has ended."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    thread.join(_PATIENCE)
    one.close()


def _accept(
    listener: socket.socket, handler: Callable[[socket.socket], None], ssl: "SSLContext | None"
) -> None:
    """Serves connections until the listening socket is shut down, which ends them."""
    serving: list[tuple[socket.socket, threading.Thread]] = []
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            if ssl:  # The handshake is made when the handler reads or writes.
                connection = ssl.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            serving = [one for one in serving if one[1].is_alive()]
            serving.append((connection, _begin(_attend, connection, handler)))
    for one in serving:
        _end(*one)


def _attend(connection: socket.socket, handler: Callable[[socket.socket], None]) -> None:
    with connection, contextlib.suppress(OSError):
        handler(connection)


def _resolve(resolver: socket.socket, names: Mapping[str, str]) -> None:
    """Answers questions for addresses until the socket is shut down."""
    from dns import flags, message, rcode, rdatatype, rrset

    with contextlib.suppress(OSError):
        while True:
            data, client = resolver.recvfrom(1 << 16)
            if client is None:
                return
            query = message.from_wire(data)
            answer = message.make_response(query)
            answer.flags |= flags.AA | flags.RA
            question = query.question[0]
            address = names.get(question.name.to_text(omit_final_dot=True))
            if address is None:
                answer.set_rcode(rcode.NXDOMAIN)
            elif (":" in address) == (question.rdtype == rdatatype.AAAA):
                kind = "AAAA" if ":" in address else "A"
                answer.answer.append(rrset.from_text(question.name, 60, "IN", kind, address))
            resolver.sendto(answer.to_wire(), client)
