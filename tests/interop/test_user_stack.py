"""The stack in this process against the TCP of Linux, through tunnels between two hosts."""

import base64
import re
import signal
import sys
from pathlib import Path

from interop.harness import OURS, ROOT, MakeHost, ends

from lab import hosts
from lab.hosts import Host

SIZE = 20_000_000

STACK = """
import asyncio, socket, sys, threading
sys.path.insert(0, "ROOT/tests")
from unit import user_stacks
from wiresnake import Endpoint, PrivateKey
from wiresnake.model import DeviceChange, PeerChange, Prefix
from wiresnake.sockets.user import UserStack

stack = UserStack()
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()

async def open_tunnel():
    tunnel = user_stacks._tunnel(stack, 1, 1420)
    await tunnel.__aenter__()
    tunnel._link_changed(True, 1420)
    allowed = tuple((True, Prefix.parse(text)) for text in ("10.9.0.2/32", "fd09::2/128"))
    peer = PeerChange(bytes.fromhex("PUBLIC"), endpoint=Endpoint("192.0.2.2", 51820),
                      allowed_ips=allowed)
    key = PrivateKey.from_base64(b"PRIVATE")
    await tunnel.apply(DeviceChange(private_key=key, listen_port=51820, peers=(peer,)))

asyncio.run_coroutine_threadsafe(open_tunnel(), loop).result(10)
"""

EXCHANGE = """
import hashlib, os, socket, threading

def exchange(one, size):
    def send():
        block, left = os.urandom(1 << 20), size
        while left:
            part = block[:min(left, len(block))]
            one.sendall(part)
            sent.update(part)
            left -= len(part)
        one.shutdown(socket.SHUT_WR)
    one.settimeout(60)
    sent, taken = hashlib.sha256(), hashlib.sha256()
    sender = threading.Thread(target=send)
    sender.start()
    while part := one.recv(1 << 18):
        taken.update(part)
    sender.join()
    print("done", sent.hexdigest(), taken.hexdigest(), flush=True)
    one.close()
"""

OUR_END = """
for family, there in (socket.AF_INET, "10.9.0.2"), (socket.AF_INET6, "fd09::2"):
    one = stack.socket(family)
    one.settimeout(20)
    one.connect((there, 7000))
    exchange(one, SIZE)
    refused = stack.socket(family)
    refused.settimeout(20)
    print("refused", refused.connect_ex((there, 7001)), flush=True)
for family, host in (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"):
    at = stack.socket(family)
    at.bind((host, 7000))
    at.listen()
    at.settimeout(60)
    print("listens", flush=True)
    exchange(at.accept()[0], SIZE)
datagrams = stack.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", 7002))
print("bound", flush=True)
while True:
    data, sender = datagrams.recvfrom(2000)
    datagrams.sendto(data[::-1], sender)
"""

THEIR_END = """
import time
at = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
for _ in range(2):
    exchange(at.accept()[0], SIZE)
at.close()
for host in "10.9.0.1", "fd09::1":
    for _ in range(200):
        try:
            one = socket.create_connection((host, 7000), 20)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    exchange(one, SIZE)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.settimeout(1)
for _ in range(20):
    datagrams.sendto(b"abc", ("10.9.0.1", 7002))
    try:
        print("answer", datagrams.recv(100), flush=True)
        break
    except (TimeoutError, ConnectionRefusedError):
        time.sleep(0.05)
"""


def start(host: Host, folder: Path, program: str) -> hosts.Process:
    folder.mkdir()
    (folder / "program.py").write_text(program.replace("SIZE", str(SIZE)))
    command = f"cd {folder} && exec {sys.executable} -u program.py >said 2>&1"
    return host.start("sh -c", command)


def sums(folder: Path) -> list[list[str]]:
    return [
        line.split()[1:] for line in (folder / "said").read_text().splitlines() if "done" in line
    ]


def test_streams_datagrams_and_pings_of_linux(make_host: MakeHost, tmp_path: Path) -> None:
    ours, theirs = ends(make_host(), make_host())
    OURS.start(theirs.host)
    text = f"[Interface]\nPrivateKey = {theirs.private}\nListenPort = 51820\n"
    text += f"[Peer]\nPublicKey = {ours.public}\nAllowedIPs = 10.9.0.1/32, fd09::1/128\n"
    theirs.wg("setconf", "wg0", "/dev/stdin", text=text)
    theirs.up()
    start(theirs.host, tmp_path / "theirs", EXCHANGE + THEIR_END)
    said = tmp_path / "theirs/said"
    hosts.wait_for("a server", lambda: said.exists() and "ready" in said.read_text())
    stack = STACK.replace("ROOT", str(ROOT)).replace("PRIVATE", ours.private)
    stack = re.sub("PUBLIC", base64.b64decode(theirs.public).hex(), stack)
    process = start(ours.host, tmp_path / "ours", stack + EXCHANGE + OUR_END)
    try:
        hosts.wait_for("an answer", lambda: "answer" in said.read_text(), 120)
    except hosts.LabError:
        raise AssertionError((tmp_path / "ours/said").read_text() + said.read_text()) from None
    assert "answer b'cba'" in said.read_text()
    assert (tmp_path / "ours/said").read_text().count("refused 111") == 2
    here, there = sums(tmp_path / "ours"), sums(tmp_path / "theirs")
    assert len(here) == 4
    assert here == [[taken, sent] for sent, taken in there]
    for target in "10.9.0.1", "fd09::1":
        theirs.host.run("ping -c 3 -i 0.2 -W 5", target)
        theirs.host.run("ping -c 3 -i 0.2 -W 5 -s 1200", target)
    process.stop(signal.SIGKILL)
