"""Pages of docs/ as something to run: a reader's steps, word for word, in hosts of our own.

A page begins with a comment that names its hosts, one a line:

    <!-- hosts
    server 192.0.2.1 vpn.example.org
    phone 198.51.100.7
    desk 10.1.0.2 behind server
    -->

Each host has that address and a default route; a router that is nobody's joins them, and answers
at 203.0.113.1 as a server of the internet does. "behind" is a host's own network. Everybody knows
the names.

A block ```console has commands after `$ `, a here-document to its end, and below each what it
prints, where `...` stands for anything in a line, and for any lines if alone. A command that exits
with another code than 0 fails the test. A line `# on the phone` says where from then on. A block
```ini with `# /etc/wireguard/wg0.conf on the server` as its first line is that file.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lab.hosts import Host, address, cable, program_path

INTERNET = "203.0.113.1"
NO_MOUNTS: Mapping[Path, str] = {}

# What a page may write to is the host's own. Two programs stand in for ones that need a network or
# a system of their own: `scp FILE HOST:` and a resolvconf for one interface.
PRIVATE = """
set -e
mkdir -p /run/home /run/out /run/etc /run/bin /etc/wireguard
mount --bind {homes}/{name} /run/home
mount -t tmpfs -o mode=700 tmpfs /etc/wireguard
cat >/run/etc/hosts
echo nameserver 192.0.2.53 >/run/etc/resolv.conf
cp /run/etc/resolv.conf /run/etc/before
for file in hosts resolv.conf; do mount --bind /run/etc/$file /etc/$file; done
cat >/run/bin/scp <<'END'
#!/bin/sh
cp -p "$1" "{homes}/${{2%:}}/"
END
cat >/run/bin/resolvconf <<'END'
#!/bin/sh
case $1 in
-a) tee /run/etc/given >/etc/resolv.conf ;;
-d) cat /run/etc/before >/etc/resolv.conf; rm -f /run/etc/given ;;
-l) cat /run/etc/given 2>/dev/null ;;
esac
END
chmod 755 /run/bin/*
"""
# The output goes to a file, so that what stays in the background keeps nobody waiting.
SHELL = 'cd /run/home && umask 022 && exec bash -c "$1" >/run/out/said 2>&1 </dev/null'


class Place(NamedTuple):
    name: str
    address: str
    names: tuple[str, ...]
    behind: str


@dataclass
class Step:
    """A command, and what it is to print."""

    host: str
    command: str
    line: int
    said: list[str] = field(default_factory=list)


@dataclass
class Page:
    places: list[Place]
    steps: list[Step]


class PageError(AssertionError):
    """What a page says is not what happens."""


def read(text: str) -> Page:
    found = re.search(r"<!-- hosts\n(.*?)-->", text, re.DOTALL)
    assert found is not None, "the page names no hosts"
    places = []
    for line in found[1].splitlines():
        words, _, behind = line.partition(" behind ")
        name, address, *names = words.split()
        places.append(Place(name, address, tuple(names), behind.strip()))
    steps = [*_steps(text.splitlines(), {place.name for place in places})]
    assert steps, "the page has nothing to run"
    return Page(places, steps)


def _steps(lines: list[str], hosts: set[str]) -> Iterator[Step]:
    host, inside = "", ""
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            inside = "" if inside else line.removeprefix("```")
            block = lines[number : lines.index("```", number)] if inside else []
            if inside == "ini" and (place := re.fullmatch(r"# (/\S+) on the (\w+)", block[0])):
                text = "\n".join([*block, "END"])
                install = f"install -m 600 /dev/null {place[1]} && cat >{place[1]} <<'END'\n{text}"
                yield Step(place[2], install, number)
            elif inside == "console":
                steps = list(_commands(block, number + 1, host))
                yield from steps
                host = steps[-1].host
                assert {step.host for step in steps} <= hosts, f"line {number}: on which host?"


def _commands(block: list[str], first: int, host: str) -> Iterator[Step]:
    step, until = None, ""
    for number, line in enumerate(block, first):
        if step is not None and until:
            step.command += f"\n{line}"
            until = "" if line == until else until
        elif line.startswith("$ ") or re.fullmatch(r"# on the \w+", line):
            if step is not None:
                yield step
            step = Step(host, line.removeprefix("$ "), number) if line.startswith("$") else None
            host = host if step else line.split()[-1]
            document = re.search(r"<<'?(\w+)", line)
            until = document[1] if document else ""
        elif step is not None:
            step.said.append(line)
    assert step is not None, f"line {first}: no command"
    yield step


def matches(expected: list[str], said: list[str]) -> bool:
    """Line by line; `...` is anything."""
    if not expected:
        return not said
    if expected[0].strip() == "...":
        return any(matches(expected[1:], said[skip:]) for skip in range(len(said) + 1))
    pattern = ".*".join(map(re.escape, expected[0].split("...")))
    first = bool(said) and re.fullmatch(pattern, said[0]) is not None
    return first and matches(expected[1:], said[1:])


def run(page: Page, programs: Path, mounts: Mapping[Path, str] = NO_MOUNTS) -> None:
    """Runs every step with `programs` first in PATH; hosts see the folders of `mounts`
    elsewhere."""
    with contextlib.ExitStack() as stack:
        hosts = _build(stack, page.places)
        for host in hosts.values():
            for folder, place in mounts.items():
                host.run(f"mount --bind {folder} {place}")
        path = f"{programs}:/run/bin:{program_path()}"
        environment = {"PATH": path, "HOME": "/run/home"}
        for step in page.steps:
            host = hosts[step.host]
            done = host.run("sh -c", SHELL, "sh", step.command, check=False, env=environment)
            said = host.output("cat /run/out/said").rstrip("\n")
            lines = [line.rstrip() for line in said.split("\n")] if said else []
            if done.returncode or not matches(step.said, lines):
                expected = "\n".join(step.said)
                raise PageError(
                    f"line {step.line}, on the {step.host}: {step.command}\n"
                    f"exit code {done.returncode}\n--- it says:\n{said}\n--- the page:\n{expected}"
                )


def _build(stack: contextlib.ExitStack, places: list[Place]) -> dict[str, Host]:
    homes = Path(stack.enter_context(TemporaryDirectory(prefix="wiresnake-page-")))
    hosts = {place.name: stack.enter_context(Host(place.name)) for place in places}
    router = stack.enter_context(Host("router"))
    router.run("sysctl -q -w net.ipv4.ip_forward=1")
    address(router, "lo", f"{INTERNET}/32")
    table = [f"{place.address} {' '.join((place.name, *place.names))}" for place in places]
    known = "\n".join(["127.0.0.1 localhost", f"{INTERNET} www.example.net", *table, ""])
    for place in places:
        host = hosts[place.name]
        (homes / place.name).mkdir()
        host.run("sh -c", PRIVATE.format(homes=homes, name=place.name), text=known)
        gateway = hosts.get(place.behind, router)
        near, far = cable(host, gateway)
        network = ip_interface(f"{place.address}/24").network
        above = str(network[1] if place.behind else network[254])
        address(host, near, f"{place.address}/24")
        address(gateway, far, f"{above}/24")
        host.run(f"ip route add default via {above}")
    return hosts
