"""A tunnel of one program: sockets in it, without root."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl as tls
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, Self
from weakref import WeakSet

from wiresnake.conffile.config import Config
from wiresnake.errors import ConfigError, HostError, TimedOut
from wiresnake.linux import offloads
from wiresnake.linux.tun import DEFAULT_MTU, Tun
from wiresnake.model import Dns
from wiresnake.sockets.dns import resolve
from wiresnake.sockets.server import Handler, Server
from wiresnake.sockets.stack import Name, Stack, open_stack
from wiresnake.sockets.user import for_loop
from wiresnake.text import is_address
from wiresnake.tunnel import portable
from wiresnake.tunnel.host import Host, Plane, Unwatched
from wiresnake.tunnel.interface import Interface

Socket = socket.socket

_PATIENCE = 15.0
"""Seconds in which three initiations are sent. Who has not answered by then is silent."""
_NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH)
_LIMIT = 1 << 16
"""Bytes that a StreamReader buffers, as in asyncio."""


class Tunnel(Interface):
    """A WireGuard tunnel whose sockets belong to this program.

        async with wiresnake.Tunnel.from_file("wg0.conf") as tunnel:
            reader, writer = await tunnel.open_connection("10.0.0.1", 80)

    Entering the block opens the tunnel; leaving it ends the tunnel, and its sockets with it. It
    needs no root, makes no interface on the host and changes nothing there. Keys, peers, addresses,
    port, MTU and DNS are those of the configuration; `FwMark`, `Table` and hooks are not used.

    Packets pass through a TCP/IP stack of the tunnel's own. `stack` chooses it: "kernel" is Linux's
    in a private network namespace, "user" is one in this process. None takes the first that the
    host allows; the attribute `stack` says which.

    With `interface="wg0"` it is an ordinary interface of the host instead, which needs root. The
    kernel routes the networks of its addresses through it, and sockets of the tunnel are bound to
    it; `stack` is then "host".

    Entering raises ConfigError for a configuration without addresses, and HostError if the host
    refuses something. A tunnel is entered once. Several tunnels may share a process and a loop. A
    tunnel must only be used from its loop's thread, but its sockets may be used anywhere.
    """

    def __init__(
        self,
        config: Config | None = None,
        interface: str | Tun | None = None,
        *,
        stack: Name | Stack | None = None,
        plane: Literal["portable"] | Plane | None = None,
        host: Host = Host(),  # noqa: B008
        **options: Any,
    ) -> None:
        """Prepares a tunnel. Nothing happens before it is entered.

        Without `config`, `apply` sets the peers of `interface`, which others bring up. With
        `plane="portable"`, datagrams are sent and received one at a time by ordinary sockets, as on
        any system: without Linux's offloads and without sticky sources. The other options are those
        of `Interface`.
        """
        self._portable = isinstance(plane, str)
        if isinstance(plane, str):
            if plane != "portable":
                raise ConfigError(f"no plane {plane!r}: it is 'portable', or omit `plane`")
            plane, host = portable.make_plane(), portable.machine(host)
        options["plane"] = plane
        super().__init__(config, "" if interface is None else interface, host=host, **options)
        self._private = interface is None
        if not self._private and stack is not None:
            raise ConfigError("an interface of the host has the host's stack: omit `stack`")
        self._wanted = stack
        self._process = 0
        self._stack: Stack | None = None
        self._given: WeakSet[Socket] = WeakSet()
        """The sockets that others have."""
        self._file: str | os.PathLike[str] | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Prepares a tunnel from a `wg-quick` or `wg` file, which is read when it is entered.

        Entering then raises ConfigError, with file:line:column, if something is wrong in it. The
        options are those of `Tunnel`.
        """
        made = cls(**options)
        made._file = path
        return made

    @property
    def stack(self) -> Literal["kernel", "user", "host"]:
        """The TCP/IP stack in use. HostError before the tunnel is entered."""
        if not self._private:
            return "host"
        return self._opened_stack().name

    async def __aenter__(self) -> Self:
        if self._entered:
            return await super().__aenter__()  # Which refuses it.
        try:
            await self._in_thread(self._prepare)
            return await super().__aenter__()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the tunnel, and what others do with its sockets. It is safe to call twice."""
        for one in self._given:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        super().close()
        self._close_stack()

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Socket:
        """Opens a socket in the tunnel, which may be used as any other.

        It is shut down when the tunnel ends. HostError if the tunnel is not open, or the stack does
        not have such sockets.
        """
        if self._private:
            made = self._opened_stack().socket(family, type, proto)
            self._given.add(made)
            return made
        made = socket.socket(family, type, proto)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._tun.name.encode())
        except OSError:
            made.close()
            raise
        return made

    async def resolve(self, host: str, family: int = 0) -> list[str]:
        """Returns the addresses of a host, which may be an address already.

        Names are resolved by the configuration's `DNS` servers, asked through the tunnel, and by
        nobody else. `family` limits the answer to AF_INET or AF_INET6; without it, it is limited to
        the versions of IP that the tunnel has. HostError if there is no such name (ENOENT), no
        server answers (ETIMEDOUT) or the configuration has no servers (EDESTADDRREQ).
        """
        if is_address(host):
            return [host]
        families = self._families()
        if family == 0 and len(families) == 1:
            (family,) = families
        return await resolve(host, family, self.dns, self.socket)

    async def connect(self, host: str, port: int) -> Socket:
        """Connects to a TCP port in the tunnel and returns the socket, which does not block.

        A name's addresses are tried in their order. OSError if none can be reached, such as
        ConnectionRefusedError. TimedOut if no handshake with the peer has completed for 15 s; it
        says what `wiresnake why` would.
        """
        problem: OSError | None = None
        for address in await self.resolve(host):
            try:
                return await self._connect_to(address, port)
            except OSError as error:
                problem = error
        assert problem is not None
        raise problem

    async def open_connection(
        self,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | Literal[True] | None = None,
        server_hostname: str | None = None,
        limit: int = _LIMIT,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to a TCP port in the tunnel, as `asyncio.open_connection` does on the host.

        `ssl` adds TLS, with the host's name unless `server_hostname` is another. Errors are those
        of `connect`.
        """
        usable = for_loop(await self.connect(host, port))
        if ssl and server_hostname is None:
            server_hostname = host
        unix = usable.family == socket.AF_UNIX
        connect = self._loop.create_unix_connection if unix else self._loop.create_connection
        reader = asyncio.StreamReader(limit, self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        try:
            transport, _ = await connect(
                lambda: protocol, sock=usable, ssl=ssl, server_hostname=server_hostname
            )
        except BaseException:
            usable.close()
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def start_server(
        self,
        handler: Handler,
        host: str | None = None,
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        backlog: int = 100,
        limit: int = _LIMIT,
    ) -> Server:
        """Listens on a TCP port in the tunnel, as `asyncio.start_server` does on the host.

        `host` is one of the tunnel's addresses; None is all. A `port` of 0 is any free one, which
        `sockets` of the result say. OSError if the port is in use.
        """
        listeners = self.listen(host, port, backlog)
        return Server(listeners, handler, ssl, limit, self._given.add)

    def forward(
        self, host: str, port: int, *, bind: tuple[str, int] = ("127.0.0.1", 0)
    ) -> AbstractAsyncContextManager[tuple[str, int]]:
        """Leads what connects to a port of this host to a TCP port in the tunnel.

            async with tunnel.forward("db.internal", 5432) as (host, port):
                await asyncpg.connect(host=host, port=port)

        For libraries that take no socket. It ends with the block, which gets the address and port.
        HostError if the port is in use.
        """
        from wiresnake.proxy.forwards import forwarding  # Few need it.

        return forwarding(self, host, port, bind)

    def listen(
        self, host: str | None = None, port: int = 0, backlog: int = 100
    ) -> tuple[Socket, ...]:
        """Listens on a TCP port in the tunnel. Returns a socket for each version of IP,
        IPv4 first.

        They do not block. Arguments and errors are those of `start_server`.
        """
        listeners: list[Socket] = []
        try:
            for family, address in self._bindings(host):
                one = self.socket(family, socket.SOCK_STREAM)
                listeners.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setblocking(False)
                one.bind((address, port))
                one.listen(backlog)
                port = one.getsockname()[1]
        except BaseException:
            for one in listeners:
                one.close()
            raise
        return tuple(listeners)

    async def _in_thread(self, prepare: Callable[[], None]) -> None:
        """Runs what may block. If it is cancelled meanwhile, nothing stays open."""
        with ThreadPoolExecutor(1) as pool:
            preparing = pool.submit(prepare)
            try:
                await asyncio.wrap_future(preparing)
            except asyncio.CancelledError:
                if not preparing.cancel() and preparing.exception() is None:
                    self._abandon()
                raise

    def _prepare(self) -> None:
        """Reads the file and opens the stack. It may block."""
        if self._file is not None:
            self._config = Config.from_file(self._file)
        if not self._private:
            return
        config = self._config or Config()
        for missing, key in (
            (not config.addresses, "Address"),
            (not config.private_key, "PrivateKey"),
        ):
            if missing:
                what = f"a tunnel needs {key} = ... in [Interface]"
                raise ConfigError(what if self._file is None else f"{self._file}: {what}")
        allowed = frozenset() if self._portable else offloads.choose(os.uname().release)
        mtu = config.mtu or DEFAULT_MTU
        stack, device = open_stack(self._wanted, config.addresses, mtu, allowed)
        self._stack, self._interface, self._process = stack, device, os.getpid()
        self._config = replace(config, fwmark=0)
        self._host = replace(
            self._host,
            attach_tun=stack.attach,
            configure_link=lambda name, addresses, mtu: device.mtu,
            watch_link=lambda fd, changed, gone: Unwatched(),
        )

    def _abandon(self) -> None:
        if isinstance(self._interface, Tun):
            os.close(self._interface.fd)
        self._close_stack()

    def _close_stack(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def _opened_stack(self) -> Stack:
        if self._stack is None:
            raise HostError(errno.ESHUTDOWN, "the tunnel is not open")
        if os.getpid() != self._process:
            what = (
                "this tunnel belongs to the process that opened it: open another one after a fork"
            )
            raise HostError(errno.ECHILD, what)
        return self._stack

    @property
    def dns(self) -> Dns:
        """The name servers and search domains of the configuration."""
        return self._config.dns if self._config else Dns()

    def _families(self) -> list[int]:
        addresses = self._config.addresses if self._config else ()
        found = {socket.AF_INET6 if ":" in each else socket.AF_INET for each in addresses}
        return sorted(found)

    def _bindings(self, host: str | None) -> list[tuple[int, str]]:
        if host is not None:
            return [(_family(host), host)]
        everything = ("0.0.0.0", "::")
        return [(each, everything[each == socket.AF_INET6]) for each in self._families()]

    async def _connect_to(self, address: str, port: int) -> Socket:
        made = self.socket(_family(address), socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            connecting = self._loop.create_task(self._loop.sock_connect(made, (address, port)))
            try:
                await asyncio.wait((connecting,), timeout=_PATIENCE)
                if not connecting.done() and (why := self._why_silent(address)):
                    raise TimedOut(errno.ETIMEDOUT, f"no handshake completed: {why}")
                await connecting
            finally:
                connecting.cancel()
        except OSError as error:
            made.close()
            if error.errno in _NO_WAY and (why := self._why_silent(address)):
                raise HostError(error.errno, f"{address}: {why}") from None
            raise
        except BaseException:
            made.close()
            raise
        return made

    def _why_silent(self, address: str) -> str | None:
        from wiresnake.sockets.silence import why_silent  # Most programs never need the rules.

        return why_silent(self, address)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
