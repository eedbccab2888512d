"""What `make docs` makes a site of is complete, and every link leads somewhere: on a forge too."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wiresnake
from tools import docs_site
from wiresnake.conffile import schema

ROOT = Path(__file__).parents[2]
NAV = re.findall(
    r"^ +- (?:[^:\n]+: )?(\S*[^:\s])$",
    (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0],
    re.MULTILINE,
)
PAGES = [path for path in NAV if path.endswith(".md")]
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def links(path: str) -> Iterator[str]:
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", (ROOT / path).read_text()))
    for target in re.findall(r"\]\(([^)\s]*)\)", text):
        if not target.startswith(("https://", "http://")):
            yield target


def anchors(path: str) -> set[str]:
    """Of the headings, as both a forge and the site name them."""
    text = FENCE.sub("", (ROOT / path).read_text())
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation_once() -> None:
    assert len(set(NAV)) == len(NAV)
    missing = [path for path in NAV if not (ROOT / path).is_file()]
    assert not missing
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("LICENSE-*")]
    pages += (ROOT / docs_site.MANUAL).glob("*.8")
    assert {str(page.relative_to(ROOT)) for page in pages} <= set(NAV)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        picture = target.startswith("docs/") and target.endswith(".svg")
        assert (ROOT / target).is_file(), f"{link}: there is no such file"
        assert target in NAV or picture, f"{link}: the site does not have it, see mkdocs.yml"
        if anchor:
            assert target in PAGES and anchor in anchors(target), (
                f"{link}: there is no such heading"
            )


@pytest.mark.parametrize("page", PAGES)
def test_the_site_reads_lists_as_a_forge_does(page: str) -> None:
    """MkDocs wants four spaces before what goes on in a list, and an empty line before a list."""
    text = (ROOT / page).read_text()
    assert not re.search(r"^(?: {1,3}| {5,7})```", text, re.MULTILINE)
    outside = FENCE.sub("", text)
    found = re.search(r"^(?![ *\-|#<]|\d+\.)\S.*\n(?:[*-]|\d+\.) ", outside, re.MULTILINE)
    assert not found, found[0]


def test_the_manual_becomes_markdown() -> None:
    page = """\
.\\" A comment.
.TH WIRESNAKE\\-UP 8 2026-11-23 "wiresnake 0.1.0" "System Administration"
.SH WIRESNAKE UP
.SS EXIT STATUS
.B wiresnake
.RI [ COMMAND ]
.TP
.B \\-\\-json
as \\(gaJSON\\(ga,
a [failure] too
.PP
The file\\(aqs.
.nf
  wiresnake up *
.fi
.BR wiresnake (8),
.BR wg (8)
"""
    assert docs_site.manual(page).split("\n\n", 1) == [
        "# wiresnake-up(8)",
        """\
## wiresnake up


### Exit status

`wiresnake`
\\[*COMMAND*\\]

`--json`
:   as `JSON`,
    a \\[failure\\] too

The file's.

```text
  wiresnake up *
```
[wiresnake(8)](wiresnake.8),
wg(8)
""",
    ]
    with pytest.raises(ValueError, match=r"\.IP"):
        docs_site.manual(".IP")


@pytest.mark.parametrize("path", [path for path in NAV if path not in PAGES])
def test_a_page_is_made_of_every_other_file(path: str) -> None:
    assert re.search(r"^# \S", docs_site.made(path), re.MULTILINE)


def test_every_key_and_every_public_name_is_there() -> None:
    keys = re.findall(r"^### (\w+)$", docs_site.made(docs_site.SCHEMA), re.MULTILINE)
    assert keys == [key.name for key in schema.KEYS]
    names = re.findall(r"^::: .*\.(\w+)$", docs_site.made(docs_site.LIBRARY), re.MULTILINE)
    assert sorted(names) == sorted(wiresnake.__all__)


@pytest.mark.parametrize(
    "text, loads",
    [
        ('<script src="https://unpkg.com/x"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', True),
        ("a { background: url(https://example.org/x.png) }", True),
        ('@import "https://example.org/x.css";', True),
        ('<a href="https://www.wireguard.com/">', False),
        ('<link rel="icon" href="../assets/x.png">', False),
        ("a { background: url(data:image/svg+xml;x) }", False),
    ],
)
def test_what_asks_another_host_is_found(text: str, loads: bool) -> None:
    assert bool(docs_site.LOADS.search(text)) == loads
