"""The committed pages lead a reader of git nowhere that is not there."""

import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from clone import KEPT, ROOT

PAGES = ("reports", *(f"reports/{folder}" for folder in KEPT), "benchmarks/results")


@cache
def in_git() -> frozenset[str]:
    """The files that a commit of this checkout would hold."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return frozenset(name for name in listed.splitlines() if (ROOT / name).exists())


@cache
def anchors(page: str) -> frozenset[str]:
    return frozenset(re.findall(r'\sid="([^"]+)"', (ROOT / page).read_text()))


def dead_links(page: str) -> set[str]:
    """Links and images of a page that are not in git, or anchors that the page they name lacks."""
    dead = set()
    for link in set(re.findall(r'\s(?:xlink:)?(?:href|src)="([^"]+)"', (ROOT / page).read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, anchor = urldefrag(unquote(link))
        target = str((ROOT / page).parent.joinpath(path).resolve().relative_to(ROOT)) if path else page
        if target not in in_git() or (anchor and anchor not in anchors(target)):
            dead.add(link)
    return dead


@pytest.mark.parametrize("folder", PAGES)
def test_committed_pages_have_no_dead_links(folder):
    pages = [
        name for name in in_git() if Path(name).is_relative_to(folder) and name.endswith((".html", ".svg"))
    ]
    assert f"{folder}/index.html" in pages
    assert {page: dead for page in pages if (dead := dead_links(page))} == {}


def test_a_dead_link_is_found(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text(
        '<a href="#there" id="there"></a><a href="#gone"></a><img src="gone.svg"><a href="http://x">'
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "in_git", lambda: {"page.html"})
    assert dead_links("page.html") == {"#gone", "gone.svg"}
