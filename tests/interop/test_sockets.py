"""Sockets through a tunnel of this program's own: each stack, each event loop, the same tests."""

import asyncio
import contextlib
import errno
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from interop.joined import FAR, NEAR, echo, joined, left, write_files

import wiresnake
from lab import hosts
from wiresnake.sockets.stack import STACKS

Run = Callable[[Coroutine[Any, Any, None]], None]
MIB = 1 << 20


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, machine: None) -> str:
    """Each stack in turn."""
    return str(request.param)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each event loop in turn, and finds what it leaves behind.

    uvloop starts threads that never end, with which other tests could not change namespaces. So it
    runs in a forked process.
    """
    return (
        in_a_fork if request.param == "uvloop" else lambda main: asyncio.run(leaving_nothing(main))
    )


def in_a_fork(main: Coroutine[Any, Any, None]) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(leaving_nothing(main))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    main.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def leaving_nothing(main: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, str)  # A loop opens some descriptors late.
    gc.collect()  # What earlier tests left must not go meanwhile.
    before = left()
    async with asyncio.timeout(60):
        await main
    for _ in range(200):
        if left() == before and len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{before} became {left()}, with {asyncio.all_tasks()}")


async def exchange(near: wiresnake.Tunnel, host: str, port: int, data: bytes = b"ping") -> None:
    """Sends data to an echo and reads all of it back, to the end."""
    reader, writer = await near.open_connection(host, port)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    assert await reader.read(-1) == data
    await sending
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("version", [4, 6])
def test_a_stream_ends_in_each_direction_by_itself(
    stack: str, run: Run, tmp_path: Path, version: int
) -> None:
    """With Linux's sockets it carries more than any buffer holds; docs/sockets.md says why not here
    with the user stack."""
    size = 16 * MIB if stack == "kernel" else MIB // 4

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            assert near.stack == far.stack == stack
            async with await far.start_server(echo, port=8000):
                await exchange(near, FAR[version], 8000, random.randbytes(size))

    run(main())


def test_a_socket_is_an_ordinary_one(stack: str, run: Run, tmp_path: Path) -> None:
    """It has addresses, and works without a loop, too."""

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            (listener, other_listener) = far.listen(port=8000)
            listener.setblocking(True)
            await asyncio.to_thread(talk, near, listener)
            other_listener.close()

    def talk(near: wiresnake.Tunnel, listener: socket.socket) -> None:
        with near.socket() as one:
            assert isinstance(one, socket.socket)
            one.connect((FAR[4], 8000))
            other, address = listener.accept()
            with other, listener:
                assert one.getpeername() == (FAR[4], 8000) == other.getsockname()
                assert one.getsockname() == address == other.getpeername()
                assert address[0] == NEAR[4]
                one.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    one.recv(1)
                other.sendall(b"line\n")
                with one.makefile("rb") as file:
                    assert file.readline() == b"line\n"
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.shutdown(socket.SHUT_WR)
                assert other.recv(1) == b""

    run(main())


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams(stack: str, run: Run, tmp_path: Path, version: int) -> None:
    """Each is whole and knows where it came from; a connected socket hears nobody else."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6

    def talk(near: wiresnake.Tunnel, far: wiresnake.Tunnel) -> None:
        with (
            far.socket(family, socket.SOCK_DGRAM) as server,
            near.socket(family, socket.SOCK_DGRAM) as client,
            near.socket(family, socket.SOCK_DGRAM) as other,
        ):
            server.bind((FAR[version], 5353))
            for one in server, client, other:
                one.settimeout(5)
            client.connect((FAR[version], 5353))
            sizes = (1, 0, 1200, *([8000] if near.stack == "kernel" and version == 4 else []))
            for size in sizes:
                client.send(bytes(size))
            heard = []
            for _ in sizes:
                data, source = server.recvfrom(1 << 16)
                heard.append(len(data))
            assert sorted(heard) == sorted(sizes)
            assert source[:2] == client.getsockname()[:2] and source[0] == NEAR[version]
            other.bind((NEAR[version], 0))
            server.sendto(b"to the other", other.getsockname())
            assert other.recv(100) == b"to the other"
            other.sendto(b"not heard", client.getsockname())
            server.sendto(b"heard", source)
            assert client.recv(100) == b"heard"

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            await asyncio.to_thread(talk, near, far)

    run(main())


def test_datagrams_of_a_loop(stack: str, tmp_path: Path) -> None:
    """`create_datagram_endpoint` takes the sockets."""

    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.heard = asyncio.get_running_loop().create_future()

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.heard.set_result((data, address[:2]))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with joined(tmp_path, stack=stack) as (near, far):
            server = far.socket(type=socket.SOCK_DGRAM)
            server.bind((FAR[4], 7))
            receiving, first = await loop.create_datagram_endpoint(Client, sock=server)
            client = near.socket(type=socket.SOCK_DGRAM)
            client.bind((NEAR[4], 8))
            sending, second = await loop.create_datagram_endpoint(Client, sock=client)
            sending.sendto(b"ask", (FAR[4], 7))
            assert await first.heard == (b"ask", (NEAR[4], 8))
            receiving.sendto(b"answer", (NEAR[4], 8))
            assert await second.heard == (b"answer", (FAR[4], 7))
            receiving.close()
            sending.close()

    asyncio.run(leaving_nothing(main()))


def test_what_the_network_refuses_is_an_error(stack: str, run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            with pytest.raises(ConnectionRefusedError):
                await near.open_connection(FAR[4], 81)
            # It is neither of the two ends, and so no peer has it.
            with pytest.raises(wiresnake.HostError, match="No peer of the tunnel has") as caught:
                await near.open_connection("10.0.0.77", 80)
            assert caught.value.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
            server = await far.start_server(echo, FAR[4], 8000)
            with pytest.raises(OSError) as taken:
                await far.start_server(echo, FAR[4], 8000)
            assert taken.value.errno == errno.EADDRINUSE
            with pytest.raises(OSError) as foreign:
                await far.start_server(echo, "10.0.0.200", 8000)
            assert foreign.value.errno == errno.EADDRNOTAVAIL
            server.close()
            await server.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                await near.open_connection(FAR[4], 8000)

    run(main())


def test_a_wrong_key_ends_a_connect_with_the_reason(stack: str, tmp_path: Path) -> None:
    """After 15 s, in which three initiations were sent."""
    files = write_files(tmp_path)
    key = files.near.read_text().split("PublicKey = ")[1].split()[0]
    files.near.write_text(files.near.read_text().replace(key, hosts.keypair()[1]))

    async def main() -> None:
        async with (
            wiresnake.Tunnel.from_file(files.far, stack=stack),
            wiresnake.Tunnel.from_file(files.near, stack=stack) as near,
        ):
            begin = time.monotonic()
            with pytest.raises(TimeoutError, match="no handshake completed: ") as caught:
                await near.open_connection(FAR[4], 80)
            assert isinstance(caught.value, wiresnake.TimedOut)
            assert "a key is wrong" in str(caught.value) and "3 initiations" in str(caught.value)
            assert 14 < time.monotonic() - begin < 30

    asyncio.run(leaving_nothing(main()))


def test_a_peer_that_vanishes_hangs_nobody(stack: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            await far.start_server(echo, port=80)
            reader, writer = await near.open_connection(FAR[4], 80)
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            await far.apply(wiresnake.DeviceChange(replace_peers=True))
            writer.write(b"into the void")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(1)
            writer.close()

    asyncio.run(leaving_nothing(main()))


def test_a_cancelled_entry_and_a_cancelled_connect_leave_nothing(
    stack: str, run: Run, tmp_path: Path
) -> None:
    """Whenever it happens."""
    files = write_files(tmp_path)

    async def main() -> None:
        async def enter() -> None:
            async with wiresnake.Tunnel.from_file(files.near, stack=stack) as near:
                await near.open_connection(FAR[4], 80)

        for wait in (0, 0.001, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4):
            task = asyncio.create_task(enter())
            await asyncio.sleep(wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_sockets_that_the_program_forgot_end_with_the_tunnel(stack: str, tmp_path: Path) -> None:
    """A stream that is open when its tunnel ends is useless, and says so or stays silent."""

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            server = await far.start_server(echo, port=80)
            _, writer = await near.open_connection(FAR[4], 80)
        writer.close()
        server.close()
        with pytest.raises(wiresnake.HostError, match="not open"):
            near.socket()

    asyncio.run(leaving_nothing(main()))


def test_peers_change_while_it_runs(stack: str, tmp_path: Path) -> None:
    """One is removed, and comes back; the events and the counters say so."""

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            events = near.events()
            await far.start_server(echo, port=80)
            await exchange(near, FAR[4], 80)
            assert isinstance(await anext(events), wiresnake.HandshakeCompleted)
            (peer,) = near.peers
            assert peer.received > 200 and peer.sent > 200 and peer.latest_handshake
            with pytest.raises(wiresnake.HostError, match="entered once"):
                await near.__aenter__()  # Which costs it nothing.
            assert near._config is not None
            whole = near._config.change()
            await near.apply(wiresnake.DeviceChange(replace_peers=True))
            assert not near.peers
            with pytest.raises(OSError):
                await near.open_connection(FAR[4], 80)
            await near.apply(whole)
            await exchange(near, FAR[4], 80)
            (peer,) = near.peers
            assert peer.received > 200

    asyncio.run(leaving_nothing(main()))


def test_many_tunnels_of_one_process(stack: str, run: Run, tmp_path: Path) -> None:
    """They have the same addresses, and do not meet."""

    async def main() -> None:
        async with contextlib.AsyncExitStack() as opened:
            pairs = []
            for number in range(5):
                (tmp_path / str(number)).mkdir()
                pair = joined(tmp_path / str(number), stack=stack)
                pairs.append(await opened.enter_async_context(pair))
            for number, (_, far) in enumerate(pairs):

                async def say(
                    _: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = number
                ) -> None:
                    writer.write(b"%d" % number)
                    writer.close()

                await opened.enter_async_context(await far.start_server(say, port=80))
            for number, (near, _) in enumerate(pairs):
                reader, writer = await near.open_connection(FAR[4], 80)
                assert await reader.read() == b"%d" % number
                writer.close()

    run(main())


def test_a_loop_that_is_blocked_loses_nothing(stack: str, tmp_path: Path) -> None:
    """A session that lives carries packets for 30 s while Python does something else."""

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, far):
            (listener, unused) = far.listen(port=80)
            unused.close()
            listener.setblocking(True)
            lost: list[int] = []

            def serve() -> None:
                with listener, listener.accept()[0] as one:
                    while data := one.recv(100):
                        one.sendall(data)

            def talk() -> None:
                with near.socket() as one:
                    one.connect((FAR[4], 80))
                    one.settimeout(5)
                    connected.set()
                    for number in range(280):
                        one.sendall(b"%04d" % number)
                        if one.recv(4, socket.MSG_WAITALL) != b"%04d" % number:
                            lost.append(number)
                        time.sleep(0.1)

            connected = threading.Event()
            threads = [threading.Thread(target=one) for one in (serve, talk)]
            for thread in threads:
                thread.start()
            await asyncio.to_thread(connected.wait, 10)
            time.sleep(30)  # noqa: ASYNC251  # This is the point.
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
            assert not lost

    asyncio.run(main())


PROGRAM = """
import asyncio, os, signal, sys, threading
import wiresnake

def children():
    return [int(one) for task in os.listdir("/proc/self/task")
            for one in open(f"/proc/self/task/{task}/children").read().split()]
"""


def program(*arguments: object, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + text, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), 9)", "raise OSError"])
def test_however_the_program_ends_nothing_lives_on(stack: str, tmp_path: Path, end: str) -> None:
    files = write_files(tmp_path)
    done = program(
        files.near,
        stack,
        text=f"""
with wiresnake.open_tunnel(sys.argv[1], stack=sys.argv[2]) as tunnel:
    print(*children(), flush=True)
    {end}
""",
    )
    for process in map(int, done.stdout.split()):
        for _ in range(100):
            if not Path(f"/proc/{process}").exists():
                break
            time.sleep(0.05)
        else:
            raise AssertionError(Path(f"/proc/{process}/cmdline").read_text())


def test_a_program_that_never_closes_it_ends_all_the_same(stack: str, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    done = program(
        files.near,
        stack,
        text="""
tunnel = wiresnake.open_tunnel(sys.argv[1], stack=sys.argv[2])
print(tunnel.stack)
""",
    )
    assert (done.returncode, done.stdout) == (0, f"{stack}\n"), done.stderr


def test_the_handles_of_a_forked_child_are_dead_and_say_so(stack: str, tmp_path: Path) -> None:
    """The parent's work on."""
    files = write_files(tmp_path)
    done = program(
        files.near,
        files.far,
        stack,
        text="""
with (wiresnake.open_tunnel(sys.argv[2], stack=sys.argv[3]) as far,
      wiresnake.open_tunnel(sys.argv[1], stack=sys.argv[3]) as near):
    child = os.fork()
    if not child:
        try:
            near.socket()
        except OSError as error:
            print(error.strerror, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    listener, unused = far.listen(port=80)
    with near.create_connection(("10.0.0.1", 80), timeout=10) as one, listener.accept()[0] as two:
        one.sendall(b"x")
        print(two.recv(1))
    listener.close()
""",
    )
    said = "this tunnel belongs to the process that opened it: open another one after a fork"
    assert done.stdout == f"{said}\nb'x'\n", done.stderr


def test_the_blocking_face(stack: str, tmp_path: Path) -> None:
    """From several threads."""
    files = write_files(tmp_path)
    gc.collect()
    before = left()
    with (
        wiresnake.open_tunnel(files.far, stack=stack) as far,
        wiresnake.open_tunnel(wiresnake.Config.from_file(files.near), stack=stack) as near,
    ):
        assert near.stack == stack and near.resolve("10.0.0.9") == ["10.0.0.9"]
        listener, unused = far.listen(port=80)
        unused.close()
        with pytest.raises(wiresnake.TimedOut, match=r"10.0.0.1, port 81, within 0.5 s"):
            _lose_everything(near, far)

        def answer() -> None:
            with listener.accept()[0] as one:
                one.sendall(one.recv(100))

        def ask() -> None:
            with near.create_connection((FAR[4], 80), timeout=10) as one:
                one.sendall(b"hello")
                assert one.recv(100) == b"hello"

        threads = [threading.Thread(target=each) for each in [answer, ask] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        listener.close()
        (peer,) = near.peers
        assert peer.received and near.status.up
        near.apply(wiresnake.DeviceChange(replace_peers=True))
        assert near.peers == ()
    for _ in range(100):
        if left() == before:
            break
        time.sleep(0.05)
    assert left() == before


def _lose_everything(near: wiresnake.BlockingTunnel, far: wiresnake.BlockingTunnel) -> None:
    """Connects while the far end knows no peer, and then gives it back its peer."""
    whole = far._tunnel._config
    assert whole is not None
    far.apply(wiresnake.DeviceChange(replace_peers=True))
    try:
        near.create_connection((FAR[4], 81), timeout=0.5)
    finally:
        far.apply(whole.change())


@pytest.mark.parametrize("key", ["Address", "PrivateKey"])
def test_a_tunnel_needs_an_address_and_a_key(tmp_path: Path, key: str) -> None:
    files = write_files(tmp_path)
    lines = files.near.read_text().splitlines(keepends=True)
    files.near.write_text("".join(line for line in lines if not line.startswith(key)))
    with pytest.raises(wiresnake.ConfigError, match=f"near.conf: a tunnel needs {key} ="):
        wiresnake.open_tunnel(files.near)


def test_wrong_options(tmp_path: Path) -> None:
    files = write_files(tmp_path)

    async def enter(**options: Any) -> None:
        async with wiresnake.Tunnel.from_file(files.near, **options):
            pass

    with pytest.raises(wiresnake.ConfigError, match="no stack 'other': choose one of"):
        asyncio.run(enter(stack="other"))
    with pytest.raises(wiresnake.ConfigError, match="an interface of the host"):
        asyncio.run(enter(stack="kernel", interface="wg0"))
    missing = tmp_path / "missing.conf"
    with pytest.raises(wiresnake.HostError, match="cannot read"):
        wiresnake.open_tunnel(missing)


def test_names_are_asked_in_the_tunnel(stack: str, run: Run, tmp_path: Path) -> None:
    """Of a real server: addresses of both kinds, aliases, search domains, an answer that only fits
    into TCP, and names that do not exist."""
    if stack != "kernel" and "kernel" not in STACKS:
        pytest.skip("needs the kernel stack for dnsmasq")
    files = write_files(tmp_path, near="DNS = 10.0.0.1, corp.example\n")
    many = "".join(f"host-record=many.example,10.1.{n // 250}.{n % 250}\n" for n in range(300))
    (tmp_path / "dnsmasq.conf").write_text(
        "no-resolv\nno-hosts\nno-daemon\nlisten-address=10.0.0.1\nbind-interfaces\nuser=root\n"
        "pid-file=\nlocal=/example/\nhost-record=www.corp.example,10.0.0.1,fd00::1\n"
        "cname=web.corp.example,www.corp.example\nhost-record=four.example,10.0.0.1\n" + many
    )
    command = [
        "wiresnake",
        "exec",
        files.far,
        "--",
        "dnsmasq",
        f"--conf-file={tmp_path}/dnsmasq.conf",
    ]
    server = subprocess.Popen([sys.executable, "-m", *map(str, command)], stderr=subprocess.DEVNULL)

    async def main() -> None:
        async with wiresnake.Tunnel.from_file(files.near, stack=stack) as near:
            both = await near.resolve("www.corp.example")
            assert both == [FAR[6], FAR[4]]
            assert await near.resolve("web") == both
            assert await near.resolve("www.corp.example", socket.AF_INET) == [FAR[4]]
            assert await near.resolve("four.example") == [FAR[4]]
            assert len(await near.resolve("many.example", socket.AF_INET)) == 300
            with pytest.raises(wiresnake.HostError, match="no such name") as caught:
                await near.resolve("nobody.example")
            assert caught.value.errno == errno.ENOENT
            with pytest.raises(ConnectionRefusedError):  # By both addresses, one after the other.
                await near.open_connection("web", 82)

    try:
        run(main())
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


def test_without_a_name_server_there_are_only_addresses(stack: str, tmp_path: Path) -> None:
    """And never the host's."""

    async def main() -> None:
        async with joined(tmp_path, stack=stack) as (near, _):
            with pytest.raises(wiresnake.HostError, match="has no DNS") as caught:
                await near.open_connection("localhost", 80)
            assert caught.value.errno == errno.EDESTADDRREQ

    asyncio.run(main())


def test_a_helper_that_was_killed_costs_new_sockets_only(machine: None, tmp_path: Path) -> None:
    """Of the kernel stack: those that are open work on, and a new tunnel gets another helper."""

    async def main() -> None:
        async with joined(tmp_path, stack="kernel") as (near, far):
            server = await far.start_server(echo, port=80)
            reader, writer = await near.open_connection(FAR[4], 80)
            (helper,) = left().children
            os.kill(helper, signal.SIGKILL)
            with pytest.raises(wiresnake.HostError, match="helper of the kernel stack has ended"):
                near.socket()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            (tmp_path / "more").mkdir()
            async with joined(tmp_path / "more", stack="kernel") as (more, others):
                second = await others.start_server(echo, port=80)
                await exchange(more, FAR[4], 80)
                second.close()
            writer.close()
            server.close()

    asyncio.run(leaving_nothing(main()))
