"""The package without its extra [cli], as a daemon has it; and `python -m wiresnake`."""

import base64
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("rich", "segno", "prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""
RUN = f"{WITHOUT}\nfrom wiresnake.cli.main import main\nsys.exit(main())"
ON_A_TERMINAL = f"""{WITHOUT}
from wiresnake.cli import monitor
from wiresnake.errors import WiresnakeError
try:
    monitor._live(None, 1)
except WiresnakeError as error:
    sys.exit(f"wiresnake: {{error.message}}")
"""
INSTALL = "pip install 'wiresnake[cli]'"


def failing(*command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_missing_package_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "wg0.conf"
    key = base64.b64encode(bytes(range(32))).decode()
    file.write_text(f"[Interface]\nPrivateKey = {key}\nAddress = 10.0.0.2/32\n")
    file.chmod(0o600)
    assert (
        failing("-c", RUN, "qr", file, "--force")
        == f"wiresnake: a QR code needs segno: {INSTALL}\n"
    )
    assert failing("-c", RUN, "metrics") == (
        f"wiresnake: `wiresnake metrics` needs prometheus-client: {INSTALL}\n"
    )
    assert failing("-c", ON_A_TERMINAL) == (
        f"wiresnake: `wiresnake monitor` on a terminal needs rich: {INSTALL}\n"
    )


@pytest.mark.parametrize("module", ["wiresnake", "wiresnake.daemon.main", "wiresnake.cli.monitor"])
def test_nothing_else_needs_them(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"{WITHOUT}\nimport {module}"], check=True, timeout=60)


def test_a_peer_is_made_without_its_qr_code(tmp_path: Path) -> None:
    server, phone = tmp_path / "wg0.conf", tmp_path / "phone.conf"
    for words in (
        ("new", "server", "--dir", tmp_path, "--endpoint", "192.0.2.1"),
        ("new", "peer", "phone", "--server", server, "-o", phone),
    ):
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert f"wiresnake: a QR code needs segno: {INSTALL}\n" in done.stderr
    assert phone.exists()


def test_python_m_is_the_tool() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wiresnake", "genkey"], capture_output=True, check=True, timeout=60
    )
    assert len(done.stdout) == 45
