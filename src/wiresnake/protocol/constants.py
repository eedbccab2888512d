"""The constants of the whitepaper (§5, §6) and of the kernel's messages.h."""

from dataclasses import dataclass
from typing import Final

CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

SECOND: Final = 1_000_000_000
SESSION_SECONDS: Final = 180
"""REJECT_AFTER_TIME: a session of this age carries nothing more."""
SILENCE_SECONDS: Final = 15
"""KEEPALIVE_TIMEOUT plus REKEY_TIMEOUT: a live peer answers within this time."""
MAX_TIMER_HANDSHAKES: Final = 18
"""Retries beyond the first two initiations: 20 in all (kernel: 90 s / 5 s)."""
INITIATIONS_PER_SECOND: Final = 50
TIMESTAMP_GRANULARITY: Final = 1 << 24
"""The nanoseconds of a timestamp are rounded down to a multiple of this (kernel)."""
COOKIE_LIFETIME: Final = 115 * SECOND
"""How long a received cookie is used: 120 s minus 5 s of latency."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The timer constants in ns (§6.1). Only tests use other values."""

    rekey_after_time: int = 120 * SECOND
    reject_after_time: int = SESSION_SECONDS * SECOND
    rekey_timeout: int = 5 * SECOND
    keepalive_timeout: int = 10 * SECOND
    max_jitter: int = SECOND // 3

    @property
    def lifetimes(self) -> tuple[int, int, int]:
        """Returns the `lifetimes` of `SymmetricState.split`."""
        on_receive = self.reject_after_time - self.keepalive_timeout - self.rekey_timeout
        return self.rekey_after_time, on_receive, self.reject_after_time
