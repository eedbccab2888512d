"""`wiresnake metrics`: figures for Prometheus, once or served."""

import argparse
import contextlib
import errno
import gc
import ipaddress
import os
import stat
import sys
from pathlib import Path

from wiresnake.arguments import Parser
from wiresnake.cli.extras import needed_by
from wiresnake.errors import HostError
from wiresnake.linux import files
from wiresnake.text import split_endpoint

_PORT = 9586
"""prometheus_wireguard_exporter's."""

_EPILOG = f"""\
Of every WireGuard, as prometheus_wireguard_exporter names them, by interface, public_key,
allowed_ips and friendly_name (of the interface's file: # friendly_name = X):
  wireguard_sent_bytes_total, wireguard_received_bytes_total
  wireguard_latest_handshake_seconds       since 1970; 0 is never

By interface:
  wiresnake_up                             the interface is up
  wiresnake_peers                          how many it has

Of devices of wiresnaked only, by interface, public_key and friendly_name:
  wiresnake_session_live                   there is a session
  wiresnake_stale_initiations_total        with a timestamp that is not newer
  wiresnake_rejected_sources_total         packets from none of its allowed IPs
  wiresnake_send_errors_total              the kernel refused to send
  wiresnake_cookie_replies_total           the peer was under load
these only while they are not zero:
  wiresnake_initiations                    sent since the last handshake
  wiresnake_bad_responses                  that did not open, since the last handshake
  wiresnake_unconfirmed_responses          sent since the last handshake
  wiresnake_staged_packets                 that wait for a session
and by interface:
  wiresnake_unknown_initiations_total      by keys that are no peer's
  wiresnake_invalid_mac1_total             handshakes for another key
  wiresnake_no_peer_packets_total          for addresses that are in no allowed IPs

No key but the public ones is ever among them.

examples:
  wiresnake metrics --output /var/lib/node_exporter/wireguard.prom
  wiresnake metrics --listen {_PORT}               on localhost, for a Prometheus here
  wiresnake metrics wg0 --listen 10.0.0.1:{_PORT}  who can reach this can read it

Whoever reads the file of --output while it is written finds the old one whole, or the new one; a
failure leaves the old one as it was.

exit codes: 0 for success, at Ctrl-C too; 1 for failure"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Prints figures for Prometheus, to a file if you like, or serves them over"
        " HTTP.",
        epilog=_EPILOG,
    )
    made.add_argument("interfaces", metavar="IFACE", nargs="*", help="all if left out")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="replace this file by them as a whole, for the node exporter's textfile collector",
    )
    where.add_argument(
        "--listen",
        metavar="[ADDRESS:]PORT",
        type=_place,
        help="serve them at http://ADDRESS:PORT/metrics (localhost) until Ctrl-C",
    )
    made.add_config()
    return made


def main(argv: list[str]) -> int:
    arguments = parser(argv[0]).parse_args(argv[1:])
    with contextlib.suppress(KeyboardInterrupt):
        _export(arguments)
    return 0


def _export(arguments: argparse.Namespace) -> None:
    with needed_by("`wiresnake metrics`"):
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server

        from wiresnake.cli.exporter import Exporter

    lasting = arguments.listen is not None
    exporter = Exporter(arguments.interfaces, arguments.config, lasting=lasting)
    registry = CollectorRegistry()
    registry.register(exporter)
    if not lasting:
        gc.disable()  # All that is made is needed to the end: a third of the time for 10,000 peers.
        text = generate_latest(registry)
        if arguments.output:
            _replace(arguments.output, text)
        else:
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        return
    exporter.read()  # Where nothing can be read now, that is an error; later it is no figures.
    address, port = arguments.listen
    shown = f"[{address}]" if ":" in address else address
    try:
        _, thread = start_http_server(port, address, registry)
    except OSError as error:
        what = f"cannot listen at {shown}:{port}: {error.strerror}"
        raise HostError(error.errno, what) from None
    print(f"wiresnake: figures at http://{shown}:{port}/metrics", file=sys.stderr, flush=True)
    thread.join()


def _replace(path: Path, text: bytes) -> None:
    """Makes it the file's content at once or not at all. A file that is there keeps its owner and
    mode; a new one is for all to read."""
    there = os.path.lexists(path)
    try:
        target = Path(os.path.realpath(path))  # Path.resolve() makes no OSError of a loop of links.
        try:
            before = path.stat()
        except FileNotFoundError:
            before = None
        if before and not stat.S_ISREG(before.st_mode):
            raise HostError(errno.EINVAL, f"{path} is no file; name one, such as wireguard.prom")
        if not target.parent.exists():
            what = f"cannot write {path}: there is no folder {target.parent}"
            raise HostError(errno.ENOENT, f"{what}; make it, or name a file elsewhere")
        # The name does not end in .prom: a collector must not take it for a second file.
        files.replace(target, text, mode=0o644, kept=0o7777)
    except HostError:
        raise
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}"
        raise HostError(error.errno, f"{what}; it is as it was" if there else what) from None


def _place(text: str) -> tuple[str, int]:
    """`9586`, `10.0.0.1:9586` or `[::1]:9586`."""
    host, port = split_endpoint(text)
    host = host or "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        if not 0 < int(port) < 1 << 16:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"no address and port: {text!r}") from None
    return host, int(port)
