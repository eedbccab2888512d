"""net.ipv4.conf.all.src_valid_mark, which containers often may not write."""

from pathlib import Path

SOURCE_MARK = "net.ipv4.conf.all.src_valid_mark"
_FILE = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


def source_mark_is_valid() -> bool:
    """Whether it is 1 already."""
    try:
        return _FILE.read_text().strip() == "1"
    except OSError:
        return False


def write_source_mark(value: int) -> str | None:
    """A warning where /proc/sys is read-only: the tunnel then works unless rp_filter is strict."""
    try:
        _FILE.write_text(f"{value}\n")
    except OSError as error:
        return (
            f"cannot set {SOURCE_MARK}={value} ({error.strerror}): where rp_filter is 1, answers"
            f" from peers are dropped. Set it where this host or container is started,"
            f" as by `--sysctl {SOURCE_MARK}=1`"
        )
    return None
