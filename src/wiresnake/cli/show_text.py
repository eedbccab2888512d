"""The output formats of `show`: for people, by field for scripts, and JSON."""

from collections.abc import Callable, Sequence

from wiresnake.diagnosis.units import size
from wiresnake.uapi.snapshot import InterfaceState, PeerState

_BOLD, _RED, _GREEN, _YELLOW, _CYAN = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_RESET = "\x1b[0m"

_DEVICE: dict[str, Callable[[InterfaceState], str]] = {
    "public-key": lambda state: state.public_key or "(none)",
    "private-key": lambda state: state.private_key or "(none)",
    "listen-port": lambda state: str(state.listen_port),
    "fwmark": lambda state: f"{state.fwmark:#x}" if state.fwmark else "off",
}
_PEER: dict[str, Callable[[PeerState], str]] = {
    "peers": lambda peer: peer.public_key,
    "preshared-keys": lambda peer: f"{peer.public_key}\t{peer.preshared_key or '(none)'}",
    "endpoints": lambda peer: f"{peer.public_key}\t{peer.endpoint or '(none)'}",
    "allowed-ips": lambda peer: f"{peer.public_key}\t{' '.join(peer.allowed_ips) or '(none)'}",
    "latest-handshakes": lambda peer: f"{peer.public_key}\t{peer.latest_handshake[0]}",
    "transfer": lambda peer: f"{peer.public_key}\t{peer.received}\t{peer.sent}",
    "persistent-keepalive": lambda peer: f"{peer.public_key}\t{peer.persistent_keepalive or 'off'}",
}
FIELDS = (*_DEVICE, *_PEER, "dump")


def script(state: InterfaceState, field: str, with_name: bool) -> str:
    """Returns one of FIELDS, byte for byte as `wg show IFACE FIELD`; with the name before each
    line."""
    if field == "dump":
        lines = ["\t".join(of(state) for of in _dump_device), *map(_dump_peer, state.peers)]
    elif field in _DEVICE:
        lines = [_DEVICE[field](state)]
    else:
        lines = [_PEER[field](peer) for peer in state.peers]
    begin = f"{state.name}\t" if with_name else ""
    return "".join([f"{begin}{line}\n" for line in lines])


_dump_device = [_DEVICE[name] for name in ("private-key", "public-key", "listen-port", "fwmark")]


def _dump_peer(peer: PeerState) -> str:
    return (
        f"{peer.public_key}\t{peer.preshared_key or '(none)'}\t{peer.endpoint or '(none)'}\t"
        f"{','.join(peer.allowed_ips) or '(none)'}\t{peer.latest_handshake[0]}\t{peer.received}\t"
        f"{peer.sent}\t{peer.persistent_keepalive or 'off'}"
    )


def pretty(state: InterfaceState, now: int, *, color: bool, secrets: bool) -> str:
    """Returns the output of `wg show IFACE`: the peer with the latest handshake comes first."""
    lines = [f"{_RESET}{_GREEN}{_BOLD}interface{_RESET}: {_GREEN}{state.name}{_RESET}"]
    if state.public_key:
        lines.append(_line("public key", state.public_key))
    if private := _shown(state.private_key, secrets):
        lines.append(_line("private key", private))
    if state.listen_port:
        lines.append(_line("listening port", str(state.listen_port)))
    if state.fwmark:
        lines.append(_line("fwmark", f"{state.fwmark:#x}"))
    latest_first = sorted(state.peers, key=lambda peer: peer.latest_handshake, reverse=True)
    for peer in latest_first:
        lines += ["", f"{_YELLOW}{_BOLD}peer{_RESET}: {_YELLOW}{peer.public_key}{_RESET}"]
        if preshared := _shown(peer.preshared_key, secrets):
            lines.append(_line("preshared key", preshared))
        if peer.endpoint:
            lines.append(_line("endpoint", peer.endpoint))
        allowed = ", ".join(peer.allowed_ips).replace("/", f"{_CYAN}/{_RESET}")
        lines.append(_line("allowed ips", allowed or "(none)"))
        if peer.latest_handshake[0]:
            lines.append(_line("latest handshake", _ago(now - peer.latest_handshake[0])))
        if peer.received or peer.sent:
            transfer = f"{_bytes(peer.received)} received, {_bytes(peer.sent)} sent"
            lines.append(_line("transfer", transfer))
        if peer.persistent_keepalive:
            every = f"every {_duration(peer.persistent_keepalive)}"
            lines.append(_line("persistent keepalive", every))
    text = "\n".join(lines) + "\n"
    if not color:
        for code in (_BOLD, _RED, _GREEN, _YELLOW, _CYAN, _RESET):
            text = text.replace(code, "")
    return text


def _line(name: str, value: str) -> str:
    return f"  {_BOLD}{name}{_RESET}: {value}"


def _ago(seconds: int) -> str:
    if seconds < 0:
        what = "System clock wound backward; connection problems may ensue."
        return f"({_RED}{what}{_RESET})"
    return f"{_duration(seconds)} ago" if seconds else "Now"


def _duration(seconds: int) -> str:
    parts = []
    for name, length in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {_CYAN}{name}{'s' if count > 1 else ''}{_RESET}")
    return ", ".join(parts)


_UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def _bytes(count: int) -> str:
    value, unit = size(count).split()
    return f"{value} {_CYAN}{unit}{_RESET}"


def as_json(states: Sequence[InterfaceState], field: str, *, secrets: bool) -> str:
    """Returns an object by interface name, in the format of wireguard-tools' contrib/json/wg-json.
    Absent or zero values are left out. With a field it contains only that.
    """
    import json

    secrets = secrets or bool(field)
    return json.dumps({one.name: _object(one, field, secrets) for one in states}, indent=2)


def _object(state: InterfaceState, field: str, secrets: bool) -> dict[str, object]:
    values = [
        ("private-key", "privateKey", _shown(state.private_key, secrets)),
        ("public-key", "publicKey", state.public_key),
        ("listen-port", "listenPort", state.listen_port),
        ("fwmark", "fwmark", state.fwmark),
    ]
    found = _chosen(values, field)
    if field not in _DEVICE:
        found["peers"] = {
            peer.public_key: _chosen(_values(peer, secrets), field) for peer in state.peers
        }
    return found


def _values(peer: PeerState, secrets: bool) -> list[tuple[str, str, object]]:
    return [
        ("preshared-keys", "presharedKey", _shown(peer.preshared_key, secrets)),
        ("endpoints", "endpoint", peer.endpoint),
        ("latest-handshakes", "latestHandshake", peer.latest_handshake[0]),
        ("transfer", "transferRx", peer.received),
        ("transfer", "transferTx", peer.sent),
        ("persistent-keepalive", "persistentKeepalive", peer.persistent_keepalive),
        ("allowed-ips", "allowedIps", peer.allowed_ips),
    ]


def _chosen(values: Sequence[tuple[str, str, object]], field: str) -> dict[str, object]:
    return {
        key: value
        for name, key, value in values
        if field in ("", "dump", name) and (value or key == "allowedIps")
    }


def _shown(key: str | None, secrets: bool) -> str | None:
    return key if secrets or key is None else "(hidden)"
