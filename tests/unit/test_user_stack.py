"""The stack in this process, through real tunnels over loopback; no root is needed."""

import asyncio
import datetime
import errno
import gc
import hashlib
import importlib
import os
import resource
import select
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from unit.user_stacks import MTU, running

from wiresnake.linux.offloads import ALL
from wiresnake.sockets.user import Socket, UserStack

Stacks = tuple[UserStack, UserStack]
HERE, THERE = "10.9.0.1", "10.9.0.2"
V6 = {socket.AF_INET: THERE, socket.AF_INET6: "fd09::2"}
WAIT = 20.0


@pytest.fixture(scope="module")
def stacks() -> Iterator[Stacks]:
    with running() as stacks:
        yield stacks


def listener(stack: UserStack, family: int = socket.AF_INET, backlog: int = 128) -> Socket:
    made = stack.socket(family)
    made.settimeout(WAIT)
    made.bind((V6[socket.AddressFamily(family)], 0))
    made.listen(backlog)
    return made


def connected(stacks: Stacks, family: int = socket.AF_INET) -> tuple[Socket, Socket]:
    with listener(stacks[1], family) as at:
        one = stacks[0].socket(family)
        one.settimeout(WAIT)
        one.connect(at.getsockname())
        other, _ = at.accept()
        other.settimeout(WAIT)
    return one, other


def read_all(one: socket.socket) -> bytes:
    return b"".join(iter(lambda: one.recv(1 << 18), b""))


def failed(action: Any, *arguments: object) -> int:
    """Returns the errno with which the action fails."""
    with pytest.raises(OSError) as caught:
        action(*arguments)
    return caught.value.errno or 0


@pytest.mark.parametrize("family", V6)
def test_a_connection_has_names_carries_bytes_and_ends_one_side_at_a_time(
    stacks: Stacks, family: int
) -> None:
    with listener(stacks[1], family) as at, stacks[0].socket(family) as one:
        one.settimeout(WAIT)
        one.connect(at.getsockname())
        other, peer = at.accept()
        assert peer == one.getsockname() == other.getpeername()
        assert one.getpeername() == at.getsockname() == other.getsockname()
        assert len(peer) == (2 if family == socket.AF_INET else 4)
        with other:
            one.sendall(b"question")
            assert other.recv(100) == b"question"
            one.shutdown(socket.SHUT_WR)
            assert other.recv(100) == b""
            other.sendall(b"answer")
            assert one.recv(100, socket.MSG_PEEK) == b"answer"
            assert one.recv(100) == b"answer"
        assert one.recv(100) == b""


def digest(one: socket.socket) -> bytes:
    taken = hashlib.sha256()
    buffer = bytearray(1 << 18)
    while count := one.recv_into(buffer):
        taken.update(memoryview(buffer)[:count])
    return taken.digest()


def pour(one: socket.socket, seed: int, size: int) -> bytes:
    block, sent = os.urandom(1 << 20), hashlib.sha256()
    for number in range(size >> 20):
        part = seed.to_bytes(4) + number.to_bytes(4) + block[8 + number % 1000 :]
        one.sendall(part)
        sent.update(part)
    one.shutdown(socket.SHUT_WR)
    return sent.digest()


@pytest.mark.parametrize("offloads", [True, False])
def test_a_hundred_megabytes_both_ways_are_the_same_at_the_other_end(offloads: bool) -> None:
    with running(offloads=offloads) as stacks, ThreadPoolExecutor(4) as pool:
        one, other = connected(stacks)
        sent = [pool.submit(pour, end, seed, 100 << 20) for seed, end in enumerate((one, other))]
        taken = [pool.submit(digest, end) for end in (other, one)]
        assert [job.result(120) for job in sent] == [job.result(120) for job in taken]


def test_nobody_listens(stacks: Stacks) -> None:
    with stacks[0].socket() as one:
        one.settimeout(WAIT)
        assert failed(one.connect, (THERE, 9)) == errno.ECONNREFUSED
    with stacks[0].socket() as one:
        one.settimeout(WAIT)
        assert one.connect_ex((THERE, 9)) == errno.ECONNREFUSED
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_an_address_that_no_peer_has_is_unreachable(stacks: Stacks) -> None:
    with stacks[0].socket() as one:
        one.settimeout(WAIT)
        assert failed(one.connect, ("10.9.0.77", 9)) == errno.EHOSTUNREACH


@pytest.fixture
def nowhere() -> Iterator[UserStack]:
    """A stack whose packets go nowhere."""
    stack = UserStack()
    os.close(stack.open([HERE, "fd09::1"], MTU, ALL).fd)
    yield stack
    stack.close()


def writable(one: socket.socket, wait: float = 0) -> bool:
    return bool(select.select([], [one], [], wait)[1])


def test_a_descriptor_is_not_writable_before_it_is_connected(nowhere: UserStack) -> None:
    with nowhere.socket() as one:
        one.setblocking(False)
        assert one.connect_ex((THERE, 80)) == errno.EINPROGRESS
        assert failed(one.connect, (THERE, 80)) == errno.EALREADY
        assert not writable(one)
        assert failed(one.getpeername) == errno.ENOTCONN
        with pytest.raises(BlockingIOError):
            one.send(b"too early")
        nowhere.close()
        assert writable(one, WAIT)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN


def test_a_timeout_ends_only_the_wait(nowhere: UserStack) -> None:
    with nowhere.socket() as one:
        one.settimeout(0.05)
        with pytest.raises(TimeoutError):
            one.connect((THERE, 80))
        assert failed(one.connect, (THERE, 80)) == errno.EALREADY
    with listener_of(nowhere) as at:
        at.settimeout(0.05)
        with pytest.raises(TimeoutError):
            at.accept()
        at.setblocking(False)
        with pytest.raises(BlockingIOError):
            at.accept()


def listener_of(stack: UserStack) -> Socket:
    at = stack.socket()
    at.bind((HERE, 0))
    at.listen()
    return at


def test_addresses_that_cannot_be_had(nowhere: UserStack) -> None:
    stream = nowhere.socket
    with stream() as one, stream() as two, stream() as three:
        one.bind((HERE, 80))
        assert failed(one.bind, (HERE, 81)) == errno.EINVAL
        assert failed(two.bind, (HERE, 80)) == errno.EADDRINUSE
        assert failed(two.bind, ("", 80)) == errno.EADDRINUSE
        assert failed(two.bind, ("10.9.0.3", 80)) == errno.EADDRNOTAVAIL
        assert failed(two.bind, ("::1", 80)) == errno.EAFNOSUPPORT
        with pytest.raises(socket.gaierror, match="resolve it through the tunnel"):
            two.connect(("example.org", 80))
        two.bind((HERE, 0))
        assert two.getsockname()[1] >= 32768
        three.bind(("0.0.0.0", 0))
        assert three.getsockname()[0] == "0.0.0.0"
    with stream() as again:
        again.bind((HERE, 80))


def test_calls_at_the_wrong_time(nowhere: UserStack) -> None:
    with nowhere.socket() as one:
        assert failed(one.send, b"x") == errno.ENOTCONN
        assert failed(one.sendall, b"x") == errno.ENOTCONN
        assert failed(one.accept) == errno.EINVAL
        assert failed(one.getpeername) == errno.ENOTCONN
        one.listen()
        assert failed(one.connect, (THERE, 80)) == errno.EISCONN
    with nowhere.socket(type=socket.SOCK_DGRAM) as one:
        assert failed(one.send, b"x") == errno.EDESTADDRREQ
        assert failed(one.listen) == errno.EINVAL
    assert failed(nowhere.socket, socket.AF_UNIX) == errno.EAFNOSUPPORT
    assert failed(nowhere.socket, socket.AF_INET, socket.SOCK_RAW) == errno.EPROTONOSUPPORT
    wrong = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP
    assert failed(nowhere.socket, *wrong) == errno.EPROTONOSUPPORT
    assert failed(UserStack().socket) == errno.ENETDOWN


def test_options_are_kept_or_refused(stacks: Stacks) -> None:
    one, other = connected(stacks)
    with one, other:
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        for level, option in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        ):
            one.setsockopt(level, option, 7)
            assert one.getsockopt(level, option) == 7
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 100_000
        refused = errno.ENOPROTOOPT
        assert failed(one.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, b"12345678") == refused
        assert failed(one.getsockopt, socket.IPPROTO_TCP, socket.TCP_INFO) == refused


def test_unread_bytes_at_close_reset_the_peer(stacks: Stacks) -> None:
    one, other = connected(stacks)
    one.sendall(b"never read")
    assert select.select([other], [], [], WAIT)[0]
    with one:
        other.close()
        deadline = time.monotonic() + WAIT
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < deadline:
                one.sendall(b"more")
                time.sleep(0.001)


def test_a_peer_that_is_gone_is_a_reset_for_a_reader(stacks: Stacks) -> None:
    """Its stack answers with a reset, as it does not know the connection."""
    one, other = connected(stacks)
    with one:
        other.sendall(b"last words")
        other.close()
        assert one.recv(100) == b"last words"
        assert one.recv(100) == b""
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                one.sendall(b"is anybody there")
                time.sleep(0.01)


def test_select_and_makefile_and_dup(stacks: Stacks) -> None:
    with listener(stacks[1]) as at, stacks[0].socket() as one:
        assert not select.select([at], [], [], 0)[0]
        one.settimeout(WAIT)
        one.connect(at.getsockname())
        assert select.select([at], [], [], WAIT)[0]
        other, _ = at.accept()
        assert not select.select([other], [], [], 0)[0]
        copy = one.dup()
        one.close()
        with copy, other, other.makefile("rwb") as file:
            assert copy.getpeername() == at.getsockname()
            copy.sendall(b"a line\nanother")
            assert select.select([other], [], [], WAIT)[0]
            assert file.readline() == b"a line\n"
            file.write(b"back\n")
            file.flush()
            with copy.makefile("r") as text:
                assert text.readline() == "back\n"
            assert other.sendmsg([b"some ", b"parts"]) == 10
            parts = [bytearray(5), bytearray(9)]
            assert copy.recvmsg_into(parts)[0] == 10
            assert parts[1][:5] == b"parts"


def test_tls_is_spoken_on_it(stacks: Stacks, tmp_path: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate(tmp_path))
    client = ssl.create_default_context(cafile=str(tmp_path / "both.pem"))
    one, other = connected(stacks)
    with ThreadPoolExecutor(1) as pool:
        wrapped = pool.submit(server.wrap_socket, other, True)
        with (
            client.wrap_socket(one, server_hostname="there") as here,
            wrapped.result(WAIT) as there,
        ):
            here.sendall(b"a secret")
            assert there.recv(100) == b"a secret"
            there.sendall(bytes(1 << 16))
            assert sum(len(here.recv(1 << 16)) for _ in range(4)) == 1 << 16


def certificate(folder: Path) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "there")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("there")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "both.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("family", V6)
def test_datagrams_have_senders(stacks: Stacks, family: int) -> None:
    kind = socket.SOCK_DGRAM
    with stacks[1].socket(family, kind) as there, stacks[0].socket(family, kind) as here:
        for one in there, here:
            one.settimeout(WAIT)
        there.bind((V6[socket.AddressFamily(family)], 53))
        for payload in b"question", b"", bytes(MTU - 48):
            assert here.sendto(payload, there.getsockname()) == len(payload)
            data, sender = there.recvfrom(2000)
            assert data == payload
            there.sendto(data + b"!", sender) if len(data) < 100 else there.sendto(b"!", sender)
            assert here.recv(2000)[-1:] == b"!"
        longest = MTU - (28 if family == socket.AF_INET else 48)
        assert failed(here.sendto, bytes(longest + 1), there.getsockname()) == errno.EMSGSIZE
        buffer = bytearray(4)
        here.sendto(b"1234", there.getsockname())
        assert there.recvfrom_into(buffer)[0] == 4
        assert buffer == b"1234"


def test_a_connected_datagram_socket_hears_only_its_peer(stacks: Stacks) -> None:
    kind = socket.SOCK_DGRAM
    with (
        stacks[1].socket(type=kind) as peer,
        stacks[1].socket(type=kind) as stranger,
        stacks[0].socket(type=kind) as here,
    ):
        for one in peer, stranger, here:
            one.settimeout(WAIT)
            one.bind(("", 0))
        at = (HERE, here.getsockname()[1])
        stranger.sendto(b"before", at)
        assert select.select([here], [], [], WAIT)[0]
        here.connect((THERE, peer.getsockname()[1]))
        assert here.getsockname() == at
        stranger.sendto(b"after", at)
        peer.sendto(b"hello", at)
        assert here.recv(100) == b"hello"
        assert here.send(b"raw") == 3
        assert peer.recvfrom(100) == (b"raw", at)
        assert failed(here.sendto, b"x", (THERE, 1)) == errno.EISCONN


def test_a_datagram_that_nobody_takes_is_refused(stacks: Stacks) -> None:
    with stacks[0].socket(type=socket.SOCK_DGRAM) as here:
        here.settimeout(WAIT)
        here.connect((THERE, 9))
        here.send(b"anybody?")
        assert failed(here.recv, 100) == errno.ECONNREFUSED


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def converse(stacks: Stacks, plain: bool) -> None:
    """Uses a loop's own calls. `plain`: its transports need the Unix socket itself."""
    loop = asyncio.get_running_loop()
    open_stream = asyncio.open_unix_connection if plain else asyncio.open_connection
    with listener(stacks[1]) as at, stacks[0].socket() as one:
        for each in at, one:
            each.setblocking(False)
        await loop.sock_connect(one, at.getsockname())
        other, _ = await loop.sock_accept(at)
        readers, writers = [], []
        for end in one, other:
            assert isinstance(end, Socket)
            used = end.plain() if plain else end
            reader, writer = await open_stream(sock=used)
            writer.write(bytes(1_000_000))
            writer.write_eof()
            readers.append(reader)
            writers.append(writer)  # one that is dropped closes its transport
        for reader in readers:
            assert len(await reader.read()) == 1_000_000
        for writer in writers:
            writer.close()
        with stacks[0].socket() as refused:
            refused.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(refused, (THERE, 9))


def test_asyncio_uses_it_like_any_socket(stacks: Stacks) -> None:
    async def main() -> None:
        await converse(stacks, plain=False)
        with listener(stacks[1]) as at:
            at.setblocking(False)
            server = await asyncio.start_server(echo, sock=at)
            one = stacks[0].socket()
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, at.getsockname())
            reader, writer = await asyncio.open_connection(sock=one)
            assert writer.get_extra_info("peername") == at.getsockname()
            writer.write(b"echo")
            writer.write_eof()
            assert await reader.read() == b"echo"
            writer.close()
            server.close()
        await datagrams(stacks)

    asyncio.run(asyncio.wait_for(main(), WAIT))


class Keeping(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, Any]] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.put_nowait((data, addr))


async def datagrams(stacks: Stacks) -> None:
    loop, made = asyncio.get_running_loop(), []
    for stack in stacks:
        one = stack.socket(type=socket.SOCK_DGRAM)
        one.setblocking(False)
        one.bind((HERE if stack is stacks[0] else THERE, 0))
        at = one.getsockname()
        transport, keeping = await loop.create_datagram_endpoint(Keeping, sock=one)
        made.append((transport, keeping, at))
    (here, _, from_here), (there, keeping, to_there) = made
    here.sendto(b"hello", to_there)
    assert await keeping.got.get() == (b"hello", from_here)
    here.close()
    there.close()


def module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is missing: pip install -r requirements-dev.txt")


def test_uvloop_uses_the_plain_socket(stacks: Stacks) -> None:
    module("uvloop").run(asyncio.wait_for(converse(stacks, plain=True), WAIT))


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def threads() -> int:
    """Returns the number of stacks' threads."""
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return names.count("wiresnake-stack\n")


def test_the_end_of_a_stack_is_the_end_of_its_sockets_and_nothing_is_left() -> None:
    gc.collect()
    before, running_before = open_files(), threads()
    with running() as stacks:
        one, other = connected(stacks)
        assert threads() == running_before + 2
        at = listener(stacks[1])
        datagram = stacks[0].socket(type=socket.SOCK_DGRAM)
        datagram.settimeout(WAIT)
        datagram.bind((HERE, 0))
        reader = ThreadPoolExecutor(1)
        read = reader.submit(one.recv, 10)
    assert failed(read.result, WAIT) == errno.ENETDOWN
    reader.shutdown()
    assert failed(at.accept) in (errno.ENETDOWN, errno.ECONNABORTED)
    assert failed(datagram.recv, 100) == errno.ENETDOWN
    assert failed(stacks[0].socket) == errno.ENETDOWN
    stacks[0].close()
    for each in one, other, at, datagram:
        each.close()
    assert open_files() == before
    assert threads() == running_before


def test_sockets_that_are_dropped_leave_nothing(stacks: Stacks) -> None:
    warmed = connected(stacks)
    for each in warmed:
        each.close()
    before = open_files()
    made: list[Any] = [connected(stacks) for _ in range(20)]
    made += [stacks[0].socket(type=socket.SOCK_DGRAM) for _ in range(20)]
    made += [listener(stacks[1]) for _ in range(20)]
    for each in made[20:]:
        each.close()
    for pair in made[:20]:
        for each in pair:
            each.close()
    deadline = time.monotonic() + WAIT
    while open_files() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_files() <= before


def test_a_forked_child_is_told_so_and_its_parent_goes_on(stacks: Stacks) -> None:
    one, other = connected(stacks)
    with one, other:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            good = False
            try:
                one.getsockname()
            except OSError as error:
                good = error.errno == errno.EBADF and "parent" in str(error)
            try:
                stacks[0].socket()
                good = False
            except OSError:
                pass
            del one, other
            gc.collect()
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        one.sendall(b"still here")
        assert other.recv(100) == b"still here"


def test_a_child_that_lives_on_does_not_hide_the_end_of_a_stack() -> None:
    with running() as stacks:
        one, _ = connected(stacks)
        come, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(come, 1)
            os._exit(0)
    try:
        assert failed(one.recv, 100) == errno.ENETDOWN
    finally:
        os.close(come)
        os.close(go)
        os.waitpid(child, 0)
        one.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = 6000
    if hard != resource.RLIM_INFINITY and hard < need:
        pytest.skip(f"a limit of {hard} open files: raise it to {need} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_connections_at_once() -> None:
    count = 1000

    async def main(stacks: Stacks) -> None:
        loop = asyncio.get_running_loop()
        at = listener(stacks[1], backlog=count)
        at.setblocking(False)

        async def ask(number: int) -> None:
            one = stacks[0].socket()
            one.setblocking(False)
            await loop.sock_connect(one, at.getsockname())
            ready.append(number)
            if len(ready) == count:
                all_ready.set()
            await all_ready.wait()
            reader, writer = await asyncio.open_connection(sock=one)
            writer.write(number.to_bytes(4) * 1000)
            writer.write_eof()
            assert await reader.read() == number.to_bytes(4) * 1000
            writer.close()

        ready: list[int] = []
        all_ready = asyncio.Event()
        server = await asyncio.start_server(echo, sock=at)
        await asyncio.gather(*map(ask, range(count)))
        server.close()

    with running() as stacks:
        asyncio.run(asyncio.wait_for(main(stacks), 60))


def test_a_reader_that_does_not_read_stops_the_writer(stacks: Stacks) -> None:
    one, other = connected(stacks)
    with one, other:
        one.setblocking(False)
        sent, quiet = 0, 0.0
        while quiet < 0.5:
            try:
                sent += one.send(bytes(1 << 16))
                quiet = 0
            except BlockingIOError:
                quiet += 0.05
                writable(one, 0.05)
        assert 1 << 20 < sent < 4 << 20
        one.settimeout(WAIT)
        one.shutdown(socket.SHUT_WR)
        assert len(read_all(other)) == sent


def test_the_end_of_what_a_datagram_socket_sends_is_not_an_endless_datagram(
    stacks: Stacks,
) -> None:
    kind = socket.SOCK_DGRAM
    with stacks[1].socket(type=kind) as there, stacks[0].socket(type=kind) as here:
        there.settimeout(WAIT)
        here.settimeout(WAIT)
        there.bind((THERE, 0))
        here.connect(there.getsockname())
        here.send(b"last")
        here.shutdown(socket.SHUT_WR)
        data, sender = there.recvfrom(100)
        there.sendto(data, sender)
        assert here.recv(100) == b"last"


def test_no_descriptor_left_for_a_connection_is_an_error_of_accept(stacks: Stacks) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listener(stacks[1]) as at, stacks[0].socket() as one:
        one.settimeout(WAIT)
        one.connect(at.getsockname())
        assert select.select([at], [], [], WAIT)[0]
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            assert failed(at.accept) == errno.EMFILE
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert one.recv(100) == b""
    connected(stacks)[0].close()


def test_a_connection_from_the_same_port_is_another_one(stacks: Stacks) -> None:
    with listener(stacks[1]) as at:

        def connect() -> tuple[Socket, Socket]:
            one = stacks[0].socket()
            one.settimeout(WAIT)
            deadline = time.monotonic() + WAIT
            while True:
                try:
                    one.bind((HERE, 5000))
                    one.connect(at.getsockname())
                    return one, at.accept()[0]
                except OSError as error:
                    assert error.errno == errno.EADDRINUSE and time.monotonic() < deadline
                    one.close()
                    one = stacks[0].socket()
                    one.settimeout(WAIT)
                    time.sleep(0.01)

        one, old = connect()
        old.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
        one.close()
        assert old.recv(1) == b""
        one, new = connect()
        with one, old, new:
            with pytest.raises(OSError, match=r"pipe|reset"):
                for _ in range(100):
                    old.send(b"of the old one")
                    time.sleep(0.01)
            new.settimeout(WAIT)
            new.sendall(b"of the new one")
            assert one.recv(100) == b"of the new one"
            one.sendall(b"back")
            assert new.recv(100) == b"back"


def test_what_was_written_before_a_close_arrives(stacks: Stacks) -> None:
    one, other = connected(stacks)
    writer = ThreadPoolExecutor(1)

    def write() -> None:
        with one:
            one.sendall(bytes(5 << 20))

    done = writer.submit(write)
    with other:
        assert len(read_all(other)) == 5 << 20
    done.result(WAIT)
    writer.shutdown()
