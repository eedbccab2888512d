"""All dialects by name, and how each is recognised, read and written."""

import re
from pathlib import Path
from typing import NamedTuple

from wiresnake.conffile.dialects import networkd, networkmanager, wg_quick
from wiresnake.conffile.dialects.document import Document, LeftOut
from wiresnake.errors import ConfigError

FROM = ("wg-quick", "android", "apple", "windows", "amneziawg", "networkd", "networkmanager")
TO = ("wg-quick", "android", "apple", "windows", "networkd", "networkmanager")
_APPS = {"android": "Android", "apple": "Apple's app", "windows": "Windows"}


class Text(NamedTuple):
    """The result of reading files; the document may hold secrets."""

    path: str
    text: str

    def __repr__(self) -> str:
        return f"Text({self.path!r})"


class Read(NamedTuple):
    document: Document
    name: str
    """The interface's name, from the file or its name."""
    left: list[tuple[str, LeftOut]]
    """What was left out, each with its file."""


def recognise(texts: list[Text]) -> str:
    """Recognises the dialect by the contents of the files."""
    whole = "\n".join(one.text for one in texts)
    if re.search(r"(?m)^\s*\[(NetDev|WireGuard|WireGuardPeer)\]", whole):
        return "networkd"
    if re.search(r"(?m)^\s*\[(connection|wireguard)\]", whole):
        return "networkmanager"
    return "wg-quick"  # The apps' dialects are parts of it, with a few keys of their own.


def read(dialect: str, texts: list[Text]) -> Read:
    """Reads files in a dialect; ConfigError with file:line:column."""
    if dialect == "networkd":
        return _networkd(texts)
    if len(texts) != 1:
        raise ConfigError(f"a configuration of {dialect} is one file; give one at a time")
    [(path, text)] = texts
    name = Path(path).stem
    if dialect == "networkmanager":
        document, own, told = networkmanager.read(path, text)
        return Read(document, own or name, told)
    document, left = wg_quick.read(text, path)
    if dialect == "windows" and document.hooks:
        document, more = wg_quick.without_hooks(document, "a command for Windows")
        left += more
    return Read(document, name, [(path, one) for one in left])


def _networkd(texts: list[Text]) -> Read:
    netdevs = [one for one in texts if re.search(r"(?m)^\s*\[NetDev\]", one.text)]
    others = [one for one in texts if one not in netdevs]
    if len(netdevs) != 1 or len(others) > 1:
        raise ConfigError("give networkd's .netdev file together with its .network file")
    document, name, left = networkd.read(netdevs[0], others[0] if others else None)
    return Read(document, name or Path(netdevs[0].path).stem, left)


def write(dialect: str, document: Document, name: str) -> tuple[dict[str, str], list[LeftOut]]:
    """Returns files by their names. ConfigError if the dialect cannot express the configuration."""
    if dialect == "networkd":
        return networkd.write(document, name)
    if dialect == "networkmanager":
        return networkmanager.write(document, name)
    left: list[LeftOut] = []
    if dialect in _APPS:
        document, left = wg_quick.for_app(document, _APPS[dialect])
    return {f"{name}.conf": wg_quick.write(document)}, left
