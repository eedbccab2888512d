"""wiresnaked: the daemon, a drop-in for wireguard-go."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import NoReturn

from wiresnake.errors import HostError, WiresnakeError
from wiresnake.protocol.constants import Timing

_ENVIRONMENT = """\
environment:
  LOG_LEVEL=verbose|debug|error|silent   what goes to standard error (default: error)
  WG_PROCESS_FOREGROUND=1                as --foreground
  WG_TUN_FD=N, WG_UAPI_FD=N              an open TUN device, a listening socket, to take over
"""
_PR_SET_DUMPABLE = 4


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 for success, 1 for any failure, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="wiresnaked",
        description="Run the WireGuard interface IFACE in the background.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="do not fork")
    parser.add_argument("--config", metavar="FILE", help="apply this wg configuration file first")
    parser.add_argument("--version", action="version", version=f"wiresnaked {version('wiresnake')}")
    parser.add_argument("interface", metavar="IFACE")
    arguments = parser.parse_args(argv)
    # The descriptor numbers are read here: a mistake in them is the user's, too.
    try:
        tun_fd = _descriptor(os.environ, "WG_TUN_FD")
        uapi_fd = _descriptor(os.environ, "WG_UAPI_FD")
    except ValueError as error:
        return _fail(str(error))

    def serve(ready: Callable[[], None]) -> None:
        run(arguments.interface, arguments.config, tun_fd=tun_fd, uapi_fd=uapi_fd, ready=ready)

    if arguments.foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1":
        error_text = _guard(serve, lambda: None)
        return _fail(error_text) if error_text else 0
    return _daemonize(serve, keep=[fd for fd in (tun_fd, uapi_fd) if fd is not None])


def run(
    interface: str,
    config: str | None = None,
    *,
    tun_fd: int | None = None,
    uapi_fd: int | None = None,
    timing: Timing = Timing(),
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs the interface until SIGINT, SIGTERM, or its deletion or that of its socket file.

    Calls `ready` once the socket answers. HostError or ConfigError if it cannot start.
    """
    import asyncio
    import gc
    import signal

    from wiresnake.runtime import tun, uapi_server
    from wiresnake.runtime.tunnel import Tunnel

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_failure)
        tunnel = Tunnel(device, timing)
        try:
            if change is not None:
                tunnel.apply(change)
            if uapi_fd is None:
                listener = uapi_server.listen(device.name)
            else:
                listener = uapi_server.adopt(uapi_fd)
            server = uapi_server.UapiServer(tunnel, listener)
            try:
                stopped = loop.create_future()
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, _settle, stopped)
                loop.call_soon(ready)
                gc.freeze()
                await asyncio.wait(
                    (stopped, tunnel.closed, server.deleted), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                server.close()
        finally:
            tunnel.close()

    _start_logging(interface)
    _protect_memory()
    change = _read_config(config) if config is not None else None
    device = tun.create(interface) if tun_fd is None else tun.adopt(tun_fd)
    asyncio.run(serve())
