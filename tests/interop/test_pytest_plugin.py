"""The fixtures that this package gives to other people's tests."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import proxies
import pytest

import wiresnake
from wiresnake.pytest_plugin import Pair, WireguardServer


def test_a_pair_talks_both_ways_over_both_versions(wireguard_pair: Pair) -> None:
    one, two, *_ = wireguard_pair
    for listening, other, number in ((one, two, 0), (two, one, 1)):
        for address in (wireguard_pair.addresses[number], wireguard_pair.addresses6[number]):
            (listener,) = listening.listen(address, 0)
            client = other.create_connection((address, listener.getsockname()[1]), proxies.LONG)
            served, _ = listener.accept()
            with listener, client, served:
                client.sendall(b"hello")
                assert served.recv(9) == b"hello"


def test_a_server_has_names_and_pages(wireguard_server: WireguardServer) -> None:
    inside = wireguard_server
    inside.names |= {"four.lan": inside.address, "six.lan": inside.address6}
    assert inside.serve_http({"/": "hello"}) == f"http://{inside.address}"
    assert inside.serve_http({"/": b"bytes"}, 8000) == f"http://{inside.address}:8000"
    assert inside.file.stat().st_mode & 0o777 == 0o600
    with wiresnake.open_tunnel(inside.file) as tunnel:
        assert tunnel.resolve("four.lan") == [inside.address]
        assert tunnel.resolve("six.lan") == [inside.address6]
        with pytest.raises(wiresnake.HostError, match="no such name"):
            tunnel.resolve("other.lan")
        for name, port, page in (("four.lan", 80, b"hello"), ("six.lan", 8000, b"bytes")):
            with tunnel.create_connection((name, port), proxies.LONG) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert proxies.whole(client).endswith(b"\r\n\r\n" + page)
            with tunnel.create_connection((name, port), proxies.LONG) as client:
                client.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
                assert proxies.whole(client).startswith(b"HTTP/1.1 404 ")


def test_a_test_can_have_several_servers(
    make_wireguard_server: Callable[[], WireguardServer],
) -> None:
    servers = [make_wireguard_server() for _ in range(3)]
    assert [one.file.name for one in servers] == ["client.conf", "client-2.conf", "client-3.conf"]
    for number, one in enumerate(servers):
        one.serve(lambda client, number=number: client.sendall(b"%d" % number), 7)  # type: ignore[misc]
    for number, one in enumerate(servers):
        with wiresnake.open_tunnel(one.client_config) as tunnel:
            client = tunnel.create_connection((one.address, 7), proxies.LONG)
            assert client.recv(9) == b"%d" % number
            client.close()


PROJECT = """
import urllib.request, wiresnake

def test_it(wireguard_server, wireguard_pair):
    url = wireguard_server.serve_http({"/": "hello"})
    with wiresnake.open_tunnel(wireguard_server.file) as tunnel:
        assert tunnel.create_connection((wireguard_server.address, 80))
    assert wireguard_pair.two.stack
"""


def run_pytest(folder: Path, text: str, *words: str) -> str:
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-s", *words]
    clean = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env=clean, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_another_project_has_the_fixtures_without_doing_anything(tmp_path: Path) -> None:
    assert "1 passed" in run_pytest(tmp_path, PROJECT)


def test_a_project_that_does_not_use_them_pays_nothing(tmp_path: Path) -> None:
    text = (
        "import sys\ndef test_it():\n    print('HAS', [n for n in sys.modules if 'wiresnake' in n])"
    )
    said = run_pytest(tmp_path, text, "-p", "no:cacheprovider")
    assert "HAS ['wiresnake', 'wiresnake.pytest_plugin']" in said


def test_nothing_is_left_after_a_test(tmp_path: Path) -> None:
    """Neither threads nor descriptors, also where clients are still connected."""
    text = """
import os, socket, threading
import wiresnake

def left():
    return len(os.listdir("/proc/self/fd")), threading.active_count()

BEFORE = []

def test_before():
    BEFORE.append(left())

def test_one(wireguard_server):
    use(wireguard_server)

def use(server):
    server.serve(lambda one: one.recv(1), 7)
    url = server.serve_http({"/": "x"})
    with wiresnake.open_tunnel(server.client_config) as tunnel:
        for port in (7, 80):
            client = tunnel.create_connection((server.address, port))
            client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n" if port == 80 else b"")
            if port == 80:
                assert client.recv(9)
        client.close()

def test_two(wireguard_server, wireguard_pair):
    use(wireguard_server)

def test_after():
    assert left() == BEFORE[0]
"""
    assert "4 passed" in run_pytest(tmp_path, text, "-p", "no:cacheprovider")


def test_a_port_of_this_host_leads_into_the_tunnel(wireguard_server: WireguardServer) -> None:
    """`forward`, for libraries that take no socket."""
    inside = wireguard_server
    inside.names["db.lan"] = inside.address6
    _, port = inside.serve(proxies.echo)
    with wiresnake.open_tunnel(inside.client_config) as tunnel:
        with tunnel.forward("db.lan", port) as address:
            assert address[0] == "127.0.0.1"
            with proxies.connect(address) as client:
                client.sendall(b"hello")
                assert proxies.exactly(client, 5) == b"hello"
                other = tunnel.forward("db.lan", port, bind=address)
                with pytest.raises(wiresnake.HostError, match="Address already in use"), other:
                    raise AssertionError
        with pytest.raises(OSError):
            socket.create_connection(address)
