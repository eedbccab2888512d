"""Which names an interface may have."""

import pytest

from wiresnake.errors import ConfigError
from wiresnake.linux.tun import check_name


@pytest.mark.parametrize("name", ["wg0", "a", "x" * 15, "wg-0_1.5=+", "...", "\u00fc"])
@pytest.mark.item(101)
def test_good_names_are_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "x" * 16,
        "\u00fc" * 8,
        "a/b",
        "../wg0",
        "a b",
        "a\t",
        "a\n",
        "a%d",
        "a:b",
        "\0",
    ],
)
@pytest.mark.item(101)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid interface name"):
        check_name(name)


@pytest.mark.parametrize("name", ["all", "default"])
def test_names_that_proc_sys_uses_otherwise(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid interface name, because /proc/sys"):
        check_name(name)
