"""`wiresnake new`: a server and two peers in three commands, and they really talk."""

from pathlib import Path

from interop.harness import WIRESNAKE, MakeHost, assert_answered

from lab import hosts
from lab.hosts import Host

BEYOND = {4: "203.0.113.9", 6: "2001:db8:ffff::9"}


def test_a_server_and_two_peers_talk(make_host: MakeHost, tmp_path: Path) -> None:
    """The phone sends everything through the tunnel, out to a host that knows only the server;
    which drops what is forwarded, as hosts with Docker, ufw or tables of their own do."""
    server, phone, laptop, beyond = (
        make_host(name, kernel_wireguard=False) for name in ("server", "phone", "laptop", "beyond")
    )
    connect(server, phone, 1)
    connect(server, laptop, 2)
    connect(server, beyond, 3)
    hosts.address(beyond, "lo", f"{BEYOND[4]}/32", f"{BEYOND[6]}/128")
    server.run(f"ip route add {BEYOND[4]} via 192.0.3.2")
    server.run(f"ip route add {BEYOND[6]} via 2001:db8:3::2")
    for tool in ("iptables", "ip6tables"):
        server.run(f"{tool} -P FORWARD DROP")
    drop_by_nft(server)
    before = [server.output("nft list ruleset"), server.output("ip -o address")]

    wiresnake(server, "new server", "--dir", tmp_path, "--endpoint", "192.0.1.1", "--nat")
    path = tmp_path / "wg0.conf"
    files = {host: tmp_path / f"{host.name}.conf" for host in (phone, laptop)}
    wiresnake(server, "up", path)
    options = ("--server", path, "--reload", "-o", files[phone])
    assert "\u2588" in wiresnake(server, "new peer phone --full-tunnel", *options)
    options = ("--server", path, "--reload", "-o", files[laptop])
    wiresnake(server, "new peer laptop --endpoint 192.0.2.1 --no-qr", *options)
    for host, file in files.items():
        wiresnake(host, "up", file)
    hosts.await_tunnel(server)
    inner = {host: addresses(host) for host in files} | {server: addresses(server, "wg0")}
    for version in (4, 6):
        for host in files:
            assert_answered(host, inner[server][version])
        assert_answered(phone, BEYOND[version])
        assert_answered(laptop, inner[phone][version])
    wiresnake(server, "check --strict", path, *files.values())
    wiresnake(server, "down", path)
    assert [server.output("nft list ruleset"), server.output("ip -o address")] == before


def test_peers_reach_each_other_alone(make_host: MakeHost, tmp_path: Path) -> None:
    """Without --nat, on a host that forwards for others and drops what no rule accepts."""
    server, phone, laptop, beyond = (
        make_host(name, kernel_wireguard=False) for name in ("server", "phone", "laptop", "beyond")
    )
    connect(server, phone, 1)
    connect(server, laptop, 2)
    connect(server, beyond, 3)
    server.run("iptables -P FORWARD DROP")
    drop_by_nft(server)
    server.run("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    for prefix in ("10.0.0.0/8", "192.0.3.0/24"):  # Only the file's own rule keeps them apart.
        server.run(f"iptables -A FORWARD -s {prefix} -j ACCEPT")
        server.run(f"nft add rule inet mine onward ip saddr {prefix} accept")
    before = server.output("nft list ruleset")
    path = tmp_path / "wg0.conf"
    here = ("--dir", tmp_path, "--address", "10.7.0.1/24,fd07::1/64", "--endpoint", "192.0.1.1")
    wiresnake(server, "new server", *here)
    wiresnake(server, "up", path)
    options = ("--server", path, "--reload", "--no-qr", "--keepalive", "25")
    for host, end in ((phone, "192.0.1.1"), (laptop, "192.0.2.1")):
        file = tmp_path / f"{host.name}.conf"
        more = ("--allowed", "10.7.0.0/24,fd07::/64,192.0.3.0/24", "--endpoint", end, "-o", file)
        wiresnake(server, f"new peer {host.name}", *options, *more)
        wiresnake(host, "up", file)
    hosts.await_tunnel(server)
    beyond.run("ip route add 10.7.0.0/24 via 192.0.3.1")
    for version, laptops in ((4, "10.7.0.3"), (6, "fd07::3")):
        assert_answered(phone, addresses(server, "wg0")[version])
        assert_answered(phone, laptops)
    assert server.output("cat /proc/sys/net/ipv4/ip_forward") == "0\n"
    server.run("sysctl -q -w net.ipv4.ip_forward=1")
    assert phone.run("ping -c 1 -W 1 192.0.3.2", check=False).returncode == 1
    wiresnake(server, "down", path)
    assert server.output("nft list ruleset") == before


def test_a_host_that_can_neither_filter_nor_forward(make_host: MakeHost, tmp_path: Path) -> None:
    """As in a container: the server is up all the same, says it, and forwards nothing."""
    server = make_host("server", kernel_wireguard=False)
    path = tmp_path / "wg0.conf"
    wiresnake(server, "new server", "--dir", tmp_path, "--address", "10.7.0.1/24,fd07::1/64")
    server.run("mount --bind -o ro /proc/sys/net /proc/sys/net")
    server.run("mount -o remount,bind,ro /proc/sys/net")
    useless = tmp_path / "bin"
    useless.mkdir()
    for name in ("nft", "iptables", "ip6tables"):
        (useless / name).write_text("#!/bin/sh\necho Operation not supported >&2; exit 1\n")
        (useless / name).chmod(0o755)
    environment = {"PATH": f"{useless}:{hosts.program_path()}"}
    done = server.run(f"{WIRESNAKE} up", path, env=environment)
    assert "wg0: peers reach only this host" in done.stderr
    server.run(f"{WIRESNAKE} down", path, env=environment)
    assert "wg0" not in server.output("ip link")


def drop_by_nft(host: Host) -> None:
    """As Arch's /etc/nftables.conf does."""
    host.run("nft add table inet mine")
    host.run(
        "nft add chain inet mine onward { type filter hook forward priority 0 ; policy drop ; }"
    )


def connect(server: Host, host: Host, number: int) -> None:
    """A cable with 192.0.NUMBER.1 at the server's end and .2 at the other, and IPv6 alike."""
    near, far = hosts.cable(server, host)
    hosts.address(server, near, f"192.0.{number}.1/24", f"2001:db8:{number}::1/64")
    hosts.address(host, far, f"192.0.{number}.2/24", f"2001:db8:{number}::2/64")


def wiresnake(host: Host, command: str, *more: str | Path) -> str:
    return host.output(f"{WIRESNAKE} {command}", *more)


def addresses(host: Host, device: str = "") -> dict[int, str]:
    found = {}
    for version in (4, 6):
        line = host.output(f"ip -{version} -o address show scope global dev {device or host.name}")
        found[version] = line.split()[3].partition("/")[0]
    return found
