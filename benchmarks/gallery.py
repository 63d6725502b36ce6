"""A gallery of 2,000 pictures: how large beside them, and how long until it is seen?

    python benchmarks/gallery.py [LOADS]

Makes a sweep of 2,000 jobs of one picture each (the dearest shape: every job has details of its own) and one of 50 jobs
of 40 seeds, writes their galleries, opens each in a headless Chromium as often as told and prints the median time to
the first view: from the navigation until every picture on the screen is decoded and painted. Then it scrolls through
all of the grid, 100 pixels a frame, and prints how long frames took, and how long the whole view takes as a PNG.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from embedlab.view.gallery import read, write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import synthetic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SEEN = """
window.seen = new Promise((tell) => document.addEventListener("DOMContentLoaded", () => {
  const scroller = document.getElementById("scroller");
  const look = async () => {
    const screen = scroller.getBoundingClientRect();
    const boxes = [...document.querySelectorAll(".cell")].map((cell) => [cell, cell.getBoundingClientRect()]);
    const cells = boxes.filter(([, box]) => box.top < screen.bottom && box.left < screen.right).map(([cell]) => cell);
    const pictures = cells.map((cell) => cell.querySelector("img"));
    if (!cells.length || !pictures.every((picture) => picture?.complete)) return requestAnimationFrame(look);
    await Promise.all(pictures.map((picture) => picture.decode()));
    requestAnimationFrame(() => setTimeout(() => tell([performance.now(), cells.length])));
  };
  look();
}));
"""

SCROLL = """async () => {
  const scroller = document.getElementById("scroller"), frames = [];
  const frame = () => new Promise(requestAnimationFrame);
  let before = await frame();
  while (scroller.scrollTop + scroller.clientHeight < scroller.scrollHeight - 1 && frames.length < 300) {
    scroller.scrollTop += 100;
    const now = await frame();
    frames.push(now - before);
    before = now;
  }
  frames.sort((a, b) => a - b);
  return [frames.length, frames[frames.length >> 1], frames[Math.floor(frames.length * 0.95)], frames.at(-1)];
}"""
DRAW = "async () => { const began = performance.now(); await Drawing.draw(); return performance.now() - began; }"


def main() -> None:
    loads = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    weights, seeds = [round(n / 49, 4) for n in range(50)], list(range(40))
    shapes = {
        "2,000 jobs, 1 seed": (
            {"operators.interpolate.weight": weights, "sampler.steps": list(range(5, 45))},
            [0],
        ),
        "50 jobs, 40 seeds": ({"operators.interpolate.weight": weights}, seeds),
    }
    found = os.environ.get("EMBEDLAB_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = play.chromium.launch(executable_path=found, args=flags)
        for n, (name, (axes, seeds_of)) in enumerate(shapes.items()):
            sweep = synthetic.sweep(Path(folder) / str(n) / "sweep", axes, seeds_of, shared=40)
            began = time.perf_counter()
            index = write(read(sweep)).index
            written = time.perf_counter() - began
            size = sum(path.stat().st_size for path in index.parent.rglob("*") if path.is_file())
            times, cells, frames, drawn = [], 0, [0.0] * 4, 0.0
            for _ in range(loads):
                page = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
                page.add_init_script(SEEN)
                page.goto(index.as_uri())
                spent, cells = page.evaluate("() => window.seen")
                times.append(spent)
                frames = page.evaluate(SCROLL) if len(times) == loads else frames
                drawn = page.evaluate(DRAW) if len(times) == loads else drawn
                page.context.close()
            low, *_, high = sorted(times)
            print(
                f"{name}: written in {written:.1f} s, {size / 1e6:.2f} MB beside the pictures; {cells} pictures on the "
                f"screen after {statistics.median(times):.0f} ms (median of {loads}, {low:.0f} to {high:.0f})"
            )
            print(
                "    scrolled through in {:.0f} frames: median {:.0f} ms, 95 % within {:.0f}, longest {:.0f}; ".format(
                    *frames
                )
                + f"drawn as one picture in {drawn / 1000:.1f} s"
            )
        browser.close()


if __name__ == "__main__":
    main()
