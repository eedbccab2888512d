"""What is read from and sent to interfaces, as text and as netlink's attributes."""

import base64
import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from wiresnake._native import Endpoint, PresharedKey, PrivateKey
from wiresnake.devices import compatibility, kernel, uapi_client
from wiresnake.devices.interface import open_interface
from wiresnake.errors import HostError
from wiresnake.linux.genetlink import Message
from wiresnake.linux.netlink import attributes
from wiresnake.model import CLEAR, DeviceChange, PeerChange, Prefix
from wiresnake.text import zone_text
from wiresnake.uapi.get import parse_state
from wiresnake.uapi.set import write_change
from wiresnake.uapi.snapshot import InterfaceState, PeerState

SECRET = b"\x40" * 32
KEY, OTHER = b"\x11" * 32, b"\x22" * 32
NOW = 1_700_000_000.5


def base64_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def live(*peers: PeerState) -> InterfaceState:
    return InterfaceState("wg0", "user", None, None, 0, 0, peers)


def state_of(key: bytes, *allowed: str) -> PeerState:
    return PeerState(base64_of(key), None, None, allowed, (0, 0), 0, 0, 0)


def prefixes(*texts: str) -> tuple[tuple[bool, Prefix], ...]:
    return tuple((not text.startswith("-"), Prefix.parse(text.lstrip("-"))) for text in texts)


def test_a_state_of_wireguard_go() -> None:
    text = f"""private_key={SECRET.hex()}
listen_port=51820
fwmark=511
new_key=of the future
public_key={KEY.hex()}
preshared_key={"0" * 64}
protocol_version=1
endpoint=[2001:db8::1]:5
last_handshake_time_sec=1699999999
last_handshake_time_nsec=7
tx_bytes=8
rx_bytes=9
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=::/0
public_key={OTHER.hex().upper()}
preshared_key={SECRET.hex()}
"""
    state = parse_state("wg0", text, NOW)
    assert (state.private_key, state.listen_port, state.fwmark) == (base64_of(SECRET), 51820, 511)
    assert state.public_key == base64_of(PrivateKey.from_hex(SECRET.hex().encode()).public)  # type: ignore[union-attr]
    first, second = state.peers
    endpoint = "[2001:db8::1]:5"
    allowed = ("10.0.0.0/8", "::/0")
    assert first == PeerState(base64_of(KEY), None, endpoint, allowed, (1699999999, 7), 9, 8, 25)
    assert second == state_of(OTHER)._replace(preshared_key=base64_of(SECRET))


def test_a_state_of_boringtun_has_ages() -> None:
    text = f"""own_public_key={KEY.hex()}
public_key={OTHER.hex()}
last_handshake_time_sec=10
last_handshake_time_nsec=250000000
public_key={KEY.hex()}
"""
    state = parse_state("wg0", text, NOW)
    assert (state.private_key, state.public_key) == (None, base64_of(KEY))
    assert [one.latest_handshake for one in state.peers] == [(1699999990, 250000000), (0, 0)]


@pytest.mark.parametrize(
    "text", ["listen_port=x", "private_key=00", "public_key=zz", "public_key=11\nrx_bytes=-"]
)
def test_what_is_no_state_is_an_error(text: str) -> None:
    with pytest.raises(HostError):
        parse_state("wg0", text, NOW)


CHANGE = DeviceChange(
    private_key=PrivateKey.from_hex(SECRET.hex().encode()),
    listen_port=0,
    fwmark=7,
    replace_peers=True,
    peers=(
        PeerChange(
            KEY,
            preshared_key=PresharedKey.from_hex(SECRET.hex().encode()),
            endpoint=Endpoint("fe80::1", 5, 3),
            persistent_keepalive=0,
            replace_allowed_ips=True,
            allowed_ips=prefixes("10.0.0.0/8", "-fd00::/8"),
        ),
        PeerChange(OTHER, remove=True, update_only=True, preshared_key=CLEAR),
    ),
)


def test_a_change_as_text() -> None:
    assert (
        write_change(CHANGE).decode()
        == f"""set=1
private_key={SECRET.hex()}
listen_port=0
fwmark=7
replace_peers=true
public_key={KEY.hex()}
preshared_key={SECRET.hex()}
endpoint=[fe80::1%3]:5
persistent_keepalive_interval=0
replace_allowed_ips=true
allowed_ip=10.0.0.0/8
allowed_ip=-fd00::/8
public_key={OTHER.hex()}
remove=true
update_only=true
preshared_key={"0" * 64}

"""
    )


def test_a_change_as_attributes_is_cut_and_joined_again() -> None:
    """As a kernel would read it: each message small, all of them together the change."""
    many = prefixes(*(f"10.{number >> 8}.{number & 255}.0/24" for number in range(3000)))
    peers = (*CHANGE.peers, PeerChange(b"\x33" * 32, replace_allowed_ips=True, allowed_ips=many))
    change = DeviceChange(peers=peers)
    messages = [one.finish().body for one in kernel._messages(9, b"wg0\0", change)]
    assert len(messages) > 3
    assert max(map(len, messages)) < 20_000
    bodies = [memoryview(bytes(one))[4:] for one in messages]
    state = kernel._read("wg0", iter(bodies))
    assert [one.public_key for one in state.peers] == [
        base64_of(one.public_key) for one in change.peers
    ]
    assert state.peers[0].endpoint in ("[fe80::1%3]:5", f"[fe80::1%{zone_text(3)}]:5")
    assert state.peers[0].preshared_key == base64_of(SECRET)
    assert len(state.peers[2].allowed_ips) == 3000
    flags = [
        dict(attributes(one)).get(3)
        for body in bodies
        for kind, value in attributes(body)
        if kind == 8
        for _, one in attributes(value)
    ]
    replacing = [one is not None and struct.unpack("=I", one)[0] & 2 for one in flags]
    assert replacing.count(2) == 2, "only the first part of a peer replaces its allowed IPs"


def test_a_secret_is_written_where_it_belongs() -> None:
    message = Message(1, 2)
    message.put(1, b"abc")
    message.put_secret(3, PrivateKey.from_hex(SECRET.hex().encode()))
    message.put(4, b"z")
    data = message.finish().body
    assert [(kind, bytes(value)) for kind, value in attributes(memoryview(bytes(data))[4:])] == [
        (1, b"abc"),
        (3, SECRET),
        (4, b"z"),
    ]


def test_older_words_for_what_is_removed() -> None:
    state = live(state_of(KEY, "10.0.0.0/8", "10.1.0.0/16"))
    change = DeviceChange(
        peers=(
            PeerChange(KEY, allowed_ips=prefixes("-10.0.0.0/8", "10.2.0.0/16")),
            PeerChange(OTHER, update_only=True, persistent_keepalive=5),
        )
    )
    [peer] = compatibility.without_news(change, state).peers
    assert peer.replace_allowed_ips
    assert peer.allowed_ips == prefixes("10.1.0.0/16", "10.2.0.0/16")


def test_boringtun_gets_whole_peers_one_by_one() -> None:
    before = state_of(KEY, "10.0.0.0/8")._replace(
        preshared_key=base64_of(SECRET), endpoint="192.0.2.1:5", persistent_keepalive=9
    )
    change = DeviceChange(
        fwmark=1,
        peers=(
            PeerChange(KEY, allowed_ips=prefixes("10.1.0.0/16")),
            PeerChange(OTHER, remove=True),
        ),
    )
    head, gone, again, other = compatibility.recreated(change, live(before))
    assert head == DeviceChange(fwmark=1)
    assert gone == DeviceChange(peers=(PeerChange(KEY, remove=True),))
    [peer] = again.peers
    assert peer.endpoint == Endpoint("192.0.2.1", 5)
    assert peer.persistent_keepalive == 9
    assert peer.preshared_key == PresharedKey.from_hex(SECRET.hex().encode())
    assert peer.allowed_ips == prefixes("10.0.0.0/8", "10.1.0.0/16")
    assert other == DeviceChange(peers=(PeerChange(OTHER, remove=True),))


class Changing:
    """The kernel's netlink, where each of so many dumps sees a change."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __enter__(self) -> "Changing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def dump(self, request: object) -> tuple[list[memoryview], bool]:
        answer, whole = Message(9, 0), not self.left
        peers = answer.begin(8)
        peer = answer.begin(0)
        answer.put(1, KEY if whole else OTHER)
        answer.end(peer)
        answer.end(peers)
        self.left = max(self.left - 1, 0)
        return [memoryview(answer.body)], whole


def test_a_kernels_state_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    netlink = Changing(3)
    monkeypatch.setattr(kernel, "Netlink", lambda _: netlink)
    monkeypatch.setattr(kernel, "family", lambda *_: 9)
    assert [one.public_key for one in kernel.KernelInterface("wg0").read().peers] == [
        base64_of(KEY)
    ]
    assert not netlink.left
    netlink.left = 1 << 30
    monkeypatch.setattr(kernel, "_PATIENCE", 0.01)
    with pytest.raises(HostError, match="faster than it can be read") as refused:
        kernel.KernelInterface("wg0").read()
    assert refused.value.errno == errno.EBUSY


@contextmanager
def daemon(folder: Path, answer: Callable[[str], str]) -> Iterator[list[list[str]]]:
    """Serves wg0; yields the questions, by connection."""
    asked: list[list[str]] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):  # It is shut down at the end.
            while True:
                connection, _ = listener.accept()
                asked.append([])
                with connection, suppress(ConnectionResetError):
                    question = b""
                    while part := connection.recv(1 << 16):
                        question += part
                        if question.endswith(b"\n\n"):
                            asked[-1].append(question.decode())
                            connection.sendall(answer(question.decode()).encode())
                            question = b""

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "wg0.sock"))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


def test_a_change_is_one_connection_and_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_client, "DIRECTORY", str(tmp_path))
    change = PeerChange(KEY, persistent_keepalive=5)
    with daemon(tmp_path, lambda _: "errno=0\n\n") as asked:
        open_interface("wg0").change(DeviceChange(listen_port=7))
        open_interface("wg0").change(DeviceChange(peers=(change,)))
    first = f"public_key={KEY.hex()}\nupdate_only=true\n"
    then = f"public_key={KEY.hex()}\npersistent_keepalive_interval=5\n"
    assert asked == [["set=1\nlisten_port=7\n\n"], [f"set=1\n{first}{then}\n"]]


def test_boringtun_is_known_by_what_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not done anything to a peer by then; what is the device's comes again."""
    monkeypatch.setattr(uapi_client, "DIRECTORY", str(tmp_path))

    def answer(question: str) -> str:
        if question.startswith("get=1"):
            return f"own_public_key={OTHER.hex()}\npublic_key={KEY.hex()}\nerrno=0\n\n"
        return f"errno={errno.EINVAL if 'update_only' in question else 0}\n\n"

    change = PeerChange(KEY, persistent_keepalive=5)
    with daemon(tmp_path, answer) as asked:
        open_interface("wg0").change(DeviceChange(fwmark=9, peers=(change,)))
    peer = f"public_key={KEY.hex()}\n"
    new = f"{peer}persistent_keepalive_interval=5\n"
    assert [question for connection in asked for question in connection] == [
        f"set=1\nfwmark=9\n{peer}update_only=true\n{new}\n",
        "get=1\n\n",
        "get=1\n\n",
        "set=1\nfwmark=9\n\n",
        f"set=1\n{peer}remove=true\n\n",
        f"set=1\n{new}replace_allowed_ips=true\n\n",
    ]
