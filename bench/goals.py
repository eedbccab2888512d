"""The goals, each with the measured figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import FIGURES
from bench.ratios import Spread, ratios, values
from bench.record import Result
from bench.subjects import (
    BORINGTUN,
    EXEC,
    GOTATUN,
    INTERFACE,
    KERNEL,
    LABELS,
    NETSTACK,
    NULL,
    ONETUN,
    USER,
    WIREGUARD_GO,
    WIRESNAKE,
)


@dataclass(frozen=True)
class Goal:
    scenario: str
    figure: str
    limit: float
    """The least value if more is better, else the greatest."""
    to: str | None = WIREGUARD_GO
    """Whose figure ours is divided by in each round; none: ours as it is."""
    base: str | None = None
    """The scenario of the divisor, where it is another."""
    of: str = WIRESNAKE
    """Which of our subjects."""

    @property
    def text(self) -> str:
        figure = FIGURES[self.figure]
        bound = f"{'at least' if figure.more else 'at most'} {self.limit:g}"
        ours = self.scenario if self.of == WIRESNAKE else f"{self.scenario}, {LABELS[self.of]}"
        if self.to is None:
            return f"{ours}: {figure.label} {bound}"
        divisor = " of ".join(
            name for name in (self.base, None if self.to == WIRESNAKE else self.to) if name
        )
        return f"{ours}: {figure.label} {bound} x {divisor}"

    def measured(self, results: Sequence[Result]) -> Spread | None:
        """Of all rounds, unless there are none with what it takes."""
        mine = values(results, self.of, self.scenario, self.figure)
        if self.to is None:
            found = list(mine.values())
        else:
            others = values(results, self.to, self.base or self.scenario, self.figure)
            found = ratios(mine, others)
        return Spread.of(found) if found else None

    def reached(self, measured: Spread) -> bool:
        if FIGURES[self.figure].more:
            return measured.median >= self.limit
        return measured.median <= self.limit


GOALS = (
    Goal("TCP 1 stream", "gbit", 2.5),
    Goal("TCP 4 streams", "gbit", 2.2),
    Goal("TCP bidirectional", "gbit", 2.3),
    Goal("TCP 1 stream", "tunnel_cpu", 0.40),
    Goal("TCP 4 streams", "tunnel_cpu", 0.40),
    Goal("TCP bidirectional", "tunnel_cpu", 0.40),
    Goal("TCP NIC-like cable", "gbit", 2.2),
    Goal("UDP 64 B overload", "delivered", 2.5),
    Goal("UDP 1372 B overload", "delivered", 2.5),
    Goal("UDP 64 B lossless", "lossless", 2.5),
    Goal("UDP 1372 B lossless", "lossless", 2.5),
    Goal("latency idle", "p50", 0.25),
    Goal("TCP 1 stream", "gbit", 2, BORINGTUN),
    Goal("TCP 1 stream", "gbit", 2, GOTATUN),
    Goal("TCP 1 stream", "gbit", 0.65, NULL),
    Goal("handshakes", "handshake_cpu", 0.5),
    Goal("handshakes", "handshakes", 1.2),
    Goal("10k peers", "peer_memory", 3, None),
    Goal("10k peers", "configure", 0.5),
    Goal("10k peers", "dump", 1.0),
    Goal("10k peers", "get", 0.4),
    Goal("10k peers", "waited", 20, None),
    Goal("100k peers", "configure", 10, None),
    Goal("100k peers", "waited", 20, None),
    Goal("TCP 100k peers", "gbit", 0.95, WIRESNAKE, "TCP 1 peer"),
    Goal("show 1 peer", "above", 40, None),
    Goal("show 10k peers", "show", 1000, None),
    Goal("up and down 1k peers", "up", 1, None),
    Goal("up and down 1k peers", "down", 0.5, None),
    Goal("reload 1 of 10k peers", "reload", 1, None),
    Goal("reload 1 of 10k peers", "lost", 0, None),
    Goal("reload 1 of 10k peers", "gap", 50, None),
    *(Goal(name, "gbit", 0.9, INTERFACE, of=EXEC) for name in ("TCP exec", "TCP exec reverse")),
    *(
        Goal(name, "gbit", 1.5, other, of=USER)
        for other in (NETSTACK, ONETUN)
        for name in ("TCP forward", "TCP forward reverse")
    ),
    *(Goal(name, "gbit", 2, NETSTACK, of=KERNEL) for name in ("TCP SOCKS5", "TCP SOCKS5 reverse")),
    Goal("connect SOCKS5", "connect_above", 1, None, of=KERNEL),
    Goal("start exec", "start_above", 150, None, of=EXEC),
    Goal("100 tunnels", "pss", 150, None, of=KERNEL),
    Goal("100 tunnels", "idle_cpu", 0, None, of=KERNEL),
    Goal("connections", "connections", 10_000, None, of=KERNEL),
    Goal("connections", "connections", 1000, None, of=USER),
    Goal("import wiresnake", "above", 60, None),
)
