"""The keys of a configuration file, one row each. Whatever needs to know a key looks here.

A row is plain data, and cheap to import. What a kind of value takes to be read, judged and written
is a function beside the others of its sort: `wg`, `values` and `write` have one a kind.
"""

from typing import Literal, NamedTuple

Section = Literal["interface", "peer"]
Kind = Literal[
    "private key",
    "preshared key",
    "public key",
    "port",
    "mark",
    "seconds",
    "endpoint",
    "networks",
    "addresses",
    "dns",
    "mtu",
    "table",
    "switch",
    "command",
]


class Word(NamedTuple):
    """The word by which `wiresnake set` takes a key's value from the command line."""

    word: str
    takes: str
    meaning: str
    """What the completion says of it."""
    usage: str
    """What the help says of it."""


class Key(NamedTuple):
    """One key."""

    section: Section
    name: str
    """As it is written."""
    kind: Kind
    field: str
    """Its attribute in changes, in states and in a file that was read."""
    meaning: str
    takes: str
    """What its value may be, for an error to say."""
    quick: bool = False
    """Whether it is no key of `wg`: `strip` removes it."""
    word: Word | None = None

    @property
    def secret(self) -> bool:
        """Whether its value is never to be shown, nor made a string."""
        return self.kind in ("private key", "preshared key")

    @property
    def is_list(self) -> bool:
        """Whether it may come again, each time with more values."""
        return self.kind in ("networks", "addresses", "dns", "command")


def _command(section: Section, name: str, field: str, meaning: str) -> Key:
    takes = "it takes a shell command"
    return Key(section, name, "command", field, meaning, takes, quick=True)


KEYS = (
    PRIVATE_KEY := Key(
        "interface",
        "PrivateKey",
        "private key",
        "private_key",
        "The interface's private key.",
        "it takes the 44 characters of wg genkey",
        word=Word(
            "private-key",
            "FILE",
            "a file with the private key",
            "a file with the key, or a pipe; an empty file removes the key",
        ),
    ),
    ADDRESS := Key(
        "interface",
        "Address",
        "addresses",
        "addresses",
        "The interface's addresses, each with the length of its network.",
        "it takes 10.0.0.1/24",
        quick=True,
    ),
    LISTEN_PORT := Key(
        "interface",
        "ListenPort",
        "port",
        "listen_port",
        "The UDP port at which peers reach the interface.",
        "it takes a port from 0 to 65535",
        word=Word("listen-port", "PORT", "the UDP port", "0 is any free one"),
    ),
    FWMARK := Key(
        "interface",
        "FwMark",
        "mark",
        "fwmark",
        "The mark of encrypted datagrams.",
        "it takes off, or a number up to 0xffffffff",
        word=Word(
            "fwmark",
            "MARK",
            "the mark of encrypted datagrams",
            "of the encrypted packets: a number, 0x hexadecimal, or off",
        ),
    ),
    DNS := Key(
        "interface",
        "DNS",
        "dns",
        "dns",
        "Name servers by address, and search domains.",
        "it takes addresses and domains",
        quick=True,
    ),
    MTU := Key(
        "interface",
        "MTU",
        "mtu",
        "mtu",
        "The largest packet that the interface takes, in bytes.",
        "it takes bytes, as 1420",
        quick=True,
    ),
    TABLE := Key(
        "interface",
        "Table",
        "table",
        "table",
        "The routing table for the peers' networks.",
        "Table takes off, auto, a number or a name of rt_tables",
        quick=True,
    ),
    SAVE_CONFIG := Key(
        "interface",
        "SaveConfig",
        "switch",
        "save",
        "Whether `down` writes the interface's state to the file.",
        "it takes true or false",
        quick=True,
    ),
    PRE_UP := _command("interface", "PreUp", "pre_up", "A command before the interface goes up."),
    POST_UP := _command("interface", "PostUp", "post_up", "A command once the interface is up."),
    PRE_DOWN := _command(
        "interface", "PreDown", "pre_down", "A command before the interface goes down."
    ),
    POST_DOWN := _command(
        "interface", "PostDown", "post_down", "A command once the interface is down."
    ),
    PUBLIC_KEY := Key(
        "peer",
        "PublicKey",
        "public key",
        "public_key",
        "The peer's public key, which says who it is.",
        "it takes the 44 characters of wg pubkey",
        word=Word("peer", "PUBLIC_KEY", "the public key of a peer", ""),
    ),
    PRESHARED_KEY := Key(
        "peer",
        "PresharedKey",
        "preshared key",
        "preshared_key",
        "A secret that both ends share beside their keys.",
        "it takes the 44 characters of wg genpsk",
        word=Word("preshared-key", "FILE", "a file with the preshared key", "as private-key"),
    ),
    ALLOWED_IPS := Key(
        "peer",
        "AllowedIPs",
        "networks",
        "allowed_ips",
        "The networks behind the peer: packets to them go to it, and from it only theirs are taken",
        "it takes addresses with an optional /length, between commas",
        word=Word(
            "allowed-ips",
            "NETWORKS",
            "a list; +IP adds, -IP takes away",
            "between commas; '' is none. With a sign the list is a change: +\n"
            "adds to those that the peer has, - removes",
        ),
    ),
    ENDPOINT := Key(
        "peer",
        "Endpoint",
        "endpoint",
        "endpoint",
        "Where the peer is reached; it is learnt anew from each packet of the peer's.",
        "it takes host:port, or [IPv6 address]:port",
        word=Word("endpoint", "HOST:PORT", "HOST:PORT", "or [IPv6 address]:PORT"),
    ),
    PERSISTENT_KEEPALIVE := Key(
        "peer",
        "PersistentKeepalive",
        "seconds",
        "persistent_keepalive",
        "Seconds after which an idle tunnel sends a packet, so that a NAT does not forget it.",
        "it takes off, or seconds from 0 to 65535",
        word=Word(
            "persistent-keepalive", "S", "seconds, or off", "seconds from 1 to 65535, or off"
        ),
    ),
    ON_UP := _command("peer", "OnUp", "on_up", "A command as the peer is reached."),
    ON_DOWN := _command("peer", "OnDown", "on_down", "A command as the peer is no longer reached."),
)
"""In the order in which files have them. OnUp and OnDown are our own addition."""

SECTIONS: tuple[Section, ...] = ("interface", "peer")
FOREIGN = {
    **dict.fromkeys(("includedapplications", "excludedapplications"), "Android"),
    **dict.fromkeys(("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "itime"), "AmneziaWG"),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "i1", "i2", "i3", "i4", "i5"), "AmneziaWG"),
    **dict.fromkeys(("j1", "j2", "j3"), "AmneziaWG"),
}
"""Keys of other dialects, in lower case, which `wiresnake import` reads."""
WHITESPACE = " \t\n\v\f\r"
"""What `wg` takes for it; to Python a no-break space would be some too."""


def find(name: str) -> Key | None:
    """The key of that name, in lower case."""
    return _BY_NAME.get(name)


def keys_of(section: str, *, quick: bool | None = None) -> tuple[Key, ...]:
    """The keys of a section: all, those of `wg` alone, or those that are not `wg`'s."""
    return tuple(
        key for key in KEYS if key.section == section and (quick is None or key.quick == quick)
    )


_BY_NAME = {key.name.lower(): key for key in KEYS}
WORDS = {key.word.word: key for key in KEYS if key.word}
"""What `wiresnake set` takes, by its words."""
