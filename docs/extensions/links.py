"""Check the links of the finished site: each file exists, and each anchor is on its page.

Sphinx checks what the Markdown pages link to. This also covers what is only in the HTML: the
navigation, the notebooks, docstrings and pictures. Links to other sites are left to
`sphinx-build -b linkcheck`.
"""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

GENERATED_ANCHORS = ("", "top")  # the browser's own


def setup(sphinx: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    sphinx.connect("build-finished", warn_of_dead_links)
    return {"parallel_read_safe": True}


def warn_of_dead_links(sphinx: Sphinx, error: Exception | None) -> None:
    """Warn of each link inside the site that leads nowhere."""
    if error or sphinx.builder.format != "html":
        return
    site = Path(sphinx.outdir).resolve()
    for page in sorted(site.rglob("*.html")):
        for link in dict.fromkeys(_read(page).links):
            if not _leads_somewhere(page, link):
                name = page.relative_to(site)
                logging.getLogger(__name__).warning("%s: dead link: %s", name, link)


def _leads_somewhere(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return target.suffix != ".html" or anchor in GENERATED_ANCHORS or anchor in _read(target).ids


class _Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.ids.add(value)


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page
