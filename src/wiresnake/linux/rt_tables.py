"""The names of routing tables, as iproute2 has them."""

import contextlib
import re
from glob import iglob
from pathlib import Path

_FILES = (
    "/usr/share/iproute2/rt_tables",
    "/usr/lib/iproute2/rt_tables",
    "/etc/iproute2/rt_tables",
    "/etc/iproute2/rt_tables.d/*.conf",
)
_LINE = re.compile(r"^[ \t]*(0x[0-9a-fA-F]+|[0-9]+)[ \t]+(\S+)[ \t]*(?:#.*)?$", re.MULTILINE)


def numbers() -> dict[str, int]:
    """Each table's number, by its name: as the first file has it."""
    found: dict[str, int] = {}
    for path in (path for pattern in _FILES for path in iglob(pattern)):
        with contextlib.suppress(OSError):
            text = Path(path).read_text("utf-8", "replace")
            for number, name in _LINE.findall(text):
                found.setdefault(name, int(number, 16 if number.startswith("0x") else 10))
    return {"default": 253, "main": 254, "local": 255} | found
