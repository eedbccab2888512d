"""`wiresnake metrics --output`: whoever reads the file finds the old one whole, or the new one."""

import os
import stat
import threading
from pathlib import Path

import pytest

from wiresnake.cli import metrics
from wiresnake.cli.main import main
from wiresnake.conffile.files import New, save
from wiresnake.errors import HostError

OLD, NEW = b"old 1\n" * 20_000, b"new 1\n" * 20_000


def test_a_reader_sees_no_half(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.prom"
    path.write_bytes(OLD)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.update(one.read_bytes() for one in tmp_path.glob("*.prom"))

    reader = threading.Thread(target=read)
    reader.start()
    for text in (NEW, OLD) * 50:
        metrics._replace(path, text)
    done.set()
    reader.join()
    assert seen <= {OLD, NEW}
    assert os.listdir(tmp_path) == ["wireguard.prom"]


def test_all_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.prom"
    before = os.umask(0o077)
    try:
        metrics._replace(path, NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    link = tmp_path / "link"
    link.symlink_to(path)
    metrics._replace(link, OLD)
    assert link.is_symlink() and path.read_bytes() == OLD


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wireguard.prom"
    path.write_bytes(OLD)
    assert main(["metrics", "wg-is-not-here", "--output", str(path)]) == 1

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(HostError, match="No space left on device; it is unchanged"):
        metrics._replace(path, NEW)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["wireguard.prom"]


@pytest.mark.parametrize("path", ["/dev/null", "/", "none/wireguard.prom"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(HostError):
        metrics._replace(Path(path), NEW)
    assert not Path("/dev/null").is_file()


def test_a_file_that_is_there_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.prom"
    path.write_bytes(OLD)
    path.chmod(0o640)
    if not os.geteuid():
        os.chown(path, 1234, 4321)
    before = path.stat()
    metrics._replace(path, NEW)
    after = path.stat()
    assert path.read_bytes() == NEW
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    loop, dangling = tmp_path / "loop", tmp_path / "dangling"
    loop.symlink_to(loop)
    with pytest.raises(HostError, match="loop: Too many levels of symbolic links; it is un"):
        metrics._replace(loop, NEW)
    with pytest.raises(HostError, match="loop: Too many levels"):
        save(New(loop, "x", replace=True))
    assert loop.is_symlink()
    dangling.symlink_to(tmp_path / "new")
    metrics._replace(dangling, NEW)
    assert (tmp_path / "new").read_bytes() == NEW


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with pytest.raises(HostError, match=f"there is no folder {folder}; make it") as failed:
        metrics._replace(folder / "wireguard.prom", NEW)
    assert "as it was" not in str(failed.value)
