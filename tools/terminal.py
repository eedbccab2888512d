#!/usr/bin/env python3
"""Draws what the operator's tool prints on a terminal, for the documents: docs/terminal-*.svg.

Every picture is real output: two hosts in namespaces, a tunnel, and the commands of `PICTURES`,
each on its own terminal. Needs root, and the extra `[cli]`.
"""

import io
import re
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from interop import pages  # noqa: E402

COLUMNS = 100
TUNNEL = """<!-- hosts
server 192.0.2.1 vpn.example.org
laptop 198.51.100.7
-->
```console
# on the server
$ wiresnake new server --endpoint vpn.example.org --address 10.7.0.1/24 >/dev/null
$ wiresnake up wg0 2>/dev/null
$ wiresnake new peer laptop --no-qr --reload >/dev/null 2>&1
$ wiresnake new peer phone --no-qr --reload >/dev/null 2>&1
$ scp laptop.conf laptop:
# on the laptop
$ wiresnake up ./laptop.conf 2>/dev/null
$ (ping -i 0.2 10.7.0.1 >/dev/null 2>&1 &) ; sleep 2
```
"""
FILE = "/etc/wireguard/wg0.conf"
TYPO = rf"sed -i '/10.7.0.3/s/.*/AllowdIPs = 10.7.0.300\/32/' {FILE}"
FIX = rf"sed -i '/AllowdIPs/s/.*/AllowedIPs = 10.7.0.3\/32/' {FILE}"
CHANGE = f"sed -i 's|10.7.0.2/32|10.7.0.2/32, 10.20.0.0/24|' {FILE}"
PICTURES = {
    "monitor": ["wiresnake monitor --once"],
    "why": ["wiresnake why phone"],
    "check": [TYPO, "wiresnake check wg0"],
    "reload": [FIX, CHANGE, "wiresnake reload --diff wg0"],
}
"""By name: commands, of which those of `wiresnake` are shown."""
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, monospace; font-size: {char_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    taken = {}
    with tempfile.TemporaryDirectory() as folder:
        page = TUNNEL + "".join(block(Path(folder), name) for name in PICTURES)
        pages.run(pages.read(page), Path(sys.executable).parent)
        for name in PICTURES:
            taken[name] = (Path(folder) / name).read_text()
    for name, text in taken.items():
        picture = ROOT / f"docs/terminal-{name}.svg"
        picture.write_text(drawn(name, text))
        print(picture.relative_to(ROOT))


def block(folder: Path, name: str) -> str:
    """The console block that runs a picture's commands and keeps what they print."""
    lines = ["```console", "# on the server"]
    for command in PICTURES[name]:
        if command.startswith("wiresnake"):
            terminal = f"export TERM=xterm-256color; stty cols {COLUMNS} rows 50; {command} || true"
            into = folder / name
            lines.append(f"$ script -qec {shlex.quote(terminal)} /dev/null >{into}")
        else:
            lines.append(f"$ {command}")
    return "\n".join([*lines, "```", ""])


def drawn(name: str, text: str) -> str:
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    (command,) = (line for line in PICTURES[name] if line.startswith("wiresnake"))
    said = re.sub(r"\r", "", text).rstrip("\n")
    console.print(Text.from_ansi(said))
    drawing = console.export_svg(title=f"# {command}", code_format=FRAME, unique_id=name)
    return "".join(f"{line.rstrip()}\n" for line in drawing.splitlines())


if __name__ == "__main__":
    main()
