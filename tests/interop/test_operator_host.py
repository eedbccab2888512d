"""What `up`, `down` and `reload` do to a host's network: undone whole, compatible with stock."""

import os
import sys
from pathlib import Path

import pytest
from interop.harness import ROOT, MakeHost, unavailable

from lab import hosts
from lab.hosts import Host

PYTHON = Path(sys.executable)

RESOLVCONF = """#!/bin/sh
case $1 in
-a) cat >/run/name-servers/$2 ;;
-d) rm -f /run/name-servers/$2 ;;
-l) cat /run/name-servers/$2 ;;
esac
"""


FORGETFUL = RESOLVCONF.replace("cat /run", "true /run")
"""It takes name servers and repeats none, as many a resolvconf of containers and routers."""


def prepare(host: Host, firewall: str, resolvconf: str = RESOLVCONF) -> dict[str, str]:
    """A host with another tunnel's rules, a firewall, and a resolvconf that keeps files."""
    if missing := hosts.missing_programs("iptables", "ip6tables"):
        unavailable(f"missing programs, run `make setup` as root: {', '.join(missing)}")
    script = f"""
        mkdir /run/bin /run/name-servers
        printf %s "$1" >/run/bin/resolvconf && chmod 755 /run/bin/resolvconf
        for version in 4 6; do
            ip -$version rule add not fwmark 51999 table 51999
            ip -$version rule add table main suppress_prefixlength 0
        done
        ip link add eth0 type veth peer name eth1 && ip link set eth0 up && ip link set eth1 up
        ip address add 192.0.2.1/24 dev eth0 && ip route add default via 192.0.2.2
        if [ {firewall} = nft ]; then
            nft add table inet ours
        else
            for table in filter mangle raw; do # iptables-nft makes each when it is first used
                iptables -t $table -A OUTPUT -p tcp -j ACCEPT
                ip6tables -t $table -A OUTPUT -p tcp -j ACCEPT
            done
            mount --bind /dev/null $(command -v nft)
        fi
    """
    host.run("sh -ec", script, "sh", resolvconf)
    modules = f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"
    return {"PATH": f"/run/bin:{hosts.program_path()}", "PYTHONPATH": modules}


@pytest.mark.parametrize("firewall", ["nft", "iptables"])
def test_a_change_that_fails_at_any_step_leaves_the_host_as_it_was(
    make_host: MakeHost, firewall: str
) -> None:
    host = make_host()
    env = prepare(host, firewall)
    names = ["up", "reload", "down"] if firewall == "nft" else ["reload"]
    host.run(PYTHON, "-m", "interop.host_cases", firewall, *names, env=env, timeout=120)


@pytest.mark.parametrize("name", ["reload", "down"])
def test_a_resolvconf_that_repeats_nothing(make_host: MakeHost, name: str) -> None:
    """What was set is known by the record, to the same end: also after a kill at any step."""
    host = make_host()
    env = prepare(host, "nft", FORGETFUL)
    host.run(PYTHON, "-m", "interop.host_cases", "nft", name, env=env, timeout=120)


def test_facts(make_host: MakeHost) -> None:
    """Each is a function of that file."""
    host = make_host()
    env = prepare(host, "nft")
    host.run(PYTHON, "-m", "interop.host_facts", env=env)
