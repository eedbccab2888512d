"""The proxy's own logic, with real sockets on loopback in place of a tunnel."""

import asyncio
import contextlib
import errno
import gc
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import proxies
import pytest
from proxies import connect, descriptors, door, echo, exactly, server, serving, until, whole

from wiresnake.errors import HostError, TimedOut
from wiresnake.proxy import door as door_module
from wiresnake.proxy import socks, udp, web
from wiresnake.proxy.access import Login
from wiresnake.proxy.forwards import Forward
from wiresnake.proxy.run import Wishes, run
from wiresnake.proxy.sides import Outside

LOGIN = Login(b"anna", b"a secret")
GREETING = b"\x05\x01\x00"


def target(host: str, port: int, command: int = socks.CONNECT) -> bytes:
    return bytes((5, command, 0)) + socks.write_address(host, port)


def through_socks(address: tuple[str, int], port: int, host: str = "127.0.0.1") -> socket.socket:
    """Connects to a port by SOCKS5, with everything sent at once, as a hurried client may."""
    client = connect(address)
    client.sendall(GREETING + target(host, port))
    assert exactly(client, 2) == b"\x05\x00"
    assert exactly(client, 10)[:4] == b"\x05\x00\x00\x01"
    return client


def through_http(address: tuple[str, int], port: int) -> socket.socket:
    client = connect(address)
    client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port)
    assert exactly(client, 39) == b"HTTP/1.1 200 Connection established\r\n\r\n"
    return client


Through = Callable[[tuple[str, int], int], socket.socket]


@pytest.mark.parametrize("through", [through_socks, through_http])
def test_bytes_arrive_as_they_were_sent_both_ways(through: Through) -> None:
    """More than fits into any buffer, while the other direction is full, too; and the end of one
    direction does not end the other."""
    sent = random.Random(1).randbytes(9_000_001)

    def attend(one: socket.socket) -> None:
        echo(one)
        one.sendall(b"the end")

    with server(attend) as port, door() as address, through(address, port) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        got = whole(client)
        thread.join()
        assert got[-7:] == b"the end"
        assert hashlib.sha256(got[:-7]).digest() == hashlib.sha256(sent).digest()


@pytest.mark.parametrize("through", [through_socks, through_http])
def test_what_is_sent_with_the_request_arrives(through: Through) -> None:
    with server(echo) as port, door() as address, connect(address) as client:
        if through is through_socks:
            client.sendall(GREETING + target("127.0.0.1", port) + b"early")
        else:
            client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\nearly" % port)
        client.shutdown(socket.SHUT_WR)
        assert whole(client).endswith(b"early")


def test_a_request_may_come_in_single_bytes() -> None:
    with server(echo) as port, door() as address:
        for request in (
            GREETING + target("127.0.0.1", port),
            b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nA: b\r\n\r\n" % port,
        ):
            with connect(address) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in request:
                    client.sendall(bytes((byte,)))
                client.sendall(b"xyz")
                client.shutdown(socket.SHUT_WR)
                assert whole(client).endswith(b"xyz")


def test_a_reader_that_is_slow_slows_the_sender_and_fills_no_memory() -> None:
    """What it does not read stays with the sender, and not here: a 1 GB sender would be seen."""
    stuck = threading.Event()

    def flood(one: socket.socket) -> None:
        one.settimeout(1)
        block = bytes(1 << 20)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                one.sendall(block)
        stuck.set()

    with server(flood) as port, door() as address, through_socks(address, port):
        before = proxies.resident()
        assert stuck.wait(proxies.LONG)
        assert proxies.resident() - before < 50 << 20


def test_a_reset_ends_both_connections() -> None:
    ended = threading.Event()

    def wait(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.recv(1)
        ended.set()

    with server(wait) as port, door() as address:
        client = through_socks(address, port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert ended.wait(proxies.LONG)


def test_ipv6_and_names() -> None:
    with server(echo, "::1") as port, door() as address, connect(address) as client:
        client.sendall(GREETING + target("::1", port))
        assert exactly(client, 2 + 22)[2:6] == b"\x05\x00\x00\x04"
        with server(echo) as port, connect(address) as other:
            name = b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2)
            other.sendall(GREETING + name)
            assert exactly(other, 12)[2:4] == b"\x05\x00"


class Failing(Outside):
    """A tunnel in which every connection fails with one error."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def connect(self, host: str, port: int) -> socket.socket:
        raise HostError(self.number, f"error {self.number}")


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (errno.ECONNREFUSED, 5, 502),
        (errno.ETIMEDOUT, 4, 504),
        (errno.ENOENT, 4, 502),
        (errno.EHOSTUNREACH, 4, 502),
        (errno.ENETUNREACH, 3, 502),
        (errno.EIO, 1, 502),
    ],
)
def test_a_connection_that_fails_is_explained(number: int, code: int, status: int) -> None:
    with door(Failing(number)) as address:
        with connect(address) as client:
            client.sendall(GREETING + target("127.0.0.1", 9) + b"what was sent in the hope of it")
            assert whole(client)[2:4] == bytes((5, code))
        for line in (b"CONNECT a:1", b"GET http://a:1/"):
            with connect(address) as client:
                client.sendall(line + b" HTTP/1.1\r\n\r\n")
                said = whole(client)
                assert said.startswith(b"HTTP/1.1 %d " % status), said
                assert said.endswith(b"wiresnake: a:1: error %d\n" % number)


class Silent(Outside):
    """A tunnel whose peer does not answer."""

    async def connect(self, host: str, port: int) -> socket.socket:
        raise TimedOut(errno.ETIMEDOUT, "no handshake completed")


def test_why_nobody_answers_is_said_once_a_minute() -> None:
    """SOCKS has only a number for it."""
    with serving(Wishes(("127.0.0.1", 0)), Silent()) as lines:
        for _ in range(3):
            with connect(proxies.place(lines[0].rpartition(" ")[2])) as client:
                client.sendall(GREETING + target("10.0.0.1", 80))
                assert whole(client)[3] == 4
        assert lines[1:] == ["10.0.0.1:80: no handshake completed"]


@pytest.mark.parametrize(
    ("command", "code"), [(socks.BIND, socks.BAD_COMMAND), (9, socks.BAD_COMMAND)]
)
def test_commands_that_are_not_served_are_refused(command: int, code: int) -> None:
    with door() as address, connect(address) as client:
        client.sendall(GREETING + target("127.0.0.1", 9, command))
        assert whole(client) == b"\x05\x00" + socks.reply(code)


def test_an_unknown_kind_of_address_is_refused() -> None:
    with door() as address, connect(address) as client:
        client.sendall(GREETING + b"\x05\x01\x00\x02abc")
        assert whole(client) == b"\x05\x00" + socks.reply(socks.BAD_KIND)


def test_socks_asks_for_the_password() -> None:
    right, wrong = b"\x04anna\x08a secret", b"\x04anna\x08a secreT"
    with server(echo) as port, door(login=LOGIN) as address:
        for methods, login, answer in (
            (b"\x01\x00", b"", b"\x05\xff"),
            (b"\x00", b"", b"\x05\xff"),
            (b"\x02\x00\x02", wrong, b"\x05\x02\x01\x01"),
        ):
            with connect(address) as client:
                client.sendall(b"\x05" + methods + (b"\x01" + login if login else b""))
                assert whole(client) == answer
        with connect(address) as client:
            client.sendall(b"\x05\x01\x02\x01" + right + target("127.0.0.1", port) + b"x")
            assert exactly(client, 4 + 10 + 1).endswith(b"x")


def test_without_a_password_none_is_asked_for() -> None:
    with door() as address, connect(address) as client:
        client.sendall(b"\x05\x01\x02")
        assert whole(client) == b"\x05\xff"


# ---- HTTP


@contextlib.contextmanager
def origin(answers: Callable[[bytes, bytes], bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """An HTTP server on kept connections: `answers(head, body)`. Yields its port, and the heads
    that it gets, with an empty one for each connection."""
    heads = list[bytes]()

    def attend(one: socket.socket) -> None:
        heads.append(b"")
        kept = b""
        while True:
            while b"\r\n\r\n" not in kept:
                more = one.recv(1 << 16)
                if not more:
                    return
                kept += more
            head, _, kept = kept.partition(b"\r\n\r\n")
            heads.append(head)
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            while len(kept) < length:
                kept += one.recv(1 << 16)
            body, kept = kept[:length], kept[length:]
            answer = answers(head, body)
            one.sendall(answer)
            if b"close" in answer:
                return

    with server(attend) as port:
        yield port, heads


def plain(head: bytes, body: bytes) -> bytes:
    said = head.split()[1] + b" " + body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


def ask(port: int, path: str = "/", more: str = "", method: str = "GET") -> bytes:
    return f"{method} http://127.0.0.1:{port}{path} HTTP/1.1\r\n{more}\r\n".encode()


def answer_of(client: socket.socket) -> tuple[bytes, bytes]:
    """Reads the head of an answer, and a body with a length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += exactly(client, 1)
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0] or 0)
    return head, exactly(client, length)


def test_a_connection_serves_many_requests_to_one_server_and_others() -> None:
    with origin(plain) as (port, heads), origin(plain) as (other, others), door() as address:
        with connect(address) as client:
            for path in ("/1", "/2"):
                client.sendall(ask(port, path))
                head, body = answer_of(client)
                assert body == path.encode() + b" " and b"Connection: keep-alive" in head
            client.sendall(ask(other, "/3", "Connection: close\r\n"))
            head, body = answer_of(client)
            assert body == b"/3 " and b"Connection: close" in head
            assert client.recv(1) == b""
        assert heads.count(b"") == 1, "both requests on one connection"
        assert heads[1].split(b"\r\n")[1] == b"Host: 127.0.0.1:%d" % port
        assert b"Connection: close" in others[1]


def test_requests_in_one_go_are_answered_one_after_the_other() -> None:
    with origin(plain) as (port, heads), door() as address, connect(address) as client:
        body = ask(port, "/1", "Content-Length: 3\r\n", "POST") + b"abc"
        client.sendall(body + ask(port, "/2") + ask(port, "/3"))
        assert [answer_of(client)[1] for _ in range(3)] == [b"/1 abc", b"/2 ", b"/3 "]
        assert heads.count(b"") == 1


def test_a_kept_connection_that_the_server_closed_is_made_again() -> None:
    """Whether that is seen before the next request, or only after it was sent."""

    def once(head: bytes, body: bytes) -> bytes:
        return plain(head, body).replace(b"OK", b"closes")

    with origin(once) as (port, heads), door() as address, connect(address) as client:
        for _ in range(5):
            client.sendall(ask(port))
            assert answer_of(client)[1] == b"/ "
        assert heads.count(b"") == 5


def test_a_request_that_a_closing_server_missed_is_sent_again_if_that_is_safe() -> None:
    seen = list[bytes]()

    def attend(one: socket.socket) -> None:
        """Answers one request on a connection and closes it when the second one comes."""
        for number in range(2):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(one, 1)
            seen.append(head.split(b" ")[0])
            if not number:
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    with server(attend) as port, door() as address, connect(address) as client:
        for _ in range(2):
            client.sendall(ask(port))
            assert answer_of(client)[1] == b"hi"
        assert seen == [b"GET"] * 3
        client.sendall(ask(port, method="POST"))
        assert answer_of(client)[0].startswith(b"HTTP/1.1 502")
        assert seen == [b"GET"] * 3 + [b"POST"]


def test_bodies_in_chunks_pass_and_their_lines_are_our_own() -> None:
    got = list[bytes]()
    chunks = b"3;ext=1\r\nabc\r\n%x\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (100_000, b"d" * 100_000)

    def attend(one: socket.socket) -> None:
        data = b""
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += one.recv(1 << 16)
        got.append(data.partition(b"\r\n\r\n")[2])
        one.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        one.recv(1)

    clean = b"3\r\nabc\r\n%x\r\n%s\r\n0\r\n\r\n" % (100_000, b"d" * 100_000)
    with server(attend) as port, door() as address, connect(address) as client:
        client.sendall(ask(port, "/", "Transfer-Encoding: chunked\r\n", "POST") + chunks)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(client, 1)
        assert exactly(client, len(clean)) == clean and got == [clean]


@pytest.mark.parametrize("chunk", [b"x\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b" 3\r\nabc\r\n"])
def test_a_bad_chunk_ends_the_request(chunk: bytes) -> None:
    """The server gets no end of the body, and the client its error."""
    got = list[bytes]()
    with server(lambda one: got.append(whole(one))) as port, door() as address:
        with connect(address) as client:
            client.sendall(ask(port, "/", "Transfer-Encoding: chunked\r\n", "POST") + chunk)
            assert whole(client).startswith(b"HTTP/1.1 400 ")
        until(lambda: bool(got))
        assert b"0\r\n\r\n" not in got[0]


def test_the_server_may_end_an_answer_by_closing() -> None:
    def attend(one: socket.socket) -> None:
        one.recv(1 << 16)
        one.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200_000)

    with server(attend) as port, door() as address, connect(address) as client:
        client.sendall(ask(port) + ask(port))
        head, _, body = whole(client).partition(b"\r\n\r\n")
        assert (head, body) == (b"HTTP/1.0 200 OK\r\nConnection: close", b"x" * 200_000)


def test_continue_is_passed_on_before_the_body() -> None:
    def attend(one: socket.socket) -> None:
        while not one.recv(1 << 16).endswith(b"\r\n\r\n"):
            pass
        one.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert exactly(one, 3) == b"abc"
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(attend) as port, door() as address, connect(address) as client:
        client.sendall(ask(port, "/", "Content-Length: 3\r\nExpect: 100-continue\r\n", "POST"))
        assert answer_of(client)[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert answer_of(client)[0].startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_leaves_ends_its_request() -> None:
    """Also while the server is still thinking."""
    ended = threading.Event()

    def attend(one: socket.socket) -> None:
        whole(one)
        ended.set()

    with server(attend) as port, door() as address:
        for body in (b"", b"ab"):
            ended.clear()
            with connect(address) as client:
                client.sendall(ask(port, "/", "Content-Length: 3\r\n" if body else "") + body)
                time.sleep(0.05)  # So that the server is asked; less only makes it weaker.
            assert ended.wait(proxies.LONG)


def test_a_server_that_does_not_speak_http_is_a_bad_gateway() -> None:
    for said in (b"", b"SSH-2.0-x\r\n\r\n", b"x" * 70_000):

        def attend(one: socket.socket, said: bytes = said) -> None:
            one.recv(1 << 16)
            one.sendall(said)

        with server(attend) as port, door() as address, connect(address) as client:
            client.sendall(ask(port))
            assert whole(client).startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), said[:10]


def test_an_answer_that_breaks_off_is_not_completed_with_ours() -> None:
    def attend(one: socket.socket) -> None:
        one.recv(1 << 16)
        one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    with server(attend) as port, door() as address, connect(address) as client:
        client.sendall(ask(port))
        assert whole(client).endswith(b"\r\n\r\nabc")


def test_http_asks_for_the_password() -> None:
    with origin(plain) as (port, heads), door(login=LOGIN) as address:
        for line in (ask(port), b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % port):
            with connect(address) as client:
                client.sendall(line)
                said = whole(client)
                assert said.startswith(b"HTTP/1.1 407 ") and b"Proxy-Authenticate: Basic" in said
        with connect(address) as client:
            right = "Proxy-Authorization: Basic YW5uYTphIHNlY3JldA==\r\n"
            client.sendall(ask(port, "/", right))
            assert answer_of(client)[1] == b"/ "
        assert heads.count(b"") == 1 and b"YW5u" not in heads[1]


# ---- bad input


def test_a_smuggled_request_reaches_nobody() -> None:
    asked = threading.Event()
    with server(lambda one: asked.set()) as port, door() as address:
        for framing in (
            "Content-Length: 4\r\nContent-Length: 40\r\n",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "A: b\nContent-Length: 4\r\n",
        ):
            with connect(address) as client:
                client.sendall(ask(port, "/", framing, "POST") + b"0\r\n\r\n" + ask(port, "/evil"))
                said = whole(client)
                assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), framing
                assert said.count(b"HTTP/1.1") == 1, "nothing after a refusal is read"
        assert not asked.is_set()


def test_a_head_without_an_end_is_refused_at_its_limit() -> None:
    with door() as address, connect(address) as client:
        with contextlib.suppress(OSError):
            client.sendall(b"GET http://a/ HTTP/1.1\r\nA: " + b"b" * 200_000)
        assert whole(client).startswith(b"HTTP/1.1 431 ")


def test_random_bytes_are_survived() -> None:
    source = random.Random(7)
    begun = descriptors()
    with server(echo) as port, door() as address:
        for number in range(300):
            with connect(address) as client, contextlib.suppress(OSError):
                start = (b"", b"\x05", GREETING, b"GET ", ask(port, "/", "A: b"))[number % 5]
                client.sendall(start + source.randbytes(source.randrange(400)))
                client.shutdown(socket.SHUT_WR)
                whole(client)
        with through_socks(address, port) as client:
            client.sendall(b"x")
            assert exactly(client, 1) == b"x"
    gc.collect()
    assert descriptors() <= begun


def test_who_speaks_neither_protocol_is_closed_without_an_answer() -> None:
    with door() as address:
        for start in (b"\x04\x01", b"\x16\x03\x01", b"\0", b"\xff"):
            with connect(address) as client:
                client.sendall(start)
                assert whole(client) == b""


def test_a_client_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, the half of a request of each protocol, or one byte every moment."""
    monkeypatch.setattr(door_module, "DEADLINE", 0.3)
    monkeypatch.setattr(door_module.Door.__init__, "__defaults__", (None, 0.3))
    with door() as address:
        for start in (b"", b"\x05", GREETING, GREETING + b"\x05\x01\0\x03\xff", b"GET http://"):
            with connect(address) as client:
                client.sendall(start)
                assert whole(client) in (b"", b"\x05\x00"), start
        with connect(address) as client, pytest.raises(OSError):
            client.sendall(b"GET http://a/ HTTP/1.1\r\n")
            while True:
                client.sendall(b"A")
                time.sleep(0.02)


def test_a_kept_connection_without_a_next_request_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "NEXT", 0.2)
    with origin(plain) as (port, _), door() as address, connect(address) as client:
        client.sendall(ask(port))
        answer_of(client)
        assert client.recv(1) == b""


def test_a_flood_of_half_open_clients_costs_only_each_other() -> None:
    """Thousands of them, and a client with a connection does not notice; nor does a new one."""
    with server(echo) as port, door(limit=50) as address, through_socks(address, port) as old:
        before, flood = descriptors(), list[socket.socket]()
        memory = proxies.resident()
        for number in range(3000):
            one = socket.create_connection(address)
            with contextlib.suppress(OSError):
                one.sendall((b"", b"\x05", b"GET http://a/")[number % 3])
            flood.append(one)
            if len(flood) >= 300:
                flood.pop(0).close()
        assert descriptors() - before <= 300 + 2 * 50 + 10
        assert proxies.resident() - memory < 30 << 20
        old.sendall(b"still here")
        assert exactly(old, 10) == b"still here"
        with through_socks(address, port) as new:
            new.sendall(b"here, too")
            assert exactly(new, 9) == b"here, too"
        for one in flood:
            one.close()


def test_when_all_places_are_in_use_newcomers_wait() -> None:
    with server(echo) as port, door(limit=2) as address:
        first, second = through_socks(address, port), through_socks(address, port)
        with connect(address) as third:
            third.sendall(GREETING)
            third.settimeout(0.3)
            with pytest.raises(TimeoutError):
                third.recv(1)
            third.settimeout(proxies.LONG)
            first.close()
            assert exactly(third, 2) == b"\x05\x00"
        second.close()


def test_nothing_is_left_when_it_ends() -> None:
    before, threads = descriptors(), threading.active_count()
    with server(lambda one: print(whole(one))) as port:
        with door() as address:
            clients = [through_socks(address, port) for _ in range(20)]
            clients += [connect(address) for _ in range(20)]
        for client in clients:
            assert whole(client) == b"", "it was closed"
            client.close()
        until(lambda: descriptors() <= before + 1)
    until(lambda: threading.active_count() <= threads)


# ---- UDP


@contextlib.contextmanager
def udp_echo(host: str = "127.0.0.1") -> Iterator[int]:
    """Sends datagrams back; yields the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.bind((host, 0))

        def work() -> None:
            while True:
                data, address = one.recvfrom(1 << 16)
                if data == b"end":
                    return
                one.sendto(data, address)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield one.getsockname()[1]
        finally:
            one.sendto(b"end", one.getsockname())
            thread.join()


def associate(
    address: tuple[str, int], port: int = 0
) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
    """Returns the TCP connection, a socket for datagrams, and where to send them."""
    control = connect(address)
    control.sendall(GREETING + target("0.0.0.0", port, socks.ASSOCIATE))
    said = exactly(control, 12)
    assert said[:6] == b"\x05\x00\x05\x00\x00\x01"
    relay = socket.inet_ntoa(said[6:10]), int.from_bytes(said[10:])
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", port))
    one.settimeout(proxies.LONG)
    return control, one, relay


def test_datagrams_go_to_addresses_and_names_of_both_versions() -> None:
    with udp_echo() as port, udp_echo("::1") as port6, door() as address:
        control, one, relay = associate(address)
        with control, one:
            name = b"\0\0\0\x03\x09localhost" + port.to_bytes(2)
            for head, back in (
                (socks.write_datagram("127.0.0.1", port, b""), ("127.0.0.1", port)),
                (socks.write_datagram("::1", port6, b""), ("::1", port6)),
                (name, ("127.0.0.1", port)),
                (name, ("127.0.0.1", port)),
            ):
                one.sendto(head + b"hello", relay)
                assert socks.read_datagram(one.recv(1 << 16)) == (*back, b"hello")


def test_datagrams_of_others_and_bad_ones_are_dropped() -> None:
    with udp_echo() as port, door() as address:
        control, one, relay = associate(address)
        good = socks.write_datagram("127.0.0.1", port, b"")
        with control, one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            one.sendto(good + b"1", relay)
            assert one.recv(99).endswith(b"1")
            stranger.bind(("127.0.0.1", 0))
            stranger.sendto(good + b"2", relay)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
                far.bind(("127.0.0.2", 0))
                far.sendto(good + b"3", relay)
            source = random.Random(3)
            for _ in range(200):
                one.sendto(b"\0\0\1" + good[3:] + b"4", relay)
                one.sendto(source.randbytes(source.randrange(40)), relay)
            one.settimeout(0.2)
            for _ in range(50):  # Its queue may still be full.
                one.sendto(good + b"5", relay)
                with contextlib.suppress(TimeoutError):
                    assert one.recv(99).endswith(b"5"), "the only answer"
                    break
            else:
                raise AssertionError("no answer")
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.recv(99)


def test_a_client_can_say_which_port_it_will_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        chosen = probe.getsockname()[1]
    with udp_echo() as port, door() as address:
        control, one, relay = associate(address, chosen)
        good = socks.write_datagram("127.0.0.1", port, b"")
        with control, one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.sendto(good + b"first", relay)
            one.sendto(good + b"mine", relay)
            assert one.recv(99).endswith(b"mine")


def test_an_association_ends_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with door() as address:
        before = descriptors()
        control, one, relay = associate(address)
        one.sendto(socks.write_datagram("127.0.0.1", 9, b"x"), relay)
        until(lambda: descriptors() >= before + 5)  # both TCP ends, this socket, and two of UDP
        control.close()
        until(lambda: descriptors() == before + 1)
        one.close()


def test_an_association_ends_when_it_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp.Association.run, "__defaults__", (0.4,))
    with udp_echo() as port, door() as address:
        control, one, relay = associate(address)
        begun = time.monotonic()
        with control, one:
            while time.monotonic() < begun + 1:
                one.sendto(socks.write_datagram("127.0.0.1", port, b"x"), relay)
                one.recv(99)
                time.sleep(0.05)
            control.setblocking(False)
            with pytest.raises(BlockingIOError):
                control.recv(1)
            control.settimeout(proxies.LONG)
            assert control.recv(1) == b""


class SlowNames(Outside):
    """A tunnel whose names are found when the test says so."""

    def __init__(self) -> None:
        self.asked = list[str]()
        self.found = asyncio.Event()

    async def resolve(self, host: str, family: int = 0) -> list[str]:
        self.asked.append(host)
        await self.found.wait()
        return ["127.0.0.1"]


def test_datagrams_that_wait_for_a_name_are_few() -> None:
    slow = SlowNames()
    with udp_echo() as port, door(slow) as address:
        control, one, relay = associate(address)
        with control, one:
            for number in range(1000):
                name = b"%03d.lan" % (number % 500)
                one.sendto(b"\0\0\0\x03\x07" + name + port.to_bytes(2) + b"%d" % number, relay)
            until(lambda: len(slow.asked) >= 16)
            time.sleep(0.2)  # For those that must not be asked.
            assert len(slow.asked) == 16


# ---- forwards


def test_forwards_lead_both_ways() -> None:
    """-L and -R are the same with the sides exchanged, so each has a side of its own here."""
    with server(echo) as port, server(echo, "::1") as port6:
        into = (Forward.parse(f"0:127.0.0.1:{port}"), Forward.parse(f"[::1]:0:[::1]:{port6}"))
        out_of = (Forward.parse(f"0:localhost:{port}"),)
        with serving(Wishes(into=into, out_of=out_of)) as lines:
            assert [line.partition(" ")[2] for line in lines[:2]] == [
                f"leads to 127.0.0.1:{port} in the tunnel",
                f"leads to [::1]:{port6} in the tunnel",
            ]
            assert lines[0].startswith("127.0.0.1:") and lines[1].startswith("[::1]:")
            assert lines[2].startswith("0.0.0.0:")
            assert lines[2].endswith(f" in the tunnel leads to localhost:{port}")
            for line in lines:
                with connect(proxies.place(line.split()[0])) as client:
                    client.sendall(b"hello")
                    client.shutdown(socket.SHUT_WR)
                    assert whole(client) == b"hello"


def test_a_forward_to_nobody_closes_its_clients() -> None:
    with server(echo) as port:
        pass
    with serving(Wishes(into=(Forward.parse(f"0:127.0.0.1:{port}"),))) as lines:
        for _ in range(3):
            with connect(proxies.place(lines[0].split()[0])) as client:
                assert whole(client) == b""


@contextlib.contextmanager
def udp_forward(host: str) -> Iterator[list[str]]:
    """Runs a forward to a server on this host; yields what it says."""
    with (
        udp_echo() as port,
        serving(Wishes(into=(Forward.parse(f"0:{host}:{port}/udp"),))) as lines,
    ):
        yield lines


def test_datagrams_are_forwarded_with_a_socket_for_each_client() -> None:
    with udp_forward("localhost") as lines:
        assert lines[0].endswith("/udp in the tunnel")
        to = proxies.place(lines[0].split()[0])
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
        for number, client in enumerate(clients):
            client.settimeout(0.2)
            for _ in range(50):  # The name is looked up meanwhile.
                client.sendto(b"%d" % number, to)
                with contextlib.suppress(TimeoutError):
                    assert client.recv(9) == b"%d" % number
                    break
            else:
                raise AssertionError("no answer")
        for client in clients:
            client.close()


def test_clients_of_a_datagram_forward_are_limited_and_end_when_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(udp.UdpForward.__init__, "__defaults__", (3, 0.8))
    with udp_forward("127.0.0.1") as lines:
        to = proxies.place(lines[0].split()[0])
        before = descriptors()
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
        for client in clients:
            client.settimeout(proxies.LONG)
            client.sendto(b"x", to)
            assert client.recv(9) == b"x"
        assert descriptors() - before == 10 + 3
        until(lambda: descriptors() - before == 10)
        for client in clients:
            client.close()


def test_a_port_in_use_is_said_and_nothing_is_left_open() -> None:
    before = descriptors()
    with server(echo) as port:
        wishes = Wishes(("127.0.0.1", 0), into=(Forward.parse(f"{port}:a:1"),))
        expected = f"cannot listen at 127.0.0.1:{port}: Address already in use"
        with pytest.raises(HostError, match=expected), serving(wishes):
            raise AssertionError("it serves")
    gc.collect()
    assert descriptors() <= before


def test_scarce_descriptors_cost_half_open_clients_and_it_serves_on() -> None:
    """The process has none left: it rests, and then accepts again."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server(echo) as port, door() as address:
        before = descriptors()
        idle = [connect(address) for _ in range(6)]
        waiting = socket.socket()
        waiting.settimeout(proxies.LONG)
        until(lambda: descriptors() >= before + 6 * 2 + 1)  # They were accepted.
        most = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            waiting.connect(address)
            waiting.sendall(GREETING)
            assert exactly(waiting, 2) == b"\x05\x00"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with through_socks(address, port) as new:
            new.sendall(b"x")
            assert exactly(new, 1) == b"x"
        for one in (*idle, waiting):
            one.close()


def test_it_runs_on_a_loop_of_the_users() -> None:
    """As `run` is a coroutine that ends when it is cancelled, with all that it opened."""

    async def main() -> None:
        ready = asyncio.Event()
        task = asyncio.create_task(
            run(Outside(), Wishes(("127.0.0.1", 0)), lambda line: ready.set())
        )
        await ready.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
