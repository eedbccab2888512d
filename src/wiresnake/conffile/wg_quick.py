"""A file of wg-quick: what only wg-quick reads, and the rest, which `wg` reads.

A private key is never made a string: only the lines that are wg-quick's own, public keys and
names are decoded. Everything else stays in one buffer that whoever asked for it wipes.
"""

import contextlib
import errno
import ipaddress
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from wiresnake.conffile import labels, wg
from wiresnake.conffile.lines import WHITESPACE, Line, read_line, shown, told
from wiresnake.errors import ConfigError, HostError
from wiresnake.model import Dns
from wiresnake.text import unsigned, wipe

FOLDER = "/etc/wireguard"
_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
_BOM = b"\xef\xbb\xbf"
_SPACE = rb"[ \t\v\f\r]*"
_WORDS = (
    *("address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig"),
    *("onup", "ondown", "publickey", "fwmark"),
)
_SPACES = WHITESPACE.encode()
_LINE = re.compile(
    rb"(?im)^(?:%(bom)s)?%(space)s"
    rb"(?P<begin>\[|(?:%(words)s)%(space)s=|\#%(space)sfriendly_(?:name|json)%(space)s=)"
    % {
        b"bom": _BOM,
        b"space": _SPACE,
        b"words": b"|".join(_SPACE.join(bytes([one]) for one in word.encode()) for word in _WORDS),
    }
)
"""A header, a key that matters here, or a name of a peer. No other line, which may be a secret, is
ever taken out of the buffer."""
_SERVER = re.compile(r"[0-9.]+|.*:.*")


class PeerExtra(NamedTuple):
    """What `wg` does not know of a peer. Only peers that have some are listed."""

    public_key: str
    name: str
    """As `names.displayed`; empty if there is none."""
    on_up: tuple[str, ...] = ()
    on_down: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    """Those that name it, as they stand, with their '#'."""


@dataclass(frozen=True, slots=True)
class QuickConfig:
    """A whole file. `%i` in hooks is not replaced yet."""

    addresses: tuple[str, ...]
    """`10.0.0.1/24`, in order, each once."""
    dns: Dns
    mtu: int | None
    table: str
    """As written: `off`, `auto`, a number or a name; empty is auto."""
    pre_up: tuple[str, ...]
    post_up: tuple[str, ...]
    pre_down: tuple[str, ...]
    post_down: tuple[str, ...]
    save: bool
    has_mark: bool
    """There is a FwMark, if only to say off."""
    peers: tuple[PeerExtra, ...]
    told: dict[str, str]
    """See `lines.told`."""
    wg: bytearray = field(repr=False)
    """The file for `wg.parse`, with an empty line for each that only wg-quick reads, so
    that errors name the right place. The caller wipes it."""
    own_lines: frozenset[int] = field(repr=False)
    """The numbers of these lines."""

    @property
    def whole(self) -> bool:
        """Whether it alone says what the interface is: it has neither hooks nor SaveConfig."""
        hooks = self.pre_up or self.post_up or any(peer.on_up for peer in self.peers)
        return not (self.save or hooks)

    def stripped(self) -> bytearray:
        """What `wg-quick strip` prints, but for its last empty line; the caller wipes it."""
        text = bytearray()
        begin = len(_BOM) if self.wg.startswith(_BOM) else 0
        lines = self.wg[begin:].split(b"\n")
        for number, line in enumerate(lines, 1):
            if number not in self.own_lines and (line or number < len(lines)):
                text += line.strip(b" \t") + b"\n"  # So does bash's `read`.
            wipe(line)
        return text


def find(argument: str) -> tuple[str, str]:
    """The interface's name and the file's real path, from a name or a path, as wg-quick does.

    A service that was given the file as a credential of systemd finds it there first.
    """
    path = argument
    if _NAME.fullmatch(argument):
        path = f"{FOLDER}/{argument}.conf"
        if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
            given = os.path.join(credentials, f"{argument}.conf")
            path = given if os.path.exists(given) else path
    if not os.path.exists(path):
        here = f"; the file here is ./{argument}" if os.path.isfile(argument) else ""
        raise HostError(errno.ENOENT, f"`{path}' does not exist{here}")
    name, ending = os.path.basename(path)[:-5], path[-5:]
    if ending != ".conf" or not _NAME.fullmatch(name):
        raise ConfigError("The config file must be a valid interface name, followed by .conf")
    return name, os.path.realpath(path)


def load(path: str) -> QuickConfig:
    """Reads a file, with wg-quick's warning if everybody can read it too."""
    try:
        text = _content(path)
        modes = [os.stat(one).st_mode for one in (path, os.path.dirname(path))]
    except OSError as error:
        raise HostError(error.errno, f"cannot read {path}: {error.strerror}") from None
    if modes[0] & modes[1] & 0o007:
        sys.stderr.write(f"Warning: `{path}' is world accessible\n")
    try:
        return parse(text, path)
    finally:
        wipe(text)


def parse(text: bytearray, name: str) -> QuickConfig:
    """Reads a whole file, which the caller wipes; ConfigError with `name`:line:column.

    What belongs to `wg` is not looked at.
    """
    wg.settle(text, name)
    reader = _Reader()
    own: list[tuple[int, int]] = []
    numbers: list[int] = []
    sections: dict[bytes, str] = {}
    number, counted = 1, 0
    for found in _LINE.finditer(text):
        token = found["begin"].translate(None, _SPACES).lower()
        end = text.find(b"\n", found.end("begin"))
        end = len(text) if end < 0 else end
        if token == b"publickey=":
            reader.name(text[found.end("begin") : end])
            continue
        raw = bytes(text[found.start() : end])
        if token == b"[":
            if raw not in sections:
                sections[raw] = read_line(_decode(raw), 0, "").section
            reader.open(sections[raw])
            continue
        if token.startswith(b"#"):
            reader.comment(_decode(raw))
            continue
        number += text.count(b"\n", counted, found.start())
        counted = found.start()
        try:
            if reader.feed(read_line(_decode(raw), number, reader.section)):
                own.append((counted, end))
                numbers.append(number)
        except _Mistake as mistake:
            raise ConfigError(f"{name}:{number}:{mistake.column}: {mistake}") from None
    rest = bytearray(text)
    for begin, end in own:
        rest[begin:end] = b" " * (end - begin)
    return reader.finish(rest, frozenset(numbers))


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


class _Mistake(Exception):
    def __init__(self, what: str, column: int) -> None:
        super().__init__(what)
        self.column = column


class _Reader:
    """What has been read so far."""

    def __init__(self) -> None:
        self.section = ""
        self._values: dict[str, list[str]] = {}
        self._save = False
        self._has_mark = False
        self._mtu: int | None = None
        self._peers: list[PeerExtra] = []
        self._peer = PeerExtra("", "")

    def open(self, section: str) -> None:
        """Begins a section."""
        if self._peer.comments or self._peer.on_up or self._peer.on_down:
            self._peers.append(self._peer)
        self.section = section
        self._peer = PeerExtra("", "")

    def comment(self, text: str) -> None:
        """Takes one that may name a peer, with its '#'."""
        if self.section == "peer":
            text = text.strip(WHITESPACE)
            name = self._peer.name or labels.displayed(labels.of_comment(text[1:]))
            self._peer = self._peer._replace(name=name, comments=(*self._peer.comments, text))

    def name(self, public_key: bytearray) -> None:
        """Says whose section it is, as written behind the '='."""
        if self.section == "peer":
            text = public_key.partition(b"#")[0].translate(None, _SPACES).decode("ascii", "replace")
            self._peer = self._peer._replace(public_key=text)

    def feed(self, line: Line) -> bool:
        """Takes a line of wg-quick's or a mark; whether it is for wg-quick alone."""
        if line.name == "fwmark":
            self._has_mark = True
            return False
        home = "peer" if line.name in ("onup", "ondown") else "interface"
        if self.section != home:
            raise _Mistake(
                f"{line.key!r} belongs under [{home.capitalize()}]; move it there", line.key_column
            )
        match line.name:
            case "address":
                self._add("address", (_address(*item) for item in _items(line)))
            case "dns":
                for item, _ in _items(line):
                    self._add("server" if _SERVER.fullmatch(item) else "search", [item])
            case "mtu":
                self._mtu = _mtu(line)
            case "table":
                if len(line.value.split()) > 1:
                    raise _Mistake(
                        "Table takes off, auto, a number or a name of rt_tables", line.value_column
                    )
                self._values["table"] = [line.value]
            case "saveconfig":
                if line.value.lower() not in ("true", "false"):
                    raise _Mistake(
                        f"`{shown(line.value)}' is neither true nor false", line.value_column
                    )
                self._save = line.value.lower() == "true"
            case "onup":
                self._peer = self._peer._replace(on_up=(*self._peer.on_up, line.value))
            case "ondown":
                self._peer = self._peer._replace(on_down=(*self._peer.on_down, line.value))
            case hook:
                self._add(hook, [line.value])
        return True

    def finish(self, wg: bytearray, own_lines: frozenset[int]) -> QuickConfig:
        self.open("")
        servers, search = self._all("server"), self._all("search")
        return QuickConfig(
            addresses=tuple(dict.fromkeys(self._all("address"))),
            dns=Dns(servers, search if servers else ()),
            mtu=self._mtu,
            table="".join(self._all("table")),
            pre_up=self._all("preup"),
            post_up=self._all("postup"),
            pre_down=self._all("predown"),
            post_down=self._all("postdown"),
            save=self._save,
            has_mark=self._has_mark,
            peers=tuple(self._peers),
            told=told(wg),
            wg=wg,
            own_lines=own_lines,
        )

    def _all(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def _add(self, name: str, items: Iterable[str]) -> None:
        self._values.setdefault(name, []).extend(items)


def _items(line: Line) -> Iterator[tuple[str, int]]:
    """What commas and spaces part, each with its column."""
    for found in re.finditer(rf"[^,{WHITESPACE}]+", line.value):
        yield found[0], line.value_column + found.start()


def _address(text: str, column: int) -> str:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_interface(_whole(text)).with_prefixlen
    except ValueError:
        raise _Mistake(f"not an address: {shown(text)!r}; it takes 10.0.0.1/24", column) from None


def _whole(address: str) -> str:
    """iproute2 fills an IPv4 address up with zeros at its end: `10.1/16`."""
    host, slash, length = address.partition("/")
    zeros = 0 if ":" in host else 3 - host.count(".")
    return f"{host}{'.0' * zeros}{slash}{length}"


def _mtu(line: Line) -> int | None:
    if not line.value:
        return None
    with contextlib.suppress(ValueError):
        hexadecimal = re.fullmatch("0[xX][0-9a-fA-F]+", line.value)
        return unsigned(str(int(line.value, 16)) if hexadecimal else line.value, 16)
    raise _Mistake(f"not an MTU: {shown(line.value)!r}; it takes bytes, as 1420", line.value_column)


def _content(path: str) -> bytearray:
    """The file in one buffer, with no copy of its secrets elsewhere."""
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "only a regular file will do")
        text = bytearray(status.st_size)
        file.readinto(text)
    return text


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # A FIFO would wait for a writer.
