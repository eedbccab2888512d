"""WireGuard as a library: an interface, its peers and their events.

    config = wiresnake.Config.from_file("wg0.conf")
    async with wiresnake.Tunnel(config, interface="wg0") as tunnel:
        async for event in tunnel.events():
            print(event)

Each name is imported when it is first used, so that the command line need not wait for all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiresnake._native import Endpoint, PresharedKey, PrivateKey
    from wiresnake.conffile.config import Config, Peer
    from wiresnake.errors import ConfigError, HostError, TimedOut, WiresnakeError
    from wiresnake.events import (
        Connected,
        Disconnected,
        Event,
        EventsLost,
        HandshakeCompleted,
        PeerEvent,
        Rekeyed,
        Roamed,
        SourceRejected,
        Unreachable,
    )
    from wiresnake.model import (
        CLEAR,
        DeviceChange,
        DeviceStatus,
        Dns,
        PeerChange,
        PeerStatus,
        Prefix,
    )
    from wiresnake.sockets.blocking import BlockingTunnel, open_tunnel
    from wiresnake.sockets.server import Server
    from wiresnake.sockets.tunnel import Tunnel

__all__ = [
    "CLEAR",
    "BlockingTunnel",
    "Config",
    "ConfigError",
    "Connected",
    "DeviceChange",
    "DeviceStatus",
    "Disconnected",
    "Dns",
    "Endpoint",
    "Event",
    "EventsLost",
    "HandshakeCompleted",
    "HostError",
    "Peer",
    "PeerChange",
    "PeerEvent",
    "PeerStatus",
    "Prefix",
    "PresharedKey",
    "PrivateKey",
    "Rekeyed",
    "Roamed",
    "Server",
    "SourceRejected",
    "TimedOut",
    "Tunnel",
    "Unreachable",
    "WiresnakeError",
    "open_tunnel",
]

_HOMES = {
    "_native": ("Endpoint", "PresharedKey", "PrivateKey"),
    "conffile.config": ("Config", "Peer"),
    "errors": ("ConfigError", "HostError", "TimedOut", "WiresnakeError"),
    "model": ("CLEAR", "DeviceChange", "DeviceStatus", "Dns", "PeerChange", "PeerStatus", "Prefix"),
    "sockets.blocking": ("BlockingTunnel", "open_tunnel"),
    "sockets.server": ("Server",),
    "sockets.tunnel": ("Tunnel",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOME.get(name, 'events')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
