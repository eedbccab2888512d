"""Values of a running interface as text, for both kinds of interface."""

import binascii
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiresnake._native import Endpoint
    from wiresnake.control.state import InterfaceState


def base64_text(key: bytes) -> str:
    return binascii.b2a_base64(key, newline=False).decode()


def ip_text(address: bytes) -> str:
    """Of 4 or 16 bytes."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def zone_text(scope: int) -> str:
    """The name of a scope's interface, as getnameinfo gives it."""
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return str(scope)


def write_endpoint(endpoint: "Endpoint") -> str:
    host = endpoint.host
    if ":" not in host:
        return f"{host}:{endpoint.port}"
    zone = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"[{host}{zone}]:{endpoint.port}"


def read_endpoint(text: str) -> "Endpoint":
    """Of what `write_endpoint` gives, or a state; ValueError or OSError otherwise."""
    from wiresnake._native import Endpoint

    host, _, port = text.rpartition(":")
    host, _, zone = host.removeprefix("[").removesuffix("]").partition("%")
    scope = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone) if zone else 0
    return Endpoint(host, int(port), scope)


def write_config(state: "InterfaceState") -> str:
    """The file that makes another interface the same: what `wg showconf` prints, secrets too."""
    lines = ["[Interface]"]
    if state.listen_port:
        lines.append(f"ListenPort = {state.listen_port}")
    if state.fwmark:
        lines.append(f"FwMark = {state.fwmark:#x}")
    if state.private_key:
        lines.append(f"PrivateKey = {state.private_key}")
    lines.append("")
    for peer in state.peers:
        lines += ["[Peer]", f"PublicKey = {peer.public_key}"]
        if peer.preshared_key:
            lines.append(f"PresharedKey = {peer.preshared_key}")
        if peer.allowed_ips:
            lines.append(f"AllowedIPs = {', '.join(peer.allowed_ips)}")
        if peer.endpoint:
            lines.append(f"Endpoint = {peer.endpoint}")
        if peer.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
        if peer is not state.peers[-1]:
            lines.append("")
    return "\n".join(lines) + "\n"
