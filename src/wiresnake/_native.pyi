"""The seam: all that crosses between Python and Rust.

Times are integer nanoseconds of CLOCK_BOOTTIME unless said otherwise. Public keys are 32 bytes.
A secret never crosses: Python holds handles, which compare in constant time, have a redacted
repr, no hash, and refuse to be pickled. A handle that crossed a fork raises RuntimeError on use.
"""

from typing import Literal, Self, final

from _typeshed import ReadableBuffer, WriteableBuffer

from wiresnake.model import Prefix

@final
class PrivateKey:
    """A clamped Curve25519 private key."""

    @staticmethod
    def generate() -> PrivateKey: ...
    @staticmethod
    def from_hex(text: ReadableBuffer) -> PrivateKey | None:
        """Parses 64 hex digits in place; None for the all-zero key. ValueError otherwise."""
    @staticmethod
    def from_base64(text: ReadableBuffer) -> PrivateKey | None:
        """Parses 44 characters of strict base64, in constant time; None for all zeros."""
    @property
    def public(self) -> bytes: ...
    def exchange(self, public: bytes) -> SharedSecret | None:
        """X25519; None when the result is all zero (a low-order point), which must abort."""
    def write_hex(self, buffer: WriteableBuffer, offset: int) -> int:
        """Writes 64 digits at `offset`; returns the offset behind them."""
    def write_base64(self, buffer: WriteableBuffer, offset: int) -> int: ...

@final
class PresharedKey:
    """A 32-byte symmetric key mixed into the handshake's second message."""

    @staticmethod
    def generate() -> PresharedKey: ...
    @staticmethod
    def from_hex(text: ReadableBuffer) -> PresharedKey | None: ...
    @staticmethod
    def from_base64(text: ReadableBuffer) -> PresharedKey | None: ...
    def write_hex(self, buffer: WriteableBuffer, offset: int) -> int: ...
    def write_base64(self, buffer: WriteableBuffer, offset: int) -> int: ...

@final
class SharedSecret:
    """The result of an exchange, of use only to `SymmetricState.mix_key`."""

@final
class SymmetricState:
    """Noise's SymmetricState (Noise specification, section 5.2): ck, h and k, wiped on drop."""

    def __new__(cls, protocol_name: bytes) -> Self: ...
    def copy(self) -> SymmetricState: ...
    @property
    def hash(self) -> bytes:
        """The running hash h (public: it authenticates, it hides nothing)."""
    def mix_hash(self, data: bytes) -> None: ...
    def mix_key(self, material: SharedSecret | bytes) -> None: ...
    def mix_key_and_hash(self, psk: PresharedKey | None) -> None:
        """None is the key of 32 zero bytes."""
    def encrypt_and_hash(self, plaintext: bytes) -> bytes: ...
    def decrypt_and_hash(self, ciphertext: bytes) -> bytes | None:
        """None, and an unchanged state, when the tag is wrong."""
    def split(
        self,
        initiator: bool,
        local_index: int,
        remote_index: int,
        created: int,
        lifetimes: tuple[int, int, int],
    ) -> Session:
        """Derives the transport keys and wipes this state: it must not be used again.

        `lifetimes` are ages in ns: rekey when sending, rekey when receiving, reject.
        """

@final
class Session:
    """Transport keys of one handshake, counter, replay window and limits."""

    @property
    def local_index(self) -> int: ...
    @property
    def remote_index(self) -> int: ...
    @property
    def initiator(self) -> bool: ...
    @property
    def created(self) -> int: ...
    def seal(self, packet: bytes, now: int) -> bytes | None:
        """One data message for `packet`, padded by the caller; None once too old or used up."""
    def open(self, datagram: bytes, now: int) -> bytes | None:
        """The padded packet; None for a bad tag, a replay, or a session too old."""
    def rekey_due(self, now: int, sending: bool) -> bool:
        """Whether sending (or receiving) a message now calls for a new handshake (§6.2)."""

@final
class Endpoint:
    """Where a peer's datagrams go: address, port, scope; and where its own came in.

    Equal when address, port and scope are; as text, what UAPI says. ValueError if `host` is no
    numeric address.
    """

    def __new__(cls, host: str, port: int, scope: int | None = None) -> Self: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def scope(self) -> int:
        """The zone of a link-local IPv6 address as an interface index, else 0."""
    @property
    def route(self) -> tuple[bytes, bytes, int, int] | None:
        """The remote address and the local one, the interface by which the peer's datagram came in,
        and what of the last two sticks (`tunnel.routes.Hold`); None if nothing is known."""
    def __getnewargs__(self) -> tuple[str, int, int]: ...
    def __hash__(self) -> int: ...

@final
class Gate:
    """The first look at a datagram: type, length, mac1, load, cookie, rate (§5.3, §5.4.4, §5.4.7).

    Pure but for the cookie secret's randomness. A plane has one of its own; simulations use this.
    """

    def __init__(self) -> None: ...
    def set_identity(self, public: bytes | None) -> None:
        """The device's own public key; without one no handshake message passes."""
    def check(
        self, datagram: bytes, source: Endpoint, now: int, queue_length: int
    ) -> Literal["drop", "data", "queue"] | bytes:
        """What to do with the datagram; bytes are a cookie reply to send to `source`."""

@final
class Entropy:
    """The operating system's randomness."""

    def __init__(self) -> None: ...
    def private_key(self) -> PrivateKey: ...
    def uniform(self, limit: int) -> int:
        """A uniform integer, 0 <= n < limit."""

def open_cookie(key: bytes, nonce: bytes, sealed: bytes, mac1: bytes) -> bytes | None:
    """Opens a cookie reply's payload by XChaCha20-Poly1305; None when the tag is wrong."""

class PanicException(BaseException):
    """A panic in Rust that Python's call met: a defect."""

def take_panics() -> list[str]:
    """Where Rust panicked since the last call, each place once in the life of the process, as
    `src/outbound.rs:204:36: index out of range`. Before there is a Plane they are printed."""

def cipher() -> tuple[Literal["own", "ring"], bool]:
    """Which ChaCha20-Poly1305 this process uses, and whether the own one failed its self-test.

    ValueError if WIRESNAKE_CIPHER asks for what there is not, or what this CPU cannot run.
    """

def protect_memory() -> None:
    """No core dump, and no other process of the same user may read the memory of this one.

    A program that it starts begins anew: it can be dumped, so hooks are as they always were.
    """

@final
class Plane:
    """The data plane: TUN, sockets, sessions, allowed IPs, and the two threads that carry packets.

    Its threads never call Python. What Python must know arrives as events (protocol/plane.py
    describes them, and every method from `add_peer` down) and wakes `event_fd`.
    """

    def __init__(self) -> None: ...
    @property
    def event_fd(self) -> int:
        """Readable while events or messages wait."""
    @property
    def timer_fd(self) -> int:
        """Readable once the deadline of `set_timer` has passed."""
    def set_timer(self, deadline: int | None) -> None: ...
    def clear_timer(self) -> None:
        """Makes `timer_fd` unreadable again."""
    def attach_tun(
        self, fd: int, mtu: int, vnet_header: bool, merge_udp: bool, merge_tcp: bool = True
    ) -> None:
        """Duplicates `fd`, makes it non-blocking, and carries its packets out; once only.

        `vnet_header`: frames begin with a virtio header; without it no packets are merged."""
    def set_mtu(self, mtu: int) -> None: ...
    def attach_sockets(self, v4: int | None, v6: int | None, segment: bool = True) -> None:
        """Duplicates the UDP sockets and receives from them instead of those before.

        `segment`: many datagrams may be sent in one call (UDP_SEGMENT)."""
    def take_source(self, peer: int) -> Endpoint | None:
        """The endpoint, if its `route` is known; clears the bit of SOURCE_MOVED."""
    def hold_source(self, peer: int, endpoint: Endpoint, hold: int) -> None:
        """What sticks from now on; nothing happens if the peer has moved meanwhile."""
    def close(self) -> None:
        """Stops and joins the threads, closes device and sockets. Safe to call twice."""
    def set_identity(self, public: bytes | None) -> None: ...
    def take_events(self) -> list[tuple[int, int]]: ...
    def take_message(self) -> tuple[bytes, Endpoint] | None: ...
    def keep_others(self, kept: bool) -> None:
        """Whether datagrams that are not WireGuard's are kept for `take_other`: 128 of at most 1500
        bytes. At first none is."""
    def take_other(self) -> tuple[bytes, Endpoint] | None: ...
    def add_peer(self) -> int: ...
    def remove_peer(self, peer: int) -> None: ...
    def set_endpoint(self, peer: int, endpoint: Endpoint | None) -> None: ...
    def endpoint(self, peer: int) -> Endpoint | None: ...
    def watch(self, watched: bool) -> None: ...
    def take_unreported(
        self, peer: int
    ) -> tuple[Endpoint | None, tuple[int, str] | None, tuple[int, int] | None]: ...
    def forget_sources(self, peer: int | None) -> None: ...
    def allow(self, peer: int, prefix: bytes, length: int) -> None: ...
    def disallow(self, prefix: bytes, length: int) -> None: ...
    def reserve(self, peer: int) -> int: ...
    def release(self, index: int) -> None: ...
    def install(self, peer: int, session: Session) -> None: ...
    def expire(self, peer: int) -> None: ...
    def wipe(self, peer: int) -> None: ...
    def purge(self, peer: int) -> None: ...
    def send(self, peer: int, message: bytes) -> None: ...
    def send_staged(self, peer: int) -> None: ...
    def send_keepalive(self, peer: int) -> None: ...
    def count_received(self, peer: int, length: int) -> None: ...
    def stamps(self, peer: int) -> tuple[int, int, int, int, int, int]: ...
    def disarm(self, peer: int, kind: int, stamp: int) -> bool: ...
    def transfer(self, peer: int) -> tuple[int, int]: ...
    def describe(self, peers: list[tuple[int, bytes, int, int, dict[Prefix, None]]]) -> list[bytes]:
        """Peers' parts of a UAPI `get`, their preshared keys as zeros for the caller to overwrite;
        nothing of a peer that is no more.

        Of each: the peer, public key, last handshake in ns since 1970, persistent keepalive in
        seconds, allowed IPs."""
    def describe_state(self, peers: list[int], now: int) -> list[bytes]:
        """What the plane knows of peers for a `state`; nothing of a peer that is no more."""
    def offloads(self) -> tuple[bool, bool, bool]:
        """Whether datagrams are sent many at a time, and packets of TCP, and of UDP, are merged."""
    def describe_drops(self, now: int) -> str:
        """The same of the device: what was dropped before it was anybody's."""
