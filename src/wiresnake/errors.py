"""What the user can get wrong. A hostile or broken peer never raises: its packets are nothing."""


class WiresnakeError(Exception):
    """Base of all errors of this package: says what, where, and what to do."""


class ConfigError(WiresnakeError, ValueError):
    """A configuration, a key or a UAPI line that cannot be meant."""


class HostError(WiresnakeError, OSError):
    """The operating system refused what a tunnel needs: a TUN device, a port, a socket file."""
