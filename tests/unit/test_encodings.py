"""What editors and shells of other systems make of a file: one meaning, or one clear message."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wiresnake._native import Endpoint
from wiresnake.cli.main import main
from wiresnake.conffile import files, wg, wg_quick
from wiresnake.errors import ConfigError
from wiresnake.lifecycle import labels_file

PRIVATE = base64.b64encode(b"\x40" * 32).decode()
PUBLIC = base64.b64encode(b"\x11" * 32).decode()
WG = f"""[Interface]
PrivateKey = {PRIVATE}
# a comment
[Peer]
# friendly_name = phone
PublicKey = {PUBLIC}
AllowedIPs = 10.9.0.2/32
"""
TEXT = WG.replace("# a comment", "Address = 10.9.0.1/24")
WIDE = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16LE": lambda text: text.encode("utf-16-le"),
    "UTF-16BE": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "UTF-32LE": lambda text: text.encode("utf-32-le"),
    "UTF-32BE": lambda text: text.encode("utf-32-be"),
}


def run(*words: str | Path) -> tuple[int, str]:
    program = Path(sys.executable).with_name("wiresnake")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def resolve(host: str, port: str) -> Endpoint:
    return Endpoint(host, int(port))


def written(path: Path, data: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", WIDE)
def test_a_wide_file_has_one_message(name: str, tmp_path: Path) -> None:
    """Of every reader: what it is, and how to convert it."""
    said = f"this file is {name}, not UTF-8; convert it: iconv -f {name} -t UTF-8"
    path = written(tmp_path / "wg0.conf", WIDE[name](TEXT))
    readers: list[Callable[[], object]] = [
        lambda: wg.parse(bytearray(WIDE[name](WG)), resolve, name=str(path)),
        lambda: wg_quick.load(str(path)),
        lambda: files.load(path),
    ]
    for reader in readers:
        with pytest.raises(ConfigError) as caught:
            reader()
        assert str(caught.value) == f"{path}:1:1: {said}"
    assert labels_file.LabelsFile(path).read() == {}
    assert run("check", path) == (1, f"{path}:1:1: error: {said}\n")
    for words in (("import", path), ("qr", path), ("export", "--to", "android", path)):
        assert run(*words) == (1, f"wiresnake: {path}:1:1: {said}\n")
    if os.geteuid() == 0:
        assert run("strip", path) == (1, f"wiresnake: {path}:1:1: {said}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r", 3),
        lambda text: text.replace("\n", "\r").removesuffix("\r"),
    ],
)
def test_a_carriage_return_alone_is_a_line(change: Callable[[str], str], tmp_path: Path) -> None:
    path = written(tmp_path / "wg0.conf", change(TEXT).encode())
    parsed = wg.parse(bytearray(change(WG).encode()), resolve)
    assert [peer.public_key for peer in parsed.peers] == [b"\x11" * 32]
    file = wg_quick.load(str(path))
    assert file.addresses == ("10.9.0.1/24",)
    assert [peer.name for peer in file.peers] == ["phone"]
    assert labels_file.LabelsFile(path).read()[PUBLIC].name == "phone"
    assert run("check", path) == (0, "")
    code, said = run("import", path)
    assert code == 0 and said.split() == TEXT.split()
    with pytest.raises(ConfigError, match=r"^wg0\.conf:7:1: bad value of 'AllowedIPs'"):
        wg.parse(bytearray(change(WG).replace("/32", "/33").encode()), resolve, name="wg0.conf")


def test_a_short_file_is_none_of_these() -> None:
    for text in (b"", b"\0", b"[", b"\xff", b"\0\0\0\0", b"[Interface]"):
        assert wg.encoding(text) == ""


def test_a_byte_order_mark_is_among_what_wg_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wg.conf"
    path.write_bytes(b"\xef\xbb\xbfgarbage\n")
    assert main(["setconf", "wg0", str(path)]) == 1
    assert capsys.readouterr().err.startswith("Line unrecognized: `\ufeffgarbage'\n")
