"""The adapters with the real libraries, through a real tunnel: names, TLS, timeouts, errors."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import wiresnake
from wiresnake.adapters.aiohttp import Connector
from wiresnake.adapters.httpx import AsyncTransport, Transport
from wiresnake.adapters.requests import Adapter
from wiresnake.adapters.urllib3 import PoolManager
from wiresnake.pytest_plugin import WireguardServer
from wiresnake.sockets.blocking import BlockingTunnel

LARGE = "0123456789" * 300_000


class Web(NamedTuple):
    """What a server inside has."""

    server: WireguardServer
    authority: Path
    """The certificate that its own is signed by."""
    connections: list[int]
    """One for each connection that it gets."""


@pytest.fixture
def web(wireguard_server: WireguardServer, tmp_path: Path) -> Web:
    """Pages over HTTP and HTTPS, known to the tunnel's DNS as web.lan."""
    inside = wireguard_server
    inside.names["web.lan"] = inside.address
    certificate = signed(tmp_path, "web.lan", inside.address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    pages = {"/": "hello", "/large": LARGE}
    inside.serve_http(pages, ssl=context)
    connections = list[int]()
    inside.serve_http(pages)

    def count(one: socket.socket) -> None:
        """A server that counts its connections, each of which answers many requests."""
        connections.append(1)
        kept = b""
        while data := one.recv(1 << 16):
            kept += data
            while b"\r\n\r\n" in kept:
                kept = kept.partition(b"\r\n\r\n")[2]
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    inside.serve(count, 8000)

    def listen(one: socket.socket) -> None:
        while one.recv(1 << 16):
            pass

    inside.serve(listen, 8001)
    return Web(inside, tmp_path / "certificate.pem", connections)


def signed(folder: Path, name: str, address: str) -> Path:
    """Makes a certificate for a host, which signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "certificate.pem"


@pytest.fixture
def tunnel(web: Web) -> Iterator[BlockingTunnel]:
    with wiresnake.open_tunnel(web.server.client_config) as tunnel:
        yield tunnel


def play(web: Web, scene: Callable[[wiresnake.Tunnel], Awaitable[None]]) -> None:
    """Runs a scene with a client's tunnel on a loop."""

    async def main() -> None:
        async with wiresnake.Tunnel(web.server.client_config) as tunnel:
            await scene(tunnel)

    asyncio.run(main())


def urls(web: Web) -> list[str]:
    """Where the server is, by its name, and by its addresses in both versions of IP."""
    return [
        "http://web.lan",
        f"http://{web.server.address}",
        f"http://[{web.server.address6}]",
        "https://web.lan",
        f"https://{web.server.address}",
    ]


def context(web: Web) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=web.authority)


# ---- httpx


def test_httpx_async(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def scene(tunnel: wiresnake.Tunnel) -> None:
        transport = AsyncTransport(tunnel, verify=context(web))
        async with httpx.AsyncClient(transport=transport, timeout=20) as client:
            for url in urls(web):
                assert (await client.get(f"{url}/")).text == "hello"
                assert (await client.get(f"{url}/large")).text == LARGE
            pages = [client.get("http://web.lan/large") for _ in range(20)]
            assert all(page.text == LARGE for page in await asyncio.gather(*pages))
            for _ in range(5):
                await client.get("http://web.lan:8000/")
            assert len(web.connections) == 1, "a connection is kept"
            for url in ("http://web.lan:9/", "http://nowhere.lan/"):
                with pytest.raises(httpx.ConnectError):
                    await client.get(url)
            with pytest.raises(httpx.ReadTimeout):
                await client.get("http://web.lan:8001/", timeout=0.3)
            with pytest.raises(httpx.ConnectTimeout):
                await client.get("http://192.0.2.1/", timeout=0.3)
        async with httpx.AsyncClient(transport=AsyncTransport(tunnel)) as client:
            with pytest.raises(httpx.ConnectError, match="self-signed"):
                await client.get("https://web.lan/")

    play(web, scene)


def test_httpx_sync(web: Web, tunnel: BlockingTunnel) -> None:
    with httpx.Client(transport=Transport(tunnel, verify=context(web)), timeout=20) as client:
        for url in urls(web):
            assert client.get(f"{url}/").text == "hello"
            assert client.get(f"{url}/large").text == LARGE
        for _ in range(5):
            client.get("http://web.lan:8000/")
        assert len(web.connections) == 1
        for url in ("http://web.lan:9/", "http://nowhere.lan/"):
            with pytest.raises(httpx.ConnectError):
                client.get(url)
        with pytest.raises(httpx.ReadTimeout):
            client.get("http://web.lan:8001/", timeout=0.3)
        with pytest.raises(httpx.ConnectTimeout):
            client.get("http://192.0.2.1/", timeout=0.3)
    stranger = httpx.Client(transport=Transport(tunnel))
    with stranger, pytest.raises(httpx.ConnectError, match="self-signed"):
        stranger.get("https://web.lan/")


@pytest.fixture
def closed(web: Web) -> threading.Event:
    """Serves one request per connection on port 8002, and says when it has closed it."""
    event = threading.Event()

    def once(one: socket.socket) -> None:
        one.recv(1 << 16)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        one.shutdown(socket.SHUT_RDWR)
        event.set()

    web.server.serve(once, 8002)
    return event


PAUSE = 0.05
"""Seconds for the end of a connection to arrive after it was sent."""


def test_httpx_async_does_not_use_what_the_server_closed(web: Web, closed: threading.Event) -> None:
    """It asks whether a connection can be read from, which an idle one cannot."""

    async def scene(tunnel: wiresnake.Tunnel) -> None:
        async with httpx.AsyncClient(transport=AsyncTransport(tunnel), timeout=20) as client:
            for _ in range(10):
                closed.clear()
                assert (await client.post("http://web.lan:8002/")).text == "hi"
                assert await asyncio.to_thread(closed.wait, 20)
                await asyncio.sleep(PAUSE)

    play(web, scene)


def test_httpx_sync_does_not_use_what_the_server_closed(
    web: Web, tunnel: BlockingTunnel, closed: threading.Event
) -> None:
    with httpx.Client(transport=Transport(tunnel), timeout=20) as client:
        for _ in range(10):
            closed.clear()
            assert client.post("http://web.lan:8002/").text == "hi"
            assert closed.wait(20)
            time.sleep(PAUSE)


# ---- aiohttp


def test_aiohttp(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def scene(tunnel: wiresnake.Tunnel) -> None:
        limit = aiohttp.ClientTimeout(total=20)
        connector = Connector(tunnel, ssl=context(web))
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:

            async def get(url: str, **options: object) -> str:
                async with session.get(url, **options) as response:  # type: ignore[arg-type]
                    return await response.text()

            for url in urls(web):
                assert await get(f"{url}/") == "hello"
                assert await get(f"{url}/large") == LARGE
            pages = await asyncio.gather(*(get("http://web.lan/large") for _ in range(20)))
            assert set(pages) == {LARGE}
            for _ in range(5):
                await get("http://web.lan:8000/")
            assert len(web.connections) == 1
            for url in ("http://web.lan:9/", "http://nowhere.lan/"):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await get(url)
            with pytest.raises(aiohttp.SocketTimeoutError):
                await get("http://web.lan:8001/", timeout=aiohttp.ClientTimeout(sock_read=0.3))
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await get("http://192.0.2.1/", timeout=aiohttp.ClientTimeout(sock_connect=0.3))
        async with aiohttp.ClientSession(connector=Connector(tunnel)) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await get("https://web.lan/")

    play(web, scene)


# ---- requests and urllib3


def test_requests(web: Web, tunnel: BlockingTunnel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter(tunnel))
        session.verify = str(web.authority)
        for url in urls(web):
            assert session.get(f"{url}/", timeout=20).text == "hello"
            assert session.get(f"{url}/large", timeout=20).text == LARGE
        for _ in range(5):
            session.get("http://web.lan:8000/", timeout=20)
        assert len(web.connections) == 1
        for url in ("http://web.lan:9/", "http://nowhere.lan/"):
            with pytest.raises(requests.ConnectionError):
                session.get(url, timeout=20)
        with pytest.raises(requests.ReadTimeout):
            session.get("http://web.lan:8001/", timeout=0.3)
        with pytest.raises(requests.ConnectTimeout):
            session.get("http://192.0.2.1/", timeout=0.3)
        session.verify = True
        with pytest.raises(requests.exceptions.SSLError):
            session.get("https://web.lan/", timeout=20)


def test_urllib3(web: Web, tunnel: BlockingTunnel) -> None:
    with PoolManager(tunnel, ca_certs=str(web.authority), retries=False, timeout=20) as pools:
        for url in urls(web):
            assert pools.request("GET", f"{url}/").data == b"hello"
            assert pools.request("GET", f"{url}/large").data.decode() == LARGE
        for _ in range(5):
            pools.request("GET", "http://web.lan:8000/")
        assert len(web.connections) == 1
        for url in ("http://web.lan:9/", "http://nowhere.lan/"):
            with pytest.raises(urllib3.exceptions.NewConnectionError):
                pools.request("GET", url)
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            pools.request("GET", "http://web.lan:8001/", timeout=0.3)
        with pytest.raises(urllib3.exceptions.ConnectTimeoutError):
            pools.request("GET", "http://192.0.2.1/", timeout=0.3)
        with pytest.raises(urllib3.exceptions.SSLError):
            PoolManager(tunnel, retries=False).request("GET", "https://web.lan/")
