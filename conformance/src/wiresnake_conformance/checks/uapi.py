"""I. Configuration: the UAPI socket and the requests of stock `wg`."""

import contextlib
import ipaddress
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

from ..oracle import INITIATION, Key, consume
from ..testbed import Testbed
from ..verdict import Differs, NotApplicable, check

FOLDER = Path("/var/run/wireguard")
EINVAL = b"errno=-22\n\n"


def needs_daemon(testbed: Testbed) -> None:
    if testbed.subject.kind != "daemon":
        raise NotApplicable("no daemon to start, so nothing of its socket can be said")


def starts(testbed: Testbed, name: str) -> bool:
    """Returns whether another daemon starts to listen."""
    daemon = testbed.launch(name)
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline and not daemon.poll():
        if testbed.serves(name):
            return True
        time.sleep(0.02)
    if daemon.poll() is None:
        daemon.kill()
    return False


@check(101, shared=False)
def socket_is_for_its_owner(testbed: Testbed) -> None:
    """The socket's mode is 0700 and that of its folder 0755, whatever the umask."""
    needs_daemon(testbed)
    for path, wanted in ((FOLDER, 0o755), (FOLDER / f"{testbed.interface}.sock", 0o700)):
        mode = stat.S_IMODE(path.stat().st_mode)
        testbed.log(f"{path}: mode {mode:04o}")
        if mode != wanted:
            raise Differs(f"{path} has the mode {mode:04o}, not {wanted:04o}")


@check(101, seconds=8, shared=False)
def stale_and_live_sockets(testbed: Testbed) -> None:
    """A socket that nobody serves is replaced; one that is served is left alone."""
    needs_daemon(testbed)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(FOLDER / "wg7.sock"))
    if not starts(testbed, "wg7"):
        raise Differs("a stale socket keeps the daemon from starting")
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(FOLDER / "wg8.sock"))
        live.listen()
        inode = (FOLDER / "wg8.sock").stat().st_ino
        code, _ = _outcome(testbed, "wg8")
        if not code:  # it is running, in the background or not
            raise Differs("started although another process serves its socket")
        with contextlib.suppress(FileNotFoundError):
            if (FOLDER / "wg8.sock").stat().st_ino == inode:
                return
        raise Differs("the socket that another process serves was removed")


@check(101, seconds=10, shared=False)
def names_of_interfaces(testbed: Testbed) -> None:
    """A name with a slash, of more than 15 bytes, `.` or `..` is refused, and no file is made."""
    needs_daemon(testbed)
    for name in ("a/b", "../wg9", ".", "..", "sixteen-bytes-16"):
        before = _files()
        code, took = _outcome(testbed, name)
        testbed.log(f"{name!r}: exit code {code} after {took:.1f} s")
        if code == 0 or code is None:
            raise Differs(f"an interface named {name!r} is not refused")
        if made := _files() - before:
            raise Differs(f"an interface named {name!r} left {', '.join(sorted(made))}")


def _outcome(testbed: Testbed, name: str) -> tuple[int | None, float]:
    """Returns the exit code of a daemon for that interface, None if it stays, and the time."""
    start = time.monotonic()
    daemon = testbed.launch(name)
    try:
        code: int | None = daemon.wait(4)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
        code = None
    return code, time.monotonic() - start


def _files() -> set[str]:
    return {str(path) for path in Path("/run").rglob("*") if "conformance-" not in path.name}


@check(102, shared=False)
def wrong_requests(testbed: Testbed) -> None:
    """Values out of range and unknown keys are answered by errno=-22, and nothing hangs."""
    key = os.urandom(32).hex().encode()
    for lines in (
        b"unknown_key=1",
        b"private_key=00",
        b"private_key=" + b"zz" * 32,
        b"listen_port=70000",
        b"listen_port=-1",
        b"fwmark=0xg",
        b"public_key=" + key[:-2],
        b"public_key=" + key + b"\nallowed_ip=10.0.0.0/33",
        b"public_key=" + key + b"\nallowed_ip=fd00::/129",
        b"public_key=" + key + b"\npersistent_keepalive_interval=70000",
        b"public_key=" + key + b"\nprotocol_version=2",
        b"public_key=" + key + b"\nendpoint=nonsense",
        b"public_key=" + key + b"\nendpoint=192.0.2.2:70000",
        b"public_key=" + key + b"\npreshared_key=11",
    ):
        answer = testbed.uapi(b"set=1\n" + lines + b"\n\n")
        testbed.log(f"{lines.decode()[-40:]!r}: {answer!r}")
        if answer != EINVAL:
            raise Differs(f"{lines.decode()!r} is answered by {answer!r}, not by {EINVAL!r}")
        if not testbed.alive():
            return


@check(102)
def peers_that_are_not_there(testbed: Testbed) -> None:
    """Removing or only updating a peer that does not exist is not an error and adds no peer."""
    key = os.urandom(32)
    request = b"set=1\npublic_key=" + key.hex().encode()
    for line in (b"remove=true", b"update_only=true"):
        answer = testbed.uapi(request + b"\n" + line + b"\n\n")
        if answer != b"errno=0\n\n":
            raise Differs(f"{line.decode()} of an unknown peer is answered by {answer!r}")
    if Key(b"", key).text in testbed.wg("show", testbed.interface, "peers"):
        raise Differs("a peer was made that was only to be updated or removed")


@check(102)
def half_a_request(testbed: Testbed) -> None:
    """A client that sends half a request does not block others."""
    testbed.uapi(b"get=1\n\n")
    with testbed.uapi_socket() as half:
        half.sendall(b"set=1\nlisten_po")
        _served(testbed)


@check(102)
def endless_line(testbed: Testbed) -> None:
    """A line of a megabyte is an error and does not block other clients."""
    testbed.uapi(b"get=1\n\n")
    answer = b""
    with testbed.uapi_socket() as client:
        client.settimeout(2)
        with contextlib.suppress(OSError):
            client.sendall(b"set=1\nprivate_key=" + b"0" * (1 << 20))
        _served(testbed)
        with contextlib.suppress(OSError):
            client.sendall(b"\n\n")
            answer = client.recv(100)
    testbed.log(f"a line of a megabyte: {answer!r}")
    if answer.startswith(b"errno=0"):
        raise Differs("a line of a megabyte was taken")


def _served(testbed: Testbed) -> None:
    start = time.monotonic()
    if b"listen_port=" not in testbed.uapi(b"get=1\n\n", 2):
        raise Differs("get=1 is not answered while another client is slow")
    testbed.log(f"another client is served in {time.monotonic() - start:.3f} s")


@check(103, shared=False)
def own_key_as_peer(testbed: Testbed) -> None:
    """The device's own public key as a peer is ignored; a private key removes its own peer."""
    testbed.wg("set", testbed.interface, "peer", testbed.key.text, "allowed-ips", "10.9.9.9/32")
    if testbed.wg("show", testbed.interface, "peers").strip():
        raise Differs("the device's own key became a peer")
    peer = testbed.peer()
    testbed.wg("set", testbed.interface, "private-key", "/dev/stdin", text=peer.key.private_text)
    if peer.key.text in testbed.wg("show", testbed.interface, "peers"):
        raise Differs("the peer with the device's new key is still there")


@check(103, shared=False)
def private_key_change_ends_sessions(testbed: Testbed) -> None:
    """After a change of the private key nothing is sent in old sessions; a handshake begins."""
    peer = testbed.peer(endpoint=True)
    session = peer.handshake()
    peer.works(session)
    testbed.key = Key.new()
    testbed.wg("set", testbed.interface, "private-key", "/dev/stdin", text=testbed.key.private_text)
    testbed.inject(peer.packet_here())
    datagram = peer.socket.expect(INITIATION, "a packet after the change", 7)
    initiated = consume(peer.key, datagram.data)
    if initiated.static != testbed.key.public:
        raise Differs("the initiation after the change is of the old key")


@check(103, seconds=8, shared=False)
def many_allowed_ips(testbed: Testbed) -> None:
    """130,560 allowed IPs on one peer, and many on many peers, come back as they were set."""
    networks = [
        *(f"{a}.{b}.{c}.0/24" for a in (10, 11) for b in range(255) for c in range(256)),
    ]
    _round_trip(testbed, {Key.new().text: networks})
    peers = {
        Key.new().text: [f"10.{number}.{each}.0/24" for each in range(52)] for number in range(40)
    }
    peers |= {Key.new().text: [f"abcd:{number:x}::/32"] for number in range(1, 31)}
    peers[Key.new().text] = [f"fd00:{number:x}::/32" for number in range(1, 198)]
    _round_trip(testbed, peers)


@check(103, seconds=10, shared=False, alone=True)
def ten_thousand_peers(testbed: Testbed) -> None:
    """10,000 peers are set by one `wg setconf` and listed as they were set."""
    base = ipaddress.ip_address("10.128.0.0")
    _round_trip(
        testbed,
        {
            Key(b"", os.urandom(31) + b"\x01").text: [f"{base + number}/32"]
            for number in range(10_000)
        },
    )


def _round_trip(testbed: Testbed, peers: dict[str, list[str]]) -> None:
    blocks = [
        f"[Interface]\nPrivateKey = {testbed.key.private_text}\nListenPort = {testbed.port}\n"
    ]
    for key, networks in peers.items():
        blocks.append(f"[Peer]\nPublicKey = {key}\nAllowedIPs = {', '.join(networks)}\n")
    start = time.monotonic()
    testbed.wg("setconf", testbed.interface, "/dev/stdin", text="".join(blocks))
    testbed.log(f"{len(peers)} peers set in {time.monotonic() - start:.2f} s")
    start = time.monotonic()
    shown = {key: set(networks) for key, *networks in testbed.show("allowed-ips")}
    testbed.log(f"and listed in {time.monotonic() - start:.2f} s")
    if shown != {key: set(networks) for key, networks in peers.items()}:
        lost = sum(len(set(peers[key]) - shown.get(key, set())) for key in peers)
        raise Differs(f"{lost} allowed IPs of {len(peers)} peers did not come back")
    testbed.wg("show", testbed.interface, "dump")


@check(104, shared=False)
def unchanged_peers_keep_their_sessions(testbed: Testbed) -> None:
    """`wg syncconf` with the same peers, or one more, leaves a running session alone."""
    peer = testbed.peer(endpoint=True)
    session = peer.handshake()
    peer.works(session)
    text = testbed.wg("showconf", testbed.interface)
    for more in ("", f"[Peer]\nPublicKey = {Key.new().text}\nAllowedIPs = 10.9.9.0/24\n"):
        testbed.wg("syncconf", testbed.interface, "/dev/stdin", text=text + more)
        peer.works(session)
    if not peer.transfer()[0]:
        raise Differs("the counters of the peer were lost")


@check(104)
def a_wrong_value_is_refused(testbed: Testbed) -> None:
    """A request with a wrong later value is refused and harms no session. Earlier values may have
    been applied, as the kernel and wireguard-go stop in the middle."""
    peer = testbed.peer(endpoint=True)
    session = peer.handshake()
    wrong = b"set=1\npublic_key=" + os.urandom(32).hex().encode() + b"\nallowed_ip=x\n\n"
    testbed.uapi(b"get=1\n\n")
    if testbed.uapi(wrong).startswith(b"errno=0"):
        raise Differs("a request with a wrong value is taken")
    peer.works(session)
