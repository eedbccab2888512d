"""Transports of httpx whose connections go through a tunnel.

async with httpx.AsyncClient(transport=AsyncTransport(tunnel)) as client:
    await client.get("http://10.0.0.1/")
"""

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

if TYPE_CHECKING:
    from wiresnake.sockets.blocking import BlockingTunnel
    from wiresnake.sockets.tunnel import Tunnel

_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_CONNECTING = httpcore.ConnectTimeout, httpcore.ConnectError
_READING = httpcore.ReadTimeout, httpcore.ReadError
_WRITING = httpcore.WriteTimeout, httpcore.WriteError

Errors = tuple[type[Exception], type[Exception]]
Options = Iterable[httpcore.SOCKET_OPTION]


class AsyncTransport(httpx.AsyncHTTPTransport):
    """Sends requests of `httpx.AsyncClient` through a `Tunnel`, which resolves their names."""

    def __init__(
        self,
        tunnel: "Tunnel",
        *,
        verify: ssl.SSLContext | bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = _LIMITS,
        retries: int = 0,
    ) -> None:
        """Takes the options of `httpx.AsyncHTTPTransport` with the same meaning."""
        super().__init__(verify=False)
        self._pool = httpcore.AsyncConnectionPool(
            **_options(verify, http1, http2, limits, retries),
            network_backend=_AsyncBackend(tunnel),
        )


class Transport(httpx.HTTPTransport):
    """Sends requests of `httpx.Client` through a tunnel of `open_tunnel`."""

    def __init__(
        self,
        tunnel: "BlockingTunnel",
        *,
        verify: ssl.SSLContext | bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = _LIMITS,
        retries: int = 0,
    ) -> None:
        """Takes the options of `httpx.HTTPTransport` with the same meaning."""
        super().__init__(verify=False)
        self._pool = httpcore.ConnectionPool(
            **_options(verify, http1, http2, limits, retries), network_backend=_Backend(tunnel)
        )


def _options(
    verify: ssl.SSLContext | bool, http1: bool, http2: bool, limits: httpx.Limits, retries: int
) -> dict[str, Any]:
    return {
        "ssl_context": httpx.create_ssl_context(verify=verify),
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
        "http1": http1,
        "http2": http2,
        "retries": retries,
    }


class _AsyncBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, tunnel: "Tunnel") -> None:
        self._tunnel = tunnel

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Options | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with _mapped(_CONNECTING):
            async with asyncio.timeout(timeout):
                return _AsyncStream(*await self._tunnel.open_connection(host, port))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        with _mapped(_READING):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        with _mapped(_WRITING):
            async with asyncio.timeout(timeout):
                self._writer.write(buffer)
                await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        with _mapped(_CONNECTING):
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._reader.at_eof()
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._writer.get_extra_info(names.get(info, info))


class _Backend(httpcore.NetworkBackend):
    def __init__(self, tunnel: "BlockingTunnel") -> None:
        self._tunnel = tunnel

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Options | None = None,
    ) -> httpcore.NetworkStream:
        with _mapped(_CONNECTING):
            made = self._tunnel.create_connection((host, port), timeout)
        with contextlib.suppress(OSError):  # Sockets of a user stack may not have it.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Stream(made)


class _Stream(httpcore.NetworkStream):
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _mapped(_READING):
            self._sock.settimeout(timeout)
            return self._sock.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _mapped(_WRITING):
            self._sock.settimeout(timeout)
            self._sock.sendall(buffer)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        with _mapped(_CONNECTING):
            try:
                self._sock.settimeout(timeout)
                return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname))
            except BaseException:
                self._sock.close()
                raise

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "is_readable":
            watch = select.poll()
            watch.register(self._sock, select.POLLIN)
            return bool(watch.poll(0))
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        return self._sock if info == "socket" else None


@contextlib.contextmanager
def _mapped(errors: Errors) -> Iterator[None]:
    """Raises errors of a tunnel as those of httpcore, which httpx turns into its own."""
    slow, broken = errors
    try:
        yield
    except TimeoutError as error:
        raise slow(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
