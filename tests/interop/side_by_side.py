"""Stock `wg` and ours side by side: the same words, two devices alike, and what came of it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.hosts import Host

OURS = Path(sys.executable).parent / "wiresnake"
FIELDS = (
    *("public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "dump"),
    *("endpoints", "allowed-ips", "latest-handshakes", "transfer", "persistent-keepalive"),
)
RETRIES = {"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
"""A name that does not resolve must not take minutes."""

PRIVATE = "iBDNaTKqCSVpZRkHZRJzpzIFmK8sgfcuTGMA4X7qmlg="
PSK = "OYzhGDKKnJRwaYlDvOpIX0GqOSHYJJ4VrQfVhqMkm8Y="
FIRST, SECOND, THIRD = (
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
)
FULL = f"""[Interface]
PrivateKey = {PRIVATE}
FwMark = 0x77 # a comment

[Peer]
PublicKey = {FIRST}
Allowed IPs = 10.0.0.0/24, fd00::/64
AllowedIPs = 10.1.2.3
[peer]
publickey={SECOND}
PresharedKey={PSK}
endpoint = [::1]:99999
PersistentKeepalive = 9
[interface]
fwmark=0x78
"""
CHANGED = f"""[Interface]
PrivateKey = {PRIVATE}
FwMark = off
[Peer]
PublicKey = {FIRST}
AllowedIPs = 10.0.0.0/25
Endpoint = localhost:domain
[Peer]
PublicKey = {THIRD}
AllowedIPs = 0.0.0.0/0, ::/0, 10.1.2.3
"""

KEY_FILES = {
    "key": f"{PRIVATE}",
    "spaces": f"{PSK} \n\t\r\n",
    "short": "abc",
    "trailing": f"{PRIVATE}\nx",
    "empty": "",
}
"""By name in the folder that the words of `set` have as {}."""

SET = [
    ["private-key", "{}/key"],
    ["listen-port", "0", "fwmark", "0x10"],
    ["fwmark", "off"],
    ["fwmark", "4294967295"],
    ["fwmark", "00000000000000000000000000000005"],
    ["private-key", "{}/empty"],
    ["private-key", "{}/spaces"],
    ["private-key", "/dev/null"],
    ["private-key", "{}/key"],
    ["peer", FIRST],
    [
        *("peer", FIRST, "endpoint", "127.0.0.1:99999", "persistent-keepalive", "5"),
        *("preshared-key", "{}/spaces", "allowed-ips", "10.0.0.0/8, fd00::/8"),
    ],
    *(["peer", FIRST, "allowed-ips", value] for value in ("10.0.0.1/8", "1.2.3.4,5.6.7.8/31", "")),
    *(
        ["peer", FIRST, "endpoint", value]
        for value in ("::1:77", "[fe80::1%lo]:77", "localhost:domain")
    ),
    *(["peer", FIRST, "persistent-keepalive", value] for value in ("off", "OFF", "65535")),
    ["peer", FIRST, "preshared-key", "/dev/null", "peer", SECOND, "preshared-key", "{}/spaces"],
    ["peer", FIRST, "remove", "peer", SECOND, "allowed-ips", "1.2.3.4", "allowed-ips", "1.2.3.5"],
    ["peer", SECOND, "remove", "peer", THIRD, "remove"],
]
"""Of `set`: one after the other, each on what the ones before have made."""
BAD_SET = [
    *(["fwmark", value] for value in ("4294967296", "0X1", "0x", "-1", "")),
    *(["listen-port", value] for value in ("", "nonsense")),
    *(["private-key", "{}/" + name] for name in ("short", "trailing", "nowhere")),
    *(["peer", value] for value in ("x", FIRST[:-1], "")),
    ["peer"],
    ["peer", FIRST, "listen-port", "5"],
    ["endpoint", "192.0.2.1:5"],
    ["remove"],
    ["bogus"],
    ["peer", FIRST, "bogus", "x"],
    ["peer", FIRST, "endpoint"],
    *(
        ["peer", FIRST, "allowed-ips", value]
        for value in (
            *("10.0.0.0/33", "10.0.0.0/8,", "x", "10.0.0.0/255.0.0.0", "::/129", "10.0.0.0/"),
            *("10.0.0.0/-1", "fe80::1%lo"),
        )
    ),
    *(
        ["peer", FIRST, "endpoint", value]
        for value in (
            *("192.0.2.1", "[::1:5", "[::1]5", "[::1]:", "", ":77", "192.0.2.1:no"),
            *("nowhere.invalid:77", "192.0.2.1:"),
        )
    ),
    *(["peer", FIRST, "persistent-keepalive", value] for value in ("65536", "-1", "", "1x")),
]
"""What is refused before a device is asked."""

BAD_FILES = [
    "[Interface]\nAddress = 10.0.0.1/24\n",
    "[Peer]\nAllowedIPs=\n",
    "x",
    "[Foo]\n",
    "[Peer]\n",
    f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nAllowedIPs=10.0.0.0/8\n[Peer]\nPublicKey={FIRST}",
    "ListenPort=5",
    "[Interface]\nFwMark=x",
    "[Interface]\nListenPort=nonsense",
    "[Interface]\nListenPort",
    "[Interface]\n# fine\n  Listen Prt = 5 # no",
    f"[Interface]\nPublicKey={FIRST}",
    "[Peer]\nPublicKey=x",
    "[Peer]\nEndpoint=x",
    "[Peer]\nEndpoint=nowhere.invalid:5",
    "[Peer]\nAllowedIPs=1.2.3.4/33",
    "[Peer]\nAllowedIPs=1.2.3",
    "[Peer]\nPersistentKeepalive=x",
]


@dataclass
class SideBySide:
    """A host with two devices: stock `wg` changes the one, ours the other."""

    host: Host
    stock: str = "wg0"
    ours: str = "wg1"

    def both(
        self, *words: str, text: str | None = None, env: Mapping[str, str] = RETRIES
    ) -> tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]:
        """What stock `wg` and ours answer to the same words."""
        theirs = self.host.run("wg", *words, check=False, text=text, env=env)
        return theirs, self.host.run(OURS, *words, check=False, text=text, env=env)

    def assert_same(self, *words: str, text: str | None = None, env: Mapping[str, str] = {}) -> str:
        """Byte for byte, except for what ours adds on stderr; once more if a second has passed."""
        theirs, ours = self.both(*words, text=text, env=env)
        for _ in range(3):
            if ours.stdout == theirs.stdout:
                break
            theirs = self.host.run("wg", *words, check=False, text=text, env=env)
            if ours.stdout != theirs.stdout:
                ours = self.host.run(OURS, *words, check=False, text=text, env=env)
        assert answer(ours) == answer(theirs), words
        return ours.stdout

    def assert_changes(self, command: str, *words: str, text: str | None = None) -> None:
        """The same words do the same to either device."""
        theirs, ours = self._each(command, *words, text=text)
        assert answer(ours) == answer(theirs) == (0, "", said(theirs)), (words, text)
        one, other = self.states()
        assert one == other, (words, text)

    def assert_refused(self, command: str, *words: str, text: str | None = None) -> str:
        """Either refuses the words, in the same way; returns what ours adds."""
        theirs, ours = self._each(command, *words, text=text)
        assert answer(ours) == answer(theirs) == (1, "", said(theirs)), (words, text)
        added = [line for line in ours.stderr.splitlines() if line.startswith("wiresnake: ")]
        assert added, "who is refused hears what to do"
        return "\n".join(added)

    def _each(
        self, command: str, *words: str, text: str | None
    ) -> list[subprocess.CompletedProcess[str]]:
        programs = [("wg", self.stock), (str(OURS), self.ours)]
        return [
            self.host.run(program, command, name, *words, check=False, text=text, env=RETRIES)
            for program, name in programs
        ]

    def states(self) -> tuple[list[list[str]], list[list[str]]]:
        """Both devices as stock `wg` dumps them, each before its peers by their keys."""
        devices: dict[str, list[list[str]]] = {self.stock: [], self.ours: []}
        for line in self.host.output("wg show all dump").splitlines():
            name, *fields = line.split("\t")
            if len(fields) == 8:
                fields[3] = ",".join(sorted(fields[3].split(",")))
            if name in devices:
                devices[name].append(fields)
        (one, *peers), (other, *same) = devices[self.stock], devices[self.ours]
        return [one, *sorted(peers)], [other, *sorted(same)]


def answer(done: subprocess.CompletedProcess[str]) -> tuple[int, str, list[str]]:
    """What is the same for both."""
    return done.returncode, done.stdout, said(done)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What stands on stderr, as of `wg`: under its name, without what ours adds."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("wiresnake: ")]
    return [
        line.replace("Usage: wiresnake ", "Usage: wg ").replace(" [--json]", "") for line in lines
    ]


def assert_shows_alike(sides: SideBySide, *names: str) -> None:
    """Every form of `show` and `showconf`. 1.0.20210914 gives the names once in `all endpoints`."""
    for field in FIELDS:
        for name in (*names, "all"):
            if (name, field) != ("all", "endpoints"):
                sides.assert_same("show", name, field)
    lines = sides.host.output(OURS, "show", "all", "endpoints").splitlines()
    assert [line.count("\t") for line in lines] == [2] * len(lines)
    for color in ("always", "never", ""):
        for hide in ("never", ""):
            env = {"WG_COLOR_MODE": color, "WG_HIDE_KEYS": hide}
            sides.assert_same("show", names[0], env=env)
            sides.assert_same("show", "all", env=env)
    sides.assert_same()
    sides.assert_same("show", "interfaces")
    for name in names:
        sides.assert_same("showconf", name)


def assert_refuses_alike(sides: SideBySide, interface: str) -> None:
    """Words that make no sense, and interfaces that are none."""
    for words in (
        ["show", interface, "bad"],
        ["show", interface, ""],
        ["show", ""],
        ["show", "interfaces", ""],
        ["show", "all", "bad"],
        ["show", "interfaces", "peers"],
        ["show", "nix"],
        ["show", "nix", "bad"],
        ["show", "lo"],
        ["show", "a/b"],
        ["show", "a-name-that-is-too-long"],
        ["show", interface, "peers", "more"],
        ["showconf"],
        ["showconf", "nix"],
        ["showconf", interface, "more"],
        ["set", "nix", "fwmark", "1"],
        ["setconf", interface],
        ["setconf", "nix", "/dev/null"],
        ["addconf", "nix", "/dev/null"],
        ["addconf", interface, "/nowhere"],
        ["syncconf", interface, "/nowhere", "more"],
    ):
        sides.assert_same(*words)


def write_key_files(folder: Path, *cases: list[str]) -> list[list[str]]:
    """Returns the words with the folder in them."""
    for name, text in KEY_FILES.items():
        (folder / name).write_text(text)
        os.chmod(folder / name, 0o600)
    return [[word.replace("{}", str(folder)) for word in words] for words in cases]
