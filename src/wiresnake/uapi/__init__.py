"""The userspace API: its text, in both directions."""

DIRECTORY = "/var/run/wireguard"
"""Where the socket of each interface is, as NAME.sock."""
