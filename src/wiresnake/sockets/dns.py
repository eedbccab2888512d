"""Resolves names by the name servers of a tunnel, asked through the tunnel.

The messages are dnspython's. The sockets are the tunnel's, so no question leaves by another way.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from wiresnake.errors import HostError
from wiresnake.model import Dns
from wiresnake.text import is_address

if TYPE_CHECKING:
    from dns.message import Message, QueryMessage

_PORT = 53
_PATIENCE = (2.0, 3.0, 5.0)
"""Seconds to wait for an answer in each round over all servers."""
_LARGEST = 65535
_UDP_PAYLOAD = 1232

Open = Callable[[int, int], socket.socket]
"""Opens a socket of a family and type in the tunnel."""


async def resolve(host: str, family: int, dns: Dns, open: Open) -> list[str]:
    """Returns the addresses of a host name, IPv6 and IPv4 ones of a `family` of 0.

    HostError if the name does not exist (ENOENT), no server answers (ETIMEDOUT), or the tunnel has
    no name servers (EDESTADDRREQ).
    """
    servers = [each for each in dns.servers if is_address(each)]
    if not servers:
        what = f"cannot resolve {host!r}: the configuration has no DNS; add DNS = ADDRESS, or use"
        raise HostError(errno.EDESTADDRREQ, f"{what} an address")
    kinds = {socket.AF_INET6: "AAAA", socket.AF_INET: "A"}
    wanted = [kind for each, kind in kinds.items() if family in (0, each)]
    problem: HostError | None = None
    for name in _names(host, dns.search):
        asked = (_ask(name, kind, servers, open) for kind in wanted)
        results = await asyncio.gather(*asked, return_exceptions=True)
        found = [address for result in results if isinstance(result, list) for address in result]
        if found:
            return found
        for result in results:
            if isinstance(result, HostError):
                problem = result
            elif isinstance(result, BaseException):
                raise result
    raise problem or HostError(errno.ENOENT, f"no such name in the tunnel's DNS: {host!r}")


def _names(host: str, search: tuple[str, ...]) -> Iterator[str]:
    """Yields the names to ask for: a name without a dot is first looked for in each domain."""
    if not host.endswith(".") and "." not in host:
        yield from (f"{host}.{domain}" for domain in search)
    yield host


async def _ask(name: str, kind: str, servers: list[str], open: Open) -> list[str]:
    """Returns the addresses in the first answer of a server; none if there is no such name."""
    from dns import exception, flags, message, rcode

    try:
        query = message.make_query(name, kind, use_edns=0, payload=_UDP_PAYLOAD)
    except (exception.DNSException, UnicodeError) as error:
        raise HostError(errno.EINVAL, f"not a host name: {name!r}: {error}") from None
    answered = False
    for patience in _PATIENCE:
        for server in servers:
            try:
                async with asyncio.timeout(patience):
                    answer = await _exchange(query, server, socket.SOCK_DGRAM, open)
                    if answer.flags & flags.TC:
                        answer = await _exchange(query, server, socket.SOCK_STREAM, open)
            except (OSError, EOFError, exception.DNSException):
                continue  # Another server may know it.
            answered = True
            if answer.rcode() in (rcode.NOERROR, rcode.NXDOMAIN):
                return _addresses(answer, kind)
    what = "the tunnel's name servers fail" if answered else "no name server in the tunnel answers"
    raise HostError(errno.ETIMEDOUT, f"cannot resolve {name!r}: {what}: {', '.join(servers)}")


async def _exchange(query: "Message", server: str, type: int, open: Open) -> "QueryMessage":
    """Asks a server over UDP, or over TCP with a length before each message (RFC 1035, 4.2.2)."""
    from dns import exception, message

    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    stream = type == socket.SOCK_STREAM
    with open(family, type) as one:
        one.setblocking(False)
        await loop.sock_connect(one, (server, _PORT))
        await loop.sock_sendall(one, query.to_wire(prepend_length=stream))
        while True:
            if stream:
                length = int.from_bytes(await _receive(one, 2))
                data = await _receive(one, length)
            else:
                data = await loop.sock_recv(one, _LARGEST)
            try:
                answer = message.from_wire(data)
            except exception.DNSException:
                if stream:
                    raise
                continue  # Not from the server that was asked: the right answer may follow.
            if query.is_response(answer) and isinstance(answer, message.QueryMessage):
                return answer
            if stream:
                raise EOFError


async def _receive(one: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = await asyncio.get_running_loop().sock_recv(one, length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _addresses(answer: "QueryMessage", kind: str) -> list[str]:
    """Returns the addresses of the name in question, also by way of aliases."""
    from dns import exception, rdatatype

    try:
        found = answer.resolve_chaining().answer
    except exception.DNSException:
        return []
    if found is None or found.rdtype != rdatatype.from_text(kind):
        return []
    return [str(record.address) for record in found]
