"""Sockets of a TCP/IP stack in this process, for when the kernel lends none.

Each is one end of a pair of Unix sockets; the stack's thread serves the other end. So an event
loop, `select` and `ssl` use its descriptor like that of any other socket.
"""

import asyncio
import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from wiresnake._native import Stack, StackSocket
from wiresnake.errors import HostError
from wiresnake.linux.offloads import Offload
from wiresnake.linux.tun import Tun
from wiresnake.tunnel.host import Plane

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_ADDRESS = struct.Struct("!BxH16s")
"""In front of a datagram: family (4 or 6), port, address."""
_NUMBER = struct.Struct("<Q")
"""With the descriptor of a new connection comes its peer's address, and its number."""
_FILLER = bytes(65536)
_KEEPALIVE = 75
"""Seconds until an idle peer is probed, unless TCP_KEEPIDLE is set."""

_KEPT = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_BROADCAST),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
} | {
    (socket.IPPROTO_TCP, getattr(socket, name))
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_QUICKACK")
    if hasattr(socket, name)
}
"""Options that are remembered. TCP_NODELAY is always in effect, as is IPV6_V6ONLY."""
_OF_THE_PAIR = {
    getattr(socket, name)
    for name in ("SO_TYPE", "SO_RCVBUF", "SO_SNDBUF", "SO_RCVTIMEO", "SO_SNDTIMEO", "SO_DOMAIN")
    if hasattr(socket, name)
}

Address = tuple[Any, ...]
"""As in the module `socket`: (host, port), or (host, port, 0, 0) for IPv6."""


class UserStack:
    """A TCP/IP stack in this process."""

    name: Literal["user"] = "user"

    def __init__(self) -> None:
        self._stack: Stack | None = None

    def open(self, addresses: Sequence[str], mtu: int, offloads: frozenset[Offload]) -> Tun:
        """See `stack.Stack.open`. HostError if the system has no thread or descriptor left."""
        hosts = [str(ipaddress.ip_interface(address).ip) for address in addresses]
        try:
            self._stack = Stack(hosts, mtu, Offload.TSO in offloads)
            # Whoever opens an interface closes its descriptor; this one stands for nothing.
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(error.errno, f"cannot start the user stack: {error.strerror}") from None
        return Tun(nothing, self.name, mtu, True, offloads)

    def attach(self, plane: Plane, device: Tun) -> None:
        """See `stack.Stack.attach`."""
        plane.attach_stack(self._running())

    def socket(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> "Socket":
        """Returns a new socket. OSError if the family or the type is not served."""
        if family not in (socket.AF_INET, socket.AF_INET6):
            _fail(errno.EAFNOSUPPORT)
        flags = getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)
        kind = type & ~flags
        stream = kind == socket.SOCK_STREAM
        protocol = socket.IPPROTO_TCP if stream else socket.IPPROTO_UDP
        if kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM) or proto not in (0, protocol):
            _fail(errno.EPROTONOSUPPORT)
        handle, fd = self._running().open(family == socket.AF_INET6, stream)
        made = Socket(handle, fd, family, kind, protocol)
        if type & getattr(socket, "SOCK_NONBLOCK", 0):
            made.setblocking(False)
        return made

    def close(self) -> None:
        """Ends the stack and its connections. It is safe to call twice."""
        if self._stack is not None:
            self._stack.close()
            self._stack = None

    def _running(self) -> Stack:
        if self._stack is None:
            _fail(errno.ENETDOWN)
        return self._stack


class Socket(socket.socket):
    """A TCP or UDP socket of a user stack.

    It differs from a socket of the kernel in this: hosts are numeric addresses, `accept` needs this
    object (a raw descriptor of a listener can be waited for, but not accepted from), TCP sends
    without delay, and a reset is an error in `recv` but only an end for those who read the
    descriptor itself.
    """

    def __init__(
        self,
        handle: StackSocket,
        fd: int,
        family: int,
        type: int,
        proto: int,
    ) -> None:
        super().__init__(family, type, proto, fd)
        self._handle = handle
        self._stream = type == socket.SOCK_STREAM
        self._listens = False
        self._connected = False
        """As far as is known here."""
        self._filler = 0
        self._options: dict[tuple[int, int], int] = {}

    def __enter__(self) -> Self:
        return self

    def bind(self, address: Address) -> None:  # type: ignore[override]
        """Binds to an address of the tunnel (EADDRNOTAVAIL for others). Port 0 stands for any."""
        self._handle.bind(*self._parse(address))

    def listen(self, backlog: int = 128) -> None:
        """Accepts connections; at most `backlog` wait for `accept`."""
        self._handle.listen(max(backlog, 1))
        self._listens = True

    def accept(self) -> tuple["Socket", Any]:
        """Returns the next connection and its peer's address."""
        if not self._listens:
            _fail(errno.EINVAL)
        space = socket.CMSG_SPACE(struct.calcsize("i"))
        length, flags = _ADDRESS.size + _NUMBER.size, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        message, ancillary, _, _ = super().recvmsg(length, space, flags)
        if not message:
            self._ended(errno.EINVAL)  # As of a listener that was shut down.
        fd = struct.unpack_from("i", ancillary[0][2])[0] if ancillary else None
        (number,) = _NUMBER.unpack_from(message, _ADDRESS.size)
        try:
            handle = self._handle.accepted(number)
            if fd is None:
                _fail(errno.EMFILE)  # The kernel did not pass it on.
            os.set_inheritable(fd, False)
            made = Socket(handle, fd, self.family, self.type, self.proto)
        except BaseException:
            if fd is not None:
                os.close(fd)
            raise
        made._connected = True
        return made, self._address(message)

    def connect(self, address: Address) -> None:  # type: ignore[override]
        """Connects to `address`, or raises BlockingIOError and connects in the background.

        The descriptor becomes writable when that has ended; `getsockopt(SOL_SOCKET, SO_ERROR)` then
        returns the result.
        """
        host, port = self._parse(address)
        if not self._stream:
            self._drop_all()
            self._handle.connect(host, port)
            self._connected = True
            return
        match self._handle.state:
            case "connected":
                self._connected = True
                _fail(errno.EISCONN)
            case "connecting":
                _fail(errno.EALREADY)
            case _ if self._listens:
                _fail(errno.EISCONN)
        self._fill()
        self._handle.connect(host, port, self._filler)
        if self._options.get((socket.SOL_SOCKET, socket.SO_KEEPALIVE)):
            self._keep_alive()
        timeout = self.gettimeout()
        if timeout == 0:
            _fail(errno.EINPROGRESS)
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("timed out")
        self._raise_pending()
        self._connected = True

    def connect_ex(self, address: Address) -> int:  # type: ignore[override]
        """Connects like `connect`, but returns an errno."""
        try:
            self.connect(address)
        except TimeoutError as error:
            return error.errno or errno.EAGAIN
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def getsockname(self) -> Any:
        """Returns the local address."""
        host, port = self._handle.local or ("::" if self._v6 else "0.0.0.0", 0)
        return (host, port, 0, 0) if self._v6 else (host, port)

    def getpeername(self) -> Any:
        """Returns the address of the peer, or raises ENOTCONN."""
        remote = self._handle.remote
        if remote is None or self._handle.state != "connected":
            _fail(errno.ENOTCONN)
        return (*remote, 0, 0) if self._v6 else remote

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """Sets an option. ENOPROTOOPT for those that would have no effect but should have."""
        if level == socket.SOL_SOCKET and option in _OF_THE_PAIR:
            return super().setsockopt(level, option, *value)
        if (level, option) not in _KEPT:
            _fail(errno.ENOPROTOOPT)
        number = value[0]
        if not isinstance(number, int):
            number = int.from_bytes(number or b"", "little")
        self._options[level, option] = number
        if level == socket.SOL_SOCKET and option == socket.SO_KEEPALIVE and self._stream:
            self._keep_alive()

    def getsockopt(self, level: int, option: int, *size: int) -> Any:
        """Returns an option; SO_ERROR is the result of `connect`, or why a connection ended."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            number = self._handle.take_error()
        elif (level, option) in _KEPT:
            always = option in (socket.TCP_NODELAY, socket.IPV6_V6ONLY)
            number = int(always and level != socket.SOL_SOCKET)
            number = self._options.get((level, option), number)
        elif level == socket.SOL_SOCKET and option in _OF_THE_PAIR:
            if option == socket.SO_TYPE:
                number = self.type
            else:
                return super().getsockopt(level, option, *size)
        elif (level, option) == (socket.SOL_SOCKET, getattr(socket, "SO_ACCEPTCONN", -1)):
            number = int(self._listens)
        else:
            _fail(errno.ENOPROTOOPT)
        return number.to_bytes(size[0], "little") if size else number

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receives. A reset, or a datagram that was refused, is an error."""
        if self._raw:
            data = super().recv(bufsize, flags)
            if not data and bufsize:
                self._raise_pending()
            return data
        return self.recvfrom(bufsize, flags)[0]

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Receives into a buffer, as `recv` does."""
        if self._raw:
            count = super().recv_into(buffer, nbytes, flags)
            if not count:
                self._raise_pending()
            return count
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receives, and returns the sender of a datagram."""
        if self._raw:
            return self.recv(bufsize, flags), None if self._stream else self.getpeername()
        data = super().recv(_ADDRESS.size + bufsize, flags)
        if not data:
            self._ended(errno.ENETDOWN)
        return data[_ADDRESS.size :], self._address(data)

    def recvfrom_into(
        self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0
    ) -> tuple[int, Any]:
        """Receives into a buffer, and returns the sender of a datagram."""
        view = memoryview(buffer).cast("B")
        data, sender = self.recvfrom(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data), sender

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receives. There is never ancillary data."""
        data, sender = self.recvfrom(bufsize, flags)
        return data, [], 0, sender

    def recvmsg_into(
        self, buffers: "Iterable[WriteableBuffer]", ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
        """Receives into buffers. There is never ancillary data."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        data, sender = self.recvfrom(sum(map(len, views)), flags)
        rest = data
        for view in views:
            part, rest = rest[: len(view)], rest[len(view) :]
            view[: len(part)] = part
        return len(data), [], 0, sender

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        """Sends to the peer."""
        self._check(data)
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            self._raise_pending()
            raise

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        """Sends everything to the peer."""
        self._check(data)
        try:
            super().sendall(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            self._raise_pending()
            raise

    def sendmsg(  # type: ignore[override]
        self,
        buffers: "Iterable[ReadableBuffer]",
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        address: Address | None = None,
        /,
    ) -> int:
        """Sends buffers, one after the other. There can be no ancillary data."""
        parts = list(buffers)
        if list(ancdata):
            _fail(errno.EINVAL)
        if not self._stream:
            data = b"".join(parts)
            return self.send(data, flags) if address is None else self.sendto(data, flags, address)
        self._check(b"")
        try:
            return super().sendmsg(parts, (), flags)
        except (BrokenPipeError, ConnectionResetError):
            self._raise_pending()
            raise

    def sendto(self, data: "ReadableBuffer", *rest: Any) -> int:
        """Sends a datagram. EMSGSIZE if it does not fit into a packet of the tunnel."""
        *flags, address = rest
        if self._stream or self._connected:
            if address is not None:
                _fail(errno.EISCONN)
            return self.send(data, *flags)
        host, port = self._parse(address)
        self._check_length(data)
        family, ip = (6 if self._v6 else 4), ipaddress.ip_address(host).packed
        header = _ADDRESS.pack(family, port, ip)
        return super().sendmsg([header, data], (), *flags) - _ADDRESS.size

    def dup(self) -> "Socket":
        """Returns another object and another descriptor of the same socket."""
        made = Socket(self._handle, socket.dup(self.fileno()), self.family, self.type, self.proto)
        made._listens, made._connected = self._listens, self._connected
        made._options = dict(self._options)
        made.settimeout(self.gettimeout())
        return made

    def plain(self) -> socket.socket:
        """Returns the descriptor as the Unix socket that it is, and closes this object.

        uvloop and trio take it: `loop.create_unix_connection(factory, sock=sock.plain())`. It is
        for streams that are connected, and for datagrams whose socket is.
        """
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        timeout = self.gettimeout()
        made = socket.socket(socket.AF_UNIX, kind, fileno=self.detach())
        made.settimeout(timeout)
        return made

    @property
    def _v6(self) -> bool:
        return self.family == socket.AF_INET6

    @property
    def _raw(self) -> bool:
        """Bytes have no address in front of them."""
        return self._stream or self._connected

    def _check(self, data: "ReadableBuffer") -> None:
        if not self._connected:
            if self._handle.state == "unconnected":
                _fail(errno.ENOTCONN if self._stream else errno.EDESTADDRREQ)
            self._connected = self._handle.state == "connected"
        if not self._stream:
            self._check_length(data)

    def _check_length(self, data: "ReadableBuffer") -> None:
        if memoryview(data).nbytes > self._handle.longest_datagram():
            _fail(errno.EMSGSIZE)

    def _raise_pending(self) -> None:
        if number := self._handle.take_error():
            _fail(number)

    def _ended(self, number: int) -> NoReturn:
        """Raises why the stack has closed its end."""
        self._raise_pending()
        _fail(number)

    def _fill(self) -> None:
        """Fills the pair, so that the descriptor is not writable before it is connected."""
        with self._without_waiting():
            while True:
                self._filler += super().send(_FILLER)

    def _drop_all(self) -> None:
        """Drops the datagrams that came before the socket was connected, as they have addresses."""
        with self._without_waiting():
            while super().recv(0xFFFF):
                pass

    @contextmanager
    def _without_waiting(self) -> Iterator[None]:
        timeout = self.gettimeout()
        self.setblocking(False)
        try:
            yield
        except BlockingIOError:
            pass
        finally:
            self.settimeout(timeout)

    def _keep_alive(self) -> None:
        wanted = self._options.get((socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", -1))
        seconds = self._options.get((socket.IPPROTO_TCP, idle), _KEEPALIVE)
        self._handle.set_keepalive(max(seconds, 1) if wanted else None)

    def _parse(self, address: Address) -> tuple[str, int]:
        """Returns host and port, checked."""
        host, port = address[:2]
        if host == "":
            host = "::" if self._v6 else "0.0.0.0"
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            what = f"{host!r} is not a numeric address: resolve it through the tunnel"
            raise socket.gaierror(socket.EAI_NONAME, what) from None
        if (ip.version == 6) != self._v6:
            _fail(errno.EAFNOSUPPORT)
        if not 0 <= port <= 0xFFFF:
            raise OverflowError("port must be 0-65535.")
        return str(ip), port

    def _address(self, header: bytes) -> Any:
        _, port, packed = _ADDRESS.unpack_from(header)
        if self._v6:
            return str(ipaddress.IPv6Address(packed)), port, 0, 0
        return str(ipaddress.IPv4Address(packed[:4])), port


def _fail(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def for_loop(one: socket.socket) -> socket.socket:
    """Returns the socket as the running event loop takes it.

    Loops other than asyncio's own use the descriptor by its family, and so need a plain socket.
    """
    native = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    return one.plain() if isinstance(one, Socket) and not native else one
