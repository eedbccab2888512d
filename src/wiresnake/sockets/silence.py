"""Why a peer of a tunnel is silent, in the words of `wiresnake why`."""

import time

from wiresnake.daemon import describe
from wiresnake.diagnosis.facts import Facts
from wiresnake.diagnosis.rules import diagnose
from wiresnake.diagnosis.target import Named, find
from wiresnake.text import base64_text, ip_text, write_endpoint
from wiresnake.tunnel.interface import Interface
from wiresnake.uapi.snapshot import InterfaceState, PeerState
from wiresnake.uapi.state import parse_report

_HIDDEN = "(hidden)"
_NAME = "the tunnel"


def why_silent(tunnel: Interface, address: str) -> str | None:
    """Returns why the peer with this address is silent, as far as the tunnel itself knows; None if
    it talks."""
    state = _state(tunnel)
    peer = find(address, [Named(state, {})]).peer
    public = None if peer is None else peer.public_key
    report = parse_report(_report(tunnel, public))
    facts = Facts(
        state=state,
        up=True,
        wall=time.time(),
        peer=peer,
        address=address,
        device=report.device if report else None,
        report=report.peers.get(public) if report and public else None,
    )
    verdict = diagnose(facts)[0]
    if verdict.talking:
        return None
    return " ".join(filter(None, (verdict.says, *verdict.evidence)))


def _report(tunnel: Interface, public: str | None) -> list[str]:
    key = next((key for key in tunnel.device.peers if base64_text(key) == public), b"")
    parts = describe.state(tunnel, key) if key else iter((b"",))
    return [*b"".join(parts).decode("ascii").splitlines(), "errno=0"]


def _state(tunnel: Interface) -> InterfaceState:
    status = tunnel.status
    private = status.private_key and _HIDDEN
    peers = tuple(
        PeerState(
            peer.public_key,
            None,
            write_endpoint(peer.endpoint) if peer.endpoint else None,
            tuple(f"{ip_text(address)}/{length}" for address, length in peer.allowed_ips),
            divmod(peer.latest_handshake, 1_000_000_000),
            peer.received,
            peer.sent,
            peer.persistent_keepalive,
        )
        for peer in tunnel.peers
    )
    return InterfaceState(_NAME, "user", private, None, status.listen_port, status.fwmark, peers)
