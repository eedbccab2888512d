"""An adapter of requests whose connections go through a tunnel.

session = requests.Session()
session.mount("http://", Adapter(tunnel))
session.mount("https://", Adapter(tunnel))
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import DEFAULT_POOLBLOCK, HTTPAdapter

from wiresnake.adapters.urllib3 import PoolManager

if TYPE_CHECKING:
    from wiresnake.sockets.blocking import BlockingTunnel


class Adapter(HTTPAdapter):
    """Sends requests of a session through a tunnel of `open_tunnel`, which resolves their names.

    Proxies of the session and of the environment are not used, as nothing may go past the tunnel.
    """

    def __init__(self, tunnel: "BlockingTunnel", **options: Any) -> None:
        """Takes the options of `requests.adapters.HTTPAdapter`."""
        self._tunnel = tunnel
        super().__init__(**options)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = DEFAULT_POOLBLOCK, **options: Any
    ) -> None:
        self.poolmanager = PoolManager(
            self._tunnel, num_pools=connections, maxsize=maxsize, block=block, **options
        )

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        return super().send(request, stream, timeout, verify, cert, None)
