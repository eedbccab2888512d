"""Which offloads are used, by the kernel's release and by what the operator says."""

import pytest

from wiresnake.errors import ConfigError
from wiresnake.linux.offloads import ALL, Offload, choose

MODERN = "6.18.44"


@pytest.mark.parametrize(
    ("release", "wrong"),
    [
        (MODERN, set()),
        ("7.0.2-6-pve", set()),
        ("6.8.5", set()),
        ("6.8.5-060805-generic", set()),
        ("6.9", set()),
        ("6.10.3", set()),
        ("10.0", set()),
        ("6.8.4-060804-generic", {Offload.UDP_MERGE}),
        ("6.8.0-31-generic", {Offload.UDP_MERGE}),
        ("6.8", {Offload.UDP_MERGE}),
        ("6.6.87.2-microsoft-standard-WSL2", {Offload.UDP_MERGE}),
        ("6.2.0", {Offload.UDP_MERGE}),
        ("6.1.192-3", set()),
        ("5.15.0", set()),
        ("5.12-rc1", set()),
        ("5.11.22-generic", {Offload.GRO}),
        ("4.19.0", {Offload.GRO}),
        ("custom", {Offload.GRO}),
        ("", {Offload.GRO}),
    ],
)
def test_what_a_release_gets_wrong_is_not_used(release: str, wrong: set[Offload]) -> None:
    assert choose(release) == ALL - wrong


@pytest.mark.parametrize("one", Offload)
def test_each_can_be_switched_off_and_on(one: Offload) -> None:
    assert choose(MODERN, f"-{one}") == ALL - {one}
    assert choose(MODERN, f"none,+{one}") == {one}
    assert choose("6.8.4", f"+{one}") >= {one}
    assert choose(MODERN, f"-{one},+{one}") == ALL


def test_words_are_heeded_in_their_order() -> None:
    assert choose(MODERN, "none") == choose(MODERN, "+tso,none") == set()
    assert choose(MODERN, "-gro,-uso") == ALL - {Offload.GRO, Offload.USO}
    assert choose(MODERN, "") == choose(MODERN, ",") == ALL


@pytest.mark.parametrize(
    "wanted", ["gro", "-", "+", "-lro", "all", "none gro", " -gro", "-GRO", "=gro", "\u00e9"]
)
def test_what_is_no_word_is_an_error_that_names_all_words(wanted: str) -> None:
    with pytest.raises(ConfigError) as raised:
        choose(MODERN, wanted)
    said = str(raised.value)
    assert "WIRESNAKE_OFFLOADS" in said and repr(wanted) in said
    assert all(one in said for one in Offload)
