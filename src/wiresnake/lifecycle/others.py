"""Decides what a file does not control on a running interface, because others may have made it.

A file is the whole truth unless it says otherwise. With hooks, its own commands add peers, keys and
networks: what neither the file nor the last applied file named belongs to them and stays. With
SaveConfig the interface is the truth and the file its copy: what the file says unchanged since it
was last applied is outdated, so the interface decides. Edits are always applied, so that a peer
removed from the file is removed from the interface.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from wiresnake.lifecycle.applied import Said
from wiresnake.uapi.snapshot import PeerState

_SHOWN = 5
"""The most peers that a message names; a second file may have thousands."""


class Kept(NamedTuple):
    """Something of one peer that stays although the file differs."""

    public_key: str
    what: str
    """`peer`, or the name of one of its values."""


class Others:
    """Decides what stays.

    `record` is what the file said when it was last applied, or None if unknown. Without a record a
    peer that the file lacks is removed if the file has hooks, because it may have been removed from
    the file. With SaveConfig it stays, because nobody removes peers from a file that will be
    overwritten."""

    def __init__(
        self,
        record: Mapping[str, Said] | None = None,
        *,
        hooks: bool = False,
        save: bool = False,
        keep: bool = False,
    ) -> None:
        self._record = record
        self._known = record or {}
        self._save = save
        self._loose = hooks or save
        self._keep = keep
        self.active = self._loose or keep
        """Whether anything can stay."""
        self.kept: list[Kept] = []
        self.networks: set[str] = set()
        """Returns the allowed IPs in which the device should differ from the file."""

    def keeps_peer(self, peer: PeerState) -> bool:
        """Returns whether a peer that the file lacks stays."""
        key = peer.public_key
        if not self._never_named(key not in self._known):
            return False
        self.kept.append(Kept(key, "peer"))
        self.networks.update(peer.allowed_ips)
        return True

    def keeps_off(self, public_key: str, allowed_ips: Collection[str]) -> bool:
        """Returns whether a peer of the file that the device lacks stays removed."""
        if not self._save or public_key not in self._known:
            return False
        self.kept.append(Kept(public_key, "absence"))
        self.networks.update(allowed_ips)
        return True

    def allowed_ips(self, peer: PeerState, file: set[str], taken: Collection[str]) -> set[str]:
        """Returns the wanted allowed IPs; `taken` are those that the file gives to any peer."""
        live = frozenset(peer.allowed_ips)
        base = self._said_of(peer).allowed_ips
        more = {
            one for one in live - file if one not in taken and self._never_named(one not in base)
        }
        less = {one for one in file - live if self._save and one in base}
        if more:
            self.kept.append(Kept(peer.public_key, f"allowed ips {' '.join(sorted(more))}"))
        self.networks |= more | less
        return (file | more) - less

    def keeps_secret(self, peer: PeerState, file: str) -> bool:
        """Returns whether the preshared key stays; `file` is the `digest` of the file's key, empty
        if it has none."""
        return self._keeps_value(peer, "preshared key", file, self._said_of(peer).preshared_key)

    def keeps_keepalive(self, peer: PeerState, file: int) -> bool:
        """Returns whether the persistent keepalive stays; 0 stands for a file without one."""
        return self._keeps_value(peer, "persistent keepalive", file, self._said_of(peer).keepalive)

    def notes(
        self, interface: str, path: str, names: Mapping[str, str], gone: Collection[str]
    ) -> Iterator[str]:
        """Yields messages about what stays, and why. `gone` are peers that are removed."""
        by_kind: dict[str, list[str]] = {}
        for one in sorted(self.kept):
            by_kind.setdefault(one.what, []).append(names.get(one.public_key, one.public_key))
        for what, peers in by_kind.items():
            who = _listed(peers)
            if what == "peer" and self._record is None and self._save and not self._keep:
                yield (
                    f"{interface} keeps what {path} does not name, because the file has SaveConfig"
                    f" and its earlier contents are unknown: {who}. If you removed one from the"
                    f" file, remove it here too: wiresnake set {interface} peer KEY remove; next"
                    " time use wiresnake remove PEER --reload"
                )
            elif what == "peer":
                yield (
                    f"{interface} keeps what {path} does not name: {who}. To remove one:"
                    f" wiresnake set {interface} peer KEY remove"
                )
            elif what == "absence":
                yield (
                    f"{who} was removed from {interface} and stays removed, because {path} has"
                    " SaveConfig"
                )
            else:
                yield f"{who} keeps its {what}: {path} does not say otherwise"
        if gone and self._loose and self._record is None and not self._save:
            yield (
                f"the contents of {path} when {interface} came up are unknown, so what it does not"
                f" name is removed: {_listed([names.get(one, one) for one in gone])}; --keep keeps"
                " it"
            )

    def _never_named(self, unknown: bool) -> bool:
        if self._record is None:
            return self._keep or self._save
        return self._keep or (self._loose and unknown)

    def _said_of(self, peer: PeerState) -> Said:
        return self._known.get(peer.public_key) or Said()

    def _keeps_value(self, peer: PeerState, what: str, file: str | int, base: str | int) -> bool:
        """Returns whether a single value stays. It cannot let anybody in, so it stays even without
        a record."""
        where_silent = self._keep or (self._loose and not base)
        stays = self._save and base == file if file else where_silent
        if stays:
            self.kept.append(Kept(peer.public_key, what))
        return stays


def digest(secret: bytes | bytearray | memoryview) -> str:
    """Returns a digest that identifies a preshared key without revealing it."""
    return hashlib.blake2s(secret, digest_size=16).hexdigest() if secret else ""


def _listed(peers: list[str]) -> str:
    more = len(peers) - _SHOWN
    shown = ", ".join(peers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"peer{'s' if len(peers) > 1 else ''} {shown}"
