"""wiresnaked: the daemon, a drop-in for wireguard-go."""

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from wiresnake._native import PanicException, cipher, protect_memory
from wiresnake.arguments import Parser
from wiresnake.daemon import memory, uapi_server
from wiresnake.errors import DEFECTS, ConfigError, WiresnakeError
from wiresnake.linux import files, offloads, streams, tun, udp
from wiresnake.model import DeviceChange
from wiresnake.text import unsigned, wipe
from wiresnake.tunnel.interface import Interface, panics

_EPILOG = """\
exit codes: 0 the interface is ready, or in the foreground: it was ended; 1 failure

environment:
  LOG_LEVEL=verbose|debug|error|silent   what is logged to standard error (default: error); in the
                                         background without it, errors go to the system's log
  WG_PROCESS_FOREGROUND=1                same as --foreground
  WG_TUN_FD=N, WG_UAPI_FD=N              take over an open TUN device, a listening socket
  WIRESNAKE_CIPHER=own|ring              the code that encrypts (default: own if the CPU has
                                         AVX-512 and it passes a self-test, else ring)
  WIRESNAKE_OFFLOADS=-NAME,+NAME...      switch an offload of the kernel off or on: segment, gro,
                                         tso, uso, tcp-merge, udp-merge; 'none' first switches off
                                         all others (default: all except those that are known to be
                                         broken in this kernel release)
"""

_INTERFACE = "name of a new interface, or of a TUN device that is not in use (ip tuntap add)"


def parser() -> Parser:
    made = Parser(
        prog="wiresnaked",
        description="Run the WireGuard interface IFACE in the background.",
        epilog=_EPILOG,
    )
    made.add_argument("-f", "--foreground", action="store_true", help="do not fork")
    made.add_argument("--config", metavar="FILE", help="apply this wg configuration file first")
    made.add_argument("--version", action=_Version, nargs=0, help="print the version")
    made.add_argument("interface", metavar="IFACE", help=_INTERFACE)
    return made


def main(argv: list[str] | None = None) -> int:
    """Runs the command line. Returns 0 for success and 1 for any failure."""
    streams.prepare()
    arguments = parser().parse_args(argv)
    try:
        tun_fd = _descriptor(os.environ, "WG_TUN_FD")
        uapi_fd = _descriptor(os.environ, "WG_UAPI_FD")
    except ValueError as error:
        return _fail(str(error))

    config = arguments.config and os.path.abspath(arguments.config)  # The daemon moves to /.

    def serve(ready: Callable[[], None]) -> None:
        run(arguments.interface, config, tun_fd=tun_fd, uapi_fd=uapi_fd, ready=ready)

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
    ready: Callable[[], None] = lambda: None,
    **parts: Any,
) -> None:
    """Runs the interface until SIGINT or SIGTERM, or until it or its socket file is deleted.

    Calls `ready` once the socket answers. `parts` are those of `Interface` that tests replace.
    HostError or ConfigError if it cannot start or continue.
    """

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_failure)
        async with Interface(interface=device, housekeep=memory.freeze, **parts) as tunnel:
            while changes:
                # No other reference: the keys in it can be wiped.
                await tunnel.apply(changes.pop())
            if uapi_fd is None:
                listener = uapi_server.listen(device.name)
            else:
                listener = uapi_server.adopt(uapi_fd)
            path = uapi_server.socket_path(device.name)
            server = uapi_server.UapiServer(tunnel, listener, path)
            try:
                stopped = loop.create_future()
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, _settle, stopped)
                loop.call_soon(ready)
                memory.freeze()
                await asyncio.wait(
                    (stopped, tunnel.closed, server.deleted), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                server.close()

    _start_logging(interface)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    protect_memory()
    allowed = _machine()
    changes = [_read_config(config)] if config is not None else []
    device = tun.create(interface, allowed) if tun_fd is None else tun.adopt(tun_fd, allowed)
    asyncio.run(serve())


def _machine() -> frozenset[offloads.Offload]:
    """Returns the offloads that may be used here, and logs them and the cipher.

    ConfigError if the environment names an unknown offload or an unusable cipher.
    """
    allowed = offloads.choose(os.uname().release, os.environ.get("WIRESNAKE_OFFLOADS", ""))
    try:
        name, own_fails = cipher()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    log = logging.getLogger(__name__)
    log.info(
        "cipher: %s; offloads that may be used: %s", name, ", ".join(sorted(allowed)) or "none"
    )
    if own_fails:
        log.error(
            "the own cipher fails its self-test on this CPU, so ring's runs instead; this is a bug "
            "of the CPU, of the hypervisor or of wiresnake: please report it"
        )
    return allowed


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # 30 ms that only this needs.

        print(f"wiresnaked {version('wiresnake')}")
        parser.exit()


def _daemonize(serve: Callable[[Callable[[], None]], None], keep: list[int]) -> int:
    """Forks, before any thread or loop exists, and waits until the child's socket answers."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(serve, writer, keep)
    os.close(writer)
    report = b""
    try:
        while chunk := os.read(reader, 4096):
            report += chunk
    except KeyboardInterrupt:
        os.kill(child, signal.SIGTERM)
        return _fail("interrupted")
    if report == _READY:
        return 0
    os.waitpid(child, 0)
    return _fail(report.decode(errors="replace") or "the daemon ended before it was ready")


_READY = b"\0"


def _run_child(
    serve: Callable[[Callable[[], None]], None], writer: int, keep: list[int]
) -> NoReturn:
    def ready() -> None:
        nonlocal writer
        os.write(writer, _READY)
        os.close(writer)
        writer = -1

    code = 1
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1) if "LOG_LEVEL" in os.environ else (0, 1, 2):
            os.dup2(null, standard)
        # A lock or a pipe of the parent process must not stay open as long as the daemon runs.
        kept = sorted({2, writer, *keep})
        for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(low + 1, high)
        report = _guard(serve, ready)
        code = 1 if report else 0
        if report and writer >= 0:
            os.write(writer, report.encode(errors="backslashreplace"))
        elif report:
            logging.getLogger(__name__).error("%s", report)
    finally:
        os._exit(code)


def _guard(serve: Callable[[Callable[[], None]], None], ready: Callable[[], None]) -> str:
    """Runs the daemon. Returns the error that ended it, in one line, or an empty string."""
    try:
        serve(ready)
    except WiresnakeError as error:
        return error.message
    except KeyboardInterrupt:
        return "interrupted"
    except DEFECTS as error:
        logging.getLogger(__name__).debug("the daemon failed", exc_info=True)
        return f"internal error, please report it: {type(error).__name__}: {error}"
    return ""


def _read_config(path: str) -> DeviceChange:
    """Reads a `wg setconf` file without leaving a copy of its secrets in memory."""
    from wiresnake.conffile import wg
    from wiresnake.conffile.config import read

    text = read(path)
    try:
        return wg.parse(text, udp.resolve, name=path)
    finally:
        wipe(text)


def _descriptor(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    try:
        fd = unsigned(text, 31)
        os.fstat(fd)
        if fd <= 2:  # The daemon opens /dev/null there.
            fd = files.duplicate(fd, 3)
    except (ValueError, OSError):
        raise ValueError(f"{name}={text} is not the number of an open descriptor") from None
    return fd


_SYSTEM_LOG, _KERNEL_LOG = "/dev/log", "/dev/kmsg"
_DAEMON = 3 << 3
"""The syslog facility."""


class _SystemLog(logging.Handler):
    """Writes to syslog or the journal, or without either to the kernel's log.

    It never waits: a line that nobody reads is lost.
    """

    def emit(self, record: logging.LogRecord) -> None:
        priority = _DAEMON + (3 if record.levelno >= logging.ERROR else 6)
        line = f"<{priority}>wiresnaked[{os.getpid()}]: {self.format(record)}"
        data = line.encode(errors="backslashreplace")
        with contextlib.suppress(OSError):
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.connect(_SYSTEM_LOG)
                one.send(data)
                return
        with contextlib.suppress(OSError):
            kernel = os.open(_KERNEL_LOG, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(kernel, data)
            finally:
                os.close(kernel)


def _start_logging(interface: str) -> None:
    """Logs to stderr, or to the system's log if stderr is the null device."""
    levels = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "silent": logging.CRITICAL + 1}
    name, handlers, when = interface.replace("%", "%%"), None, " %(asctime)s"
    if os.path.sameopenfile(2, null := os.open(os.devnull, os.O_WRONLY)):
        handlers, when = [_SystemLog()], ""
    os.close(null)
    logging.basicConfig(
        level=levels.get(os.environ.get("LOG_LEVEL", ""), logging.ERROR),
        format=f"%(levelname)s: ({name}){when} %(message)s",
        handlers=handlers,
    )


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs a defect in a callback in one line; the tunnel stays up.

    If a defect ended the process, anyone who can trigger it could end everybody's tunnel.
    """
    error = context.get("exception")
    if isinstance(error, PanicException):
        # The place of the panic is logged once, instead of the call that met it.
        for panic in panics():
            _log_failure(loop, {"message": panic})
        return
    detail = f": {type(error).__name__}: {error}" if error else ""
    log = logging.getLogger(__name__)
    verbose = error if log.isEnabledFor(logging.DEBUG) else None
    log.error("%s%s", context["message"], detail, exc_info=verbose)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(what: str) -> int:
    print(f"wiresnaked: {what}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
