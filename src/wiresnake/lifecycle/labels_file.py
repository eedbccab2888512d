"""The labels of a running interface's peers, read from the file that brought it up."""

from contextlib import suppress
from pathlib import Path

from wiresnake.conffile import wg
from wiresnake.conffile.files import FOLDER
from wiresnake.conffile.labels import PeerLabels, read
from wiresnake.errors import ConfigError
from wiresnake.network import journal
from wiresnake.text import wipe


class LabelsFile:
    """The labels in a file that may change at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] = ()
        self._labels: dict[str, PeerLabels] = {}

    def of(self, public_key: str) -> PeerLabels:
        """Returns the present labels of a peer."""
        return self.all().get(public_key) or PeerLabels(public_key)

    def all(self) -> dict[str, PeerLabels]:
        """Returns the present labels, or the previous ones if the file can no longer be read."""
        with suppress(OSError):
            self.read()
        return self._labels

    def read(self) -> dict[str, PeerLabels]:
        """Reads the file; OSError if it cannot be read."""
        status = self._path.stat()
        stamp = status.st_mtime_ns, status.st_size, status.st_ino
        if stamp != self._stamp:
            text = bytearray(self._path.read_bytes())
            with suppress(ConfigError):  # Without the file, peers have no names.
                wg.settle(text, str(self._path))
            try:
                self._labels = read(text)
            finally:
                wipe(text)
            self._stamp = stamp
        return self._labels


def of_interface(interface: str, path: Path | None = None) -> LabelsFile:
    """Returns the file that `up` used for the interface, or the one in /etc/wireguard; or `config`,
    which must exist (OSError)."""
    file = LabelsFile(path or _taken(interface) or FOLDER / f"{interface}.conf")
    if path is not None:
        file.read()
    return file


def _taken(interface: str) -> Path | None:
    try:
        found = journal.read(interface)
    except OSError:  # Only root can read it.
        return None
    return Path(found.file) if found and found.file else None
