"""Writes files of `wg`."""

from wiresnake.uapi.snapshot import InterfaceState


def write_config(state: InterfaceState) -> str:
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
