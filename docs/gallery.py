"""Make docs/gallery.jpg: the sweep of README, four seeds of it, its gallery as a Chromium shows it.

python docs/gallery.py
"""

import io
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
SWEEP = ROOT / "outputs" / "puppy to skunk"
WIDE, HIGH = 1260, 804  # as wide as five columns and the panel beside them


def command() -> list[str]:
    """The sweep that README shows above the picture."""
    lines = (ROOT / "README.md").read_text().partition("docs/gallery.jpg")[0]
    return shlex.split(re.findall(r"^embedlab (-m .*)$", lines, re.M)[-1])


def screenshot(index: Path) -> Image.Image:
    """What is seen of a gallery: all pictures, and the curve of their scores."""
    chromium = runpy.run_path(str(ROOT / "tests" / "browser.py"))["find"]()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDE, "height": HIGH}, color_scheme="light")
        page.goto(index.as_uri())
        page.wait_for_function("[...document.querySelectorAll('.cell img')].every((i) => i.complete && i.naturalWidth)")
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    shutil.rmtree(SWEEP, ignore_errors=True)
    words = [*command(), "seeds=[0,1,2,3]", "tracker=silent", f'hydra.sweep.dir="{SWEEP}"']
    subprocess.run([sys.executable, "-m", "embedlab", *words], check=True, cwd=ROOT)
    screenshot(SWEEP / "gallery" / "index.html").save(ROOT / "docs" / "gallery.jpg", quality=82)
