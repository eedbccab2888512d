"""`import wiresnake` as a program of one's own uses it: real interfaces, in hosts of our own."""

import re
import signal
import sys
from pathlib import Path

import pytest
from interop.harness import OURS, ROOT, MakeHost, ends

from lab import hosts
from lab.hosts import Host

PAGE = ROOT / "docs/python.md"


def config(
    private: str, public: str, port: int, address: str, allowed: str, endpoint: str = ""
) -> str:
    text = f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\nAddress = {address}\n"
    text += f"MTU = 1400\n[Peer]\nPublicKey = {public}\nAllowedIPs = {allowed}\n"
    return text + (f"Endpoint = {endpoint}\n" if endpoint else "")


def start(host: Host, folder: Path, program: str, argument: str = "") -> hosts.Process:
    (folder / "program.py").write_text(program)
    command = f"cd {folder} && exec {sys.executable} -u program.py {argument} >said 2>&1"
    return host.start("sh -c", command)


def wait_for_word(folder: Path, word: str) -> str:
    said = folder / "said"
    hosts.wait_for(word, lambda: said.exists() and word in said.read_text())
    return said.read_text()


def interfaces(host: Host) -> set[str]:
    return set(re.findall(r"^\d+: (\w+)", host.output("ip -o link"), re.MULTILINE))


def test_the_program_of_the_page(make_host: MakeHost, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    ours, theirs = ends(make_host(), make_host())
    OURS.start(theirs.host)
    text = config(theirs.private, ours.public, 51820, "10.9.0.2/24", "10.9.0.1/32")
    theirs.wg("setconf", "wg0", "/dev/stdin", text=re.sub("(Address|MTU).*\n", "", text))
    theirs.up()
    file = tmp_path / "wg0.conf"
    to = (ours.private, theirs.public, 51820, "10.9.0.1/24", "10.9.0.2/32", "192.0.2.2:51820")
    file.write_text(config(*to))
    process = start(ours.host, tmp_path, program)
    hosts.wait_for("the interface", lambda: "wg0" in interfaces(ours.host))
    ours.host.run("ping -c 3 -i 0.2 -W 5 10.9.0.2")
    said = wait_for_word(tmp_path, "Connected")
    assert f"HandshakeCompleted(public_key='{theirs.public}', endpoint='192.0.2.2:51820'" in said
    assert "mtu 1400" in ours.host.output("ip link show wg0")
    code, _ = process.stop(signal.SIGINT)
    assert code != 0, "it was interrupted"
    assert "wg0" not in interfaces(ours.host)


TWO = """
import asyncio, os, sys
import wiresnake

plane = sys.argv[1] if sys.argv[1:] else None

def descriptors():
    return {number: os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{number}")}

async def main():
    before = descriptors()
    one, two = map(wiresnake.Config.from_file, ("one.conf", "two.conf"))
    first = wiresnake.Tunnel(one, "wg1", plane=plane)
    async with first, wiresnake.Tunnel(two, "wg2") as second:
        print("ready", first.status.listen_port, second.status.bound, first.offloads == [])
        async for event in second.events():
            if isinstance(event, wiresnake.Connected):
                break
        while not open("go").read():
            await asyncio.sleep(0.05)
        for tunnel in (first, second):
            (peer,) = tunnel.peers
            busy = peer.received > 300 < peer.sent
            print("peer", peer.endpoint, peer.latest_handshake > 0, busy)
        try:
            async with wiresnake.Tunnel(one, "wg3"):
                raise AssertionError
        except wiresnake.HostError as error:
            print(error.message)
        await first.apply(wiresnake.DeviceChange(replace_peers=True))
        print("left", first.peers)
    print("closed", descriptors() == before, len(asyncio.all_tasks()))

asyncio.run(main())
"""


@pytest.mark.parametrize("plane", ["", "portable"], ids=["linux", "portable"])
def test_two_tunnels_of_one_process_talk_to_each_other(
    make_host: MakeHost, tmp_path: Path, plane: str
) -> None:
    """One of their interfaces moves to another host, so that packets have to go through them."""
    here, there = make_host(), make_host()
    here.run("ip link set lo up")
    (one, one_public), (two, two_public) = hosts.keypair(), hosts.keypair()
    first = config(one, two_public, 7001, "10.8.0.1/24", "10.8.0.2/32", "127.0.0.1:7002")
    (tmp_path / "one.conf").write_text(first)
    second = config(two, one_public, 7002, "10.8.0.2/24", "10.8.0.1/32")
    (tmp_path / "two.conf").write_text(second)
    (tmp_path / "go").touch()
    process = start(here, tmp_path, TWO, plane)
    wait_for_word(tmp_path, f"ready 7001 True {plane == 'portable'}\n")
    assert {"wg1", "wg2"} <= interfaces(here)
    hosts.tool(f"nsenter --target {here.pid} --net ip link set wg2 netns {there.pid}")
    hosts.address(there, "wg2", "10.8.0.2/24")
    there.run("ip link set wg2 up")
    here.run("ping -c 5 -i 0.2 -W 5 10.8.0.2")
    (tmp_path / "go").write_text("go")
    assert process.wait(60)[0] == 0
    said = (tmp_path / "said").read_text().splitlines()
    assert said[1:] == [
        "peer 127.0.0.1:7002 True True",
        "peer 127.0.0.1:7001 True True",
        "UDP port 7001 is in use: choose another listen port, or 0 for any",
        "left ()",
        "closed True 1",
    ]
    assert not {"wg1", "wg2", "wg3"} & (interfaces(here) | interfaces(there))


ENDS = """
import asyncio, os
import wiresnake

MANY = wiresnake.Config(
    wiresnake.PrivateKey.generate(),
    peers=tuple(
        wiresnake.Peer(wiresnake.text.base64_text(number.to_bytes(32))) for number in range(2, 3002)
    ),
)

def left():
    fds = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{n}")]
    return len(fds), len(asyncio.all_tasks()), os.path.exists("/proc/sys/net/ipv4/conf/wg0")

async def stay():
    async with wiresnake.Tunnel(interface="wg0") as tunnel:
        async for event in tunnel.events():
            pass

async def fail():
    async with wiresnake.Tunnel(interface="wg0"):
        raise ZeroDivisionError

async def enter():
    async with wiresnake.Tunnel(MANY, "wg0"):
        await asyncio.sleep(10)

async def delete():
    async with wiresnake.Tunnel(interface="wg0") as tunnel:
        process = await asyncio.create_subprocess_exec("ip", "link", "delete", "wg0")
        await process.wait()
        async for event in tunnel.events():
            print(event)

async def main():
    await delete()  # Once, for what asyncio opens to start programs.
    before = left()
    for case, after in ((stay, 0.2), (fail, 5), (enter, 0.01), (delete, 5)):
        try:
            await asyncio.wait_for(case(), after)
        except Exception as error:
            print(case.__name__, type(error).__name__)
        print(left() == before or (before, left()))

import wiresnake.text
asyncio.run(main())
"""


def test_however_it_ends_nothing_is_left(make_host: MakeHost, tmp_path: Path) -> None:
    process = start(make_host(), tmp_path, ENDS)
    code, _ = process.wait(60)
    said = (tmp_path / "said").read_text()
    assert code == 0, said
    assert said.split() == [
        *("stay", "TimeoutError", "True"),
        *("fail", "ZeroDivisionError", "True"),
        *("enter", "TimeoutError", "True"),
        "True",
    ]


def test_a_tunnel_is_entered_once_and_changed_while_it_is_open(make_host: MakeHost) -> None:
    program = """
import asyncio, errno, wiresnake
async def refused(what):
    try:
        await what
    except wiresnake.HostError as error:
        return errno.errorcode[error.errno]
async def main():
    tunnel = wiresnake.Tunnel(wiresnake.Config(), interface="wg0")
    change = wiresnake.DeviceChange(fwmark=7)
    said = [await refused(tunnel.apply(change))]
    async with tunnel:
        said.append(await refused(tunnel.apply(change)))
        said.append(await refused(tunnel.__aenter__()))
        said.append(tunnel.status.fwmark)
    said += [await refused(tunnel.apply(change)), await refused(tunnel.__aenter__())]
    print(said)
asyncio.run(main())
"""
    said = make_host().output(sys.executable, "-c", program)
    assert said == "['ESHUTDOWN', None, 'EALREADY', 7, 'ESHUTDOWN', 'EALREADY']\n"
