"""Heads of HTTP/1.1 messages (RFC 9112): read strictly, and changed as a proxy must.

What two programs could read differently is refused: with a lenient proxy between them, one
request could be smuggled in another.
"""

import binascii
import re
from dataclasses import dataclass

from wiresnake.proxy.access import Login, is_host
from wiresnake.text import unsigned

LIMIT = 1 << 16
"""Bytes of a head, and of all trailers."""

UNTIL_CLOSED = -2
"""The length of a body that ends with the connection."""
CHUNKED = -1
"""The length of a body that says its length in chunks."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) (HTTP/1\.[01])")
_STATUS = re.compile(r"(HTTP/1\.[01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rf"({_TOKEN}):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
}
"""Fields for one connection only. Transfer-Encoding is not one here, because a body is passed on in
the encoding that it came in."""
_FRAMING = {"content-length", "host", "transfer-encoding"}
"""Fields that stay, even if Connection names them."""

Fields = list[tuple[str, str]]


class Refused(Exception):
    """The message is not passed on; the client gets this status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a proxy."""

    method: str
    host: str
    port: int
    target: str
    """What the server is asked for; empty for CONNECT."""
    version: str
    fields: Fields
    length: int
    """Bytes of its body, or CHUNKED."""
    lasts: bool
    """The client wants to send more requests."""

    def head(self) -> bytes:
        """Returns the head for the server, without what was for the proxy only."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = host if self.port == 80 else f"{host}:{self.port}"
        rest = [one for one in _forwarded(self.fields) if one[0].lower() != "host"]
        fields = [("Host", place), *rest, ("Connection", "keep-alive" if self.lasts else "close")]
        return _written(f"{self.method} {self.target} {self.version}", fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of a server's answer."""

    line: str
    status: int
    fields: Fields
    length: int
    """Bytes of its body, CHUNKED or UNTIL_CLOSED."""
    lasts: bool
    """The server takes more requests."""

    def head(self, lasts: bool) -> bytes:
        """Returns the head for the client."""
        fields = _forwarded(self.fields)
        if self.status >= 200:
            fields.append(("Connection", "keep-alive" if lasts else "close"))
        return _written(self.line, fields)


def read_request(head: bytes) -> Request:
    """Reads the head of a request, without its last empty line. Refused."""
    first, fields = _read(head, 400)
    line = _REQUEST.fullmatch(first)
    if not line:
        raise Refused(400, "not a request of HTTP/1.1")
    method, target, version = line.groups()
    length = _length(fields, version, 400)
    if len(_all(fields, "host")) > 1:
        raise Refused(400, "two Host fields")
    if method == "CONNECT":
        if length:
            raise Refused(400, "CONNECT with a body")
        host, port, target = *_place(target, None), ""
    else:
        host, port, target = _absolute(target, method)
    lasts = _lasts(fields, version)
    return Request(method, host, port, target, version, fields, length, lasts)


def read_answer(head: bytes, method: str) -> Answer:
    """Reads the head of an answer to a request with this method. Refused."""
    first, fields = _read(head, 502)
    line = _STATUS.fullmatch(first)
    if not line or line[2] == "101":
        raise Refused(502, "the server does not answer in HTTP/1.1")
    status, lasts = int(line[2]), _lasts(fields, line[1])
    length = _length(fields, line[1], 502)
    if method == "HEAD" or status < 200 or status in (204, 304):
        length = 0
    elif not length and not _all(fields, "content-length"):
        length = UNTIL_CLOSED
    return Answer(first, status, fields, length, lasts and length != UNTIL_CLOSED)


def chunk_size(line: bytes) -> int:
    """Reads the line before a chunk. Refused."""
    found = _CHUNK.fullmatch(line)
    if not found:
        raise Refused(400, "a chunk without a size")
    return int(found[1], 16)


def admits(login: Login | None, fields: Fields) -> bool:
    """Whether a request has the right user and password."""
    if login is None:
        return True
    given = _all(fields, "proxy-authorization")
    scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    try:
        secret = binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        return False
    return scheme.lower() == "basic" and login.admits(secret)


def _read(head: bytes, status: int) -> tuple[str, Fields]:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = []
    for line in lines:
        found = _FIELD.fullmatch(line)
        if not found:
            raise Refused(status, "a bad header field")
        fields.append((found[1], found[2].strip(" \t")))
    return first, fields


def _length(fields: Fields, version: str, status: int) -> int:
    """Returns the length of a body, which may be CHUNKED; 0 if the fields say none."""
    lengths, codings = _all(fields, "content-length"), _all(fields, "transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Refused(status, "two lengths of one body")
    if codings:
        if version == "HTTP/1.0" or codings[0].lower() != "chunked":
            raise Refused(501 if status == 400 else status, "a Transfer-Encoding but chunked")
        return CHUNKED
    try:
        return unsigned(lengths[0], 63) if lengths else 0
    except ValueError:
        raise Refused(status, "a bad Content-Length") from None


def _absolute(target: str, method: str) -> tuple[str, int, str]:
    scheme, _, rest = target.partition("://")
    if scheme.lower() != "http" or "#" in rest:
        raise Refused(400, "this is a proxy: ask for http://host/path, or CONNECT host:port")
    place = re.split(r"[/?]", rest, maxsplit=1)[0]
    path = rest[len(place) :]
    if not path.startswith("/"):
        path = "*" if method == "OPTIONS" and not path else f"/{path}"
    return *_place(place, 80), path


def _place(text: str, default: int | None) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    host = found[1].strip("[]") if found else ""
    port = int(found[2]) if found and found[2] else default
    bracketed = text.startswith("[")
    if not is_host(host) or (":" in host) != bracketed or not port or port >= 1 << 16:
        raise Refused(400, "not a host and port")
    return host, port


def _all(fields: Fields, name: str) -> list[str]:
    return [value for one, value in fields if one.lower() == name]


def _words(fields: Fields, name: str) -> set[str]:
    return {word.strip().lower() for value in _all(fields, name) for word in value.split(",")}


def _lasts(fields: Fields, version: str) -> bool:
    words = _words(fields, "connection") | _words(fields, "proxy-connection")
    return "close" not in words and (version == "HTTP/1.1" or "keep-alive" in words)


def _forwarded(fields: Fields) -> Fields:
    dropped = (_HOP | _words(fields, "connection")) - _FRAMING
    return [one for one in fields if one[0].lower() not in dropped]


def _written(line: str, fields: Fields) -> bytes:
    text = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{line}\r\n{text}\r\n".encode("latin-1")
