"""What our own devices say beyond a `get`: `state=1` and `events=1` of the UAPI socket.

Another implementation closes the connection on them, and the kernel's devices have no socket:
neither is an error, the answer is None. docs/uapi.md describes each key.
"""

import errno
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import IO, Any

from wiresnake.devices.uapi_client import connect
from wiresnake.errors import HostError
from wiresnake.uapi.events import Detail, Reported, parse_event


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a device says of itself. Ages are ms; None: it never happened."""

    up: bool = False
    bound: bool = False
    """It has a UDP socket."""
    bind_error: int = 0
    """The errno for which it has none, though it is up."""
    unknown_initiations: int = 0
    """Handshakes meant for this device, by a public key that is none of its peers'."""
    unknown_initiator: str | None = None
    unknown_initiator_endpoint: str | None = None
    unknown_initiator_age_ms: int | None = None
    invalid_mac1: int = 0
    """Handshake messages meant for another public key than the device's."""
    invalid_mac1_endpoint: str | None = None
    invalid_mac1_age_ms: int | None = None
    no_peer_packets: int = 0
    """Packets from this host that no peer's allowed IPs cover."""
    no_peer_destination: str | None = None
    no_peer_age_ms: int | None = None
    cipher: str | None = None
    """own or ring."""
    own_cipher_failed: bool = False
    """The CPU could run the own one, but gets other results than it should."""
    offloads: str = ""
    """Names with commas between them: what the kernel does for many packets at once."""


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What a device says of a peer. Ages are ms; None: it never happened."""

    public_key: str
    endpoint: str | None = None
    session: str = "none"
    """none, live or expired."""
    session_age_ms: int | None = None
    initiations: int = 0
    first_initiation_age_ms: int | None = None
    last_initiation_age_ms: int | None = None
    bad_responses: int = 0
    bad_response_age_ms: int | None = None
    stale_initiations: int = 0
    stale_initiation_age_ms: int | None = None
    unconfirmed_responses: int = 0
    unconfirmed_response_age_ms: int | None = None
    rejected_sources: int = 0
    rejected_source: str | None = None
    rejected_source_age_ms: int | None = None
    send_errors: int = 0
    send_error: int = 0
    """An errno."""
    send_error_age_ms: int | None = None
    cookie_replies: int = 0
    cookie_reply_age_ms: int | None = None
    staged: int = 0
    """Packets that wait for a session."""
    received_age_ms: int | None = None
    sent_age_ms: int | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    last_handshake_time_sec: int = 0
    last_handshake_time_nsec: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """All that `state=1` says."""

    device: DeviceReport
    peers: dict[str, PeerReport]


def read_report(interface: str, public_key: str | None = None) -> Report | None:
    """Asks for the device and all its peers, or for one. None if it does not know the question."""
    only = "" if public_key is None else f"public_key={b64decode(public_key).hex()}\n"
    connection = _ask(interface, f"state=1\n{only}\n")
    if connection is None:
        return None
    with connection, connection.makefile("r", encoding="ascii", newline="\n") as stream:
        try:
            return parse_report(_answer(stream))
        except OSError as error:
            raise _gone(interface, error) from None
        except ValueError:
            raise HostError(errno.EPROTO, f"{interface}: its daemon's answer is no state") from None


def subscribe(interface: str) -> Iterator[Reported] | None:
    """The device's events from now on, until it ends. None if it has none to give."""
    connection = _ask(interface, "events=1\n\n")
    if connection is None:
        return None
    stream = connection.makefile("r", encoding="ascii", newline="\n")
    try:
        known = list(_answer(stream)) == ["errno=0"]
    except OSError as error:
        raise _gone(interface, error) from None
    finally:
        connection.settimeout(None)
        connection.close()  # The stream keeps it open.
    if known:
        return _events(interface, stream)
    stream.close()
    return None


def parse_report(answer: Iterable[str]) -> Report | None:
    """Reads the lines of an answer. None unless they are whole and say that all went well;
    ValueError if there is no sense in them."""
    sections: list[dict[str, str]] = [{}]
    done = False
    for line in answer:
        key, _, value = line.partition("=")
        if key == "errno":
            done = int(value) in (0, errno.ENOENT)
        elif key == "public_key":
            sections.append({key: _base64(value)})
        else:
            sections[-1][key] = value
    if not done:
        return None
    device, *peers = sections
    return Report(
        DeviceReport(**_typed(device, _DEVICE)),
        {peer["public_key"]: PeerReport(**_typed(peer, _PEER)) for peer in peers},
    )


def _typed(said: dict[str, str], readers: dict[str, Callable[[str], Detail]]) -> dict[str, Any]:
    """Values as a report wants them, by field; what is not known (yet) is left out."""
    return {key: readers[key](value) for key, value in said.items() if key in readers}


def _base64(digits: str) -> str:
    return b64encode(bytes.fromhex(digits)).decode()


_READERS: dict[object, Callable[[str], Detail]] = {
    bool: lambda value: value == "true",
    int: int,
    int | None: int,
    str: str,
    str | None: str,
}
_DEVICE, _PEER = (
    {field.name: _READERS[field.type] for field in fields(report)}
    for report in (DeviceReport, PeerReport)
)
_DEVICE["unknown_initiator"] = _base64


def _ask(interface: str, question: str) -> socket.socket | None:
    connection = connect(interface)
    if connection is None:
        return None
    try:
        connection.sendall(question.encode("ascii"))
    except OSError as error:
        connection.close()
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            return None
        raise _gone(interface, error) from None
    return connection


def _answer(stream: IO[str]) -> Iterator[str]:
    """Lines up to the empty one; what ends earlier is no answer."""
    try:
        for line in stream:
            if line == "\n":
                return
            yield line.removesuffix("\n")
    except ConnectionResetError:
        return


def _events(interface: str, stream: IO[str]) -> Iterator[Reported]:
    with stream:
        while block := list(_answer(stream)):
            if said := parse_event(block):
                yield Reported(said[0], interface, said[1])


def _gone(interface: str, error: OSError) -> HostError:
    what = f"{interface}: its daemon does not answer: {error.strerror or 'time is up'}"
    return HostError(error.errno or errno.ETIMEDOUT, what)
