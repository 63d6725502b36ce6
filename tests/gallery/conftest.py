"""A browser, and a finished sweep with its gallery."""

from pathlib import Path

import pytest
import synthetic
from browser import find
from playwright.sync_api import sync_playwright

from embedlab.view.gallery import read, write
from gallery.page import SEEDS, TOWARD, WEIGHT, WEIGHTS


@pytest.fixture(scope="module")
def browser():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=find(), args=flags)
        yield started
        started.close()


@pytest.fixture
def opened(browser):
    """Opens a gallery; at the end nothing was asked of anything but its sweep's files, and nothing went wrong."""
    contexts, asked, wrong, roots = [], [], [], []

    def open_(index: Path, at: str = "", root: Path | None = None, ready=".cell img, .reason", **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **settings})
        contexts.append(context)
        roots.append((root or index.parent.parent).resolve().as_uri())
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(index.as_uri() + at)
        page.locator(ready).first.wait_for()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert asked
    outside = [url for url in asked if not url.startswith((*(f"{root}/" for root in roots), "data:image/"))]
    assert not outside
    assert not wrong


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two targets by five weights by three seeds, all done."""
    folder = tmp_path_factory.mktemp("gallery") / "sweep"
    return synthetic.sweep(folder, {TOWARD: ["skunk", "cat"], WEIGHT: WEIGHTS}, SEEDS)


@pytest.fixture(scope="module")
def index(sweep):
    return write(read(sweep)).index
