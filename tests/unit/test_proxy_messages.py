"""What the proxy reads from strangers: whatever it is, the answer is a value or a refusal."""

import base64
import contextlib
import errno
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wiresnake.errors import ConfigError
from wiresnake.proxy import heads, socks
from wiresnake.proxy.access import Login, is_host
from wiresnake.proxy.forwards import Forward, parse_place

LOGIN = Login(b"anna", b"a secret")


@given(st.binary(max_size=300))
def test_any_datagram_is_read_or_dropped(data: bytes) -> None:
    read = socks.read_datagram(data)
    if read is not None:
        host, port, payload = read
        assert is_host(host) and 0 <= port < 1 << 16 and data.endswith(payload)


@given(st.binary(max_size=60))
def test_a_datagram_is_read_as_it_was_written(payload: bytes) -> None:
    for host in ("10.0.0.1", "fd00::1"):
        assert socks.read_datagram(socks.write_datagram(host, 53, payload)) == (host, 53, payload)
    name = b"\0\0\0\x03\x06db.lan\x00\x35" + payload
    assert socks.read_datagram(name) == ("db.lan", 53, payload)


def test_a_fragment_is_dropped() -> None:
    data = bytearray(socks.write_datagram("10.0.0.1", 53, b"x"))
    assert socks.read_datagram(bytes(data))
    data[2] = 1
    assert socks.read_datagram(bytes(data)) is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, 5),
        (errno.EHOSTUNREACH, 4),
        (errno.ETIMEDOUT, 4),
        (errno.ENOENT, 4),
        (errno.ENETUNREACH, 3),
        (errno.EPERM, 2),
        (errno.EAFNOSUPPORT, 8),
        (errno.EIO, 1),
    ],
)
def test_each_error_of_the_network_has_its_reply(number: int, code: int) -> None:
    assert socks.code_of(OSError(number, "")) == code
    assert socks.reply(code) == bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


@given(st.binary(max_size=400))
@example(b"GET http://a/ HTTP/1.1\r\nContent-Length: \xb2")
@example(b"GET http://[::1%25x]/ HTTP/1.1")
def test_any_head_is_read_or_refused(data: bytes) -> None:
    for line in (data, b"GET http://a/ HTTP/1.1\r\n" + data, b"HTTP/1.1 200\r\n" + data):
        try:
            heads.read_request(line).head()
        except heads.Refused as refused:
            assert refused.status in (400, 501)
        try:
            heads.read_answer(line, "GET").head(True)
        except heads.Refused as refused:
            assert refused.status == 502
    with contextlib.suppress(heads.Refused):
        heads.chunk_size(data)


@given(st.text(max_size=60))
def test_any_forward_is_read_or_refused(text: str) -> None:
    for one in (text, f"1:{text}", f"[{text}]:1:a:1"):
        try:
            Forward.parse(one)
        except ConfigError as error:
            assert "\n" not in error.message
    with contextlib.suppress(ConfigError):
        parse_place(text)


REFUSED = {
    "two lengths": "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
    "the same length twice": "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
    "lengths in one field": "POST http://a/ HTTP/1.1\r\nContent-Length: 1, 1",
    "both framings": "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "two codings": "POST http://a/ HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "another coding": "POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
    "almost chunked": "POST http://a/ HTTP/1.1\r\nTransfer-Encoding: xchunked",
    "chunks in HTTP/1.0": "POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked",
    "a negative length": "POST http://a/ HTTP/1.1\r\nContent-Length: -1",
    "a signed length": "POST http://a/ HTTP/1.1\r\nContent-Length: +1",
    "a hexadecimal length": "POST http://a/ HTTP/1.1\r\nContent-Length: 0x10",
    "an empty length": "POST http://a/ HTTP/1.1\r\nContent-Length:",
    "a huge length": "POST http://a/ HTTP/1.1\r\nContent-Length: 99999999999999999999",
    "a space before the colon": "POST http://a/ HTTP/1.1\r\nContent-Length : 1",
    "a folded line": "GET http://a/ HTTP/1.1\r\nA: b\r\n c",
    "a bare line feed": "GET http://a/ HTTP/1.1\r\nA: b\nContent-Length: 5",
    "a bare carriage return": "GET http://a/ HTTP/1.1\r\nA: b\rc",
    "a zero byte": "GET http://a/ HTTP/1.1\r\nA: b\0",
    "no colon": "GET http://a/ HTTP/1.1\r\nA",
    "no name": "GET http://a/ HTTP/1.1\r\n: b",
    "two hosts": "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b",
    "the form of a server": "GET / HTTP/1.1\r\nHost: a",
    "another scheme": "GET ftp://a/ HTTP/1.1",
    "https": "GET https://a/ HTTP/1.1",
    "a user": "GET http://b@a/ HTTP/1.1",
    "a fragment": "GET http://a/#b HTTP/1.1",
    "no host": "GET http:/// HTTP/1.1",
    "a port of 0": "GET http://a:0/ HTTP/1.1",
    "a large port": "GET http://a:65536/ HTTP/1.1",
    "an address without brackets": "GET http://::1/ HTTP/1.1",
    "a name in brackets": "GET http://[a]/ HTTP/1.1",
    "a space in the target": "GET http://a/ b HTTP/1.1",
    "another version": "GET http://a/ HTTP/2.0",
    "an old version": "GET http://a/",
    "CONNECT without a port": "CONNECT a HTTP/1.1",
    "CONNECT with a path": "CONNECT a:1/ HTTP/1.1",
    "CONNECT with a body": "CONNECT a:1 HTTP/1.1\r\nContent-Length: 1",
    "CONNECT with chunks": "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked",
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=list(REFUSED))
def test_what_could_be_read_in_two_ways_is_refused(head: str) -> None:
    with pytest.raises(heads.Refused):
        heads.read_request(head.encode())


def test_a_head_is_passed_on_without_what_was_for_the_proxy() -> None:
    request = heads.read_request(
        b"POST http://[fd00::1]:8080?q HTTP/1.1\r\n"
        b"Host: other\r\n"
        b"Proxy-Authorization: Basic eDp5\r\n"
        b"Proxy-Connection: keep-alive\r\n"
        b"Connection: X-One, Content-Length\r\n"
        b"TE: trailers\r\n"
        b"Upgrade: h2c\r\n"
        b"Keep-Alive: timeout=5\r\n"
        b"X-One: 1\r\n"
        b"X-Two: caf\xe9 \r\n"
        b"Content-Length: 3"
    )
    assert (request.host, request.port, request.length, request.lasts) == ("fd00::1", 8080, 3, True)
    assert request.head() == (
        b"POST /?q HTTP/1.1\r\nHost: [fd00::1]:8080\r\nX-Two: caf\xe9\r\nContent-Length: 3\r\n"
        b"Connection: keep-alive\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("line", "host", "port", "target"),
    [
        ("GET http://a/b?c HTTP/1.1", "a", 80, "/b?c"),
        ("GET HTTP://a HTTP/1.1", "a", 80, "/"),
        ("OPTIONS http://a:81 HTTP/1.1", "a", 81, "*"),
        ("CONNECT [fd00::1]:443 HTTP/1.1", "fd00::1", 443, ""),
        ("CONNECT a_b.c:443 HTTP/1.0", "a_b.c", 443, ""),
    ],
)
def test_where_a_request_goes(line: str, host: str, port: int, target: str) -> None:
    request = heads.read_request(line.encode())
    assert (request.host, request.port, request.target) == (host, port, target)


@pytest.mark.parametrize(
    ("head", "method", "length", "lasts"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "GET", 5, True),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "HEAD", 0, True),
        ("HTTP/1.1 304 \r\nContent-Length: 5", "GET", 0, True),
        ("HTTP/1.1 204", "GET", 0, True),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked", "GET", heads.CHUNKED, True),
        ("HTTP/1.1 200 OK", "GET", heads.UNTIL_CLOSED, False),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close", "GET", 0, False),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0", "GET", 0, False),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive", "GET", 0, True),
        ("HTTP/1.1 100 Continue", "POST", 0, True),
    ],
)
def test_where_an_answer_ends(head: str, method: str, length: int, lasts: bool) -> None:
    answer = heads.read_answer(head.encode(), method)
    assert (answer.length, answer.lasts) == (length, lasts)


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        "HTTP/1.1 101 Switching Protocols",
        "SSH-2.0-OpenSSH",
        "HTTP/1.1 999 No",
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_refused(head: str) -> None:
    with pytest.raises(heads.Refused):
        heads.read_answer(head.encode(), "GET")


def test_the_largest_heads_take_no_time() -> None:
    """No expression tries all splits of a line: 64 KiB of blanks would take minutes."""
    begun = time.process_time()
    for filler in (b" ", b"\t", b"a", b":", b"\r\n", b"A: b\r\n", b"[", b"%"):
        text = (filler * heads.LIMIT)[: heads.LIMIT]
        for head in (b"GET http://a/ HTTP/1.1\r\nA:" + text + b"\0", b"GET http://" + text, text):
            with contextlib.suppress(heads.Refused):
                heads.read_request(head)
            with contextlib.suppress(heads.Refused):
                heads.chunk_size(head)
    assert time.process_time() - begun < 20


def basic(text: bytes, scheme: str = "Basic") -> heads.Fields:
    return [("proxy-authorization", f"{scheme} {base64.b64encode(text).decode()}")]


def test_only_the_right_user_and_password_are_admitted() -> None:
    assert heads.admits(None, [])
    assert heads.admits(LOGIN, basic(b"anna:a secret"))
    assert heads.admits(LOGIN, basic(b"anna:a secret", "bAsIc"))
    for fields in (
        [],
        basic(b"anna:a secret") * 2,
        basic(b"anna:a secre"),
        basic(b"ann:a secret"),
        basic(b"anna"),
        basic(b"anna:a secret", "Bearer"),
        [("proxy-authorization", "Basic ***")],
        [("proxy-authorization", "Basic \xff")],
        [("authorization", basic(b"anna:a secret")[0][1])],
    ):
        assert not heads.admits(LOGIN, fields), fields
    assert "secret" not in repr(LOGIN)


def test_forwards_are_those_of_ssh() -> None:
    assert Forward.parse("80:db.lan:81") == Forward("", 80, "db.lan", 81)
    assert Forward.parse("10.0.0.1:0:db:81/tcp") == Forward("10.0.0.1", 0, "db", 81)
    assert Forward.parse("*:53:[fd00::1]:53/udp") == Forward("*", 53, "fd00::1", 53, udp=True)
    assert Forward.parse(":53:a:53") == Forward("", 53, "a", 53)
    assert str(Forward.parse("[::1]:53:[fd00::1]:53/udp")) == "[fd00::1]:53/udp"
    assert parse_place("[fd00::1]:22") == ("fd00::1", 22)
    for bad in ("80", "80:a", "a:80:b:81", "80:a:0", "65536:a:1", "80::81", "80:a b:81", "1:a:2/x"):
        with pytest.raises(ConfigError):
            Forward.parse(bad)
    for bad in ("a", "a:0", ":1", "::1:22", "a:1:2"):
        with pytest.raises(ConfigError):
            parse_place(bad)
