"""The seam: everything that crosses between Python and Rust.

Times are integer nanoseconds of CLOCK_BOOTTIME unless stated otherwise. Public keys are 32 bytes.
Secrets never cross: Python holds handles, which compare in constant time, have a redacted repr and
no hash, and cannot be pickled. Using a handle after a fork raises RuntimeError.
"""

from typing import Literal, Self, final

from _typeshed import ReadableBuffer, WriteableBuffer

from wiresnake.model import Prefix

@final
class PrivateKey:
    """A clamped Curve25519 private key."""

    @staticmethod
    def generate() -> PrivateKey:
        """Makes a new random key."""
    @staticmethod
    def from_hex(text: ReadableBuffer) -> PrivateKey | None:
        """Parses 64 hex digits without copying them. None for the all-zero key; else ValueError."""
    @staticmethod
    def from_base64(text: ReadableBuffer) -> PrivateKey | None:
        """Parses 44 characters of strict base64, in constant time.

        None for the all-zero key; ValueError if it is not a key.
        """
    @property
    def public(self) -> bytes:
        """The public key that belongs to this key, 32 bytes."""
    def exchange(self, public: bytes) -> SharedSecret | None:
        """Computes X25519. None if the result is all zero (a low-order point): abort then."""
    def write_hex(self, buffer: WriteableBuffer, offset: int) -> int:
        """Writes 64 hex digits at `offset`; returns the offset after them."""
    def write_base64(self, buffer: WriteableBuffer, offset: int) -> int:
        """Writes 44 characters of base64 at `offset`; returns the offset after them."""

@final
class PresharedKey:
    """A symmetric key of 32 bytes that both peers mix into the handshake's second message."""

    @staticmethod
    def generate() -> PresharedKey:
        """Makes a new random key."""
    @staticmethod
    def from_hex(text: ReadableBuffer) -> PresharedKey | None:
        """Parses 64 hex digits without copying them. None for the all-zero key; else ValueError."""
    @staticmethod
    def from_base64(text: ReadableBuffer) -> PresharedKey | None:
        """Parses 44 characters of strict base64, in constant time.

        None for the all-zero key; ValueError if it is not a key.
        """
    def write_hex(self, buffer: WriteableBuffer, offset: int) -> int:
        """Writes 64 hex digits at `offset`; returns the offset after them."""
    def write_base64(self, buffer: WriteableBuffer, offset: int) -> int:
        """Writes 44 characters of base64 at `offset`; returns the offset after them."""

@final
class SharedSecret:
    """The result of `PrivateKey.exchange`, only for `SymmetricState.mix_key`."""

@final
class SymmetricState:
    """Noise's SymmetricState (Noise specification, section 5.2): ck, h and k, wiped on drop."""

    def __new__(cls, protocol_name: bytes) -> Self: ...
    def copy(self) -> SymmetricState: ...
    @property
    def hash(self) -> bytes:
        """The running hash h, which is not a secret."""
    def mix_hash(self, data: bytes) -> None: ...
    def mix_key(self, material: SharedSecret | bytes) -> None: ...
    def mix_key_and_hash(self, psk: PresharedKey | None) -> None:
        """Mixes in the preshared key; None is the key of 32 zero bytes."""
    def encrypt_and_hash(self, plaintext: bytes) -> bytes: ...
    def decrypt_and_hash(self, ciphertext: bytes) -> bytes | None:
        """Decrypts, then mixes in the ciphertext. None, and no change, if the tag is wrong."""
    def split(
        self,
        initiator: bool,
        local_index: int,
        remote_index: int,
        created: int,
        lifetimes: tuple[int, int, int],
    ) -> Session:
        """Derives the transport keys and wipes this state, which must not be used again.

        `lifetimes` are ages in ns: rekey when sending, rekey when receiving, reject.
        """

@final
class Session:
    """The transport keys of one handshake, with counter, replay window and limits."""

    @property
    def local_index(self) -> int: ...
    @property
    def remote_index(self) -> int: ...
    @property
    def initiator(self) -> bool: ...
    @property
    def created(self) -> int: ...
    def seal(self, packet: bytes, now: int) -> bytes | None:
        """Encrypts `packet`, which the caller has padded, into a data message.

        None if the session is too old or its counter is used up.
        """
    def open(self, datagram: bytes, now: int) -> bytes | None:
        """Decrypts a data message into its padded packet.

        None for a bad tag, a replay, or a session that is too old.
        """
    def rekey_due(self, now: int, sending: bool) -> bool:
        """Returns whether sending (or receiving) a message now requires a new handshake (§6.2)."""

@final
class Endpoint:
    """The address, port and scope that a peer's datagrams go to, and the way by which it wrote.

    Endpoints are equal if address, port and scope are. `str` gives the UAPI's text. ValueError if
    `host` is not a numeric address.
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
        """Remote and local address, the interface by which the peer's datagram came in, and a
        `tunnel.routes.Hold`: which of the last two sticks. None if nothing is known."""
    def __getnewargs__(self) -> tuple[str, int, int]: ...
    def __hash__(self) -> int: ...

@final
class Gate:
    """The first check of a datagram: type, length, mac1, load, cookie, rate (§5.3, §5.4.4, §5.4.7).

    It is pure, except that the cookie secret is random. A plane has its own gate; this class is
    for simulations.
    """

    def __init__(self) -> None: ...
    def set_identity(self, public: bytes | None) -> None:
        """Sets the device's public key. With None no handshake message passes."""
    def check(
        self, datagram: bytes, source: Endpoint, now: int, queue_length: int
    ) -> Literal["drop", "data", "queue"] | bytes:
        """Returns what to do with the datagram. Bytes are a cookie reply to send to `source`."""

@final
class Entropy:
    """The operating system's randomness."""

    def __init__(self) -> None: ...
    def private_key(self) -> PrivateKey: ...
    def uniform(self, limit: int) -> int:
        """Returns a uniform random integer, 0 <= n < limit."""

def open_cookie(key: bytes, nonce: bytes, sealed: bytes, mac1: bytes) -> bytes | None:
    """Decrypts the cookie of a cookie reply (XChaCha20-Poly1305). None if the tag is wrong."""

class PanicException(BaseException):
    """A call from Python panicked in Rust. This is a defect."""

def take_panics() -> list[str]:
    """Returns where Rust panicked since the last call, as `src/outbound.rs:204:36: a message`.

    A process reports each place once. Until there is a Plane, panics are printed instead.
    """

def cipher() -> tuple[Literal["own", "ring"], bool]:
    """Returns the ChaCha20-Poly1305 that this process uses, and whether "own" failed its self-test.

    ValueError if WIRESNAKE_CIPHER names an unknown one, or one that this CPU cannot run.
    """

def clock() -> int:
    """Returns the ns of the clock of a plane: CLOCK_BOOTTIME, or this system's nearest to it."""

def protect_memory() -> None:
    """Forbids core dumps, and reading this memory from other processes of the same user.

    Programs that this process starts, such as hooks, are not affected.
    """

@final
class Plane:
    """The data plane: TUN, sockets, sessions, allowed IPs, and the two threads that carry packets.

    Its threads never call Python. They post events for Python and wake `event_fd`.
    protocol/plane.py describes the events, and every method from `add_peer` down.
    """

    def __new__(cls, portable: bool = False) -> Self:
        """Makes a plane with what Linux has, or only with what every system has.

        The portable one uses ordinary sockets, merges nothing, and has no sticky sources.
        """
    @property
    def event_fd(self) -> int:
        """Readable while events or messages wait."""
    @property
    def timer_fd(self) -> int:
        """Readable after the deadline of `set_timer` has passed. A portable plane has -1: its
        deadlines are the loop's."""
    def set_timer(self, deadline: int | None) -> None: ...
    def clear_timer(self) -> None:
        """Makes `timer_fd` unreadable again."""
    def attach_tun(
        self, fd: int, mtu: int, vnet_header: bool, merge_udp: bool, merge_tcp: bool = True
    ) -> None:
        """Duplicates `fd`, makes it non-blocking, and sends its packets to peers. Call it once.

        `vnet_header`: frames begin with a virtio header; without it no packets are merged."""
    def attach_stack(self, stack: Stack) -> None:
        """Sends the stack's packets to peers, instead of those of a TUN device. Call it once."""
    def set_mtu(self, mtu: int) -> None: ...
    def attach_sockets(self, v4: int | None, v6: int | None, segment: bool = True) -> None:
        """Duplicates the UDP sockets and uses them instead of the previous ones.

        `segment`: many datagrams may be sent in one call (UDP_SEGMENT)."""
    def take_source(self, peer: int) -> Endpoint | None:
        """Returns the endpoint if its `route` is known, and clears the bit of SOURCE_MOVED."""
    def hold_source(self, peer: int, endpoint: Endpoint, hold: int) -> None:
        """Sets the `Hold` of the peer's source, unless the peer has moved meanwhile."""
    def close(self) -> None:
        """Stops and joins the threads, closes device and sockets. It is safe to call twice."""
    def set_identity(self, public: bytes | None) -> None: ...
    def take_events(self) -> list[tuple[int, int]]: ...
    def take_message(self) -> tuple[bytes, Endpoint] | None: ...
    def keep_others(self, kept: bool) -> None:
        """Keeps datagrams that are not WireGuard's for `take_other`, or stops that.

        At most 128 are kept, of at most 1500 bytes each. It is off at first.
        """
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
        """Writes the peers' parts of a UAPI `get`. A removed peer gives an empty text.

        The arguments for each peer: its number, public key, last handshake in ns since 1970,
        persistent keepalive in seconds, allowed IPs. Preshared keys are written as zeros, which
        the caller overwrites."""
    def describe_state(self, peers: list[int], now: int) -> list[bytes]:
        """Writes the plane's part of a `state` of each peer. A removed peer gives an empty text."""
    def offloads(self) -> tuple[bool, bool, bool]:
        """Returns whether datagrams are sent many at a time, and TCP and UDP packets merged."""
    def describe_drops(self, now: int) -> str:
        """Writes the plane's part of a device's `state`: packets dropped without a known peer."""

@final
class Stack:
    """TCP and UDP in this process, with a thread of its own.

    `addresses` are numeric, without prefix lengths. `offloads`: it sends and takes super-packets.
    After a fork, all its methods, and those of its sockets, raise OSError in the child.
    """

    def __new__(cls, addresses: list[str], mtu: int, offloads: bool = True) -> Self: ...
    def open(self, v6: bool, stream: bool) -> tuple[StackSocket, int]:
        """Opens a socket, and returns it with a descriptor that the caller owns.

        A stream carries raw bytes. A datagram begins with 20 bytes (family 4 or 6, zero, port,
        address), unless its socket is connected. A listener's descriptor brings a message for each
        connection: its peer's address, its number in 8 bytes, and a descriptor."""
    def close(self) -> None:
        """Ends the thread and all connections. It is safe to call twice."""

@final
class StackSocket:
    """A socket of a Stack. It lives until its descriptor is closed. Hosts are numeric."""

    def bind(self, host: str, port: int) -> None: ...
    def connect(self, host: str, port: int, filler: int = 0) -> None:
        """Begins to connect. The stack drops the first `filler` bytes when that has ended."""
    def listen(self, backlog: int) -> None: ...
    def accepted(self, number: int) -> StackSocket:
        """Returns the socket of a connection that came with this number."""
    def set_keepalive(self, seconds: int | None) -> None: ...
    def longest_datagram(self) -> int: ...
    def take_error(self) -> int:
        """Returns the errno of a failure that was not yet reported; 0 if there is none."""
    @property
    def state(self) -> Literal["unconnected", "connecting", "connected"]: ...
    @property
    def local(self) -> tuple[str, int] | None: ...
    @property
    def remote(self) -> tuple[str, int] | None: ...
