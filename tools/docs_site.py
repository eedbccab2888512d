"""What MkDocs calls while it builds the site (mkdocs.yml, `make docs`).

Every page has its path in the repository as its name, so that a link leads to the same place on a
forge and on the site. A page of the navigation that is not Markdown is made from the file that it
names: links lead to that file on a forge, and to the page on the site.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wiresnake
from wiresnake.conffile import schema

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SCHEMA = "src/wiresnake/conffile/schema.py"
LIBRARY = "src/wiresnake/__init__.py"
MANUAL = "packaging/data/share/man/man8"
EVIDENCE = "docs/conformance-table.md"
"""The search leaves it out: it has every word, thousands of times."""
PLACES = {
    "docs/index.md": "index.html",
    "README.md": "readme.html",
    SCHEMA: "docs/configuration.html",
    LIBRARY: "docs/library.html",
}
"""Where pages go that would go elsewhere, or nowhere."""

LOADS = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)="?(?:https?:)?//[^>]*>
    | (?:url\(|@import)\s*["']?(?:https?:)?//[^)]*""",
    re.VERBOSE,
)
"""What makes a browser ask another host, in HTML and CSS."""


def on_files(files: "Files", *, config: "MkDocsConfig") -> None:
    from mkdocs.structure.files import File

    def add(path: str, place: str | None) -> Any:
        files.append(file := File(path, str(ROOT), config.site_dir, False, dest_uri=place))
        return file

    for file in [*files]:
        if file.src_dir == config.docs_dir:
            files.remove(file)
            add(path := f"docs/{file.src_uri}", PLACES.get(path))
    for path in leaves(config.nav):
        if path.endswith(".md"):
            if not path.startswith("docs/"):
                add(path, PLACES.get(path))
        elif (ROOT / path).is_file():
            file = add(path, PLACES.get(path, f"docs/{Path(path).name}.html"))
            file.content_string = made(path)
            file.is_documentation_page = lambda: True


def on_page_markdown(_: str, *, page: "Page", **__: object) -> None:
    if page.file.src_uri == EVIDENCE:
        page.meta["search"] = {"exclude": True}


def on_post_build(*, config: "MkDocsConfig") -> None:
    """The site must be complete: reading it asks no other host for anything."""
    for path in Path(config.site_dir).rglob("*"):
        if path.suffix in (".html", ".css") and (found := LOADS.search(path.read_text())):
            raise SystemExit(f"{path} loads from elsewhere: {found[0]}")


def leaves(nav: Any) -> Iterator[str]:
    """The paths of a navigation, whatever their depth."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def made(path: str) -> str:
    """The Markdown of a page that is made from a file."""
    if path == SCHEMA:
        return "\n".join(configuration())
    if path == LIBRARY:
        return "\n".join(library())
    text = (ROOT / path).read_text()
    return manual(text) if path.endswith(".8") else f"# {path}\n\n```text\n{text}```\n"


def configuration() -> Iterator[str]:
    """The keys of a file, from the table that reads them."""
    yield "---\nsearch: {boost: 2}\n---\n\n# Configuration keys\n"
    yield "The keys of a file such as `/etc/wireguard/wg0.conf`, in the order of the sections."
    manual = f"../../../{MANUAL}/wiresnake"
    for section in schema.SECTIONS:
        yield f"\n## [{section.capitalize()}]"
        for key in schema.keys_of(section):
            yield f"\n### {key.name}\n"
            yield f"{key.meaning.rstrip('.')}. {key.takes[:1].upper()}{key.takes[1:]}."
            if key.is_list:
                yield "It may be repeated."
            if key.word:
                yield f"[`wiresnake set`]({manual}-set.8) calls it `{key.word.word}`."
            if key.quick:
                yield f"`wg` does not know it: [`wiresnake strip`]({manual}-strip.8) leaves it out."


def library() -> Iterator[str]:
    """The public names, each where the module says that it lives."""
    titles = {
        "sockets.tunnel": "Tunnels",
        "sockets.blocking": "Without an event loop",
        "sockets.server": "Servers",
        "conffile.config": "Configurations",
        "model": "Changes and states",
        "events": "Events",
        "_native": "Keys and endpoints",
        "errors": "Errors",
    }
    yield f"# The Python library\n\n{wiresnake.__doc__}"
    for home, title in titles.items():
        yield f"\n## {title}\n"
        for name in wiresnake.__all__:
            if wiresnake._HOME.get(name, "events") == home:
                yield f"::: wiresnake.{home}.{name}\n"


def manual(page: str) -> str:
    """A page of the manual as Markdown: knows the requests that tools/man_pages.py writes."""
    return "\n".join(_requests(page.splitlines())) + "\n"


def _requests(lines: Iterable[str]) -> Iterator[str]:
    literal = term = False
    indent = ""
    """Of the next line, if it says what a term means."""
    for line in lines:
        request, _, rest = line.partition(" ") if line.startswith(".") else ("", "", line)
        if request in (".SH", ".SS", ".PP", ".TP", ".nf"):
            indent, term = "", request == ".TP"
            yield ""
        if request == ".TH":
            name, section = rest.split()[:2]
            yield f"# {_plain(name).lower()}({section})"
        elif request in (".SH", ".SS"):
            title = _plain(rest)
            title = title.lower() if title.startswith("WIRESNAKE") else title.capitalize()
            yield f"{'##' if request == '.SH' else '###'} {title}\n"
        elif request in (".nf", ".fi"):
            literal = request == ".nf"
            yield "```text" if literal else "```"
        elif request in ("", ".B", ".BR", ".RI"):
            yield _plain(rest) if literal else indent + _styled(request, rest)
            indent = ":   " if term else indent.replace(":", " ")
            term = False
        elif request not in (".PP", ".TP", '.\\"'):
            raise ValueError(f"tools/docs_site.py does not know the request {request}")


def _styled(request: str, rest: str) -> str:
    words = _plain(rest).split()
    if request == ".B":
        return f"`{_plain(rest)}`"
    if request == ".BR":
        known = (ROOT / MANUAL / f"{words[0]}.8").is_file()
        section, comma = words[1][:3], words[1][3:]
        return (f"[{words[0]}{section}]({words[0]}.8)" if known else words[0] + section) + comma
    if request == ".RI":
        return rf"\[*{words[1]}*\]"
    return re.sub(r"(`[^`]*`)|([*_<>\[\]|#])", lambda at: at[1] or f"\\{at[2]}", _plain(rest))


_SPECIAL = {"\\e": "\\", "\\-": "-", "\\&": ""} | {
    f"\\({name}": letter for name, letter in {"aq": "'", "ga": "`", "ha": "^", "ti": "~"}.items()
}


def _plain(text: str) -> str:
    return re.sub(r"\\(?:\(..|.)", lambda at: _SPECIAL[at[0]], text)
