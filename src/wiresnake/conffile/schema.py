"""The keys of a configuration file, one row each. All code that needs to know a key looks here.

A row is plain data and cheap to import. The functions that read, check and write a kind of value
are in `wg`, `values` and `write`, one per kind.
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
    """The argument by which `wiresnake set` takes a key's value."""

    word: str
    takes: str
    meaning: str
    """The text of the completion."""
    usage: str
    """The text of the help."""


class Key(NamedTuple):
    """One key."""

    section: Section
    name: str
    """The key as written in files."""
    kind: Kind
    field: str
    """Its attribute in changes, in states and in a parsed file."""
    meaning: str
    takes: str
    """The valid values, for error messages."""
    quick: bool = False
    """Whether only wg-quick knows the key, so that `strip` removes it."""
    word: Word | None = None

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown or become a string."""
        return self.kind in ("private key", "preshared key")

    @property
    def is_list(self) -> bool:
        """Whether it can be repeated, each time with more values."""
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
            "for the encrypted packets: a number, 0x hexadecimal, or off",
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
        "The size of the largest packet on the interface, in bytes.",
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
    PRE_UP := _command(
        "interface", "PreUp", "pre_up", "A command that runs before the interface goes up."
    ),
    POST_UP := _command(
        "interface", "PostUp", "post_up", "A command that runs after the interface is up."
    ),
    PRE_DOWN := _command(
        "interface", "PreDown", "pre_down", "A command that runs before the interface goes down."
    ),
    POST_DOWN := _command(
        "interface", "PostDown", "post_down", "A command that runs after the interface is down."
    ),
    PUBLIC_KEY := Key(
        "peer",
        "PublicKey",
        "public key",
        "public_key",
        "The peer's public key, which identifies it.",
        "it takes the 44 characters of wg pubkey",
        word=Word("peer", "PUBLIC_KEY", "the public key of a peer", ""),
    ),
    PRESHARED_KEY := Key(
        "peer",
        "PresharedKey",
        "preshared key",
        "preshared_key",
        "A secret that both ends share in addition to their keys.",
        "it takes the 44 characters of wg genpsk",
        word=Word("preshared-key", "FILE", "a file with the preshared key", "as private-key"),
    ),
    ALLOWED_IPS := Key(
        "peer",
        "AllowedIPs",
        "networks",
        "allowed_ips",
        "The networks of the peer: packets to them go to it, and only packets from them are"
        " accepted from it.",
        "it takes addresses with an optional /length, between commas",
        word=Word(
            "allowed-ips",
            "NETWORKS",
            "a list; +IP adds, -IP removes",
            "separated by commas; '' is none. With a sign the list is a change:\n"
            "+ adds to the peer's networks, - removes",
        ),
    ),
    ENDPOINT := Key(
        "peer",
        "Endpoint",
        "endpoint",
        "endpoint",
        "The address and port of the peer; every packet from the peer updates it.",
        "it takes host:port, or [IPv6 address]:port",
        word=Word("endpoint", "HOST:PORT", "HOST:PORT", "or [IPv6 address]:PORT"),
    ),
    PERSISTENT_KEEPALIVE := Key(
        "peer",
        "PersistentKeepalive",
        "seconds",
        "persistent_keepalive",
        "Seconds after which an idle tunnel sends a packet, so that a NAT keeps its mapping.",
        "it takes off, or seconds from 0 to 65535",
        word=Word(
            "persistent-keepalive", "S", "seconds, or off", "seconds from 1 to 65535, or off"
        ),
    ),
    ON_UP := _command("peer", "OnUp", "on_up", "A command that runs when the peer connects."),
    ON_DOWN := _command(
        "peer", "OnDown", "on_down", "A command that runs when the peer disconnects."
    ),
)
"""In the order in which we write them. OnUp and OnDown are our own addition."""

SECTIONS: tuple[Section, ...] = ("interface", "peer")
FOREIGN = {
    **dict.fromkeys(("includedapplications", "excludedapplications"), "Android"),
    **dict.fromkeys(("jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "itime"), "AmneziaWG"),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "i1", "i2", "i3", "i4", "i5"), "AmneziaWG"),
    **dict.fromkeys(("j1", "j2", "j3"), "AmneziaWG"),
}
"""Keys of other programs, in lower case, which `wiresnake import` reads."""
WHITESPACE = " \t\n\v\f\r"
"""Whitespace as `wg` defines it. To Python a no-break space would be whitespace too."""


def find(name: str) -> Key | None:
    """Returns the key of that name, in lower case, or None."""
    return _BY_NAME.get(name)


def keys_of(section: str, *, quick: bool | None = None) -> tuple[Key, ...]:
    """Returns the keys of a section: all, only those of `wg`, or only those of wg-quick."""
    return tuple(
        key for key in KEYS if key.section == section and (quick is None or key.quick == quick)
    )


_BY_NAME = {key.name.lower(): key for key in KEYS}
WORDS = {key.word.word: key for key in KEYS if key.word}
"""Returns the keys that `wiresnake set` takes, by their arguments."""
