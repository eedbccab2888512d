"""`wiresnake set`, `setconf`, `addconf` and `syncconf`: change a running interface, like `wg`."""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from wiresnake._native import Endpoint, PrivateKey
from wiresnake.cli import secret_files, stock_texts
from wiresnake.cli.invoked_as import program
from wiresnake.conffile import schema, wg
from wiresnake.conffile.scanner import Line, scan, squeezed
from wiresnake.conffile.schema import Key
from wiresnake.devices.interface import explain, open_interface
from wiresnake.errors import ConfigError, HostError
from wiresnake.lifecycle import peer_diff
from wiresnake.lifecycle.resolve import resolver
from wiresnake.model import DeviceChange
from wiresnake.text import base64_text, wipe
from wiresnake.uapi.snapshot import InterfaceState

if TYPE_CHECKING:
    from wiresnake.arguments import Parser

_NO_KEY = b"A" * 43 + b"="


class _Refused(Exception):
    """The command fails after printing this, line by line."""


def main(argv: list[str]) -> int:
    """Returns 0, or 1 if nothing was applied, unless a daemon refused a part of the change."""
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


def _from_words(words: list[str]) -> DeviceChange:
    reader = wg.Reader(_resolve)
    at = 0
    while at < len(words):
        word, value = words[at], words[at + 1] if at + 1 < len(words) else None
        key, peer = schema.WORDS.get(word), reader.peer
        if word == "remove" and peer is not None:
            peer["remove"] = True
            at += 1
            continue
        if key is schema.PUBLIC_KEY and value is not None:
            reader.open(0)
        elif key is None or value is None or (key.section == "peer") != (peer is not None):
            misplaced = _misplaced(word, key, value, peer is not None)
            raise _Refused(f"Invalid argument: {word}\n{misplaced}")
        if key is schema.ALLOWED_IPS and not "".join(value.split()):
            assert peer is not None
            peer.setdefault("replace_allowed_ips", True)
        else:
            _take(reader, word, key, value)
        at += 2
    return reader.finish()


def _take(reader: wg.Reader, word: str, key: Key, value: str) -> None:
    if key is schema.ALLOWED_IPS:
        value = "".join(value.split())
    body = _key_file(word, value) if key.secret else bytearray(os.fsencode(value))
    try:
        reader.take(key, body, key.name)
    except wg.Mistake as mistake:
        what = stock_texts.bad_value(key, value, mistake.__context__)
        hint = f"{word}: {mistake}" if value else f"{word} takes a value"
        raise _Refused(f"{what}\nwiresnake: {hint}") from None
    finally:
        wipe(body)
    _warn(key, value)


def _key_file(word: str, path: str) -> bytearray:
    try:
        return secret_files.read_key(path) or bytearray(_NO_KEY)
    except OSError as error:
        hint = f"{word} takes the name of a file that holds the key, not the key itself"
        raise _Refused(f"fopen: {error.strerror}\nwiresnake: {hint}") from None
    except secret_files.BadKeyFile as bad:
        hint = (
            f"{word}: {path} does not hold a key, which is 44 characters from wg genkey or genpsk"
        )
        raise _Refused(f"{bad}\nwiresnake: {hint}") from None


def _misplaced(word: str, key: Key | None, value: str | None, in_peer: bool) -> str:
    if key and key.section == "interface" and in_peer:
        return f"wiresnake: {word} belongs to the interface: put it before the first peer"
    peers = key and key.section == "peer" and key is not schema.PUBLIC_KEY
    if (peers or word == "remove") and not in_peer:
        return f"wiresnake: {word} belongs to a peer: put it after 'peer' and its public key"
    if key and value is None:
        return f"wiresnake: {word} takes a value"
    return "wiresnake: `wiresnake set --help` lists the arguments"


def _from_file(command: str, name: str, path: str) -> DeviceChange:
    try:
        text = secret_files.read(path)
    except OSError as error:
        what = f"fopen: {error.strerror}\nwiresnake: cannot read {path}: {error.strerror}"
        raise _Refused(what) from None
    scanned: list[Line] = []
    try:
        wg.settle(text, path)
        scanned += scan(text)
        if command == "syncconf":
            change = _difference(text, scanned, _state(name), path)
        else:
            append = command == "addconf"
            change = wg.parse(text, _resolve, name=path, append=append, scanned=scanned)
        for line in scanned:
            if line.key and line.key.kind in ("networks", "port"):
                _warn(line.key, squeezed(text[line.value : line.value_end]).decode())
        return change
    except ConfigError as error:
        raise _Refused(_explain(error, text)) from None
    finally:
        wipe(text)


def _state(name: str) -> InterfaceState:
    try:
        return open_interface(name).read()
    except HostError as error:
        what = f"Unable to retrieve current interface configuration: {explain(error, name)}"
        raise _Refused(what) from None


def _difference(
    text: bytearray, scanned: list[Line], state: InterfaceState, path: str
) -> DeviceChange:
    """Returns the change that makes the peers those of the file, and sets of the interface only
    what the file names."""
    found = peer_diff.compare(text, scanned, state, {}, _resolve, name=path)
    given = {line.key for line in scanned}
    private, port, mark = found.device.private_key, found.device.listen_port, found.device.fwmark
    if isinstance(private, PrivateKey) and base64_text(private.public) == state.public_key:
        private = None
    return DeviceChange(
        private_key=private if schema.PRIVATE_KEY in given else None,
        listen_port=port if port and port != state.listen_port else None,
        fwmark=mark if schema.FWMARK in given and mark != state.fwmark else None,
        peers=tuple([one.change for one in found.peers]),
    )


def _explain(error: ConfigError, text: bytearray) -> str:
    """Returns the text of `wg`, followed by the place and what to do."""
    mistake = error.__context__
    ours = f"wiresnake: {error}"
    if not isinstance(mistake, wg.Mistake):
        return ours
    line = mistake.reading
    if mistake.line or line is None:
        return f"A peer is missing a public key\nInvalid configuration\n{ours}"
    begin = line.code if line.number > 1 else 0  # `wg` does not know a byte order mark.
    code = squeezed(text[begin : line.end].partition(b"#")[0]).decode(errors="replace")
    cause = mistake.__context__
    plain = isinstance(cause, ValueError | OSError) and not isinstance(cause, UnicodeError)
    if line.key and plain:
        stock = stock_texts.bad_value(line.key, code.partition("=")[2], cause)
    else:
        stock = stock_texts.unrecognized(code)
    return f"{stock}\nConfiguration parsing error\n{ours}"


def _warn(key: Key, value: str) -> None:
    """Warns about a value that is accepted, but does not mean what it seems to."""
    warnings = []
    if key.kind == "networks" and value:
        warnings = stock_texts.host_bits(value)
    elif key.kind == "port" and value.isdecimal() and len(value) < 20 and int(value) > 65535:
        warnings = [f"Warning: {key.name} {value} is taken as {int(value) % 65536}"]
    for warning in warnings:
        print(warning, file=sys.stderr)


def _resolve(host: str, port: str) -> Endpoint:
    return _resolver()(host, port)


@cache
def _resolver() -> wg.Resolve:
    """Makes the resolver with the first name, because `wg` reads the environment at that moment."""
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
    made.add_argument("interface", help="an interface of a daemon or of the kernel")
    if command == "set":
        made.add_argument("words", nargs="+", help="what to change; see below")
    else:
        made.add_argument("file", help="a file for `wg`, /dev/stdin, or another pipe")
    return made


_DESCRIPTION = {
    "set": """\
Change a running interface. Arguments before the first `peer` configure the interface. Arguments
after it configure that peer, which is created if it does not exist.""",
    "setconf": """\
Replace an interface's configuration with a file. What the file does not contain is removed.
Sessions end; `syncconf` keeps them.""",
    "addconf": """\
Add a file to an interface's configuration. Peers outside the file stay. Peers in the file get its
allowed IPs in place of their own.""",
    "syncconf": """\
Make an interface's peers match a file, and change only what differs, so that sessions continue.
There are two differences from `wg syncconf`. ListenPort, FwMark and PrivateKey stay if the file
does not give them; `wg syncconf` gives the interface a new random port and removes the mark,
without which a full tunnel routes its own packets into itself. And what is already right is not
sent again. `wiresnake reload` also handles addresses, routes and DNS.""",
}
_FILE = """\
The file can contain what `wiresnake showconf` prints. wg-quick's keys (Address, DNS, ...) are
refused; `wiresnake strip` removes them. A mistake is reported with its line, and nothing is
applied."""


def _listed(section: str) -> str:
    """Lists a section's arguments for the help, those that take secrets last."""
    lines = []
    for key in sorted(schema.keys_of(section), key=lambda key: key.secret):
        if key.word and key is not schema.PUBLIC_KEY:
            usage = key.word.usage.replace("\n", "\n" + 28 * " ")
            lines.append(f"  {f'{key.word.word} {key.word.takes}':26}{usage}")
    return "\n".join(lines)


_EPILOG = {
    "set": f"""\
arguments of the interface:
{_listed("interface")}

arguments of a peer, after `peer PUBLIC_KEY`:
  remove                    removes it
{_listed("peer")}

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
  WG_ENDPOINT_RESOLUTION_RETRIES=N|infinity   how often to retry the lookup of a host name (default:
  15)"""
_EXIT_CODES = """\
exit codes: 0 done; 1 nothing was changed, unless a daemon refused a part (earlier parts may be
applied)"""
