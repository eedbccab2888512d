"""`wiresnake metrics`: exports metrics for Prometheus, once or over HTTP."""

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
For every WireGuard, with the names of prometheus_wireguard_exporter, by interface, public_key,
allowed_ips and friendly_name (from the interface's file: # friendly_name = X):
  wireguard_sent_bytes_total, wireguard_received_bytes_total
  wireguard_latest_handshake_seconds       since 1970; 0: never

Per interface:
  wiresnake_up                             the interface is up
  wiresnake_peers                          number of its peers

Only for devices of wiresnaked, by interface, public_key and friendly_name:
  wiresnake_session_live                   there is a session
  wiresnake_stale_initiations_total        initiations with an old timestamp
  wiresnake_rejected_sources_total         packets from outside its allowed IPs
  wiresnake_send_errors_total              the kernel refused to send
  wiresnake_cookie_replies_total           the peer was under load
and while they are not zero:
  wiresnake_initiations                    sent since the last handshake
  wiresnake_bad_responses                  did not decrypt, since the last handshake
  wiresnake_unconfirmed_responses          sent since the last handshake
  wiresnake_staged_packets                 waiting for a session
and per interface:
  wiresnake_unknown_initiations_total      by unknown keys
  wiresnake_invalid_mac1_total             handshakes for another key
  wiresnake_no_peer_packets_total          packets for addresses in no allowed IPs

Only public keys are ever exported.

examples:
  wiresnake metrics --output /var/lib/node_exporter/wireguard.prom
  wiresnake metrics --listen {_PORT}               on localhost, for a local Prometheus
  wiresnake metrics wg0 --listen 10.0.0.1:{_PORT}  anyone who reaches it can read it

A reader of the --output file sees either the old file or the new one, never a part. A failure
leaves the old one unchanged.

exit codes: 0 success or Ctrl-C; 1 failure"""


def parser(command: str) -> Parser:
    made = Parser(
        prog=f"wiresnake {command}",
        description="Prints metrics for Prometheus, writes them to a file, or serves them over"
        " HTTP.",
        epilog=_EPILOG,
    )
    made.add_argument("interfaces", metavar="IFACE", nargs="*", help="default: all")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="replace this file at once, for the node exporter's textfile collector",
    )
    where.add_argument(
        "--listen",
        metavar="[ADDRESS:]PORT",
        type=_place,
        help="serve them at http://ADDRESS:PORT/metrics (default: localhost) until Ctrl-C",
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
        # Nothing made here can be freed before the end; saves a third of the time for 10,000 peers.
        gc.disable()
        text = generate_latest(registry)
        if arguments.output:
            _replace(arguments.output, text)
        else:
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        return
    exporter.read()  # Unreadable interfaces are an error now; later they are only missing metrics.
    address, port = arguments.listen
    shown = f"[{address}]" if ":" in address else address
    try:
        _, thread = start_http_server(port, address, registry)
    except OSError as error:
        what = f"cannot listen at {shown}:{port}: {error.strerror}"
        raise HostError(error.errno, what) from None
    print(f"wiresnake: metrics at http://{shown}:{port}/metrics", file=sys.stderr, flush=True)
    thread.join()


def _replace(path: Path, text: bytes) -> None:
    """Replaces the file's content at once or not at all. An existing file keeps its owner and mode;
    everybody can read a new one."""
    there = os.path.lexists(path)
    try:
        # Path.resolve() raises no OSError for a loop of links.
        target = Path(os.path.realpath(path))
        try:
            before = path.stat()
        except FileNotFoundError:
            before = None
        if before and not stat.S_ISREG(before.st_mode):
            raise HostError(
                errno.EINVAL, f"{path} is not a regular file; name one, such as wireguard.prom"
            )
        if not target.parent.exists():
            what = f"cannot write {path}: there is no folder {target.parent}"
            raise HostError(errno.ENOENT, f"{what}; make it, or choose another folder")
        # The name does not end in .prom: a collector must not take it for a second file.
        files.replace(target, text, mode=0o644, kept=0o7777)
    except HostError:
        raise
    except OSError as error:
        what = f"cannot write {path}: {error.strerror}"
        raise HostError(error.errno, f"{what}; it is unchanged" if there else what) from None


def _place(text: str) -> tuple[str, int]:
    """Reads `9586`, `10.0.0.1:9586` or `[::1]:9586`."""
    host, port = split_endpoint(text)
    host = host or "127.0.0.1"
    try:
        ipaddress.ip_address(host)
        if not 0 < int(port) < 1 << 16:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address and port: {text!r}") from None
    return host, int(port)
