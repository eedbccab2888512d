"""The metrics that `wiresnake metrics` exports to Prometheus."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wiresnake.devices.interface import interface_names, read_state
from wiresnake.devices.reports import read_report
from wiresnake.errors import HostError
from wiresnake.lifecycle import labels_file
from wiresnake.linux.link import is_up
from wiresnake.uapi.snapshot import InterfaceState
from wiresnake.uapi.state import Report
from wiresnake.uapi.vocabulary import DeviceReport, PeerReport, figures

_PASSING = {"initiations", "bad_responses", "unconfirmed_responses", "staged"}
"""Metrics that are left out while zero, which they nearly always are: a third of all series."""


class _Seen(NamedTuple):
    """The state of one interface now."""

    state: InterfaceState
    report: Report | None
    names: dict[str, str]


class Exporter:
    """A collector for prometheus_client: each `collect` reads the interfaces again."""

    def __init__(self, interfaces: list[str], config: Path | None, *, lasting: bool) -> None:
        self._chosen = interfaces
        self._config = config
        self._lasting = lasting
        self._files: dict[str, labels_file.LabelsFile] = {}

    def read(self) -> list[_Seen]:
        """Reads all interfaces; HostError if there are some and none can be read."""
        seen: list[_Seen] = []
        problem: HostError | None = None
        for name in self._chosen or interface_names():
            try:
                state, report = read_state(name), read_report(name)
            except HostError as error:
                problem = error
                continue
            if name not in self._files:
                self._files[name] = labels_file.of_interface(name, self._config)
            notes = self._files[name].all()
            seen.append(_Seen(state, report, {key: one.name for key, one in notes.items()}))
        if problem and not seen:
            raise problem
        return seen

    def collect(self) -> Iterator[Metric]:
        """Collects from the interfaces that exist; without `lasting` a missing one is a
        HostError."""
        try:
            seen = self.read()
        except HostError:
            if not self._lasting:
                raise
            seen = []
        yield from _of_every_wireguard(seen)
        yield from _of_ours(seen)


def _of_every_wireguard(seen: list[_Seen]) -> Iterator[Metric]:
    labels = ("interface", "public_key", "allowed_ips", "friendly_name")
    sent = CounterMetricFamily("wireguard_sent_bytes", "Bytes sent to the peer", labels=labels)
    received = CounterMetricFamily(
        "wireguard_received_bytes", "Bytes received from the peer", labels=labels
    )
    handshake = GaugeMetricFamily(
        "wireguard_latest_handshake_seconds",
        "UNIX timestamp seconds of the last handshake",
        labels=labels,
    )
    up = GaugeMetricFamily("wiresnake_up", "The interface is up", labels=labels[:1])
    peers = GaugeMetricFamily("wiresnake_peers", "Peers of the interface", labels=labels[:1])
    for state, _, named in seen:
        up.add_metric((state.name,), is_up(state.name))
        peers.add_metric((state.name,), len(state.peers))
        for peer in state.peers:
            key = peer.public_key
            who = (state.name, key, ",".join(peer.allowed_ips), named.get(key, ""))
            sent.add_metric(who, peer.sent)
            received.add_metric(who, peer.received)
            handshake.add_metric(who, peer.latest_handshake[0])
    yield from (sent, received, handshake, up, peers)


def _of_ours(seen: list[_Seen]) -> Iterator[Metric]:
    """Yields the metrics of devices with reports: each key that has a text for Prometheus."""
    reports = [(one.state.name, one.report, one.names) for one in seen if one.report]
    for name, said in figures(DeviceReport).items():
        metric = CounterMetricFamily(f"wiresnake_{name}", said, labels=("interface",))
        for interface, report, _ in reports:
            metric.add_metric((interface,), getattr(report.device, name))
        yield metric
    labels = ("interface", "public_key", "friendly_name")
    live = GaugeMetricFamily("wiresnake_session_live", "There is a session", labels=labels)
    for interface, report, named in reports:
        for public_key, peer in report.peers.items():
            who = (interface, public_key, named.get(public_key, ""))
            live.add_metric(who, peer.session == "live")
    yield live
    for name, said in figures(PeerReport).items():
        kind = GaugeMetricFamily if name in _PASSING else CounterMetricFamily
        shown = "staged_packets" if name == "staged" else name
        family = kind(f"wiresnake_{shown}", said, labels=labels)
        for interface, report, named in reports:
            for public_key, peer in report.peers.items():
                number = getattr(peer, name)
                if number or name not in _PASSING:
                    family.add_metric((interface, public_key, named.get(public_key, "")), number)
        yield family
