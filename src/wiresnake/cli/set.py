"""`wiresnake set`, `setconf`, `addconf` and `syncconf`: changes to a running interface, as `wg`."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from wiresnake._native import Endpoint, PrivateKey
from wiresnake.cli import secret_files, stock_texts
from wiresnake.cli.invoked_as import program
from wiresnake.conffile import wg
from wiresnake.devices.interface import explain, open_interface
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import peer_diff
from wiresnake.lifecycle.resolve import resolver
from wiresnake.model import DeviceChange
from wiresnake.text import wipe
from wiresnake.uapi.snapshot import InterfaceState

if TYPE_CHECKING:
    from wiresnake.arguments import Parser

_DEVICE_WORDS = {"listen-port": "ListenPort", "fwmark": "FwMark", "private-key": "PrivateKey"}
_PEER_WORDS = {
    "preshared-key": "PresharedKey",
    "endpoint": "Endpoint",
    "persistent-keepalive": "PersistentKeepalive",
    "allowed-ips": "AllowedIPs",
}
_SECRETS = ("private-key", "preshared-key")
_NO_KEY = b"A" * 43 + b"="
_WHITESPACE = b" \t\n\v\f\r"


class _Refused(Exception):
    """What is printed, line by line, before the command fails."""


def main(argv: list[str]) -> int:
    """Exits with 0, or 1: then nothing was applied, unless a daemon refused the change."""
    command, *words = argv
    if "-h" in words or "--help" in words:
        parser(command).print_help()
        return 0
    if len(words) < 2 or (command != "set" and len(words) > 2):
        print(f"Usage: {program()} {command} {_USAGE[command]}", file=sys.stderr)
        return 1
    try:
        if command == "set":
            _change(words[0], _from_words(words[1:]))
        else:
            _change(words[0], _from_file(command, *words))
    except _Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def _change(name: str, change: DeviceChange) -> None:
    try:
        open_interface(name).change(change)
    except HostError as error:
        raise _Refused(f"Unable to modify interface: {explain(error, name)}") from None


@dataclass(slots=True)
class _PeerWords:
    """What a file cannot say of a peer."""

    remove: bool = False
    replace_allowed_ips: bool = False


def _from_words(words: list[str]) -> DeviceChange:
    reader = wg.Reader(_resolve)
    reader.feed(bytearray(b"[Interface]"), 0)
    extras: list[_PeerWords] = []
    at = 0
    while at < len(words):
        word, value = words[at], words[at + 1] if at + 1 < len(words) else None
        if word == "remove" and extras:
            extras[-1].remove = True
            at += 1
            continue
        if word == "peer" and value is not None:
            reader.feed(bytearray(b"[Peer]"), 0)
            extras.append(_PeerWords())
            _feed(reader, word, "PublicKey", value)
        elif value is not None and word in (known := _PEER_WORDS if extras else _DEVICE_WORDS):
            if word == "allowed-ips":
                extras[-1].replace_allowed_ips = True
                value = "".join(value.split())
            if value or word != "allowed-ips":
                _feed(reader, word, known[word], value)
        else:
            raise _Refused(f"Invalid argument: {word}\n{_misplaced(word, value, bool(extras))}")
        at += 2
    change = reader.finish()
    return replace(
        change,
        peers=tuple(
            replace(
                peer,
                remove=extra.remove,
                replace_allowed_ips=extra.replace_allowed_ips and peer.replace_allowed_ips,
            )
            for peer, extra in zip(change.peers, extras, strict=True)
        ),
    )


def _feed(reader: wg.Reader, word: str, key: str, value: str) -> None:
    """Gives the reader a word and its value as the line of a file."""
    line = bytearray(f"{key}=", "ascii")
    body = _key_file(word, value) if word in _SECRETS else bytearray(os.fsencode(value))
    line += body
    wipe(body)
    try:
        reader.feed(line, 0)
    except wg.Mistake as mistake:
        what = stock_texts.bad_value(key.lower(), value, mistake.__context__)
        hint = f"{word}: {mistake}" if value else f"{word} takes a value"
        raise _Refused(f"{what}\nwiresnake: {hint}") from None
    finally:
        wipe(line)
    _warn(key.lower(), value)


def _key_file(word: str, path: str) -> bytearray:
    try:
        return secret_files.read_key(path) or bytearray(_NO_KEY)
    except OSError as error:
        hint = f"{word} takes the name of a file with the key, not the key itself"
        raise _Refused(f"fopen: {error.strerror}\nwiresnake: {hint}") from None
    except secret_files.BadKeyFile as bad:
        hint = f"{word}: {path} holds no key; it takes the 44 characters of wg genkey or genpsk"
        raise _Refused(f"{bad}\nwiresnake: {hint}") from None


def _misplaced(word: str, value: str | None, in_peer: bool) -> str:
    if word in _DEVICE_WORDS and in_peer:
        return f"wiresnake: {word} is the interface's: it stands before the first peer"
    if word in (*_PEER_WORDS, "remove") and not in_peer:
        return f"wiresnake: {word} is a peer's: it stands behind 'peer' and its public key"
    if value is None and word in (*_DEVICE_WORDS, *_PEER_WORDS, "peer"):
        return f"wiresnake: {word} takes a value"
    return "wiresnake: `wiresnake set --help` has the words that there are"


def _from_file(command: str, name: str, path: str) -> DeviceChange:
    try:
        text = secret_files.read(path)
    except OSError as error:
        what = f"fopen: {error.strerror}\nwiresnake: cannot read {path}: {error.strerror}"
        raise _Refused(what) from None
    try:
        if command == "syncconf":
            change = _difference(text, _state(name), path)
        else:
            change = wg.parse(text, _resolve, name=path, append=command == "addconf")
        for _, line in _lines(text):
            if (key := _key(line)) in ("allowedips", "listenport"):
                _warn(key, line[len(key) + 1 :].decode())
        return change
    except ConfigError as error:
        raise _Refused(_explain(error, text, path)) from None
    finally:
        wipe(text)


def _state(name: str) -> InterfaceState:
    try:
        return open_interface(name).read()
    except HostError as error:
        what = f"Unable to retrieve current interface configuration: {explain(error, name)}"
        raise _Refused(what) from None


def _difference(text: bytearray, state: InterfaceState, path: str) -> DeviceChange:
    """What makes the interface that of the file; of the interface itself only what it names."""
    found = peer_diff.compare(text, state, {}, _resolve, name=path)
    given = {_key(line) for _, line in _lines(text)}
    private, port, mark = found.device.private_key, found.device.listen_port, found.device.fwmark
    if isinstance(private, PrivateKey) and private.public == _public(state):
        private = None
    return DeviceChange(
        private_key=private if "privatekey" in given else None,
        listen_port=port if port and port != state.listen_port else None,
        fwmark=mark if "fwmark" in given and mark != state.fwmark else None,
        peers=tuple([one.change for one in found.peers]),
    )


def _public(state: InterfaceState) -> bytes | None:
    return wg.public_key(state.public_key) if state.public_key else None


def _explain(error: ConfigError, text: bytearray, path: str) -> str:
    """First what `wg` says, then where it is and what to do."""
    mistake = error.__context__
    ours = f"wiresnake: {error}"
    if not isinstance(mistake, wg.Mistake):
        return ours
    if mistake.line:
        return f"A peer is missing a public key\nInvalid configuration\n{ours}"
    wrong = int(str(error)[len(path) + 1 :].partition(":")[0])
    [line] = [line.decode(errors="replace") for number, line in _lines(text) if number == wrong]
    cause = mistake.__context__
    if isinstance(cause, ValueError | OSError) and not isinstance(cause, UnicodeError):
        name, _, value = line.partition("=")
        stock = stock_texts.bad_value(name.lower(), value, cause)
    else:
        stock = stock_texts.unrecognized(line)
    return f"{stock}\nConfiguration parsing error\n{ours}"


def _lines(text: bytearray) -> Iterator[tuple[int, bytearray]]:
    """The lines that say something, without comment and whitespace; each is wiped thereafter."""
    begin, number = 0, 0
    while begin < len(text):
        number += 1
        end = text.find(b"\n", begin)
        end = len(text) if end < 0 else end
        comment = text.find(b"#", begin, end)
        whole = text[begin : end if comment < 0 else comment]
        line = whole.translate(None, _WHITESPACE)
        if line:
            yield number, line
        wipe(whole)
        wipe(line)
        begin = end + 1


def _key(line: bytearray) -> str:
    return line[: max(line.find(b"="), 0)].decode("ascii", "replace").lower()


def _warn(key: str, value: str) -> None:
    """Of what is accepted, and yet not what it looks like."""
    warnings = []
    if key == "allowedips" and value:
        warnings = stock_texts.host_bits(value)
    elif key == "listenport" and value.isdecimal() and len(value) < 20 and int(value) > 65535:
        warnings = [f"Warning: ListenPort {value} is taken as {int(value) % 65536}"]
    for warning in warnings:
        print(warning, file=sys.stderr)


def _resolve(host: str, port: str) -> Endpoint:
    return _resolver()(host, port)


@cache
def _resolver() -> wg.Resolve:
    """Made once a name is looked up, as `wg` reads the environment then."""
    try:
        return resolver()
    except ConfigError as error:
        number = os.environ["WG_ENDPOINT_RESOLUTION_RETRIES"]
        print(f"Unable to parse WG_ENDPOINT_RESOLUTION_RETRIES: `{number}'", file=sys.stderr)
        print(f"wiresnake: {error}", file=sys.stderr)
        raise SystemExit(1) from None


_USAGE = {
    "set": (
        "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file path>]"
        " [peer <base64 public key> [remove] [preshared-key <file path>] [endpoint <ip>:<port>]"
        " [persistent-keepalive <interval seconds>]"
        " [allowed-ips [+|-]<ip1>/<cidr1>[,[+|-]<ip2>/<cidr2>]...] ]..."
    ),
    "setconf": "<interface> <configuration filename>",
    "addconf": "<interface> <configuration filename>",
    "syncconf": "<interface> <configuration filename>",
}


def parser(command: str) -> "Parser":
    from wiresnake.arguments import Parser

    made = Parser(
        prog=f"wiresnake {command}",
        usage=f"wiresnake {command} {_USAGE[command]}",
        description=_DESCRIPTION[command],
        epilog=f"{_EPILOG[command]}\n\n{_ENVIRONMENT}\n\n{_EXIT_CODES}",
    )
    made.add_argument("interface", help="a daemon's or the kernel's")
    if command == "set":
        made.add_argument("words", nargs="+", help="what to change, see below")
    else:
        made.add_argument("file", help="a file of `wg`, /dev/stdin, or another pipe")
    return made


_DESCRIPTION = {
    "set": """\
Change a running interface: the words before the first `peer` are of the interface, those behind
of that peer, which is made if there is none.""",
    "setconf": """\
Replace an interface's configuration by a file: what the file does not hold is gone. Sessions end;
`syncconf` keeps them.""",
    "addconf": """\
Add a file to an interface's configuration: peers that are not in it stay, those that are get its
allowed IPs in place of theirs.""",
    "syncconf": """\
Make an interface's peers those of a file, and touch nothing but what differs: sessions go on.

Two things differ from `wg syncconf`. What the file does not say of the interface itself, its
ListenPort, FwMark or PrivateKey, stays as it is: there it gets a new random port, and loses the
mark without which a full tunnel swallows its own packets, at every reload. And what is already so
is not sent again. `wiresnake reload` does the rest: addresses, routes, DNS.""",
}
_FILE = """\
The file may hold what `wiresnake showconf` prints. wg-quick's keys (Address, DNS, ...) are
refused: `wiresnake strip` leaves them out. A mistake is told with its line; nothing is applied."""
_EPILOG = {
    "set": """\
words of the interface:
  listen-port PORT          0 is any free one
  fwmark MARK               of the encrypted packets: a number, 0x hexadecimal, or off
  private-key FILE          a file with the key, or a pipe; an empty file removes the key

words of a peer, behind `peer PUBLIC_KEY`:
  remove                    removes it
  endpoint HOST:PORT        or [IPv6 address]:PORT
  allowed-ips NETWORKS      between commas; '' is none. With a sign the list is a change: +
                            adds to those that the peer has, - removes
  persistent-keepalive S    seconds from 1 to 65535, or off
  preshared-key FILE        as private-key

examples:
  wiresnake set wg0 listen-port 51820 private-key /etc/wireguard/wg0.key
  wiresnake set wg0 peer KEY endpoint vpn.example:51820 allowed-ips 10.0.0.0/24,fd00::/64
  wiresnake set wg0 peer KEY allowed-ips +10.1.0.0/16
  wiresnake set wg0 peer KEY remove""",
    "setconf": f"{_FILE}\n\nexamples:\n  wiresnake setconf wg0 wg0.conf",
    "addconf": f"{_FILE}\n\nexamples:\n  wiresnake addconf wg0 more-peers.conf",
    "syncconf": f"{_FILE}\n\nexamples:\n  wiresnake strip wg0 | wiresnake syncconf wg0 /dev/stdin",
}
_ENVIRONMENT = """\
environment:
  WG_ENDPOINT_RESOLUTION_RETRIES=N|infinity   how often a host name is looked up again (15)"""
_EXIT_CODES = """\
exit codes: 0 done; 1 nothing was changed, unless a daemon refused a part (its earlier parts may
be applied)"""
