"""The text of the userspace API (UAPI), in both directions."""

DIRECTORY = "/var/run/wireguard"
"""The directory of the sockets, each named after its interface as NAME.sock."""
