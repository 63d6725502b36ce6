"""The site of the documentation: its fast half, as `make docs-fast` builds it, and what is on its pages."""

import html
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from browser import find
from playwright.sync_api import sync_playwright

import embedlab
from embedlab.cli import settings, usage
from embedlab.sweep.roles import PARTS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages; a warning of Sphinx is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, str(ROOT / "docs" / "make.py"), "--fast", "--out", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def text_of(page):
    """What is read of a page, without its marks."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_of_the_manual_is_a_page_of_the_site_and_in_its_navigation(site):
    there = {path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html")}
    home = (site / "index.html").read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md")):
        name = path.relative_to(ROOT).with_suffix("").as_posix()
        assert name in there
        assert f'href="{name}.html"' in home, name


def test_the_reference_has_every_public_name_setting_and_command(site):
    names = "".join(path.read_text(encoding="utf-8") for path in (site / "docs/reference/python").glob("*.html"))
    for name in embedlab.__all__:
        assert f'id="embedlab.{name}"' in names, name
    keys = "\n".join(
        map(text_of, [site / "docs/reference/settings.html", *(site / "docs/reference/settings").glob("*.html")])
    )
    for setting in settings.every():
        assert setting.key in keys, setting.key
    for group in PARTS:
        assert all(option in keys for option in settings.options(group)), group
    commands = text_of(site / "docs/reference/commands.html")
    for name, (_, says) in usage.COMMANDS.items():
        assert f"embedlab {name}" in commands
        assert says in commands


def test_no_link_between_pages_is_broken_and_nothing_is_asked_for_from_elsewhere(site):
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(?:https?:)?//", page), path
        assert not re.search(r"<link[^>]*\bhref=[\"']?(?:https?:)?//", page), path
        for target in re.findall(r'(?:href|src)="([^"#?]+)[^"]*"', page):
            assert re.match(r"[a-z]+:", target) or (path.parent / target).exists(), (path, target)
    assert not re.search(
        r"url\([\"']?(?:https?:)?//", "".join(p.read_text() for p in (site / "_static").rglob("*.css"))
    )


def test_pages_fit_a_phone_and_say_nothing_to_the_console(site):
    pages = ("index", "docs/prompts", "docs/weighting", "docs/studies", "docs/reference/python/operators")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: said.append(line.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        for name in pages:
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        browser.close()
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert not said


def test_every_mistake_is_answered_with_the_line_of_its_page(forks):
    mistakes = runpy.run_path(str(ROOT / "docs" / "mistakes.py"))
    made = dict(mistakes["pages"](forks.python))
    assert len(made) > 25
    for name, text in made.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "run `python docs/mistakes.py`"
    assert {f"mistakes/{path.name}" for path in (ROOT / "docs" / "mistakes").glob("*.md")} == made.keys() - {
        "mistakes.md"
    }


def test_what_the_studies_say_is_borne_out_by_their_tables_and_a_number_that_is_not_is_found():
    studies = runpy.run_path(str(ROOT / "docs" / "studies.py"))
    claims = studies["claims"]
    for name in claims.CLAIMS:
        pictures = claims.read(ROOT / "docs" / "studies" / f"{name}.csv")
        text = studies["said"](name)
        assert claims.filled(name, text, pictures) == text, f"{name}: run `python docs/studies.py --page`"
    name, pictures = "puppy_and_skunk", claims.read(ROOT / "docs" / "studies" / "puppy_and_skunk.csv")
    text = studies["said"](name)
    assert claims.filled(name, text.replace("eight puppies", "three puppies"), pictures) == text
    with pytest.raises(ValueError, match="the text does not say"):
        claims.filled(name, "seen was nothing", pictures)
    rate, low, high = pictures.rate("turned_over", "cat ↔ dog (position rows)", "below")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"turns over on {rate:.0f} % of 64 seeds (95 % interval {low:.0f} to {high:.0f})" in readme
    halves = claims.Pictures(tuple(p for p in pictures if p.axes["weight"] in ("0.5", "0.35", "0.65") and p.seed < 5))
    with pytest.raises(ValueError, match="does not hold any more: five puppies"):
        claims.filled(name, text, halves)
