"""`wiresnake proxy` with real tunnels and real clients: curl, PySocks, python-socks, ssh."""

import asyncio
import contextlib
import getpass
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import proxies
import pytest
import python_socks
import socks as pysocks
from interop.harness import WIRESNAKE, unavailable
from proxies import echo, exactly, server, whole
from python_socks.async_.asyncio import Proxy as AsyncProxy

from wiresnake.pytest_plugin import WireguardServer

LONG = 30


class Running:
    """A running `wiresnake proxy`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines = list[str]()

    def line(self) -> str:
        """Waits for the next line that it says."""
        assert self.process.stderr
        said = self.process.stderr.readline()
        assert said, f"it ended with {self.process.wait(LONG)} after {self.lines}"
        self.lines.append(said.rstrip("\n"))
        return self.lines[-1]

    def place(self) -> tuple[str, int]:
        """Returns the address in the next line."""
        found = re.search(r"(\[\S+\]|[0-9.]+):\d+", self.line())
        assert found, self.lines
        return proxies.place(found[0])

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Returns the exit code, and what it says from then on."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LONG)
        return self.process.returncode, said


@contextlib.contextmanager
def proxy(file: Path, *words: str, by: Sequence[str] = ()) -> Iterator[Running]:
    command = [*by, str(WIRESNAKE), "proxy", str(file), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def curl(*words: str) -> str:
    if not shutil.which("curl"):
        unavailable("curl is missing: apt-get install curl")
    command = ["curl", "--silent", "--show-error", "--max-time", str(LONG), *words]
    environment = {key: text for key, text in os.environ.items() if "proxy" not in key.lower()}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.stdout + done.stderr


def test_curl_by_every_kind_of_proxy(wireguard_server: WireguardServer) -> None:
    """Names too, which only exist in the tunnel; both versions of IP; large pages."""
    inside = wireguard_server
    inside.names |= {"four.lan": inside.address, "six.lan": inside.address6}
    large = random.Random(1).randbytes(3_000_000).hex()
    inside.serve_http({"/": "hello", "/large": large})
    with proxy(inside.file, "--listen", "0") as running:
        host, port = running.place()
        assert running.lines == [f"wiresnake: SOCKS5 and HTTP proxy at 127.0.0.1:{port}"]
        at = f"{host}:{port}"
        for options in (
            ["--proxy", f"socks5h://{at}"],
            ["--proxy", f"http://{at}"],
            ["--proxy", f"http://{at}", "--proxytunnel"],
        ):
            for place in ("four.lan", "six.lan", inside.address, f"[{inside.address6}]"):
                assert curl(*options, f"http://{place}/") == "hello", (options, place)
            urls = [f"http://four.lan/{path}" for path in ("large", "", "large")]
            assert curl(*options, *urls) == f"{large}hello{large}"
        address = inside.address
        assert curl("--proxy", f"socks5://{at}", f"http://{address}/") == "hello"
        # What fails is said by the code of its cause.
        assert "(5)" in curl("--proxy", f"socks5h://{at}", f"http://{address}:81/")
        assert "(4)" in curl("--proxy", f"socks5h://{at}", "http://nowhere.lan/")
        assert "502" in curl("--include", "--proxy", f"http://{at}", f"http://{address}:81/")
        said = curl("--proxy", f"http://{at}", "http://nowhere.lan/")
        assert said.startswith("wiresnake: nowhere.lan:80: no such name"), said
        assert running.end() == (0, ""), "Ctrl-C ends it quietly"


def test_a_user_and_a_password(wireguard_server: WireguardServer, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("tr0ub4dor&3\n")
    url = wireguard_server.serve_http({"/": "hello"}) + "/"
    words = ["--listen", "0", "--user", "anna", "--password-file", str(secret)]
    with proxy(wireguard_server.file, *words) as running:
        at = "{}:{}".format(*running.place())
        for kind in ("socks5h", "http"):
            use = ["--proxy", f"{kind}://{at}", url, "--proxy-user"]
            assert curl(*use, "anna:tr0ub4dor&3") == "hello"
            for wrong in ("anna:tr0ub4dor&4", "bob:tr0ub4dor&3", "anna:"):
                assert "hello" not in curl(*use, wrong)
            assert "hello" not in curl(*use[:-1])
        line = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        code, said = running.end(signal.SIGTERM)
        assert (code, said) == (143, "")
        assert b"tr0ub" not in line and "tr0ub" not in "".join(running.lines)


def test_it_warns_when_others_can_use_it(wireguard_server: WireguardServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    login = ["--user", "a", "--password-file", str(tmp_path / "password")]
    warning = (
        "wiresnake: warning: anyone who reaches 0.0.0.0 can use the tunnel; --user and"
        " --password-file ask for a password"
    )
    for words, warns in (
        (["0.0.0.0:0"], True),
        (["0.0.0.0:0", *login], False),
        (["[::1]:0"], False),
    ):
        with proxy(wireguard_server.file, "--listen", *words) as running:
            assert (running.line() == warning) == warns
            if warns:
                assert running.line().startswith("wiresnake: SOCKS5 and HTTP proxy at 0.0.0.0:")


@pytest.fixture
def datagrams(wireguard_server: WireguardServer) -> Iterator[int]:
    """A server in the tunnel that sends datagrams back, for both versions; yields its port."""
    ends = list[socket.socket]()
    port = 0
    for family, address in (
        (socket.AF_INET, wireguard_server.address),
        (socket.AF_INET6, wireguard_server.address6),
    ):
        one = wireguard_server.tunnel.socket(family, socket.SOCK_DGRAM)
        one.bind((address, port))
        port = one.getsockname()[1]
        ends.append(one)
        threading.Thread(target=send_back, args=(one,), daemon=True).start()
    yield port
    for one in ends:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def send_back(one: socket.socket) -> None:
    with one, contextlib.suppress(OSError, TypeError):
        while True:
            data, address = one.recvfrom(1 << 16)
            one.sendto(data, address)


def test_datagrams_of_pysocks(wireguard_server: WireguardServer, datagrams: int) -> None:
    inside = wireguard_server
    inside.names["echo.lan"] = inside.address
    with proxy(inside.file, "--listen", "0") as running:
        host, port = running.place()
        with pysocks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.set_proxy(pysocks.SOCKS5, host, port, rdns=True)
            one.settimeout(LONG)
            for place in (inside.address, "echo.lan", inside.address6):
                data = random.Random(2).randbytes(1200)
                one.sendto(data, (place, datagrams))
                assert one.recvfrom(1 << 16)[0] == data


def test_python_socks_of_asyncio(wireguard_server: WireguardServer) -> None:
    inside = wireguard_server
    place = inside.serve(echo)

    async def main(port: int) -> None:
        through = AsyncProxy.from_url(f"socks5://127.0.0.1:{port}", rdns=True)
        made = await through.connect(*place)
        reader, writer = await asyncio.open_connection(sock=made)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
        with pytest.raises(python_socks.ProxyError):
            await through.connect(inside.address, 9)

    with proxy(inside.file, "--listen", "0") as running:
        asyncio.run(main(running.place()[1]))


def test_forwards_into_and_out_of_the_tunnel(
    wireguard_server: WireguardServer, datagrams: int
) -> None:
    inside = wireguard_server
    inside.names["db.lan"] = inside.address6
    _, within = inside.serve(echo)
    with server(echo) as outside:
        words = [f"-L0:db.lan:{within}", f"-R7000:127.0.0.1:{outside}"]
        words += [f"-L[::1]:0:{inside.address}:{datagrams}/udp", f"-R0:127.0.0.1:{outside}"]
        with proxy(inside.file, *words) as running:
            into, into_udp = running.place(), running.place()
            out_of = [running.place()[1] for _ in range(4)]
            assert running.lines[0].endswith(f" leads to db.lan:{within} in the tunnel")
            assert running.lines[2] == (
                f"wiresnake: 0.0.0.0:7000 in the tunnel leads to 127.0.0.1:{outside}"
            )
            assert out_of[0] == out_of[1] == 7000 and out_of[2] == out_of[3]
            with proxies.connect(into) as client:
                client.sendall(b"in")
                client.shutdown(socket.SHUT_WR)
                assert whole(client) == b"in"
            for port in (7000, out_of[2]):
                for address in (inside.client_address, inside.client_address6):
                    connection = inside.tunnel.create_connection((address, port), LONG)
                    with connection:
                        connection.sendall(b"out")
                        connection.shutdown(socket.SHUT_WR)
                        assert whole(connection) == b"out"
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
                one.settimeout(LONG)
                one.sendto(b"datagram", into_udp)
                assert one.recv(99) == b"datagram"
            assert running.end()[0] == 0


def test_datagrams_out_of_the_tunnel(wireguard_server: WireguardServer) -> None:
    inside = wireguard_server
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.bind(("127.0.0.1", 0))
        outside.settimeout(LONG)
        port = outside.getsockname()[1]
        with proxy(inside.file, f"-R7000:127.0.0.1:{port}/udp") as running:
            running.place()
            with inside.tunnel.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(LONG)
                one.sendto(b"question", (inside.client_address, 7000))
                data, client = outside.recvfrom(99)
                assert data == b"question"
                outside.sendto(b"answer", client)
                assert one.recvfrom(99) == (b"answer", (inside.client_address, 7000))


# ---- -W


def stdio(file: Path, place: str, **options: object) -> subprocess.Popen[bytes]:
    command = [WIRESNAKE, "proxy", file, "-W", place]
    return subprocess.Popen(command, **options)  # type: ignore[call-overload,no-any-return]


def test_standard_input_and_output(wireguard_server: WireguardServer, tmp_path: Path) -> None:
    """Input that is a file or a pipe; the end of it is passed on, and what comes after arrives."""
    inside = wireguard_server
    host, port = inside.serve(echo)
    data = random.Random(3).randbytes(5_000_000)
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as given:
        process = stdio(inside.file, f"{host}:{port}", stdin=given, stdout=subprocess.PIPE)
        assert (
            hashlib.sha256(process.communicate(timeout=60)[0]).digest()
            == hashlib.sha256(data).digest()
        )
    assert process.returncode == 0
    place = f"[{inside.address6}]:{port}"
    process = stdio(inside.file, place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(b"question")
    process.stdin.flush()
    assert process.stdout.read(8) == b"question"
    process.stdin.close()
    assert (process.stdout.read(), process.wait(LONG)) == (b"", 0)
    process.stdout.close()


def test_the_other_end_may_speak_first_and_last(wireguard_server: WireguardServer) -> None:
    """It ends when the other end does, though input goes on."""

    def handle(one: socket.socket) -> None:
        one.sendall(b"hello")

    place = "{}:{}".format(*wireguard_server.serve(handle))
    process = stdio(wireguard_server.file, place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout and process.stdin
    assert (process.stdout.read(), process.wait(LONG)) == (b"hello", 0)
    process.stdin.close()
    process.stdout.close()


def test_what_ends_a_connection_of_standard_input(wireguard_server: WireguardServer) -> None:
    inside = wireguard_server
    done = subprocess.run(
        [WIRESNAKE, "proxy", inside.file, "-W", f"{inside.address}:9"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"wiresnake: {inside.address}:9: Connection refused\n"

    def reset(one: socket.socket) -> None:
        one.recv(1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    place = "{}:{}".format(*inside.serve(reset))
    process = stdio(
        inside.file, place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, said = process.communicate(b"x", timeout=LONG)
    expected = f"wiresnake: the connection to {place} broke: Connection reset by peer\n"
    assert (process.returncode, said.decode()) == (1, expected)


@pytest.fixture
def sshd(wireguard_server: WireguardServer, tmp_path: Path) -> tuple[str, int, Path]:
    """OpenSSH's server in the tunnel, one for each connection; its address, and the user's key."""
    program = "/usr/sbin/sshd"
    if not Path(program).exists() or not shutil.which("ssh"):
        unavailable("OpenSSH is missing: apt-get install openssh-server openssh-client")
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)

    def handle(one: socket.socket) -> None:
        command = [program, "-i", "-e", "-f", str(config)]
        subprocess.run(command, stdin=one.fileno(), stdout=one.fileno(), stderr=subprocess.DEVNULL)

    return *wireguard_server.serve(handle), tmp_path / "user"


def test_ssh(wireguard_server: WireguardServer, sshd: tuple[str, int, Path]) -> None:
    host, port, key = sshd
    command = f"{WIRESNAKE} proxy {wireguard_server.file} -W %h:%p"
    options = {
        "ProxyCommand": command,
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "LogLevel": "ERROR",
    }
    words = ["ssh", "-F", "none", "-i", str(key), "-p", str(port)]
    words += [f"-o{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [*words, f"{getpass.getuser()}@{host}", "cat; exit 7"],
        input="through the tunnel",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("through the tunnel", "", 7)


# ---- ends and mistakes


def test_signals_end_it_at_once_with_everything_it_serves(
    wireguard_server: WireguardServer,
) -> None:
    place = wireguard_server.serve(echo)
    for number, code in ((signal.SIGINT, 0), (signal.SIGTERM, 143)):
        with proxy(wireguard_server.file, "--listen", "0") as running:
            address = running.place()
            with proxies.connect(address) as client, proxies.connect(address) as idle:
                client.sendall(b"CONNECT %s:%d HTTP/1.1\r\n\r\n" % (place[0].encode(), place[1]))
                assert exactly(client, 39).startswith(b"HTTP/1.1 200")
                begun = time.monotonic()
                assert running.end(number) == (code, "")
                assert time.monotonic() - begun < 5
                assert whole(client) == whole(idle) == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "x"], "not an address and port: 'x'"),
        (["--listen", "localhost:1"], "not an address and port: 'localhost:1'"),
        (["--user", "a"], "--user and --password-file need each other"),
        (["-L", "80"], "not [BIND:]PORT:HOST:HOSTPORT: '80'"),
        (["-R", "80:a:99999"], "not a port from 1 to 65535: '99999'"),
        (["-W", "a"], "not HOST:PORT: 'a'"),
        (["-W", "a:1", "-L", "1:a:1"], "-W serves nothing"),
        (["--clients", "0"], "not a number of clients: '0'"),
        (["--user", "a", "--password-file", "/nowhere"], "cannot read /nowhere: No such file"),
        (["--user", "a:b", "--password-file", "/dev/null"], "--user takes a name"),
        (["--user", "a", "--password-file", "/dev/null"], "/dev/null needs one line"),
        (["--listen", "192.0.2.1:1080"], "cannot listen at 192.0.2.1:1080: Cannot assign"),
    ],
)
def test_mistakes(wireguard_server: WireguardServer, words: list[str], said: str) -> None:
    done = subprocess.run(
        [WIRESNAKE, "proxy", wireguard_server.file, *words],
        capture_output=True,
        text=True,
        timeout=LONG,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and said in last and "Traceback" not in done.stderr, done.stderr


def test_a_file_with_a_mistake_is_said(tmp_path: Path) -> None:
    file = tmp_path / "bad.conf"
    file.write_text("[Interface]\nPrivateKey = x\n")
    done = subprocess.run(
        [WIRESNAKE, "proxy", file], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.returncode == 1 and f"{file}:2:" in done.stderr


def test_it_needs_no_root(wireguard_server: WireguardServer) -> None:
    """The only capability here lets that user read Python and the file, wherever they are."""
    if os.geteuid() != 0:
        return  # Then all other tests show it.
    url = wireguard_server.serve_http({"/": "hello"}) + "/"
    may_read = [f"--{which}=-all,+dac_read_search" for which in ("bounding-set", "inh-caps")]
    ordinary = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *may_read]
    ordinary.append("--ambient-caps=-all,+dac_read_search")
    # Where only root may open /dev/net/tun, it gets one of its own.
    device = "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200"
    ordinary = ["unshare", "--mount", "sh", "-c", f'{device} && exec "$@"', "sh", *ordinary]
    with proxy(wireguard_server.file, "--listen", "0", by=ordinary) as running:
        at = "{}:{}".format(*running.place())
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert "CapEff:\t0000000000000004" in status and "Uid:\t65534" in status
        assert curl("--proxy", f"socks5h://{at}", url) == "hello"


def test_a_tunnel_that_ends_is_said(wireguard_server: WireguardServer) -> None:
    """Somebody deletes its interface, which nobody but root can."""
    if os.geteuid() != 0:
        unavailable("needs root, to delete an interface in a namespace of somebody else")
    with proxy(wireguard_server.file, "--listen", "0") as running:
        running.place()
        pid = running.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        enter = ["nsenter", "--target", *children, "--net"]
        links = subprocess.check_output([*enter, "ip", "-o", "link"], text=True)
        (name,) = set(re.findall(r"^\d+: (\w+)", links, re.MULTILINE)) - {"lo"}
        subprocess.run([*enter, "ip", "link", "delete", name], check=True)
        assert running.process.wait(LONG) == 1
        assert running.process.stderr
        assert running.process.stderr.read() == "wiresnake: the tunnel has ended\n"
