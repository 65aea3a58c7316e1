"""The site of `make docs`: it builds without a warning, holds together, and is read without a network."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import REPOSITORY

import hf_tle_int8
from hf_tle_int8.cli.main import build_parser

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None and os.environ.get("CI") != "true",
    reason="Sphinx is not installed: pip install 'hf_tle_int8[docs]'",
)
SOURCES = sorted((REPOSITORY / "docs").rglob("*.md"))
# Of tags, the attributes whose value a browser loads by itself.
LOADED = {"src", "srcset", "poster", "data"}


class Page(HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, file: Path):
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name in LOADED or (tag == "link" and name == "href"):
                self.loads.add(value)
            elif name == "href":
                self.links.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--doctree-dir", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, REPOSITORY / "docs", folder / "html"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_each_page_is_found_by_a_search(site):
    index = (site / "searchindex.js").read_text()
    found = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", index)[1])
    assert set(found["docnames"]) == {str(p.relative_to(REPOSITORY / "docs").with_suffix("")) for p in SOURCES}
    walked = found["docnames"].index("how/backend")
    assert walked in found["terms"]["smmla"]


def test_links_lead_to_pages_and_places(site, pages):
    for file, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme not in ("http", "https", "mailto"):
                assert not parts.scheme, f"{file} has {link}"
                target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
                assert target.is_file(), f"{file.relative_to(site)} links to {link}"
                known = not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
                assert known, f"{file.relative_to(site)} links to {link}"


def test_each_page_is_reached_from_the_first(site, pages):
    reached, ahead = set(), [site / "index.html"]
    while ahead:
        file = ahead.pop()
        if file in pages and file not in reached:
            reached.add(file)
            ahead += [(file.parent / urlsplit(link).path).resolve() for link in pages[file].links if "//" not in link]
    assert {site / p.relative_to(REPOSITORY / "docs").with_suffix(".html") for p in SOURCES} <= reached


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for page in pages.values():
        assert not [link for link in page.loads if urlsplit(link).netloc or urlsplit(link).scheme]
    for file in [*site.rglob("*.css"), *pages]:
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", file.read_text()), file


def test_public_names_and_commands_are_in_the_reference(site, pages):
    documented = pages[site / "reference" / "python.html"].anchors | pages[site / "reference" / "layers.html"].anchors
    public = {name: getattr(hf_tle_int8, name) for name in hf_tle_int8.__all__ if name != "__version__"}
    places = {name: {f"hf_tle_int8.{name}", f"{found.__module__}.{name}"} for name, found in public.items()}
    assert [name for name, known in places.items() if not known & documented] == []
    commands = build_parser()._subparsers._group_actions[0].choices
    anchors = pages[site / "reference" / "command-line.html"].anchors
    assert [name for name in commands if f"hf-tle-int8-{name}" not in anchors] == []
