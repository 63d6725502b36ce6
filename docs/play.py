"""Make docs/play.jpg: the page of `embedlab play` in a Chromium, an edit half way, and one that was kept.

python docs/play.py
"""

import argparse
import io
import runpy
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from embedlab.cli.commands import play

ROOT = Path(__file__).parent.parent
WIDE, HIGH = 1260, 900
WORDS = ["tracker=silent"]


def screenshot(address: str) -> Image.Image:
    """What is seen: an edit at two weights, the unedited pictures beside it."""
    chromium = runpy.run_path(str(ROOT / "tests" / "browser.py"))["find"]()
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDE, "height": HIGH}, color_scheme="light")
        page.set_default_timeout(300_000)
        page.goto(address)
        page.locator(".chip", has_text="puppy").click()
        for weight in ("0.9", "0.6"):
            page.locator("#edit-0-weight").fill(weight)
            page.locator(".shots[data-stage=all]:not(.old) .label", has_text=f"{weight} skunk").wait_for()
            page.locator(".shots[data-which=unedited][data-stage=all]:not(.old)").wait_for()
            page.locator("#stage > .seen:not(.old):not(:empty)").wait_for()
            if weight == "0.9":
                page.locator("#keep").click()
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    server = play.opened(play.composed(WORDS), WORDS, argparse.Namespace(port=0, preview=play.FEW, no_browser=True))
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    ready.wait()
    try:
        screenshot(server.address).save(ROOT / "docs" / "play.jpg", quality=84)
    finally:
        server.stop()
        thread.join()
