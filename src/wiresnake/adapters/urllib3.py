"""A pool manager of urllib3 whose connections go through a tunnel.

with wiresnake.open_tunnel("wg0.conf") as tunnel:
    PoolManager(tunnel).request("GET", "http://10.0.0.1/")
"""

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

if TYPE_CHECKING:
    from wiresnake.sockets.blocking import BlockingTunnel


class PoolManager(urllib3.PoolManager):
    """Connects through a tunnel of `open_tunnel`, which resolves names."""

    def __init__(self, tunnel: "BlockingTunnel", num_pools: int = 10, **options: Any) -> None:
        """Takes the options of `urllib3.PoolManager`."""
        super().__init__(num_pools, **options)

        class Connection(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _connect(self, tunnel)

        class TlsConnection(Connection, HTTPSConnection):
            pass

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = TlsConnection

        self.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}


def _connect(connection: HTTPConnection, tunnel: "BlockingTunnel") -> socket.socket:
    """Connects as urllib3 does, with its own errors."""
    given = connection.timeout
    seconds = given if isinstance(given, int | float) else None
    try:
        made = tunnel.create_connection((connection.host, connection.port or 0), seconds)
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, str(error)) from error
    except OSError as error:
        raise NewConnectionError(connection, str(error)) from error
    for option in connection.socket_options or ():
        with contextlib.suppress(OSError):  # Sockets of a user stack may not have it.
            made.setsockopt(*option)
    return made
