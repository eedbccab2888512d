"""Every key of the UAPI beyond a value's own grammar: its name, its type, what it means, and which
figure `wiresnake metrics` makes of it. Writers and parsers, ours and Rust's, have these keys and no
others; the tables of docs/uapi.md are made of this page (`tools/uapi_page.py`).

The events' keys are the fields of their classes (`wiresnake.events`).
"""

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Key(NamedTuple):
    """A key of `get=1` or `set=1`."""

    meaning: str
    get: bool = True
    """A `get` says it."""
    set: bool = True
    """A `set` takes it."""


DEVICE_KEYS = {
    "private_key": Key("zeros: none"),
    "listen_port": Key("0: any"),
    "fwmark": Key("0: off"),
    "replace_peers": Key("`true`: all that were peers go first", get=False),
}
PEER_KEYS = {
    "public_key": Key("begins a peer"),
    "remove": Key("`true`: the peer goes", get=False),
    "update_only": Key("`true`: no peer is made of it", get=False),
    "preshared_key": Key("zeros: none"),
    "protocol_version": Key("`1`"),
    "endpoint": Key("where its datagrams go, if that is known"),
    "last_handshake_time_sec": Key(
        "wall clock of the last completed handshake; 0: never", set=False
    ),
    "last_handshake_time_nsec": Key("its fraction of a second", set=False),
    "tx_bytes": Key("sent, as the outer UDP payload's length", set=False),
    "rx_bytes": Key("received, likewise", set=False),
    "persistent_keepalive_interval": Key("seconds; 0: off"),
    "replace_allowed_ips": Key("`true`: those that it had go", get=False),
    "allowed_ip": Key(
        "a line for each, in the order in which they were added; a `set` removes one by `-`"
    ),
}


def key(default: Any, meaning: str = "", metric: str = "") -> Any:
    """A key of `state=1`. Without a meaning it shares that of the key before; `metric` is what
    Prometheus is told of the figure, which only keys with a text have."""
    return field(default=default, metadata={"meaning": meaning, "metric": metric})


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a device says of itself. Ages are ms of CLOCK_BOOTTIME; None: it never happened."""

    up: bool = key(False, "`true` or `false`: the interface is up")
    bound: bool = key(False, "`true` or `false`: there is a UDP socket")
    bind_error: int = key(
        0,
        "why there is none though the interface is up: an errno, positive. 98 (EADDRINUSE): "
        "another program has the port. It is tried again, every 5 s in the end",
    )
    unknown_initiations: int = key(
        0,
        "initiations that opened with our key, by a public key that is no peer's",
        metric="Initiations by keys that are no peer's",
    )
    unknown_initiator: str | None = key(
        None, "the last one: public key (as it says: nothing proves it), whence, and when"
    )
    unknown_initiator_endpoint: str | None = key(None)
    unknown_initiator_age_ms: int | None = key(None)
    invalid_mac1: int = key(
        0,
        "handshake messages meant for another public key than ours, or for none",
        metric="Handshake messages for another key",
    )
    invalid_mac1_endpoint: str | None = key(None, "the last one")
    invalid_mac1_age_ms: int | None = key(None)
    no_peer_packets: int = key(
        0,
        "packets from this host that no peer's allowed IPs cover",
        metric="Packets for addresses that are in no allowed IPs",
    )
    no_peer_destination: str | None = key(None, "the last one")
    no_peer_age_ms: int | None = key(None)
    cipher: str | None = key(
        None,
        "`own` or `ring`: which ChaCha20-Poly1305 runs. `own` is for CPUs with AVX-512; "
        "`WIRESNAKE_CIPHER` forces either",
    )
    own_cipher_failed: bool = key(
        False, "`true`: the CPU can run the own one, but it failed its self-test, so ring's runs"
    )
    offloads: str = key(
        "",
        "what the kernel does for many packets at once, names with commas between them, in this "
        "order: `segment` (UDP_SEGMENT), `gro` (UDP_GRO), `tso`, `uso` (super-packets of TCP and "
        "UDP are read from the TUN device), `tcp-merge`, `udp-merge` (they are written to it). "
        "`segment` and `gro` need a socket. Left out: what the kernel lacks, what its release is "
        "known to get wrong, what it has just refused, and what `WIRESNAKE_OFFLOADS` switches off"
        " (`wiresnaked --help`)",
    )
    refused_merges: int = key(
        0,
        "merged frames that the TUN device did not take; each goes as its packets, and none is "
        "merged for the next 10 s",
    )
    refused_merge_error: int | None = key(None, "the last one: errno, positive")
    refused_merge_age_ms: int | None = key(None)


@dataclass(frozen=True, slots=True)
class PeerReport:
    """What a device says of a peer. Ages are ms of CLOCK_BOOTTIME; None: it never happened."""

    public_key: str = key("", "begins a peer")
    endpoint: str | None = key(None, "where its datagrams go; left out while it is not known")
    session: str = key(
        "none",
        "`none`; `live`: packets can leave; `expired`: keys that only receive, or nothing any more",
    )
    session_age_ms: int | None = key(None, "since the handshake that made it, as responder too")
    received_age_ms: int | None = key(None, "the last authenticated message, of any type")
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
        "packets of the peer with an inner source that is not among its allowed IPs; the last "
        "one's source",
        metric="Packets from none of the peer's allowed IPs",
    )
    rejected_source: str | None = key(None)
    rejected_source_age_ms: int | None = key(None)
    send_errors: int = key(
        0,
        "sends that the kernel refused; the last errno, positive. 11 (EAGAIN) is a full socket "
        "buffer, 90 (EMSGSIZE) also a packet that is too long for any datagram, and is not sent "
        "at all",
        metric="The kernel refused to send",
    )
    send_error: int = key(0)
    send_error_age_ms: int | None = key(None)
    last_handshake_time_sec: int = key(0, "as in `get`")
    last_handshake_time_nsec: int = key(0)
    initiations: int = key(
        0,
        "made since the last completed handshake; without an endpoint they go nowhere",
        metric="Sent since the last handshake",
    )
    first_initiation_age_ms: int | None = key(None)
    last_initiation_age_ms: int | None = key(None)
    bad_responses: int = key(
        0,
        "responses to them that did not open: the peer's key or the preshared key differs (or the"
        " response is forged). Since the last completed handshake",
        metric="Responses that did not open, since the last handshake",
    )
    bad_response_age_ms: int | None = key(None)
    unconfirmed_responses: int = key(
        0,
        "responses that we sent since the last completed handshake: no message of the session "
        "came back, so that ours did not arrive or did not open",
        metric="Responses sent since the last handshake",
    )
    unconfirmed_response_age_ms: int | None = key(None)
    stale_initiations: int = key(
        0,
        "authentic initiations whose timestamp is not newer than the last: the peer's clock was "
        "set back, or somebody repeats them",
        metric="Initiations with a timestamp that is not newer",
    )
    stale_initiation_age_ms: int | None = key(None)
    cookie_replies: int = key(
        0,
        "the peer is under load and asked for a cookie",
        metric="The peer was under load",
    )
    cookie_reply_age_ms: int | None = key(None)


def figures(report: type[DeviceReport | PeerReport]) -> dict[str, str]:
    """The keys that are figures for Prometheus, with what it is told of each."""
    return {one.name: said for one in fields(report) if (said := one.metadata["metric"])}
