"""Reads and sets net.ipv4.conf.all.src_valid_mark, which containers often cannot write."""

from pathlib import Path

SOURCE_MARK = "net.ipv4.conf.all.src_valid_mark"
_FILE = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


def source_mark_is_valid() -> bool:
    """Returns whether it is already 1."""
    try:
        return _FILE.read_text().strip() == "1"
    except OSError:
        return False


def write_source_mark(value: int) -> str | None:
    """Sets it. Returns a warning if /proc/sys is read-only: the tunnel then works unless rp_filter
    is strict."""
    try:
        _FILE.write_text(f"{value}\n")
    except OSError as error:
        return (
            f"cannot set {SOURCE_MARK}={value} ({error.strerror}): with rp_filter = 1, answers"
            f" from peers are dropped. Set it when this host or container starts, for example with"
            f" `--sysctl {SOURCE_MARK}=1`"
        )
    return None
