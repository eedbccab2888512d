"""Every page of docs/ that tells how to do something, word for word, in fresh hosts."""

import sys
from pathlib import Path

import pytest
from interop import pages
from interop.harness import ROOT

PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "<!-- hosts" in path.read_text()]
PROGRAMS = Path(sys.executable).parent


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_word_for_word(machine: None, path: Path) -> None:
    pages.run(pages.read(path.read_text()), PROGRAMS)


def page(*block: str) -> pages.Page:
    hosts = "<!-- hosts\nserver 192.0.2.1 vpn.example.org\nphone 198.51.100.7\n-->\n"
    return pages.read(hosts + "\n".join(["```console", "# on the server", *block, "```", ""]))


def test_what_a_page_may_say(machine: None) -> None:
    """The convention itself: two hosts, files, here-documents, wildcards."""
    document = ["$ cat >x <<'E'", "a", "$ b", "E", "$ cat x", "a", "...", "# on the phone"]
    pages.run(
        page(*document, "$ ls", "$ ping -q -c 1 vpn.example.org | tail -n 1", "rtt ...ms"), PROGRAMS
    )
    found = page(*document[:1], "E", "$ true")
    assert [step.line for step in found.steps] == [7, 9]


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        (["$ false"], "exit code 1"),
        (["$ echo a"], "it says:\na\n"),
        (["$ true", "a"], "the page:\na"),
        (["$ echo a", "b"], "the page:\nb"),
        (["$ printf 'a\\nb\\n'", "a"], "it says:\na\nb"),
        (["$ echo abc", "...c..", "..."], "the page:"),
    ],
)
def test_what_a_page_says_wrong_is_found(machine: None, block: list[str], complaint: str) -> None:
    with pytest.raises(pages.PageError, match="line 7, on the server") as error:
        pages.run(page(*block), PROGRAMS)
    assert complaint in str(error.value)


def test_three_dots_stand_for_the_rest_of_a_line_or_for_lines() -> None:
    assert pages.matches(["a...c", "..."], ["abc", "d", "e"])
    assert pages.matches(["...", "z"], ["y", "z"])
    assert pages.matches(["a.c"], ["a.c"])
    assert not pages.matches(["a.c"], ["abc"])
    assert not pages.matches(["...", "z"], ["z", "y"])
