"""The documentation site builds without a warning, every link inside it leads somewhere, and it loads nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.samples import ROOT

#: What a browser loads by itself, by tag: the attribute that names it. Links that a reader clicks are no such thing.
LOADED = {
    "script": "src",
    "img": "src",
    "source": "src",
    "iframe": "src",
    "link": "href",
    "audio": "src",
    "video": "src",
}


class Page(HTMLParser):
    """The links, anchors and loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if found.get(LOADED.get(tag, "")):
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-n", "-q", "-d", str(built / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(built / "html")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return built / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}


def test_every_link_inside_the_site_leads_to_a_page_and_to_a_place_on_it(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.exists() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                broken.append(f"{file.name}: {link}")
    assert broken == []


def test_the_site_loads_nothing_from_other_sites(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {url for page in pages.values() for url in page.loaded if urlsplit(url).netloc}
    for style in site.rglob("*.css"):
        loaded |= set(re.findall(r"url\(['\"]?((?:https?:)?//[^)]+)\)", style.read_text(encoding="utf-8")))
    assert loaded == set()


def test_every_diagram_is_drawn(site: Path) -> None:
    page = (site / "architecture.html").read_text(encoding="utf-8")
    assert page.count('<div class="diagram"><svg') == (ROOT / "docs" / "architecture.md").read_text().count(
        "```mermaid"
    )
    assert "aggregator writes results" in page and "closed to new" in page
