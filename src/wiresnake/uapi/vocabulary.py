"""The keys of the UAPI: name, type, meaning, and the help text of the metric that shows it.

The writers and parsers, in Python and in Rust, use exactly these keys. `tools/uapi_page.py` makes
the tables of docs/uapi.md from this module. The keys of events are the fields of their classes
(`wiresnake.events`).
"""

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Key(NamedTuple):
    """A key of `get=1` or `set=1`."""

    meaning: str
    get: bool = True
    """Part of the answer to a `get`."""
    set: bool = True
    """Accepted in a `set`."""


DEVICE_KEYS = {
    "private_key": Key("zeros: none"),
    "listen_port": Key("0: any"),
    "fwmark": Key("0: off"),
    "replace_peers": Key("`true`: remove all existing peers first", get=False),
}
PEER_KEYS = {
    "public_key": Key("begins a peer"),
    "remove": Key("`true`: remove the peer", get=False),
    "update_only": Key("`true`: do not add the peer if it does not exist", get=False),
    "preshared_key": Key("zeros: none"),
    "protocol_version": Key("`1`"),
    "endpoint": Key("where the peer's datagrams go, if that is known"),
    "last_handshake_time_sec": Key(
        "time of the last completed handshake, since 1970; 0: never", set=False
    ),
    "last_handshake_time_nsec": Key("its fraction of a second", set=False),
    "tx_bytes": Key("bytes sent, as the length of the outer UDP payload", set=False),
    "rx_bytes": Key("bytes received, likewise", set=False),
    "persistent_keepalive_interval": Key("seconds; 0: off"),
    "replace_allowed_ips": Key("`true`: remove the peer's existing allowed IPs first", get=False),
    "allowed_ip": Key(
        "one line each, in the order in which they were added; in a `set`, a `-` before it removes"
        " it"
    ),
}


def key(default: Any, meaning: str = "", metric: str = "") -> Any:
    """Defines a key of `state=1`. Without a meaning it shares that of the previous key.

    `metric` is the help text of its metric; a key without one has no metric.
    """
    return field(default=default, metadata={"meaning": meaning, "metric": metric})


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """The answer of a device to `state=1`. Ages are ms of CLOCK_BOOTTIME; None is never."""

    up: bool = key(False, "`true` or `false`: the interface is up")
    bound: bool = key(False, "`true` or `false`: the interface has a UDP socket")
    bind_error: int = key(
        0,
        "why the interface is up without a socket: an errno, positive. 98 (EADDRINUSE): another "
        "program uses the port. Opening it is tried again, at last every 5 s",
    )
    unknown_initiations: int = key(
        0,
        "initiations for this device's key from a public key that is not a peer's",
        metric="Initiations from keys that are not a peer's",
    )
    unknown_initiator: str | None = key(
        None, "the last of them: its public key (claimed, not proved), its source, and its age"
    )
    unknown_initiator_endpoint: str | None = key(None)
    unknown_initiator_age_ms: int | None = key(None)
    invalid_mac1: int = key(
        0,
        "handshake messages for another public key, or with a mac1 for no key at all",
        metric="Handshake messages for another key",
    )
    invalid_mac1_endpoint: str | None = key(None, "the last of them")
    invalid_mac1_age_ms: int | None = key(None)
    no_peer_packets: int = key(
        0,
        "packets from this host to an address that is not in any peer's allowed IPs",
        metric="Packets for addresses that are in no allowed IPs",
    )
    no_peer_destination: str | None = key(None, "the last of them")
    no_peer_age_ms: int | None = key(None)
    cipher: str | None = key(
        None,
        "`own` or `ring`: which ChaCha20-Poly1305 is in use. `own` needs a CPU with AVX-512; "
        "`WIRESNAKE_CIPHER` chooses one",
    )
    own_cipher_failed: bool = key(
        False,
        "`true`: the CPU can run the own cipher, but it failed its self-test, so ring is used",
    )
    offloads: str = key(
        "",
        "the kernel's offloads in use, separated by commas, in this order: `segment` "
        "(UDP_SEGMENT), `gro` (UDP_GRO), `tso`, `uso` (TCP and UDP super-packets are read from "
        "the TUN device), `tcp-merge`, `udp-merge` (they are written to it). `segment` and `gro` "
        "need a socket. Not listed are those that the kernel lacks or has just refused, that are "
        "known to be broken in its release, or that `WIRESNAKE_OFFLOADS` switches off "
        "(`wiresnaked --help`)",
    )
    refused_merges: int = key(
        0,
        "merged frames that the TUN device refused. Their packets are written one by one, and "
        "none are merged for the next 10 s",
    )
    refused_merge_error: int | None = key(None, "the last of them: an errno, positive")
    refused_merge_age_ms: int | None = key(None)


@dataclass(frozen=True, slots=True)
class PeerReport:
    """The answer of a device about a peer. Ages are ms of CLOCK_BOOTTIME; None is never."""

    public_key: str = key("", "begins a peer")
    endpoint: str | None = key(
        None, "where the peer's datagrams go; left out while that is not known"
    )
    session: str = key(
        "none",
        "`none`; `live`: packets can be sent; `expired`: its keys only receive, or do nothing more",
    )
    session_age_ms: int | None = key(
        None, "age of the handshake that made the session, as initiator or responder"
    )
    received_age_ms: int | None = key(None, "age of the last authenticated message, of any type")
    sent_age_ms: int | None = key(None)
    rx_bytes: int = key(0, "as in `get`")
    tx_bytes: int = key(0)
    staged: int = key(
        0,
        "packets that wait for a session",
        metric="Packets that wait for a session",
    )
    rejected_sources: int = key(
        0,
        "packets from the peer whose inner source is not in its allowed IPs; the source of the "
        "last one",
        metric="Packets with a source that is not in the peer's allowed IPs",
    )
    rejected_source: str | None = key(None)
    rejected_source_age_ms: int | None = key(None)
    send_errors: int = key(
        0,
        "sends that the kernel refused; the last errno, positive. 11 (EAGAIN) is a full socket "
        "buffer. 90 (EMSGSIZE) also counts packets that are too long for any datagram",
        metric="Sends that the kernel refused",
    )
    send_error: int = key(0)
    send_error_age_ms: int | None = key(None)
    last_handshake_time_sec: int = key(0, "as in `get`")
    last_handshake_time_nsec: int = key(0)
    initiations: int = key(
        0,
        "initiations made since the last completed handshake; they are only sent to a known "
        "endpoint",
        metric="Initiations since the last handshake",
    )
    first_initiation_age_ms: int | None = key(None)
    last_initiation_age_ms: int | None = key(None)
    bad_responses: int = key(
        0,
        "responses that could not be decrypted since the last completed handshake: the peer's key "
        "or the preshared key differs, or the response is forged",
        metric="Responses that could not be decrypted, since the last handshake",
    )
    bad_response_age_ms: int | None = key(None)
    unconfirmed_responses: int = key(
        0,
        "responses sent since the last completed handshake. No message of their sessions came "
        "back: they did not arrive, or the peer could not decrypt them",
        metric="Responses sent since the last handshake",
    )
    unconfirmed_response_age_ms: int | None = key(None)
    stale_initiations: int = key(
        0,
        "authentic initiations whose timestamp is not newer than the last one: the peer's clock "
        "was set back, or somebody replays them",
        metric="Initiations with a timestamp that is not newer",
    )
    stale_initiation_age_ms: int | None = key(None)
    cookie_replies: int = key(
        0,
        "cookie replies from the peer, which was under load",
        metric="Cookie replies from the peer, which was under load",
    )
    cookie_reply_age_ms: int | None = key(None)


def figures(report: type[DeviceReport | PeerReport]) -> dict[str, str]:
    """Returns the keys that become metrics, with their help texts."""
    return {one.name: said for one in fields(report) if (said := one.metadata["metric"])}
