"""What of a running interface is not its file's to decide, as others may have made it.

A file is the whole truth, unless it says itself that it is not. With hooks, its own commands add
peers, keys and networks: what neither the file nor the last applied one ever named is theirs, and
stays. With SaveConfig the interface is the truth, and the file only its copy: besides, what the
file says as it did when it was last applied is as old as that, and the interface decides. What
was edited since is applied in any case, so that who is taken out of a file is taken off.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from wiresnake.lifecycle.applied import Said
from wiresnake.uapi.snapshot import PeerState

_SHOWN = 5
"""Peers that a line names; a second file may have thousands."""


class Kept(NamedTuple):
    """What stays of one peer though the file has it otherwise."""

    public_key: str
    what: str
    """`peer`, or one of its values."""


class Others:
    """Decides what stays. `record` is what the file said when it was last applied, None if nobody
    knows: then with hooks a peer that the file lacks goes, as it may have been taken out. With
    SaveConfig it stays, as nobody takes peers out of a file that is going to be written anew."""

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
        """Whether anything may stay."""
        self.kept: list[Kept] = []
        self.networks: set[str] = set()
        """Of allowed IPs, those in which the device is to differ from the file."""

    def keeps_peer(self, peer: PeerState) -> bool:
        """Whether a peer that the file lacks stays."""
        key = peer.public_key
        if not self._never_named(key not in self._known):
            return False
        self.kept.append(Kept(key, "peer"))
        self.networks.update(peer.allowed_ips)
        return True

    def keeps_off(self, public_key: str, allowed_ips: Collection[str]) -> bool:
        """Whether a peer of the file that the device lacks stays away."""
        if not self._save or public_key not in self._known:
            return False
        self.kept.append(Kept(public_key, "absence"))
        self.networks.update(allowed_ips)
        return True

    def allowed_ips(self, peer: PeerState, file: set[str], taken: Collection[str]) -> set[str]:
        """What they are to be; `taken` is what the file gives to any peer."""
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
        """Whether the preshared key stays; `file` is `digest` of the file's, empty if it has
        none."""
        return self._keeps_value(peer, "preshared key", file, self._said_of(peer).preshared_key)

    def keeps_keepalive(self, peer: PeerState, file: int) -> bool:
        """Whether the persistent keepalive stays; 0 is what a file says by silence."""
        return self._keeps_value(peer, "persistent keepalive", file, self._said_of(peer).keepalive)

    def notes(
        self, interface: str, path: str, names: Mapping[str, str], gone: Collection[str]
    ) -> Iterator[str]:
        """What stays, and why, in words for the user. `gone` are peers that go."""
        by_kind: dict[str, list[str]] = {}
        for one in sorted(self.kept):
            by_kind.setdefault(one.what, []).append(names.get(one.public_key, one.public_key))
        for what, peers in by_kind.items():
            who = _listed(peers)
            if what == "peer" and self._record is None and self._save and not self._keep:
                yield (
                    f"{interface} keeps what {path} does not name, as it says SaveConfig and"
                    f" nothing tells what it said before: {who}. If you took one out, that was not"
                    f" applied: wiresnake set {interface} peer KEY remove; next time take it out by"
                    " wiresnake remove PEER --reload"
                )
            elif what == "peer":
                yield (
                    f"{interface} keeps what {path} does not name: {who}. To remove one:"
                    f" wiresnake set {interface} peer KEY remove"
                )
            elif what == "absence":
                yield (
                    f"{who} was taken off {interface}, which decides, as {path} says SaveConfig:"
                    " it stays away"
                )
            else:
                yield f"{who} keeps its {what}: {path} does not say otherwise"
        if gone and self._loose and self._record is None and not self._save:
            yield (
                f"nothing tells what {path} said when {interface} came up: what it does not name"
                f" goes: {_listed([names.get(one, one) for one in gone])}; --keep keeps it"
            )

    def _never_named(self, unknown: bool) -> bool:
        if self._record is None:
            return self._keep or self._save
        return self._keep or (self._loose and unknown)

    def _said_of(self, peer: PeerState) -> Said:
        return self._known.get(peer.public_key) or Said()

    def _keeps_value(self, peer: PeerState, what: str, file: str | int, base: str | int) -> bool:
        """A value alone does not let anybody in: without a record it stays, too."""
        where_silent = self._keep or (self._loose and not base)
        stays = self._save and base == file if file else where_silent
        if stays:
            self.kept.append(Kept(peer.public_key, what))
        return stays


def digest(secret: bytes | bytearray | memoryview) -> str:
    """By which a preshared key is known again, and is not told."""
    return hashlib.blake2s(secret, digest_size=16).hexdigest() if secret else ""


def _listed(peers: list[str]) -> str:
    more = len(peers) - _SHOWN
    shown = ", ".join(peers[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"peer{'s' if len(peers) > 1 else ''} {shown}"
